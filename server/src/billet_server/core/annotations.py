"""Annotation keys that people and other controllers drive a host with, beyond ``spec``.

Metal3's keep their meaning (its book, "BareMetalHost annotations"); ours begin with
``billet.dev/``.
"""

PAUSED = "baremetalhost.metal3.io/paused"
DETACHED = "baremetalhost.metal3.io/detached"
STATUS = "baremetalhost.metal3.io/status"
REBOOT = "reboot.metal3.io"
"""Alone, or with ``/key`` appended: then held until the client removes it."""
INSPECT = "inspect.metal3.io"
HARDWARE_DETAILS = "inspect.metal3.io/hardwaredetails"

RETRY = "billet.dev/retry"
"""Retry now whatever waits for its next attempt; taken off again by the server."""

IMAGE_MIRRORS = "billet.dev/image-mirrors"
"""Further URLs of ``spec.image.url``'s file, with white space between them."""

IMAGE_RATE_LIMIT = "billet.dev/image-rate-limit"
"""How fast the host may download its image, like 20M; instead of the server's limit."""

PROTECT_DATA = "billet.dev/protect-data"
"""``true``: no disk is wiped or written while any holds data."""

MOVE = "billet.dev/move"
"""On both sides while `billet move` is under way: JSON of what is where, and since which step."""

BOOT = "billet.dev/boot"
"""``kexec``: the written system is started from the ramdisk, without the firmware."""
