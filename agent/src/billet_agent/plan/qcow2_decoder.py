"""A qcow2 file decoded while its bytes arrive in order, in bounded memory.

The file is looked at in blocks. What a known L2 table maps is handed on when its block comes. As
long as a table is still to come, the last blocks are retained, since it may map what they hold;
of a block that must go a digest stays. What was needed after all is asked for again by byte
range (`Decoder.missing`) and has to be what it was before, so nothing unhashed gets in.
"""

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from billet_agent.plan.qcow2 import Header
from billet_agent.plan.qcow2_map import (
    SLICE_ROWS,
    SUBCLUSTERS,
    Kind,
    Places,
    Refused,
    Row,
    Rows,
    Zeros,
    read_l1,
    read_l2,
)

BLOCK_BYTES = 256 * 1024
RETAIN_BYTES = 16 << 20
MAP_ROWS = 1 << 20
"""So many rows (24 bytes each) may wait for their bytes; a map that needs more is not streamed."""

L1_BYTES = 1 << 20
_TABLE_ROWS = 16
_AGAIN_BYTES = 4 << 20
_DIGEST_BYTES = 16
_SMALL_BYTES = 64 * 1024


class Unsupported(Exception):
    """Nothing is wrong with the image, but it cannot be decoded in one pass."""


class Changed(Exception):
    """Bytes that were fetched again are not those of the first time."""


class Piece(NamedTuple):
    """``length`` guest bytes at ``guest``: ``data`` as it is or ``packed``, zeros where None.

    What is packed unpacks to a whole cluster, of which the first ``length`` bytes count.
    """

    guest: int
    length: int
    data: bytes | memoryview | None = None
    packed: bool = False


