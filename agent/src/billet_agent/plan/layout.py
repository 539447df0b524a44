"""What goes on the disk besides the image: repaired partition table and config drive's place.

The plan is made from the image's first MiB before it is on the disk, so that the disk's first
MiB can be written last and once: a disk has all of it or does not boot.
"""

import struct
from typing import NamedTuple

from billet_agent.plan import gpt as gpt_table
from billet_agent.problems import JobFailed, failure, show_bytes

MIB = 1 << 20
HEAD_BYTES = MIB
"""The first part of a disk: boot code, partition table, GPT entries. Written last."""

CONFIG_DRIVE_BYTES = 64 * MIB
_MBR_LIMIT_SECTORS = 1 << 32
_EXTENDED = (0x05, 0x0F, 0x85)


class Place(NamedTuple):
    """Where a partition is: its number, and its bytes on the disk."""

    number: int
    offset_bytes: int
    size_bytes: int


class Layout(NamedTuple):
    """What to write beside the image: the ``head``, the ``backup`` (offset, bytes) or None.

    ``table`` is "gpt" or "mbr"; ``boot_code`` tells whether a BIOS finds code to run.
    """

    table: str
    head: bytes
    backup: tuple[int, bytes] | None
    config_drive: Place | None
    esp: Place | None
    boot_code: bool


class Target(NamedTuple):
    """The disk that the plan is for."""

    size_bytes: int
    sector_bytes: int


def plan_layout(
    head: bytes,
    target: Target,
    *,
    config_drive_bytes: int = 0,
    new_guid: str = "",
    labels: dict[int, str] | None = None,
) -> Layout:
    """Plan from an image's first MiB (less when it is shorter).

    ``config_drive_bytes`` 0 means none; ``labels`` are file system labels by partition number,
    so that a prepared config-2 partition is used. Raises JobFailed image-format (no usable
    partition table) or config-drive (no room).
    """
    if config_drive_bytes > CONFIG_DRIVE_BYTES:
        raise failure(
            "config-drive",
            f"the config drive has {show_bytes(config_drive_bytes)}, 64 MiB is the most",
        )
    head = head.ljust(HEAD_BYTES, b"\0")
    if head[510:512] != b"\x55\xaa":
        raise _no_table("it has no boot signature in its first sector")
    kinds = [head[446 + 16 * slot + 4] for slot in range(4)]
    if head[target.sector_bytes : target.sector_bytes + 8] == gpt_table.SIGNATURE:
        return _plan_gpt(head, target, config_drive_bytes, new_guid, labels or {})
    if 0xEE in kinds:
        other = 4096 if target.sector_bytes == 512 else 512
        if head[other : other + 8] == gpt_table.SIGNATURE:
            raise _no_table(
                f"its GPT is made for sectors of {other} bytes, the disk has {target.sector_bytes}"
            )
        raise _no_table("its MBR promises a GPT that is not there")
    if not any(kinds):
        raise _no_table("its partition table is empty")
    return _plan_mbr(head, target, config_drive_bytes, labels or {})


def partitions(head: bytes, sector: int) -> dict[int, tuple[int, int]]:
    """Return offset and size in bytes of every primary partition, by number."""
    table = gpt_table.parse_gpt(head, sector)
    if isinstance(table, str):
        slots = _mbr_slots(head)
        return {n: (a * sector, c * sector) for n, (kind, a, c) in slots.items() if kind}
    return {
        p.number: (p.first_lba * sector, (p.last_lba - p.first_lba + 1) * sector)
        for p in table.partitions
    }


def read_label(start: bytes) -> str:
    """Return the volume label of a file system from its first 40 KiB (ISO 9660, FAT) or ""."""
    if start[32769:32774] == b"CD001":
        raw = start[32808:32840]
    elif start[0x52:0x55] == b"FAT":
        raw = start[0x47:0x52]
    elif start[0x36:0x39] == b"FAT":
        raw = start[0x2B:0x36]
    else:
        return ""
    return raw.decode("ascii", errors="replace").strip()


def _plan_gpt(
    head: bytes, target: Target, config_bytes: int, new_guid: str, labels: dict[int, str]
) -> Layout:
    sector = target.sector_bytes
    table = gpt_table.parse_gpt(head, sector)
    if isinstance(table, str):
        raise _no_table(table)
    if not table.partitions:
        raise _no_table("its GPT is empty")
    table = gpt_table.resize(table, sector, target.size_bytes)
    last_usable = table.header[8]
    end = max(partition.last_lba for partition in table.partitions)
    if end > last_usable:
        raise failure(
            "image-too-large",
            f"the image's last partition ends at {show_bytes((end + 1) * sector)}, the disk's "
            f"usable part at {show_bytes((last_usable + 1) * sector)}",
        )
    place = None
    if config_bytes:
        ready = _prepared(
            {p.number: p.name for p in table.partitions}, labels, partitions(head, sector)
        )
        if ready is None:
            first, last = _at_end(end + 1, last_usable + 1, config_bytes, sector)
            table, place = _with_config(table, new_guid, first, last, sector)
        else:
            place = _fitting(ready, config_bytes)
    kinds = {p.type_guid: p for p in table.partitions}
    esp = kinds.get(gpt_table.ESP_TYPE)
    return Layout(
        "gpt",
        gpt_table.render_primary(table, head, sector),
        gpt_table.render_backup(table, sector),
        place,
        esp and _place(esp.number, esp.first_lba, esp.last_lba - esp.first_lba + 1, sector),
        any(head[:440]),
    )


