"""What a machine that asks the boot services gets: the ramdisk, its own disk, or patience.

Pure: the plan is derived from the host's object on every request, so no boot state can go
stale and a restarted server answers the same.
"""

import re
from typing import NamedTuple

from billet_server.core.terms import HostKey

_ARGUMENT = re.compile(r"[A-Za-z0-9._-]+(=[A-Za-z0-9._:/@,+%-]*)?")
"""Kernel arguments come from this set only: nothing that ends a line, quotes or substitutes."""


class RamdiskBoot(NamedTuple):
    """Boot kernel and initramfs. ``arguments`` are this host's kernel arguments in order."""

    host: HostKey
    nonce: str
    arguments: tuple[str, ...]


class DiskBoot(NamedTuple):
    """Go on to the disk. ``reason`` is shown on the machine's screen."""

    reason: str


class AskAgain(NamedTuple):
    """Not known yet: the machine is to ask again in a moment, never to go on to its disk."""

    reason: str


BootPlan = RamdiskBoot | DiskBoot | AskAgain


def check_argument(argument: str) -> str:
    """Return ``argument`` when it is of the strict character set, else raise ValueError."""
    if not _ARGUMENT.fullmatch(argument):
        raise ValueError(f"kernel argument {argument!r} has characters outside the allowed set")
    return argument
