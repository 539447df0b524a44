"""The firmware's boot entries (UEFI) or the disk's boot code (BIOS) after an image was written."""

from collections.abc import Sequence

from billet_agent.disk import Disk
from billet_agent.machine import Machine
from billet_agent.plan.bootentry import (
    Loader,
    choose_loader,
    csv_paths,
    fallback_loader,
    order_with_first,
    parse_entries,
    stale_entries,
)
from billet_agent.plan.fat import Fat, FatError
from billet_agent.plan.layout import Layout, Place
from billet_agent.problems import failure
from billet_agent.tools import ToolError

_TOOL_S = 60.0
_CSV_BYTES = 64 * 1024


def check_bootable(layout: Layout, boot_mode: str) -> None:
    """Raise JobFailed image-boot when the image cannot boot in the machine's firmware mode."""
    if boot_mode == "UEFI":
        if layout.esp is None:
            raise failure(
                "image-boot",
                "the machine boots in UEFI mode, but the image has no EFI system partition",
            )
    elif not layout.boot_code:
        raise failure(
            "image-boot",
            "the machine boots in legacy (BIOS) mode, but the image has no boot code in its "
            "first sector",
        )


def set_boot_entry(machine: Machine, disk: Disk, esp: Place) -> tuple[str | None, str]:
    """Make the image's loader the firmware's first choice; return the entry's label and words.

    Entries of the same label go, others (network) stay behind the new one. Where the firmware's
    variables cannot be written but the removable-media loader is there, the label is None.
    Raises JobFailed boot-entry when the disk could not be started at all.
    """
    files, loader = _find_loader(machine.architecture, disk, esp)
    if loader is None:
        raise failure(
            "image-boot",
            f"the image's EFI system partition has no loader for {machine.architecture}",
            evidence="\n".join(files),
        )
    try:
        _enter(machine, disk.path, esp, loader)
    except _EfiError as error:
        if fallback_loader(files, machine.architecture) is None:
            raise failure(
                "boot-entry",
                f"the boot entry for {loader.path} could not be made: {error}",
                evidence=error.evidence,
            ) from error
        return None, f"no boot entry ({error}); the firmware will find the removable-media loader"
    return loader.label, f"boot entry {loader.label!r} starts {loader.path}"


class _EfiError(Exception):
    """Efibootmgr failed."""

    def __init__(self, text: str, evidence: str = "") -> None:
        super().__init__(text)
        self.evidence = evidence


def _enter(machine: Machine, disk: str, esp: Place, loader: Loader) -> None:
    for number in stale_entries(parse_entries(_efibootmgr(machine)), loader.label):
        _efibootmgr(machine, "--bootnum", number, "--delete-bootnum")
    _efibootmgr(
        machine, "--create", "--disk", disk, "--part", str(esp.number),
        "--label", loader.label, "--loader", loader.path,
    )  # fmt: skip
    order = order_with_first(parse_entries(_efibootmgr(machine)), loader.label)
    if order:
        _efibootmgr(machine, "--bootorder", ",".join(order))


def _efibootmgr(machine: Machine, *arguments: str) -> str:
    try:
        done = machine.tools.run(["efibootmgr", *arguments], deadline_s=_TOOL_S)
    except ToolError as error:
        raise _EfiError(str(error).splitlines()[0], str(error)) from error
    if done.status != 0:
        raise _EfiError(f"efibootmgr ended with status {done.status}", done.evidence)
    return done.text


def _find_loader(architecture: str, disk: Disk, esp: Place) -> tuple[Sequence[str], Loader | None]:
    def read(offset: int, length: int) -> bytes:
        return disk.read(esp.offset_bytes + offset, max(0, min(length, esp.size_bytes - offset)))

    try:
        fat = Fat(read)
        files = fat.files()
        lists = csv_paths(files, architecture)[:4]
        csv = {path: fat.content(path, _CSV_BYTES) for path in lists}
    except FatError as error:
        raise failure(
            "image-boot",
            f"the image's EFI system partition cannot be read: {error}",
        ) from error
    return files, choose_loader(files, architecture, csv)
