"""Images that are written to the disk while they arrive: raw, and qcow2 decoded in one pass.

The first and the last MiB of the image's disk stay in memory until the digest is proved and all
else is on the medium: what is on the disk before never boots.
"""

from collections.abc import Callable, Iterable

from billet_agent.disk import Disk
from billet_agent.image.inflate import BadCluster, inflater
from billet_agent.image.writer import Edges, Writer
from billet_agent.plan.formats import refusal
from billet_agent.plan.layout import HEAD_BYTES
from billet_agent.plan.qcow2 import Header, Unsafe
from billet_agent.plan.qcow2_decoder import Changed, Decoder, Piece
from billet_agent.plan.qcow2_map import Refused
from billet_agent.problems import JobFailed, failure, show_bytes

MIB = 1 << 20
_WRITE_BYTES = 256 * 1024
_CLEAR_BYTES = 1 << 30

ReadAgain = Callable[[int, int], bytes]
"""Bytes from ``start`` to ``end`` of the file once more. Raises JobFailed, Unsupported."""


def check_size(virtual_bytes: int, disk: Disk, url: str) -> None:
    """Raise JobFailed image-too-large when the image's disk is bigger than ours."""
    if virtual_bytes > disk.size_bytes:
        raise failure(
            "image-too-large",
            f"{url} needs a disk of {show_bytes(virtual_bytes)}, {disk.path} has "
            f"{show_bytes(disk.size_bytes)}",
        )


class QcowStream:
    """A qcow2 image on its way to the disk.

    What is wrong with the image is kept until its digest is known: a file that was damaged on its
    way is told as such. Raises Unsupported when it has to be held whole after all.
    """

    def __init__(
        self, disk: Disk, header: Header, total_bytes: int | None, url: str, *, is_clear: bool
    ) -> None:
        self._url = url
        self._decoder = Decoder(header, total_bytes)
        self.edges = Edges(header.virtual_bytes)
        unpack, cluster = inflater(header.compression), header.cluster_bytes
        self._writer = Writer(disk, self.edges, unpack, cluster, is_clear=is_clear)
        self.fault: JobFailed | None = None

    def write(self, data: bytes) -> None:
        """Take the next bytes of the file. Raises JobFailed disk-write, Unsupported."""
        self._take(lambda: self._decoder.feed(data))

    def end(self) -> None:
        """Learn that the file ends here; its digest is not known yet."""
        self._take(self._decoder.finish)
        self._take(self._drained)

    def complete(self, read_again: ReadAgain) -> int:
        """Write what did not fit the pass; return how many bytes were read again.

        The digest is proved now: raises all that is wrong with the image.
        """
        again_bytes = 0
        while self.fault is None and (place := self._decoder.missing()) is not None:
            start, end = place
            data = read_again(start, end)
            again_bytes += len(data)
            self._take(lambda start=start, data=data: self._decoder.feed_again(start, data))  # type: ignore[misc]
        self._take(self._drained)
        if self.fault is not None:
            raise self.fault
        return again_bytes

    def close(self) -> None:
        """Stop writing."""
        self._writer.close()

    def _drained(self) -> Iterable[Piece]:
        self._writer.drain()
        return ()

    def _take(self, pieces: Callable[[], Iterable[Piece]]) -> None:
        if self.fault is not None:
            return
        try:
            for piece in pieces():
                self._writer.put(piece)
        except Refused as error:
            self.fault = refusal(error.unsafe, "qcow2", self._url)
        except BadCluster as error:
            self.fault = refusal(Unsafe(str(error), damaged=True), "qcow2", self._url)
        except Changed as error:
            self.fault = failure(
                "image-fetch",
                f"{self._url} was fetched twice and is not the same: {error}",
                advice="Do not change a file while it is in use: give new images new names.",
            )


class RawStream:
    """A raw image on its way to the disk, of unknown size until it ends."""

    def __init__(
        self,
        disk: Disk,
        total_bytes: int | None,
        url: str = "image",
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._disk, self._url, self._check = disk, url, check
        self._fits(total_bytes or 0)
        self._cleared = HEAD_BYTES
        self._head = bytearray()
        self._pending = bytearray()
        self._offset = HEAD_BYTES
        self._writer = Writer(disk, None, None, is_clear=True)

    @property
    def edges(self) -> Edges:
        """Return what is still held, when all has come."""
        size = self._offset + len(self._pending) if self._pending else len(self._head)
        edges = Edges(size)
        edges.take(0, memoryview(self._head))
        edges.take(self._offset, memoryview(self._pending))
        return edges

    def write(self, data: bytes) -> None:
        """Take the next bytes; raises JobFailed image-too-large, disk-write."""
        missing = HEAD_BYTES - len(self._head)
        self._head += data[:missing]
        self._pending += data[missing:]
        self._fits(self._offset + len(self._pending))
        while len(self._pending) >= MIB + _WRITE_BYTES:
            self._put(bytes(memoryview(self._pending)[:_WRITE_BYTES]))
            del self._pending[:_WRITE_BYTES]

    def end(self) -> None:
        """Learn that the file ends here. All but the last MiB is written."""
        rest = len(self._pending) - MIB
        if rest > 0:
            self._put(bytes(memoryview(self._pending)[:rest]))
            del self._pending[:rest]
        self._writer.drain()

    def complete(self, read_again: ReadAgain) -> int:
        """Nothing is left to be done."""
        del read_again
        return 0

    def close(self) -> None:
        """Stop writing."""
        self._writer.close()

    def _put(self, data: bytes) -> None:
        self._clear_up_to(self._offset + len(data))
        self._writer.put(Piece(self._offset, len(data), data))
        self._offset += len(data)

    def _clear_up_to(self, end: int) -> None:
        """Keep ahead of the image, so that its zeros need not be written."""
        while self._writer.is_clear and self._cleared < end:
            length = min(_CLEAR_BYTES, self._disk.size_bytes - self._cleared)
            self._writer.is_clear = self._disk.clear(self._cleared, length, self._check)
            self._cleared += length

    def _fits(self, size: int) -> None:
        check_size(size, self._disk, self._url)
