"""qcow2 L1 and L2 tables: from table bytes to where each guest byte is in the file.

QEMU docs/interop/qcow2.txt, "Cluster mapping" and "Extended L2 entries".
"""

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

from billet_agent.plan.qcow2 import SECTOR, Header, Unsafe

SLICE_ROWS = 8192
"""An L2 table is read in slices that give at most so many rows at once, to stay small."""

SUBCLUSTERS = 32
_COMPRESSED = 1 << 62
_ZERO = 1
_OFFSET = 0x00FF_FFFF_FFFF_FE00
_LOW32 = (1 << 32) - 1


class Refused(Exception):
    """The image contradicts itself or reaches outside; ``unsafe`` says how."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.unsafe = Unsafe(reason, damaged=True)


class Kind(IntEnum):
    """What a row's bytes in the file are."""

    DATA = 0
    PACKED = 1
    L2 = 2
    L1 = 3


class Row(NamedTuple):
    """``length`` bytes of the file at ``host`` belong to guest bytes from ``guest`` on.

    A PACKED row's length is what its compressed bytes take in the file, at most.
    """

    host: int
    guest: int
    length: int
    kind: Kind


class Zeros(NamedTuple):
    """Guest bytes that read as zeros."""

    guest: int
    length: int


class Rows:
    """Rows by ascending place in the file, three words each; taken from the front."""

    __slots__ = ("_at", "_words")

    def __init__(self, rows: Iterable[Row]) -> None:
        self._words = array("Q")
        self._at = 0
        for row in sorted(rows):
            self._words.extend((row.host, row.guest, row.length << 2 | row.kind))

    def __len__(self) -> int:
        return (len(self._words) - self._at) // 3

    def __iter__(self) -> Iterator[Row]:
        for at in range(self._at, len(self._words), 3):
            host, guest, packed = self._words[at : at + 3]
            yield Row(host, guest, packed >> 2, Kind(packed & 3))

    @property
    def first(self) -> Row:
        """Return the row in front."""
        host, guest, packed = self._words[self._at : self._at + 3]
        return Row(host, guest, packed >> 2, Kind(packed & 3))

    def drop(self) -> None:
        """Take the row in front away."""
        self._at += 3


class Places:
    """Where the active tables and the header lie: no cluster may be there."""

    def __init__(self, header: Header) -> None:
        self._cluster = header.cluster_bytes
        self._l1 = (header.l1_offset, header.l1_offset + header.l1_needed * 8)
        self._l2: Sequence[int] = array("Q")

    def add_l2(self, rows: Sequence[Row]) -> None:
        """Learn all L2 tables; raises Refused when two are one, or one is on the L1 table."""
        places = array("Q", sorted(row.host for row in rows))
        for place, following in pairwise(places):
            if place == following:
                raise Refused(f"two L1 entries share the L2 table at byte {place}")
        for place in places:
            self.check(place, self._cluster, "an L2 table")
        self._l2 = places

    def check(self, host: int, length: int, what: str) -> None:
        """Raise Refused when bytes of the file overlap header or tables."""
        end = host + length
        if host < self._cluster:
            raise Refused(f"{what} is where its header is")
        if host < self._l1[1] and end > self._l1[0]:
            raise Refused(f"{what} at byte {host} overlaps the L1 table")
        at = bisect_left(self._l2, end)
        if at and self._l2[at - 1] + self._cluster > host:
            raise Refused(f"{what} at byte {host} overlaps an L2 table")


def read_l1(data: bytes, header: Header) -> tuple[list[Row], list[Zeros]]:
    """Return a row for each L2 table, and the guest bytes of those that are not there."""
    span = header.cluster_bytes * header.l2_entries
    rows: list[Row] = []
    runs = _Runs(header.virtual_bytes)
    for index, entry in enumerate(struct.unpack(f">{header.l1_needed}Q", data)):
        host = entry & _OFFSET
        if not host:
            runs.zero(index * span, span)
            continue
        if host % header.cluster_bytes:
            raise Refused(f"L1 entry {index} is not aligned to a cluster ({entry:#x})")
        rows.append(Row(host, index * span, header.cluster_bytes, Kind.L2))
    return rows, runs.zeros


