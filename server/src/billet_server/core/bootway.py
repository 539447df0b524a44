"""How a written system is started: the annotation ``billet.dev/boot``."""

from collections.abc import Mapping

from billet_server.core.annotations import BOOT


def parse_boot(text: str) -> bool:
    """Return whether it says ``kexec``, not ``reboot``. Raises ValueError with what is wrong."""
    word = text.strip().lower()
    if word not in {"kexec", "reboot"}:
        raise ValueError('is neither "kexec" nor "reboot"')
    return word == "kexec"


def by_kexec(annotations: Mapping[str, str]) -> bool:
    """Return whether the firmware is to be left out; a word that means nothing reboots."""
    try:
        return parse_boot(annotations.get(BOOT, "reboot"))
    except ValueError:
        return False
