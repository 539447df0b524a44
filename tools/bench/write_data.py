"""The image that `make bench-write` writes: 2 GiB of files of this machine's Debian packages."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

DATA_BYTES = 2 << 30
DISK_BYTES = 3 << 30
FORMS = {
    "zlib": ("-O", "qcow2", "-c"),
    "zstd": ("-O", "qcow2", "-c", "-o", "compression_type=zstd"),
    "plain": ("-O", "qcow2"),
}
_FOLDERS = ("/usr/bin", "/usr/lib", "/usr/share", "/usr/sbin", "/usr/libexec")
_HEAD_BYTES = 1 << 20
_GAP_EVERY = 64 << 20
_GAP_BYTES = 8 << 20


def image(folder: Path, form: str) -> Path:
    """Return the image in a form ("raw", or one of `FORMS`), made where it is not there yet."""
    raw = folder / "write.raw"
    if not raw.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = raw.with_suffix(".part")
        _fill(part)
        part.rename(raw)
    if form == "raw":
        return raw
    made = folder / f"write-{form}.qcow2"
    if not made.exists():
        part = made.with_suffix(".part")
        argv = ["qemu-img", "convert", "-f", "raw", *FORMS[form], str(raw), str(part)]
        subprocess.run(argv, check=True)
        part.rename(made)
    return made


def package_files() -> Iterator[Path]:
    """Yield packages' files in a fixed order; from the start again where they are too few."""
    while True:
        for top in _FOLDERS:
            for folder, names, files in os.walk(top):
                names.sort()
                for name in sorted(files):
                    path = Path(folder, name)
                    if path.is_file() and not path.is_symlink():
                        yield path


def _fill(path: Path) -> None:
    """Write a disk with a partition table and data with gaps, as a file system has them."""
    free = shutil.disk_usage(path.parent).free
    if free < 4 * DATA_BYTES:
        message = f"{path.parent} has {free >> 20} MiB free, the bench needs {4 * DATA_BYTES >> 20}"
        raise SystemExit(message)
    with path.open("wb") as file:
        file.truncate(DISK_BYTES)
        file.seek(_HEAD_BYTES)
        written, next_gap = 0, _GAP_EVERY
        for source in package_files():
            data = source.read_bytes()[: DATA_BYTES - written]
            written += file.write(data)
            if written >= next_gap:
                file.seek(_GAP_BYTES, os.SEEK_CUR)
                next_gap += _GAP_EVERY
            if written == DATA_BYTES:
                break
    subprocess.run(["sgdisk", "-n", "1:2048:0", path], check=True, stdout=subprocess.DEVNULL)
    with path.open("r+b") as file:
        file.write(b"\x90" * 440)  # boot code, as far as anybody looks
