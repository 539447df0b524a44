"""Hostile and odd qcow2 images, each with its verdict; where we take one, qemu-img agrees."""

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd

from qcow2_rig import (
    COMPRESSED,
    COPIED,
    KIB,
    MIB,
    Handmade,
    deflate,
    oracle,
    packed_entry,
    verdict,
)

CLUSTER = 64 * KIB
DATA = random.Random(3).randbytes(500) * 132
DATA = DATA[:CLUSTER]
SAME = "same"
Change = Callable[[Handmade], None]


def put(**fields: object) -> Change:
    def change(made: Handmade) -> None:
        for name, value in fields.items():
            assert hasattr(made, name)
            setattr(made, name, value)

    return change


def l1(entries: dict[int, int], size: int | None = None) -> Change:
    def change(made: Handmade) -> None:
        made.l1 = entries
        made.l1_size = size or made.l1_size

    return change


def l2(entries: dict[int, int]) -> Change:
    def change(made: Handmade) -> None:
        made.l2 = {**made.l2, **entries}

    return change


def packed(data: bytes, *, at: int = 4 * CLUSTER, length: int | None = None, **more: int) -> Change:
    """Put compressed bytes at ``at`` and let guest cluster 1 be there."""

    def change(made: Handmade) -> None:
        made.raw = {at: data, 5 * CLUSTER: made.raw[5 * CLUSTER]}
        made.l2 = {1: packed_entry(at, length or len(data)), 2: made.l2[2]}
        for name, value in more.items():
            setattr(made, name, value)

    return change


def extended(*entries: tuple[int, int, int, int], bits: int = 16) -> Change:
    """Make it an image with extended L2 entries: (index, entry, allocated, zero)."""

    def change(made: Handmade) -> None:
        made.incompatible |= 16
        made.l2 = {}
        for index, entry, allocated, zero in entries:
            made.l2[2 * index] = entry
            made.l2[2 * index + 1] = zero << 32 | allocated

    return change


def extension(kind: int, data: bytes) -> Change:
    return put(extension=struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8))


ZSTD = {"incompatible": 8, "kind": 1, "header_length": 112}
ALL = (1 << 32) - 1
FOUR, FIVE = 4 * CLUSTER, 5 * CLUSTER

