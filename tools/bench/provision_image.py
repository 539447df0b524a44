"""The image that `make bench-provision` deploys: the demo's, with data to make it 340 MB."""

import shutil
from pathlib import Path

from write_data import package_files

from billet_lab.os_image import DISK_MIB
from billet_lab.os_image_disk import MIB, convert, new_layout, run_quietly

DATA_BYTES = 890_000_000
NAME = "provision.qcow2"


def image(source: Path, folder: Path) -> Path:
    """Return the image, made from the demo's where that is newer or it is not there yet."""
    made = folder / NAME
    if made.exists() and made.stat().st_mtime > source.stat().st_mtime:
        return made
    folder.mkdir(parents=True, exist_ok=True)
    raw, pad = folder / "provision.raw", folder / "provision.pad"
    try:
        run_quietly(["qemu-img", "convert", "-O", "raw", str(source), str(raw)])
        _fill(pad, DATA_BYTES - raw.stat().st_blocks * 512)
        place = f"{raw}?offset={new_layout(DISK_MIB).root_start_mib * MIB}"
        run_quietly(["debugfs", "-w", "-R", f"write {pad} bench-data", place])
        run_quietly(["e2fsck", "-fn", place])
        convert(raw, made, run_quietly)
    finally:
        raw.unlink(missing_ok=True)
        pad.unlink(missing_ok=True)
    return made


def _fill(path: Path, size: int) -> None:
    """Write so many bytes of files of this machine's packages."""
    with path.open("wb") as file:
        for source in package_files():
            with source.open("rb") as data:
                shutil.copyfileobj(data, file)
            if file.tell() >= size:
                break
        file.truncate(size)
