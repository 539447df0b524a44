"""Pieces of a disk image on their way to the disk: unpacked and written by a few threads.

The caller's thread only collects pieces into batches; how much may be under way is bounded.
"""

import mmap
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from billet_agent.disk import Disk
from billet_agent.image.inflate import Inflate
from billet_agent.image.through import Through
from billet_agent.plan.layout import HEAD_BYTES
from billet_agent.plan.qcow2_decoder import Piece

MIB = 1 << 20
BATCH_BYTES = MIB
BATCH_PIECES = 512
ZEROS_BYTES = 64 * MIB

_ZEROS = bytes(256 * 1024)


class Edges:
    """The first and the last MiB of the image's disk: kept in memory, written last."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.head = bytearray(min(HEAD_BYTES, size_bytes))
        self.tail_offset = max(len(self.head), size_bytes - HEAD_BYTES)
        self.tail = bytearray(size_bytes - self.tail_offset)

    def take(self, guest: int, data: memoryview) -> tuple[int, memoryview]:
        """Keep what belongs to an edge; return place and bytes of what does not."""
        head, end = len(self.head), guest + len(data)
        if guest < head:
            count = min(head, end) - guest
            self.head[guest : guest + count] = data[:count]
            guest, data = guest + count, data[count:]
        if end > self.tail_offset:
            start = max(guest, self.tail_offset)
            self.tail[start - self.tail_offset : end - self.tail_offset] = data[start - guest :]
            data = data[: start - guest]
        return guest, data


class Writer:
    """Writes pieces, each byte given once, in any order; use from one thread.

    ``edges`` are kept back (None: nothing is). ``is_clear`` tells that the disk reads as zeros
    wherever nothing is written. Raises JobFailed disk-write, BadCluster, at any later call.
    """

    def __init__(
        self,
        disk: Disk,
        edges: Edges | None,
        inflate: Inflate | None,
        cluster_bytes: int = 0,
        *,
        is_clear: bool,
        threads: int = 0,
    ) -> None:
        self._disk, self._edges, self._inflate = disk, edges, inflate
        self._cluster_bytes = cluster_bytes
        self.is_clear = is_clear
        threads = threads or 2 * (os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(threads, "billet-write")
        self._most = 2 * threads + 2
        self._slots = threading.BoundedSemaphore(self._most)
        self._batch: list[Piece] = []
        self._batch_bytes = 0
        self._error: BaseException | None = None
        self._through = Through(disk)
        self._own = threading.local()

    def put(self, piece: Piece) -> None:
        """Take a piece; waits while too much is under way."""
        if piece.data is None:
            self._put_zeros(piece.guest, piece.length)
            return
        self._batch.append(piece)
        self._batch_bytes += piece.length
        if self._batch_bytes >= BATCH_BYTES or len(self._batch) >= BATCH_PIECES:
            self._submit()

    def drain(self) -> None:
        """Return when all that was put is written (not yet: on the medium)."""
        self._submit()
        for _ in range(self._most):
            self._slots.acquire()
        self._slots.release(self._most)
        self._raise()

    def close(self) -> None:
        """Stop; what is not written yet is dropped."""
        self._error = self._error or RuntimeError("the writer was closed")
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._batch.clear()

    def _put_zeros(self, guest: int, length: int) -> None:
        edges = self._edges
        if edges is not None:  # they are made of zeros
            end = min(guest + length, edges.tail_offset)
            guest = max(guest, len(edges.head))
            length = end - guest
        while length > 0 and not self.is_clear:
            part = min(length, ZEROS_BYTES)
            self._start(lambda guest=guest, part=part: self._disk.zero(guest, part))  # type: ignore[misc]
            guest, length = guest + part, length - part

    def _submit(self) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        if batch:
            self._start(lambda: self._write(batch))

    def _start(self, work: Callable[[], None]) -> None:
        self._raise()
        self._slots.acquire()
        try:
            self._pool.submit(self._run, work)
        except BaseException:
            self._slots.release()
            raise

    def _run(self, work: Callable[[], None]) -> None:
        try:
            if self._error is None:
                work()
        except BaseException as error:  # noqa: BLE001 - told to the caller's thread
            self._error = self._error or error
        finally:
            self._slots.release()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _write(self, batch: list[Piece]) -> None:
        """Write a batch, neighbours in one go."""
        room = self._buffer()
        start = length = 0
        # Several writers made the image: neighbours are near in the file, but in no order.
        for piece in sorted(batch, key=lambda piece: piece.guest):
            guest, data = self._unpack(piece)
            if self._edges is not None:
                guest, data = self._edges.take(guest, data)
            if not data or (self.is_clear and _is_zero(data)):
                continue
            while data:
                if guest != start + length or length == len(room):
                    self._through.write(start, room[:length])
                    start, length = guest, 0
                count = min(len(data), len(room) - length)
                room[length : length + count] = data[:count]
                guest, length, data = guest + count, length + count, data[count:]
        self._through.write(start, room[:length])

    def _buffer(self) -> memoryview:
        """Return this thread's memory, aligned to a page."""
        found: memoryview | None = getattr(self._own, "buffer", None)
        if found is None:
            found = self._own.buffer = memoryview(mmap.mmap(-1, BATCH_BYTES))
        return found

    def _unpack(self, piece: Piece) -> tuple[int, memoryview]:
        data = piece.data
        if piece.packed:
            assert self._inflate is not None
            assert data is not None
            data = self._inflate(bytes(data), self._cluster_bytes)
        return piece.guest, memoryview(data or b"")[: piece.length]


def _is_zero(data: memoryview) -> bool:
    if data[0] or data[-1] or len(data) > len(_ZEROS):
        return False
    return data.tobytes() == _ZEROS[: len(data)]
