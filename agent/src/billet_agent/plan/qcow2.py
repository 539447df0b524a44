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
_LEAST_BITS_EXTENDED = 14
SECTOR = 512
"""The unit of guest sizes, and of the sizes of compressed clusters."""


class Header(NamedTuple):
    """A header that qemu-img may open. ``virtual_bytes`` is the size of the disk inside."""

    version: int
    cluster_bytes: int
    virtual_bytes: int
    l1_entries: int
    snapshots: int
    compression: str
    l1_offset: int = 0
    extended_l2: bool = False

    @property
    def l2_entries(self) -> int:
        """Return how many clusters one L2 table maps."""
        return self.cluster_bytes // (16 if self.extended_l2 else 8)

    @property
    def l1_needed(self) -> int:
        """Return how many L1 entries the disk inside needs; more may be there (VM state)."""
        return -(-self.virtual_bytes // (self.cluster_bytes * self.l2_entries))


class Unsafe(NamedTuple):
    """Why the file must not be opened; ``damaged`` tells broken or cut from hostile."""

    reason: str
    damaged: bool = False


def inspect_header(data: bytes, file_bytes: int | None = None) -> Header | Unsafe:
    """Read the first `HEADER_BYTES` (or all) of a qcow2 file of ``file_bytes`` (None: unknown).

    Refused: other versions, backing files, external data files, unknown incompatible features,
    """
    if len(data) < 72 or data[:4] != MAGIC:
        return Unsafe("it has no qcow2 header", damaged=True)
    version, backing_at, backing_len, bits, size, crypt, l1_count, l1_at = struct.unpack_from(
        ">IQIIQIIQ", data, 4
    )
    refcounts_at, _, snapshots, snapshots_at = struct.unpack_from(">QIIQ", data, 48)
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
    if incompatible & _EXTENDED_L2 and bits < _LEAST_BITS_EXTENDED:
        reason = f"its cluster size of 2^{bits} bytes is too small for extended L2 entries"
        return Unsafe(reason, damaged=True)
    named = _extensions(data, version)
    if named:
        return Unsafe(named)
    extended = bool(incompatible & _EXTENDED_L2)
    header = Header(version, 1 << bits, size, l1_count, snapshots, compression, l1_at, extended)
    return _check_tables(header, refcounts_at, snapshots_at, file_bytes) or header


def _features(data: bytes, version: int) -> tuple[int, str] | Unsafe:
    """Return the incompatible feature bits and the compression's name."""
    if version == 2:
        return 0, "zlib"
    if len(data) < 104:
        return Unsafe("its version 3 header is cut", damaged=True)
    (incompatible,) = struct.unpack_from(">Q", data, 72)
    refcount_order, length = struct.unpack_from(">II", data, 96)
    if refcount_order > 6:
        return Unsafe(f"its refcounts have 2^{refcount_order} bits", damaged=True)
    if length < 104 or length % 8 or length > HEADER_BYTES:
        return Unsafe(f"its header length {length} is impossible", damaged=True)
    if incompatible & _DATA_FILE:
        return Unsafe("its data is in an external data file")
    if incompatible & ~_KNOWN:
        return Unsafe(f"it uses unknown incompatible features ({incompatible & ~_KNOWN:#x})")
    if incompatible & ~_HARMLESS:
        return Unsafe("it is marked corrupt", damaged=True)
    kind = data[104] if length > 104 and len(data) > 104 else 0
    if kind not in {0, 1}:
        return Unsafe(f"it uses unknown compression type {kind}")
    if bool(incompatible & _COMPRESSION) != bool(kind):
        reason = f"its compression type {kind} contradicts its feature bits"
        return Unsafe(reason, damaged=True)
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


def _check_tables(
    header: Header, refcounts_at: int, snapshots_at: int, file_bytes: int | None
) -> Unsafe | None:
    reason = _size_fault(header)
    tables = [("L1 table", header.l1_offset, header.l1_needed * 8)]
    tables.append(("refcount table", refcounts_at, 8))
    if header.snapshots:
        tables.append(("snapshot table", snapshots_at, 1))
    for name, offset, length in tables:
        if reason:
            break
        if offset % header.cluster_bytes and name != "snapshot table":
            reason = f"its {name} is not aligned to a cluster"
        elif offset < header.cluster_bytes:
            reason = f"its {name} is where its header is"
        elif file_bytes is not None and offset + length > file_bytes:
            reason = f"its {name} is beyond the end of the file"
    return Unsafe(reason, damaged=True) if reason else None


def _size_fault(header: Header) -> str | None:
    if header.virtual_bytes == 0:
        return "the disk inside it has no size"
    if header.virtual_bytes % SECTOR:
        return f"the size of the disk inside, {header.virtual_bytes}, is not in sectors"
    if header.l1_entries < header.l1_needed:
        return f"its L1 table has {header.l1_entries} entries, {header.l1_needed} are needed"
    if header.snapshots > 65536:
        return f"it claims {header.snapshots} snapshots"
    return None


def _name(data: bytes, at: int, length: int) -> str:
    text = data[at : at + min(length, 1023)].decode(errors="replace")
    shown = "".join(char if char.isprintable() else "?" for char in text)
    return f" ({shown})" if shown else ""