def read_l2(data: bytes, guest: int, header: Header) -> tuple[list[Row], list[Zeros]]:
    """Return what a slice of an L2 table maps, from guest byte ``guest`` on."""
    cluster, runs = header.cluster_bytes, _Runs(header.virtual_bytes)
    words = struct.unpack(f">{len(data) // 8}Q", data)
    width = 2 if header.extended_l2 else 1
    count = min(len(words) // width, -(-(header.virtual_bytes - guest) // cluster))
    if not any(words):
        runs.zero(guest, count * cluster)
        return runs.rows, runs.zeros
    for index in range(count):
        entry, at = words[index * width], guest + index * cluster
        if entry & _COMPRESSED:
            if width == 2 and words[index * 2 + 1]:
                raise Refused(f"the compressed cluster of guest byte {at} has subclusters")
            runs.rows.append(_packed(entry, at, cluster))
            continue
        host = entry & _OFFSET
        if host % cluster:
            raise Refused(f"the cluster of guest byte {at} is not aligned ({entry:#x})")
        if width == 2:
            _subclusters(runs, Row(host, at, cluster, Kind.DATA), words[index * 2 + 1])
        elif entry & _ZERO and header.version == 2:
            raise Refused(f"the zero cluster of guest byte {at} is impossible in version 2")
        elif host and not entry & _ZERO:
            runs.data(host, at, cluster)
        else:
            runs.zero(at, cluster)
    return runs.rows, runs.zeros


def _packed(entry: int, guest: int, cluster: int) -> Row:
    """Read a compressed cluster's descriptor."""
    shift = 62 - (cluster.bit_length() - 1 - 8)
    host = entry & ((1 << shift) - 1)
    sectors = (entry >> shift & ((1 << (62 - shift)) - 1)) + 1
    return Row(host, guest, sectors * SECTOR - host % SECTOR, Kind.PACKED)


def _subclusters(runs: "_Runs", row: Row, bitmap: int) -> None:
    """Read an extended entry: 32 bits "allocated", 32 bits "reads as zeros"."""
    allocated, zero = bitmap & _LOW32, bitmap >> 32
    if allocated & zero or (allocated and not row.host):
        raise Refused(f"the subclusters of guest byte {row.guest} contradict themselves")
    if allocated == _LOW32:
        runs.data(row.host, row.guest, row.length)
        return
    if not allocated:
        runs.zero(row.guest, row.length)
        return
    size = row.length // SUBCLUSTERS
    for index in range(SUBCLUSTERS):
        if allocated >> index & 1:
            runs.data(row.host + index * size, row.guest + index * size, size)
        else:
            runs.zero(row.guest + index * size, size)


class _Runs:
    """Joins neighbours; cuts what is behind the disk's end."""

    def __init__(self, virtual_bytes: int) -> None:
        self._virtual = virtual_bytes
        self.rows: list[Row] = []
        self.zeros: list[Zeros] = []

    def zero(self, guest: int, length: int) -> None:
        length = min(length, self._virtual - guest)
        if length <= 0:
            return
        if self.zeros and sum(self.zeros[-1]) == guest:
            start, before = self.zeros.pop()
            guest, length = start, before + length
        self.zeros.append(Zeros(guest, length))

    def data(self, host: int, guest: int, length: int) -> None:
        length = min(length, self._virtual - guest)
        if length <= 0:
            return
        last = self.rows[-1] if self.rows else None
        if (
            last is not None
            and last.kind is Kind.DATA
            and last.host + last.length == host
            and last.guest + last.length == guest
        ):
            self.rows[-1] = last._replace(length=last.length + length)
        else:
            self.rows.append(Row(host, guest, length, Kind.DATA))