class Decoder:
    """Takes a file's bytes in order, gives the disk's in any order, each byte exactly once.

    Every iterator that a method returns has to be used up before the next call. Raises Refused
    (damaged or hostile), Unsupported, Changed.
    """

    def __init__(
        self,
        header: Header,
        file_bytes: int | None = None,
        *,
        retain_bytes: int = RETAIN_BYTES,
        map_rows: int = MAP_ROWS,
    ) -> None:
        if header.l1_needed * 8 > L1_BYTES:
            raise Unsupported(f"its L1 table has {header.l1_needed} entries")
        self._header = header
        self._file_bytes = file_bytes
        self._map_rows = map_rows
        self._places = Places(header)
        self._window = _Window(retain_bytes, header)
        self._partial = bytearray()
        self._now: list[tuple[int, int, Rows]] = []
        self._late: list[Rows] = []
        self._waiting = self._serial = 0
        self._tables = 1
        self._asked = (0, 0)
        self._push([Row(header.l1_offset, 0, header.l1_needed * 8, Kind.L1)])

    @property
    def retained_bytes(self) -> int:
        """Return how much of the file is held."""
        return self._window.size_bytes + len(self._partial)

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Take the next bytes of the file, any number."""
        if not self._partial and len(data) == BLOCK_BYTES:
            yield from self._block(data)
            return
        self._partial += data
        while len(self._partial) >= BLOCK_BYTES:
            block = bytes(memoryview(self._partial)[:BLOCK_BYTES])
            del self._partial[:BLOCK_BYTES]
            yield from self._block(block)

    def finish(self) -> Iterator[Piece]:
        """Learn that the file ends here."""
        if self._partial:
            block = bytes(self._partial)
            self._partial.clear()
            yield from self._block(block)
        self._file_bytes = self._window.end
        for rows in (*self._late, *(entry[2] for entry in self._now)):
            for row in rows:
                self._inside(row)
        yield from self._take()

    def missing(self) -> tuple[int, int] | None:
        """After `finish`: the range (start, end) to give to `feed_again`, or None: all is done."""
        if self._file_bytes is None:
            raise ValueError("the file has not ended yet")
        if not self._now:
            late, self._late = self._late, []
            self._now = [(rows.first.host, number, rows) for number, rows in enumerate(late)]
            self._serial = len(late)
            heapq.heapify(self._now)
        if not self._now:
            return None
        row = self._now[0][2].first
        start = min(row.host, self._file_bytes - 1) // BLOCK_BYTES * BLOCK_BYTES
        needed = row.host + (1 if row.kind is Kind.DATA else row.length)
        end = -(-max(needed, start + _AGAIN_BYTES) // BLOCK_BYTES) * BLOCK_BYTES
        self._asked = start, min(end, self._file_bytes)
        self._window.check_known(start, min(needed, self._file_bytes))
        return self._asked

    def feed_again(self, start: int, data: bytes) -> Iterator[Piece]:
        """Take the bytes of the range that `missing` asked for."""
        if (start, start + len(data)) != self._asked:
            raise Changed(f"{len(data)} bytes came instead of {self._asked[1] - start}")
        self._window.again(start, data)
        yield from self._take()

    def _block(self, block: bytes) -> Iterator[Piece]:
        self._window.append(block)
        yield from self._take()
        keep_from = self._now[0][0] if self._now else self._window.end
        self._window.trim(keep_from, retain=self._tables > 0)

    def _take(self) -> Iterator[Piece]:
        """Hand on all that is in the window."""
        window, total = self._window, self._file_bytes
        while self._now and (self._now[0][0] < window.end or window.end == total):
            rows = self._now[0][2]
            row = rows.first
            ends = row.host + row.length <= window.end or window.end == total
            if not ends and row.kind is not Kind.DATA:
                return
            have = max(0, min(row.length, window.end - row.host))
            window.cover(row.host, have, exact=row.kind is not Kind.PACKED)
            self._drop(rows)
            if not ends:
                rest = row._replace(host=row.host + have, guest=row.guest + have)
                self._add([rest._replace(length=row.length - have)])
            yield from self._hand_on(row, have, ends=ends)

    def _hand_on(self, row: Row, have: int, *, ends: bool) -> Iterator[Piece]:
        window = self._window
        if row.kind is Kind.DATA:
            guest = row.guest
            for part in window.parts(row.host, have):
                yield Piece(guest, len(part), part)
                guest += len(part)
            if ends and have < row.length:
                yield Piece(guest, row.length - have)
        elif row.kind is Kind.PACKED:
            length = min(self._header.cluster_bytes, self._header.virtual_bytes - row.guest)
            yield Piece(row.guest, length, window.gather(row.host, have), packed=True)
        elif have < row.length:
            raise Refused(f"its {row.kind.name} table at byte {row.host} is cut by the file's end")
        elif row.kind is Kind.L1:
            yield from self._learn_l1(window.gather(row.host, have))
        else:
            yield from self._learn_l2(row)

    def _learn_l1(self, data: bytes) -> Iterator[Piece]:
        rows, zeros = read_l1(data, self._header)
        self._places.add_l2(rows)
        self._tables += len(rows) - 1
        self._push(rows)
        yield from _zeros(zeros)

    def _learn_l2(self, table: Row) -> Iterator[Piece]:
        data, header = self._window.gather(table.host, table.length), self._header
        entries = SLICE_ROWS // SUBCLUSTERS if header.extended_l2 else SLICE_ROWS
        step = entries * (16 if header.extended_l2 else 8)
        guest = table.guest
        for at in range(0, len(data), step):
            if guest >= header.virtual_bytes:
                break
            rows, zeros = read_l2(data[at : at + step], guest, header)
            for row in rows:
                self._places.check(row.host, row.length, f"the cluster of guest byte {row.guest}")
            self._push(rows)
            yield from _zeros(zeros)
            guest += entries * header.cluster_bytes
        self._tables -= 1

    def _push(self, rows: list[Row]) -> None:
        for row in rows:
            self._inside(row)
        low = self._window.low
        here = [row for row in rows if row.host >= low]
        late = [row for row in rows if row.host < low]
        if here:
            self._add(here)
        if late:
            self._late.append(Rows(late))
            self._waiting += len(late) + _TABLE_ROWS
        if self._waiting > self._map_rows:
            raise Unsupported(f"more than {self._map_rows} pieces of it wait for their place")

    def _inside(self, row: Row) -> None:
        if self._file_bytes is None:
            return
        # qemu-img reads zeros behind the end of a last cluster that is cut: so do we.
        cluster = self._header.cluster_bytes
        first = row.host
        if row.kind is Kind.DATA:
            first = (row.host + row.length - 1) // cluster * cluster
        if first >= self._file_bytes:
            what = "data" if row.kind in {Kind.DATA, Kind.PACKED} else f"{row.kind.name} table"
            raise Refused(f"its {what} at byte {row.host} is beyond the end of the file")

    def _add(self, rows: list[Row]) -> None:
        packed = Rows(rows)
        self._serial += 1
        self._waiting += len(rows) + _TABLE_ROWS
        heapq.heappush(self._now, (packed.first.host, self._serial, packed))

    def _drop(self, rows: Rows) -> None:
        """Take away the front row of the table on top of the heap."""
        rows.drop()
        self._waiting -= 1
        if rows:
            heapq.heapreplace(self._now, (rows.first.host, self._now[0][1], rows))
        else:
            heapq.heappop(self._now)
            self._waiting -= _TABLE_ROWS


def _zeros(zeros: Iterable[Zeros]) -> Iterator[Piece]:
    for guest, length in zeros:
        yield Piece(guest, length)


class _Window:
    """The blocks of the file that are held, without a gap, and digests of those that were."""

    def __init__(self, retain_bytes: int, header: Header) -> None:
        # A compressed cluster takes at most two clusters of the file, a table one.
        self._retain = max(retain_bytes, 2 * header.cluster_bytes + 2 * BLOCK_BYTES)
        self._blocks: dict[int, bytes] = {}
        self._digests = bytearray()
        self._known = bytearray()
        self._holes: set[int] = set()
        self._covered = self._surely = 0
        self.low = self.end = self.size_bytes = 0

    def append(self, block: bytes) -> None:
        self._blocks[self.end // BLOCK_BYTES] = block
        self.end += len(block)
        self.size_bytes += len(block)

    def cover(self, host: int, length: int, *, exact: bool) -> None:
        """Note that somebody had these bytes; what nobody had may be asked for later.

        A compressed cluster's size is in sectors: its last one may be the next one's first.
        """
        if host < self._surely:
            return
        if host > self._covered:
            first = max(self._surely, self.low) // BLOCK_BYTES
            self._holes.update(range(first, -(-host // BLOCK_BYTES)))
        self._covered = max(self._covered, host + length)
        self._surely = max(self._surely, self._covered if exact else self._covered - 512)

    def trim(self, keep_from: int, *, retain: bool) -> None:
        """Let blocks before ``keep_from`` go: all, or with ``retain`` those that are too much."""
        while self._blocks and (not retain or self.size_bytes > self._retain):
            number = self.low // BLOCK_BYTES
            block = self._blocks[number]
            end = self.low + len(block)
            if end > keep_from:
                return
            hole = number in self._holes or self._surely < end
            self._holes.discard(number)
            del self._blocks[number]
            self.size_bytes -= len(block)
            self.low = end
            if retain:
                self._note(number, block if hole else None)

    def _note(self, number: int, block: bytes | None) -> None:
        missing = number - len(self._known)
        self._known += bytes(missing) + bytes([block is not None])
        digest = bytes(_DIGEST_BYTES) if block is None else _digest(block)
        self._digests += bytes(missing * _DIGEST_BYTES) + digest

    def check_known(self, start: int, end: int) -> None:
        """Raise Unsupported when bytes would be fetched again that nothing can prove."""
        for number in range(start // BLOCK_BYTES, -(-end // BLOCK_BYTES)):
            held = number in self._blocks
            if not held and not (number < len(self._known) and self._known[number]):
                raise Unsupported("clusters of it share bytes of the file")

    def again(self, start: int, data: bytes) -> None:
        """Hold these blocks instead of all others, as far as they can be proved."""
        for number, block in self._blocks.items():
            if number >= len(self._known):
                self._note(number, block)
        self._blocks = {}
        self.low = self.end = start
        self.size_bytes = 0
        for at in range(0, len(data), BLOCK_BYTES):
            block = data[at : at + BLOCK_BYTES]
            number = (start + at) // BLOCK_BYTES
            if not (number < len(self._known) and self._known[number]):
                return
            noted = self._digests[number * _DIGEST_BYTES : (number + 1) * _DIGEST_BYTES]
            if noted != _digest(block):
                raise Changed(f"bytes from {start + at} on are not those of the first time")
            self.append(block)

    def parts(self, host: int, length: int) -> Iterator[bytes | memoryview]:
        """Yield bytes block by block, without a copy where that holds little for long."""
        while length > 0:
            number, at = divmod(host, BLOCK_BYTES)
            part = memoryview(self._blocks[number])[at : at + length]
            yield part if len(part) >= _SMALL_BYTES else bytes(part)
            host, length = host + len(part), length - len(part)

    def gather(self, host: int, length: int) -> bytes:
        """Return bytes in one piece."""
        return b"".join(self.parts(host, length))


def _digest(block: bytes) -> bytes:
    return hashlib.blake2b(block, digest_size=_DIGEST_BYTES).digest()
