"""Partition tables: repaired, extended by a config drive, refused when they cannot be."""

import struct
import uuid
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billet_agent.plan import gpt as gpt_table
from billet_agent.plan.layout import (
    HEAD_BYTES,
    MIB,
    Layout,
    Place,
    Target,
    partitions,
    plan_layout,
    read_label,
)
from billet_agent.problems import JobFailed

GUID = str(uuid.UUID(int=0x123456789ABCDEF0123456789ABCDEF0))
GIB = 1 << 30
Parts = list[tuple[str, int, int, str]]
ROOT: Parts = [(gpt_table.LINUX_DATA_TYPE, 2048, 200_000, "root")]


def protective() -> bytes:
    entry = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, 0xFFFF)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def gpt_head(parts: Parts, sector: int = 512, count: int = 128) -> bytes:
    entries = bytearray(count * 128)
    for index, (kind, first, last, name) in enumerate(parts):
        entries[index * 128 : index * 128 + 128] = struct.pack(
            "<16s16sQQQ72s",
            gpt_table.parse_guid(kind),
            bytes([index + 1]) * 16,
            first,
            last,
            0,
            name.encode("utf-16-le"),
        )
    raw = struct.pack(
        "<8sIIIIQQQQ16sQIII",
        *(b"EFI PART", 0x10000, 92, 0, 0, 1, 999_999, 34, 999_966, b"d" * 16, 2, count, 128),
        zlib.crc32(entries),
    )
    raw = raw[:16] + struct.pack("<I", zlib.crc32(raw)) + raw[20:]
    head = protective().ljust(sector, b"\0") + raw.ljust(sector, b"\0") + entries
    return head.ljust(HEAD_BYTES, b"\0")


def mbr_head(*parts: tuple[int, int, int]) -> bytes:
    entries = b"".join(struct.pack("<4xB3xII", *part) for part in parts)
    return (b"\xfa" + bytes(445) + entries.ljust(64, b"\0") + b"\x55\xaa").ljust(HEAD_BYTES, b"\0")


def plan(head: bytes, size: int = GIB, sector: int = 512, drive: int = 0, **more: object) -> Layout:
    target = Target(size, sector)
    return plan_layout(head, target, config_drive_bytes=drive, new_guid=GUID, **more)  # type: ignore[arg-type]