def _with_config(
    table: gpt_table.Gpt, guid: str, first: int, last: int, sector: int
) -> tuple[gpt_table.Gpt, Place]:
    before = {partition.number for partition in table.partitions}
    try:
        table = gpt_table.add_partition(
            table, gpt_table.LINUX_DATA_TYPE, guid, first=first, last=last, name="config-2"
        )
    except ValueError as error:
        raise failure("config-drive", f"no partition for the config drive: {error}") from error
    (number,) = {partition.number for partition in table.partitions} - before
    return table, _place(number, first, last - first + 1, sector)


def _plan_mbr(head: bytes, target: Target, config_bytes: int, labels: dict[int, str]) -> Layout:
    sector = target.sector_bytes
    slots = _mbr_slots(head)
    end = max(first + count for kind, first, count in slots.values() if kind)
    if end * sector > target.size_bytes:
        raise failure(
            "image-too-large",
            f"the image's last partition ends at {show_bytes(end * sector)}, the disk at "
            f"{show_bytes(target.size_bytes)}",
        )
    place = None
    if config_bytes:
        ready = _prepared({}, labels, partitions(head, sector))
        if ready is None:
            free = [number for number, (kind, _, _) in slots.items() if not kind]
            if not free:
                raise failure(
                    "config-drive", "no partition for the config drive: all 4 primary are used"
                )
            top = min(target.size_bytes // sector, _MBR_LIMIT_SECTORS)
            first, last = _at_end(end, top, config_bytes, sector)
            entry = struct.pack(
                "<B3sB3sII", 0, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", first, last - first + 1
            )
            at = 446 + 16 * (free[0] - 1)
            head = head[:at] + entry + head[at + 16 :]
            place = _place(free[0], first, last - first + 1, sector)
        else:
            place = _fitting(ready, config_bytes)
    esp = next((n for n, (kind, _, _) in slots.items() if kind == 0xEF), None)
    return Layout(
        "mbr",
        head,
        None,
        place,
        _place(esp, slots[esp][1], slots[esp][2], sector) if esp else None,
        any(head[:440]),
    )


def _mbr_slots(head: bytes) -> dict[int, tuple[int, int, int]]:
    """Return type, first sector and count of the four primary entries, by number."""
    found = {}
    for slot in range(4):
        kind, first, count = struct.unpack_from("<4xB3xII", head, 446 + 16 * slot)
        found[slot + 1] = (kind if count else 0, first, count)
    return found


def _prepared(
    names: dict[int, str], labels: dict[int, str], places: dict[int, tuple[int, int]]
) -> Place | None:
    ready = [
        Place(number, offset, size)
        for number, (offset, size) in places.items()
        if "config-2" in {names.get(number, "").lower(), labels.get(number, "").lower()}
    ]
    if len(ready) > 1:
        listed = ", ".join(str(place.number) for place in ready)
        raise failure("config-drive", f"the image has several config-2 partitions: {listed}")
    return ready[0] if ready else None


def _fitting(place: Place, config_bytes: int) -> Place:
    if place.size_bytes < config_bytes:
        raise failure(
            "config-drive",
            f"the image's config-2 partition {place.number} has {show_bytes(place.size_bytes)}, "
            f"the config drive {show_bytes(config_bytes)}",
        )
    return place


def _at_end(start: int, end: int, config_bytes: int, sector: int) -> tuple[int, int]:
    """Return first and last sector of a partition just before ``end``, aligned to a MiB."""
    align = MIB // sector
    count = -(-config_bytes // MIB) * align
    first = (end - count) // align * align
    if first < start:
        raise failure(
            "config-drive",
            f"no room for the config drive: {show_bytes(count * sector)} are needed, "
            f"{show_bytes(max(0, end - start) * sector)} are free behind the last partition",
        )
    return first, first + count - 1


def _place(number: int, first: int, count: int, sector: int) -> Place:
    return Place(number, first * sector, count * sector)


def _no_table(reason: str) -> JobFailed:
    return failure("image-format", f"the image is no whole-disk image that can be used: {reason}")
