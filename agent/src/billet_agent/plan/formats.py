"""What a file is, by its first bytes, and whether it may be written to a disk."""

import struct
from typing import NamedTuple

from billet_agent.plan.qcow2 import MAGIC as QCOW2_MAGIC
from billet_agent.plan.qcow2 import Header, Unsafe, inspect_header
from billet_agent.problems import JobFailed, failure

DETECT_BYTES = 64 * 1024
"""How much of the start `detect_format` and `inspect_image` want to see (or all of the file)."""

WRITABLE = ("raw", "qcow2", "vdi", "vmdk")

_MAGICS: tuple[tuple[int, bytes, str], ...] = (
    (0, QCOW2_MAGIC, "qcow2"),
    (0, b"QED\0", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk Descrip", "vmdk-descriptor"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vhd"),
    (0, b"LUKS\xba\xbe", "luks"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"BZh", "bzip2"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"PK\x03\x04", "zip"),
)
_WORDS = {
    "raw": "a raw disk image",
    "web page": "a web page",
    "text": "text",
    "iso": "an ISO 9660 image without a partition table",
    "unknown": "of no known format (no partition table either)",
    "empty": "empty",
}


class Inspected(NamedTuple):
    """An image that may be written: its format and the size of the disk inside (None: file's).

    ``header`` is a qcow2's.
    """

    format: str
    virtual_bytes: int | None
    header: Header | None = None


def detect_format(data: bytes) -> str:
    """Name the format of a file that starts with ``data``; "unknown" and "text" are answers."""
    if not data:
        return "empty"
    for at, magic, name in _MAGICS:
        if data[at : at + len(magic)] == magic:
            return name
    if data[510:512] == b"\x55\xaa" or b"EFI PART" in {data[512:520], data[4096:4104]}:
        return "raw"
    if data[32769:32774] == b"CD001":
        return "iso"
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "web page"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in data[:512]):
        return "text"
    return "unknown"


def inspect_image(
    data: bytes, declared: str | None, url: str, file_bytes: int | None = None
) -> Inspected:
    """Decide from the file's start whether it may be written, and as what.

    Raises JobFailed image-format (not what was declared, or nothing writable) or image-unsafe
    (qcow2 or vmdk that refers to other files or uses unknown features).
    """
    found = detect_format(data)
    if found not in WRITABLE or (declared is not None and found != declared):
        wanted = f"not {declared}" if declared else f"none of {', '.join(WRITABLE)}"
        raise failure(
            "image-format",
            f"image {url} is {_WORDS.get(found, found)}, {wanted}",
            evidence=f"first bytes: {data[:96]!r}",
        )
    if found == "qcow2":
        header = inspect_header(data, file_bytes)
        if isinstance(header, Unsafe):
            raise refusal(header, "qcow2", url)
        return Inspected("qcow2", header.virtual_bytes, header)
    if found == "vmdk":
        return Inspected("vmdk", _vmdk_bytes(data, url))
    if found == "vdi":
        return Inspected("vdi", _vdi_bytes(data, url))
    return Inspected("raw", None)


def _vmdk_bytes(data: bytes, url: str) -> int:
    """Return the capacity of a sparse VMDK that holds itself whole (VMware spec 1.1, §3.1)."""
    if data[:4] != b"KDMV" or len(data) < 512:
        raise refusal(Unsafe("it is no self-contained sparse extent"), "vmdk", url)
    capacity, descriptor_at, descriptor_len = (
        struct.unpack_from("<Q", data, at)[0] for at in (12, 28, 36)
    )
    if not capacity:
        raise refusal(Unsafe("its data is in other files"), "vmdk", url)
    end = (descriptor_at + descriptor_len) * 512
    if descriptor_at and end > len(data):
        raise refusal(Unsafe("its descriptor is not at its start"), "vmdk", url)
    text = data[descriptor_at * 512 : end].rstrip(b"\0").decode("ascii", errors="replace")
    fields = {}
    for line in text.splitlines():
        key, sign, value = line.partition("=")
        if sign:
            fields[key.strip().lower()] = value.strip().strip('"').lower()
    # qemu-img takes a parent's name from any line, comments too, of 20 sectors from the second on,
    # wherever the header says that the descriptor is.
    named = b"parentfilenamehint" in data.lower()
    if named or fields.get("parentcid", "ffffffff") != "ffffffff":
        raise refusal(Unsafe("it has a parent file"), "vmdk", url)
    if fields.get("createtype") not in {"monolithicsparse", "streamoptimized"}:
        raise refusal(Unsafe(f"its type is {fields.get('createtype')}"), "vmdk", url)
    return int(capacity) * 512


def _vdi_bytes(data: bytes, url: str) -> int:
    """Return the size of the disk in a VDI of version 1.1 that stands alone (as qemu wants it)."""
    if len(data) < 512:
        raise refusal(Unsafe("its header is cut", damaged=True), "vdi", url)
    version, _, kind = struct.unpack_from("<III", data, 68)
    (size,) = struct.unpack_from("<Q", data, 368)
    if version != 0x00010001:
        raise refusal(Unsafe(f"it has version {version >> 16}.{version & 0xFFFF}"), "vdi", url)
    if kind not in {1, 2}:
        raise refusal(Unsafe(f"its type {kind} is neither dynamic nor static"), "vdi", url)
    if any(data[424:456]):
        raise refusal(Unsafe("it is linked to another image"), "vdi", url)
    if size == 0 or size % 512:
        words = f"the size of its disk is {size} bytes, not a number of sectors"
        raise refusal(Unsafe(words, damaged=True), "vdi", url)
    return int(size)


def refusal(unsafe: Unsafe, kind: str, url: str) -> JobFailed:
    """Return image-format for a damaged file, image-unsafe for one that is hostile or unknown."""
    if unsafe.damaged:
        return failure("image-format", f"image {url} is a damaged {kind}: {unsafe.reason}")
    return failure("image-unsafe", f"image {url} is a {kind} that is refused: {unsafe.reason}")
