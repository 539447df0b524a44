"""GUID partition tables: read from a disk's start, changed, written for a disk's end.

Source: UEFI specification 2.10, §5.3.
"""

import struct
import zlib
from typing import NamedTuple

SIGNATURE = b"EFI PART"
ESP_TYPE = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
BIOS_BOOT_TYPE = "21686148-6449-6e6f-744e-656564454649"
LINUX_DATA_TYPE = "0fc63daf-8483-4772-8e79-3d69d8477de4"
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")


class Partition(NamedTuple):
    """One entry; LBAs count the disk's logical sectors, ``last_lba`` is included."""

    number: int
    type_guid: str
    first_lba: int
    last_lba: int
    name: str


class Gpt(NamedTuple):
    """A primary table with right checksums; ``entries`` is the raw array."""

    header: tuple[bytes, int, int, int, int, int, int, int, int, bytes, int, int, int, int]
    entries: bytes

    @property
    def entry_bytes(self) -> int:
        """Return the size of one entry."""
        return self.header[12]

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """Return the used entries by number."""
        found = []
        for index in range(self.header[11]):
            raw = self.entries[index * self.entry_bytes :][: _ENTRY.size]
            kind, _, first, last, _, name = _ENTRY.unpack(raw)
            if kind != bytes(16):
                text = name.decode("utf-16-le", errors="replace").partition("\0")[0]
                found.append(Partition(index + 1, render_guid(kind), first, last, text))
        return tuple(found)


def parse_gpt(head: bytes, sector: int) -> Gpt | str:
    """Read the primary table; a text says why it cannot be used."""
    raw = head[sector : 2 * sector]
    if raw[:8] != SIGNATURE:
        return "there is no GPT header"
    fields = _HEADER.unpack_from(raw)
    size, crc, my_lba, entries_lba, count, entry_bytes, entries_crc = (
        fields[index] for index in (2, 3, 5, 10, 11, 12, 13)
    )
    if not _HEADER.size <= size <= sector:
        return f"its GPT header has the impossible size {size}"
    if zlib.crc32(raw[:16] + bytes(4) + raw[20:size]) != crc:
        return "its GPT header has a wrong checksum"
    if my_lba != 1 or entry_bytes < 128 or entry_bytes % 8 or not 1 <= count <= 1024:
        return "its GPT header has impossible values"
    start, length = entries_lba * sector, count * entry_bytes
    if entries_lba < 2 or start + length > len(head):
        return f"its GPT entries are outside the first {len(head)} bytes"
    entries = head[start : start + length]
    if zlib.crc32(entries) != entries_crc:
        return "its GPT entries have a wrong checksum"
    return Gpt(fields, entries)


def add_partition(gpt: Gpt, type_guid: str, guid: str, *, first: int, last: int, name: str) -> Gpt:
    """Return the table with a partition in the first free entry. Raises ValueError when full."""
    used = {partition.number for partition in gpt.partitions}
    free = [number for number in range(1, gpt.header[11] + 1) if number not in used]
    if not free:
        raise ValueError(f"all {gpt.header[11]} GPT entries are used")
    entry = _ENTRY.pack(
        parse_guid(type_guid), parse_guid(guid), first, last, 0, name.encode("utf-16-le")
    ).ljust(gpt.entry_bytes, b"\0")
    at = (free[0] - 1) * gpt.entry_bytes
    entries = gpt.entries[:at] + entry + gpt.entries[at + gpt.entry_bytes :]
    return gpt._replace(entries=entries)


def resize(gpt: Gpt, sector: int, disk_bytes: int) -> Gpt:
    """Return the table with its backup and last usable sector at the end of the disk."""
    last_lba = disk_bytes // sector - 1
    entry_sectors = -(-len(gpt.entries) // sector)
    header = list(gpt.header)
    header[6], header[8] = last_lba, last_lba - entry_sectors - 1
    return gpt._replace(header=tuple(header))  # type: ignore[arg-type]


def render_primary(gpt: Gpt, head: bytes, sector: int) -> bytes:
    """Return ``head`` with protective MBR, header and entries of this table."""
    result = bytearray(head)
    result[446:510] = _protective(head[446:510], gpt.header[6])
    result[sector : 2 * sector] = _render_header(gpt, 1, gpt.header[6], gpt.header[10], sector)
    start = gpt.header[10] * sector
    result[start : start + len(gpt.entries)] = gpt.entries
    return bytes(result)


def render_backup(gpt: Gpt, sector: int) -> tuple[int, bytes]:
    """Return the byte offset and bytes of the backup: entries, then header in the last sector."""
    entry_sectors = -(-len(gpt.entries) // sector)
    last_lba = gpt.header[6]
    entries_lba = last_lba - entry_sectors
    header = _render_header(gpt, last_lba, 1, entries_lba, sector)
    return entries_lba * sector, gpt.entries.ljust(entry_sectors * sector, b"\0") + header


def parse_guid(text: str) -> bytes:
    """Return the 16 mixed-endian bytes of a GUID's text."""
    a, b, c, d, e = text.split("-")
    little = bytes.fromhex(a)[::-1] + bytes.fromhex(b)[::-1] + bytes.fromhex(c)[::-1]
    return little + bytes.fromhex(d) + bytes.fromhex(e)


def render_guid(raw: bytes) -> str:
    """Return the lower-case text of 16 mixed-endian bytes."""
    parts = (raw[3::-1], raw[5:3:-1], raw[7:5:-1], raw[8:10], raw[10:16])
    return "-".join(part.hex() for part in parts)


def _render_header(gpt: Gpt, my_lba: int, other_lba: int, entries_lba: int, sector: int) -> bytes:
    fields = list(gpt.header)
    fields[2], fields[3] = _HEADER.size, 0
    fields[5], fields[6], fields[10] = my_lba, other_lba, entries_lba
    fields[13] = zlib.crc32(gpt.entries)
    raw = _HEADER.pack(*fields)
    fields[3] = zlib.crc32(raw)
    return _HEADER.pack(*fields).ljust(sector, b"\0")


def _protective(slots: bytes, last_lba: int) -> bytes:
    """Let the 0xEE entry of an otherwise empty MBR span the disk; hybrid ones stay as they are."""
    entries = [slots[at : at + 16] for at in range(0, 64, 16)]
    protective = [index for index, entry in enumerate(entries) if entry[4] == 0xEE]
    if len(protective) != 1 or any(e[4] for i, e in enumerate(entries) if i not in protective):
        return slots
    index = protective[0]
    first = struct.unpack_from("<I", entries[index], 8)[0]
    count = min(last_lba - first + 1, 0xFFFFFFFF)
    entries[index] = entries[index][:12] + struct.pack("<I", count)
    return b"".join(entries)
