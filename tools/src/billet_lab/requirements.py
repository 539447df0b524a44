"""What the lab needs of the machine it runs on, told by the Debian package that brings it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from billet_lab.qemu_args import OVMF_CODE, OVMF_VARS, QEMU

_FILES = {
    Path("/usr/lib/ipxe/qemu/efi-virtio.rom"): "ipxe-qemu",
    OVMF_CODE: "ovmf",
    OVMF_VARS: "ovmf",
}
_PROGRAMS = {QEMU: "qemu-system-x86", "ip": "iproute2"}


class RequirementError(Exception):
    """The lab cannot run here; the message says what is missing and how to get it."""


def missing(
    *,
    uid: int,
    has_program: Callable[[str], bool],
    has_file: Callable[[Path], bool],
) -> list[str]:
    """What is missing, each as a sentence with what to do."""
    faults = []
    if uid != 0:
        faults.append("the lab makes a network namespace: run it as root (sudo)")
    wanted: dict[str, list[str]] = {}
    for program, package in _PROGRAMS.items():
        if not has_program(program):
            wanted.setdefault(package, []).append(program)
    for path, package in _FILES.items():
        if not has_file(path):
            wanted.setdefault(package, []).append(str(path))
    faults += [
        f"{' and '.join(things)} missing: apt-get install {package}"
        for package, things in wanted.items()
    ]
    return faults


def check_root() -> None:
    """Raise `RequirementError` unless root runs this."""
    if os.geteuid() != 0:
        raise RequirementError("the lab's network belongs to root: run this as root (sudo)")


def check() -> None:
    """Raise `RequirementError` that names all that is missing."""
    faults = missing(
        uid=os.geteuid(),
        has_program=lambda name: shutil.which(name) is not None,
        has_file=Path.exists,
    )
    if faults:
        raise RequirementError("the lab cannot run here:\n  " + "\n  ".join(faults))
