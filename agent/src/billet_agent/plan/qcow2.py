"""qcow2 headers, read before any tool opens the file (QEMU docs/interop/qcow2.txt)."""

import struct
from typing import NamedTuple

MAGIC = b"QFI\xfb"
HEADER_BYTES = 64 * 1024
"""Enough of the file's start for every header and its extensions."""

_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED_L2 = (1 << bit for bit in range(5))
_KNOWN = _DIRTY | _CORRUPT | _DATA_FILE | _COMPRESSION | _EXTENDED_L2
_HARMLESS = _DIRTY | _COMPRESSION | _EXTENDED_L2
_EXTENSION_DATA_FILE = 0x44415441


class Header(NamedTuple):
    """A header that qemu-img may open. ``virtual_bytes`` is the size of the disk inside."""

    version: int
    cluster_bytes: int
    virtual_bytes: int
    l1_entries: int
    snapshots: int
    compression: str


class Unsafe(NamedTuple):
    """Why the file must not be opened; ``damaged`` tells broken or cut from hostile."""

    reason: str
    damaged: bool = False


def inspect_header(data: bytes, file_bytes: int | None = None) -> Header | Unsafe:
    """Read the first `HEADER_BYTES` (or all) of a qcow2 file of ``file_bytes`` (None: unknown).

    Refused: other versions, backing files, external data files, unknown incompatible features,
    encryption, impossible cluster sizes, tables outside the file.
    """
    if len(data) < 72 or data[:4] != MAGIC:
        return Unsafe("it has no qcow2 header", damaged=True)
    version, backing_at, backing_len, bits, size, crypt, l1_count, l1_at = struct.unpack_from(
        ">IQIIQIIQ", data, 4
    )
    snapshots, snapshots_at = struct.unpack_from(">IQ", data, 60)
    if version not in {2, 3}:
        return Unsafe(f"it is of qcow2 version {version}; 2 and 3 are known")
    if backing_at or backing_len:
        return Unsafe(f"it has a backing file{_name(data, backing_at, backing_len)}")
    if not 9 <= bits <= 21:
        return Unsafe(f"its cluster size of 2^{bits} bytes is impossible", damaged=True)
    if crypt:
        return Unsafe(f"it is encrypted (method {crypt})")
    features = _features(data, version)
    if isinstance(features, Unsafe):
        return features
    incompatible, compression = features
    reason = _extensions(data, version)
    if reason:
        return Unsafe(reason)
    cluster = 1 << bits
    entry = 16 if incompatible & _EXTENDED_L2 else 8
    needed = -(-size // (cluster * (cluster // entry)))
    tables = _Tables(l1_count, l1_at, snapshots, snapshots_at)
    bad = _check_tables(tables, file_bytes, cluster, size, needed)
    return bad or Header(version, cluster, size, l1_count, snapshots, compression)


def _features(data: bytes, version: int) -> tuple[int, str] | Unsafe:
    """Return the incompatible feature bits and the compression's name."""
    if version == 2:
        return 0, "zlib"
    if len(data) < 104:
        return Unsafe("its version 3 header is cut", damaged=True)
    (incompatible,) = struct.unpack_from(">Q", data, 72)
    (length,) = struct.unpack_from(">I", data, 100)
    if length < 104 or length % 8 or length > HEADER_BYTES:
        return Unsafe(f"its header length {length} is impossible", damaged=True)
    if incompatible & _DATA_FILE:
        return Unsafe("its data is in an external data file")
    if incompatible & ~_KNOWN:
        return Unsafe(f"it uses unknown incompatible features ({incompatible & ~_KNOWN:#x})")
    if incompatible & ~_HARMLESS:
        return Unsafe("it is marked corrupt", damaged=True)
    kind = data[104] if incompatible & _COMPRESSION and length > 104 and len(data) > 104 else 0
    if kind not in {0, 1}:
        return Unsafe(f"it uses unknown compression type {kind}")
    return incompatible, ("zlib", "zstd")[kind]


def _extensions(data: bytes, version: int) -> str | None:
    """Walk the header extensions; a data file named there is refused as well."""
    at = 72 if version == 2 else struct.unpack_from(">I", data, 100)[0]
    while at + 8 <= len(data):
        kind, length = struct.unpack_from(">II", data, at)
        if kind == 0:
            return None
        if kind == _EXTENSION_DATA_FILE:
            return f"it names an external data file{_name(data, at + 8, length)}"
        at += 8 + -(-length // 8) * 8
    return None


class _Tables(NamedTuple):
    l1_entries: int
    l1_offset: int
    snapshots: int
    snapshots_offset: int


def _check_tables(
    tables: _Tables, file_bytes: int | None, cluster: int, size: int, needed: int
) -> Unsafe | None:
    if size == 0:
        return Unsafe("the disk inside it has no size", damaged=True)
    if tables.l1_entries < needed:
        reason = f"its L1 table has {tables.l1_entries} entries, {needed} are needed"
        return Unsafe(reason, damaged=True)
    if tables.l1_offset % cluster:
        return Unsafe("its L1 table is not aligned to a cluster", damaged=True)
    if tables.snapshots > 65536:
        return Unsafe(f"it claims {tables.snapshots} snapshots", damaged=True)
    if file_bytes is not None:
        if tables.l1_offset + needed * 8 > file_bytes:
            return Unsafe("its L1 table is beyond the end of the file", damaged=True)
        if tables.snapshots and tables.snapshots_offset >= file_bytes:
            return Unsafe("its snapshot table is beyond the end of the file", damaged=True)
    return None


def _name(data: bytes, at: int, length: int) -> str:
    text = data[at : at + min(length, 1023)].decode(errors="replace")
    shown = "".join(char if char.isprintable() else "?" for char in text)
    return f" ({shown})" if shown else ""