CORPUS: list[tuple[str, Change, str]] = [
    # The header.
    ("as it should be", put(), SAME),
    ("version 2", put(version=2), SAME),
    ("version 1", put(version=1), "version 1"),
    ("version 4", put(version=4), "version 4"),
    ("version 2^31", put(version=1 << 31), "version 2147483648"),
    ("a backing file", put(backing=200, backing_len=9, extension=b"\0" * 96 + b"/etc/pass"),
     "backing file (/etc/pass)"),
    ("a backing file without a name", put(backing=200), "backing file"),
    ("a backing name without a place", put(backing_len=4), "backing file"),
    ("an external data file", put(incompatible=4), "external data file"),
    ("a data file's name", extension(0x44415441, b"/dev/sda"), "external data file (/dev/sda)"),
    ("an unknown extension", extension(0x12345678, b"whatever"), SAME),
    ("an extension of 4 GiB", put(extension=struct.pack(">II", 0x12345678, ALL)), "same or none"),
    ("an unknown feature", put(incompatible=32), "unknown incompatible features (0x20)"),
    ("every feature", put(incompatible=(1 << 64) - 1), "external data file"),
    ("marked dirty", put(incompatible=1), SAME),
    ("marked corrupt", put(incompatible=2), "marked corrupt"),
    ("AES", put(crypt=1), "encrypted (method 1)"),
    ("LUKS", put(crypt=2), "encrypted (method 2)"),
    ("clusters of 256 bytes", put(bits=8), "cluster size of 2^8"),
    ("clusters of 4 MiB", put(bits=22), "cluster size of 2^22"),
    ("clusters of 2^64 bytes", put(bits=64), "cluster size of 2^64"),
    ("no size", put(size=0), "no size"),
    ("half a sector", put(size=4 * MIB + 256), "not in sectors"),
    ("a size of 2^63", put(size=1 << 63), "L1 table has 1 entries"),
    ("all but 512 bytes of 2^64", put(size=(1 << 64) - 512), "L1 table has 1 entries"),
    ("no L1 table", put(l1_size=0), "L1 table has 0 entries, 1 are needed"),
    ("an L1 table off by one", put(l1_at=2 * CLUSTER + 1), "L1 table is not aligned"),
    ("an L1 table in the header", put(l1_at=0, l1={}), "L1 table is where its header is"),
    ("an L1 table behind the end", put(l1_at=99 * CLUSTER), "L1 table is beyond the end"),
    ("an L1 table at 2^63", put(l1_at=1 << 63), "L1 table is beyond the end"),
    ("a refcount table off by 512", put(refcounts_at=CLUSTER + 512), "refcount table is not"),
    ("a refcount table in the header", put(refcounts_at=0), "refcount table is where"),
    ("a refcount table behind the end", put(refcounts_at=1 << 40), "refcount table is beyond"),
    ("refcounts of 2^31 bits", put(refcount_order=31), "refcounts have 2^31 bits"),
    ("a header of 96 bytes", put(header_length=96), "header length 96"),
    ("a header of 2^32 bytes", put(header_length=ALL), "header length 4294967295"),
    ("a million snapshots", put(snapshots=1 << 20, snapshots_at=FIVE), "1048576 snapshots"),
    ("snapshots behind the end", put(snapshots=1, snapshots_at=1 << 50), "snapshot table is beyo"),
    ("zstd without its bit", put(kind=1, header_length=112), "contradicts its feature bits"),
    ("the bit without zstd", put(incompatible=8, header_length=112), "contradicts its feature"),
    ("compression type 7", put(kind=7, incompatible=8, header_length=112), "compression type 7"),
    ("extended entries, clusters of 4 KiB", put(incompatible=16, bits=12), "too small for extend"),
    ("the header alone", put(length=104), "beyond the end"),
    ("half a header", put(length=60), "no qcow2 header"),
    ("a version 3 header of 100 bytes", put(length=100), "header is cut"),
    # The L1 table.
    ("nothing in the L1 table", l1({}), SAME),
    ("an L2 table off by 512", l1({0: COPIED | (3 * CLUSTER + 512)}), "L1 entry 0 is not aligned"),
    ("an L2 table behind the end", l1({0: COPIED | 6 * CLUSTER}), "L2 table at byte 393216 is"),
    ("an L2 table at 2^55", l1({0: COPIED | 1 << 55}), "beyond the end"),
    ("the header as L2 table", l1({0: COPIED}), SAME),
    ("the L1 table as L2 table", l1({0: COPIED | 2 * CLUSTER}), "overlaps the L1 table"),
    ("an L2 table without its flag", l1({0: 3 * CLUSTER}), SAME),
    ("reserved bits in the L1 entry", l1({0: 3 * CLUSTER | 0x1FF | 0x7F << 56}), SAME),
    ("an L2 table for two", lambda made: (Handmade.__init__(made, bits=12), l1(
        {0: COPIED | 3 << 12, 1: COPIED | 3 << 12}, 2)(made), None)[-1], "share the L2"),
    ("an L1 entry too many", l1({0: COPIED | 3 * CLUSTER, 1: COPIED | 1 << 50}, 2), SAME),
    ("an L2 table cut by the end", put(length=3 * CLUSTER + 512), "cut by the file's end"),
    # L2 tables.
    ("a cluster off by 512", l2({1: FOUR + 512}), "guest byte 65536 is not aligned"),
    ("a cluster behind the end", l2({1: COPIED | 6 * CLUSTER}), "beyond the end"),
    ("a cluster at 2^55", l2({1: COPIED | 1 << 55}), "beyond the end"),
    ("the header as a cluster", l2({1: COPIED}), SAME),
    ("the L1 table as a cluster", l2({1: 2 * CLUSTER}), "overlaps the L1 table"),
    ("the L2 table as a cluster", l2({1: 3 * CLUSTER}), "overlaps an L2 table"),
    ("the refcounts as a cluster", l2({1: CLUSTER}), SAME),
    ("one cluster for two", l2({1: FOUR}), SAME),
    ("clusters in the other order", l2({0: FIVE, 2: FOUR}), SAME),
    ("reserved bits in the L2 entry", l2({1: FOUR | 0x1FE | 0x3F << 56}), SAME),
    ("a zero cluster", l2({1: 1}), SAME),
    ("a zero cluster that has its place", l2({1: COPIED | FOUR | 1}), SAME),
    ("a zero cluster off by 512", l2({1: FOUR + 512 | 1}), "is not aligned"),
    ("a zero cluster in version 2", lambda made: (put(version=2)(made), l2({1: 1})(made),
                                                  None)[-1], "impossible in version 2"),
    ("a cluster behind the disk's end", l2({64: COPIED | 1 << 50, 70: FOUR + 512}), SAME),
    ("the last cluster is half", put(size=2 * CLUSTER + 512), SAME),
    ("the file's end cuts the last cluster", put(length=5 * CLUSTER + 512), SAME),
    # Compressed clusters.
    ("a compressed cluster", packed(deflate(DATA)), SAME),
    ("a compressed cluster not on a sector", packed(deflate(DATA), at=FOUR + 333), SAME),
    ("the same in version 2", packed(deflate(DATA), version=2), SAME),
    ("with its flag set", lambda made: (packed(deflate(DATA))(made), l2(
        {1: COPIED | made.l2[1]})(made), None)[-1], SAME),
    ("zstd", packed(zstd.compress(DATA), **ZSTD), SAME),
    ("zeros, compressed", packed(deflate(bytes(CLUSTER))), SAME),
    ("it expands to 8 MiB", packed(deflate(bytes(8 * MIB))), SAME),
    ("zstd that expands to 8 MiB", packed(zstd.compress(bytes(8 * MIB)), **ZSTD), "cluster:"),
    ("half a cluster", packed(deflate(DATA[: CLUSTER // 2])), "cluster:"),
    ("zstd of half a cluster", packed(zstd.compress(DATA[:1000]), **ZSTD), "cluster:"),
    ("noise instead of deflate", packed(random.Random(1).randbytes(4000)), "cluster:"),
    ("noise instead of zstd", packed(random.Random(1).randbytes(4000), **ZSTD), "cluster:"),
    ("zlib's header", packed(b"\x78\x9c" + deflate(DATA)), "cluster:"),
    ("zstd that wants 1 GiB of memory", packed(
        b"\x28\xb5\x2f\xfd\x00" + bytes([20 << 3]) + b"\x01\0\0" + bytes(400), **ZSTD), "cluster:"),
    ("compressed bytes cut short", packed(deflate(DATA), length=300), "cluster:"),
    ("compressed bytes behind the end", l2({1: COMPRESSED | 7 * CLUSTER}), "beyond the end"),
    ("compressed bytes in the header", l2({1: COMPRESSED | 512}), "where its header is"),
    ("compressed bytes in the L2 table", l2({1: packed_entry(3 * CLUSTER + 8, 512)}), "overlaps a"),
    ("compressed bytes into the L2 table", l2({1: packed_entry(3 * CLUSTER - 8, 512)}), "overlaps"),
    ("two megabytes for one cluster", packed(deflate(DATA), length=120 * KIB), SAME),
    ("the file's end cuts the last sector", lambda made: (packed(deflate(DATA), at=FOUR)(made),
     made.l2.pop(2), put(length=FOUR + len(deflate(DATA)))(made), None)[-1], SAME),
    # Extended L2 entries.
    ("extended entries", extended((0, COPIED | FOUR, ALL, 0), (2, COPIED | FIVE, ALL, 0)), SAME),
    ("some subclusters", extended((0, COPIED | FOUR, 0xF0F0_0001, 0), (2, FIVE, 1 << 31, 1)), SAME),
    ("subclusters of zeros", extended((0, COPIED | FOUR, 0xFF, 0xFF00), (1, 0, 0, ALL)), SAME),
    ("a place and no subcluster", extended((0, COPIED | FOUR, 0, 0)), SAME),
    ("subclusters of two minds", extended((0, COPIED | FOUR, 0xFF, 0x80)), "contradict themselves"),
    ("subclusters without a place", extended((0, 0, 0xFF, 0)), "contradict themselves"),
    ("extended and off by 512", extended((1, FOUR + 512, ALL, 0)), "is not aligned"),
    ("a compressed cluster with subclusters", extended((0, packed_entry(FOUR, 900), 1, 0)),
     "has subclusters"),
    ("extended and behind the end", extended((1, 6 * CLUSTER, 1, 0)), "beyond the end"),
]  # fmt: skip


def test_the_corpus_is_as_big_as_promised() -> None:
    names = [name for name, _, _ in CORPUS]
    assert len(names) == len(set(names)) >= 60


@pytest.mark.parametrize(("change", "wanted"), [
    pytest.param(change, wanted, id=name) for name, change, wanted in CORPUS
])  # fmt: skip
def test_corpus(tmp_path: Path, change: Change, wanted: str) -> None:
    made = Handmade()
    change(made)
    file = made.build()
    found = verdict(file)
    for options in ({"retain_bytes": 0}, {"announced": False}, {"chunk": lambda: 777}):
        other = verdict(file, **options)
        assert type(other) is type(found), (found, other)
        assert isinstance(found, str) or found == other
    path = tmp_path / "odd.qcow2"
    path.write_bytes(file)
    if isinstance(found, bytes):
        assert wanted in {SAME, "same or none"}
        expected = oracle(path)
        assert expected is None or found == expected, "qemu-img sees something else"
        assert expected is not None or wanted == "same or none"
    else:
        assert wanted in found or wanted == "same or none", found
