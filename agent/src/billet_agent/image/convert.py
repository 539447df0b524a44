"""qemu-img on slices of an image: explicit formats, resource limits, progress in bytes.

The disk's first and last MiB are taken out to memory, everything between goes straight from
the image to the disk, so that the caller decides when the disk becomes bootable.
"""

import json
import os
import re
from collections.abc import Callable
from typing import NamedTuple

from billet_agent.disk import Disk
from billet_agent.problems import JobCancelled, failure, show_bytes
from billet_agent.tools import Limits, ToolError, Tools

LIMITS = Limits(address_space_bytes=2 << 30, cpu_s=6 * 3600)
"""qemu-img 7.2 was seen to need 24-43 MiB; the limit stops what a hostile image provokes."""

SLOWEST_BYTES_S = 2 << 20
"""Below this rate a disk counts as failed."""

_ALIGN = 512
_PERCENT = re.compile(r"\(\s*(\d+(?:\.\d+)?)/100%\)")


class Source(NamedTuple):
    """An inspected image file: its path, format and the size of the disk inside.

    ``slice`` (offset, size in bytes) tells where the file is when ``path`` is a disk.
    """

    path: str
    format: str
    virtual_bytes: int
    slice: tuple[int, int] | None = None
    is_block: bool = False


def read_slice(tools: Tools, source: Source, offset: int, size: int) -> bytes:
    """Return bytes of the disk inside the image. Raises JobFailed image-format."""
    if size == 0:
        return b""
    fd = os.memfd_create("billet-slice", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, -(-size // _ALIGN) * _ALIGN)
        target = f"driver=raw,file.driver=file,file.filename=/proc/{os.getpid()}/fd/{fd}"
        argv = [*_convert(), _source(source, offset, size), target]
        try:
            done = tools.run(argv, deadline_s=120, limits=LIMITS)
        except ToolError as error:
            raise failure("image-format", f"the image cannot be read: {error}") from error
        if done.status != 0:
            raise failure(
                "image-format",
                f"qemu-img cannot read the image as {source.format}",
                evidence=done.evidence,
            )
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


def write_slice(
    tools: Tools,
    source: Source,
    disk: Disk,
    offset: int,
    size: int,
    *,
    advance: Callable[[int], None],
    cancelled: Callable[[], bool],
) -> None:
    """Write bytes of the image to the same place of the disk; zeros are written as zeros.

    ``advance`` gets the bytes done. Raises JobFailed disk-write, JobCancelled.
    """
    if size == 0:
        return
    driver = "host_device" if disk.is_block else "file"
    cache = ("-t", "none") if disk.is_block else ()
    target = (
        f"driver=raw,offset={offset},size={size},"
        f"file.driver={driver},file.filename={disk.path.replace(',', ',,')}"
    )
    argv = [*_convert("-p", "-W", "-m", "16", *cache), _source(source, offset, size), target]

    def on_line(line: str) -> None:
        for match in _PERCENT.finditer(line):
            advance(int(size * float(match[1]) / 100))

    try:
        done = tools.run(
            argv,
            deadline_s=600 + size / SLOWEST_BYTES_S,
            on_line=on_line,
            limits=LIMITS,
            cancelled=cancelled,
        )
    except ToolError as error:
        raise failure(
            "disk-write",
            f"writing {show_bytes(size)} to {disk.path} failed: {str(error).splitlines()[0]}",
            evidence=str(error),
        ) from error
    if cancelled():
        raise JobCancelled
    if done.status != 0:
        raise failure(
            "disk-write",
            f"qemu-img could not write the image to {disk.path} (exit status {done.status})",
            evidence=done.evidence,
        )


def _convert(*flags: str) -> list[str]:
    return ["qemu-img", "convert", "-n", *flags, "--target-image-opts"]


def _source(source: Source, offset: int, size: int) -> str:
    """Name a slice of an image of an explicit format; what it may refer to is cut off."""
    image: dict[str, object] = {
        "driver": source.format,
        "read-only": True,
        "file": _file(source),
    }
    if source.format in {"qcow2", "vmdk"}:
        image["backing"] = None
    node = {"driver": "raw", "offset": offset, "size": size, "file": image}
    return f"json:{json.dumps(node)}"


def _file(source: Source) -> dict[str, object]:
    driver = "host_device" if source.is_block else "file"
    file: dict[str, object] = {"driver": driver, "filename": source.path, "locking": "off"}
    if source.slice is None:
        return file
    offset, size = source.slice
    size = -(-size // _ALIGN) * _ALIGN
    return {"driver": "raw", "offset": offset, "size": size, "file": file}