def refused(head: bytes, **more: object) -> tuple[str, str]:
    with pytest.raises(JobFailed) as caught:
        plan(head, **more)  # type: ignore[arg-type]
    return caught.value.problem.problem, caught.value.problem.message


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("drive", [0, 1, MIB, MIB + 1, 64 * MIB])
def test_gpt_moves_its_backup_to_the_disks_end(sector: int, drive: int) -> None:
    head = gpt_head(ROOT, sector)
    layout = plan(head, GIB, sector, drive)
    table = gpt_table.parse_gpt(layout.head, sector)
    assert isinstance(table, gpt_table.Gpt)
    last = GIB // sector - 1
    assert table.header[6] == last
    assert layout.backup is not None
    offset, raw = layout.backup
    assert offset + len(raw) == GIB
    assert raw[-sector : -sector + 8] == gpt_table.SIGNATURE
    assert raw[: len(table.entries)] == table.entries
    backup = struct.unpack_from("<QQ", raw, len(raw) - sector + 24)
    assert backup == (last, 1)
    used = {part.number: part for part in table.partitions}
    assert len(used) == (2 if drive else 1)
    if drive:
        place = layout.config_drive
        assert place is not None
        assert place.number == 2
        assert place.offset_bytes % MIB == 0
        assert place.size_bytes == -(-drive // MIB) * MIB
        assert place.offset_bytes + place.size_bytes <= offset
        assert used[2].name == "config-2"
        assert used[2].first_lba * sector == place.offset_bytes
    slot = layout.head[446:462]
    assert slot[4] == 0xEE
    assert struct.unpack_from("<I", slot, 12)[0] == min(last, 0xFFFFFFFF)


def test_what_is_not_the_table_stays() -> None:
    head = bytearray(gpt_head(ROOT))
    head[:440] = b"c" * 440
    head[20000:20004] = b"grub"
    layout = plan(bytes(head), drive=10)
    assert layout.boot_code
    assert layout.head[:440] == b"c" * 440
    assert layout.head[34 * 512 :] == head[34 * 512 :]


def test_a_hybrid_mbr_stays() -> None:
    head = bytearray(gpt_head(ROOT))
    head[462:478] = struct.pack("<4xB3xII", 0x83, 2048, 1000)
    assert plan(bytes(head)).head[446:510] == head[446:510]


def test_esp_is_found() -> None:
    parts = [*ROOT, (gpt_table.ESP_TYPE, 300_000, 300_999, "EFI")]
    assert plan(gpt_head(parts)).esp == Place(2, 300_000 * 512, 1000 * 512)
    assert plan(mbr_head((0xEF, 2048, 1000))).esp == Place(1, MIB, 1000 * 512)
    assert plan(gpt_head(ROOT)).esp is None


def test_a_prepared_partition_is_used() -> None:
    parts = [*ROOT, (gpt_table.LINUX_DATA_TYPE, 204_800, 206_847, "Config-2")]
    assert plan(gpt_head(parts), drive=MIB).config_drive == Place(2, 100 * MIB, MIB)
    labelled = plan(gpt_head(ROOT), drive=MIB, labels={1: "CONFIG-2"})
    assert labelled.config_drive == Place(1, MIB, 197_953 * 512)
    kind, words = refused(gpt_head(parts), drive=MIB + 1)
    assert kind == "config-drive"
    assert "2.00 MiB" in words or str(MIB + 1) in words
    kind, words = refused(gpt_head(parts), drive=1, labels={1: "config-2"})
    assert kind == "config-drive"
    assert "several" in words
    in_mbr = plan(mbr_head((0x83, 2048, 4096)), drive=1, labels={1: "config-2"})
    assert in_mbr.config_drive == Place(1, MIB, 2 * MIB)


@pytest.mark.parametrize(
    ("head", "more", "problem", "words"),
    [
        (bytes(HEAD_BYTES), {}, "image-format", "no boot signature"),
        (b"", {}, "image-format", "no boot signature"),
        (mbr_head(), {}, "image-format", "empty"),
        (gpt_head([]), {}, "image-format", "GPT is empty"),
        (protective(), {}, "image-format", "not there"),
        (gpt_head(ROOT), {"sector": 4096}, "image-format", "sectors of 512 bytes"),
        (gpt_head(ROOT, 4096), {"sector": 512}, "image-format", "sectors of 4096 bytes"),
        (gpt_head(ROOT), {"size": 64 * MIB}, "image-too-large", "last partition"),
        (mbr_head((0x83, 2048, 1 << 20)), {"size": 64 * MIB}, "image-too-large", "last partition"),
        (gpt_head(ROOT), {"drive": 64 * MIB + 1}, "config-drive", "64 MiB is the most"),
        (gpt_head(ROOT), {"size": 98 * MIB, "drive": 2 * MIB}, "config-drive", "no room"),
        (gpt_head(ROOT, count=1), {"drive": 1}, "config-drive", "all 1 GPT entries"),
        (mbr_head(*[(0x83, 2048, 9)] * 4), {"drive": 1}, "config-drive", "all 4 primary"),
    ],
)
def test_refused(head: bytes, more: dict[str, int], problem: str, words: str) -> None:
    kind, message = refused(head, **more)
    assert kind == problem
    assert words in message


@pytest.mark.parametrize(
    ("at", "words"), [(512 + 40, "wrong checksum"), (1024 + 5, "entries have a wrong checksum")]
)
def test_a_damaged_table_is_refused(at: int, words: str) -> None:
    head = bytearray(gpt_head(ROOT))
    head[at] ^= 1
    kind, message = refused(bytes(head))
    assert kind == "image-format"
    assert words in message


def test_mbr_gets_a_fourth_partition_below_2_tib() -> None:
    head = mbr_head((0x83, 2048, 4096), (0x82, 8192, 4096), (0x05, 16384, 4096))
    layout = plan(head, 64 * MIB, drive=5000)
    assert layout.table == "mbr"
    assert layout.backup is None
    assert layout.config_drive == Place(4, 63 * MIB, MIB)
    assert partitions(layout.head, 512)[4] == (63 * MIB, MIB)
    assert layout.head[:494] == head[:494]
    big = plan(head, 5 << 40, drive=5000)
    assert big.config_drive is not None
    assert big.config_drive.offset_bytes + MIB == 2 << 40


@given(st.binary(max_size=3000), st.sampled_from([512, 4096]), st.booleans())
def test_any_head_gives_a_plan_or_a_named_problem(data: bytes, sector: int, signed: bool) -> None:
    head = data[:510].ljust(510, b"\0") + b"\x55\xaa" + data[510:] if signed else data
    target = Target(GIB, sector)
    try:
        layout = plan_layout(head, target, config_drive_bytes=9, new_guid=GUID)
    except JobFailed:
        return
    place = layout.config_drive
    assert place is not None
    assert HEAD_BYTES <= place.offset_bytes <= GIB - place.size_bytes


def test_guids_go_both_ways() -> None:
    assert gpt_table.render_guid(gpt_table.parse_guid(gpt_table.ESP_TYPE)) == gpt_table.ESP_TYPE
    assert gpt_table.parse_guid(gpt_table.ESP_TYPE) == uuid.UUID(gpt_table.ESP_TYPE).bytes_le


def test_labels() -> None:
    iso = bytes(32768) + b"\x01CD001\x01\0" + b" " * 32 + b"config-2".ljust(32) + bytes(9)
    assert read_label(iso) == "config-2"
    assert read_label(bytes(0x2B) + b"CONFIG-2   FAT16   " + bytes(99)) == "CONFIG-2"
    assert read_label(bytes(0x47) + b"CONFIG-2   FAT32   " + bytes(99)) == "CONFIG-2"
    assert read_label(bytes(40000)) == ""
    assert read_label(b"") == ""
