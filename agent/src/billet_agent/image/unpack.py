"""Compressed raw images (gzip, xz, zstd), unpacked while they arrive, so much at a time.

However much a file blows up to, only a part of it is ever in memory, and the disk's size ends it.
"""

import lzma
import sys
from collections.abc import Callable, Iterator
from typing import Protocol, cast

from isal import isal_zlib

from billet_agent.image.stream import RawStream, ReadAgain
from billet_agent.image.writer import Edges
from billet_agent.plan.qcow2_decoder import BLOCK_BYTES
from billet_agent.problems import JobFailed, failure, show_bytes

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

KINDS = ("gzip", "xz", "zstd")
WINDOW_BYTES = 64 << 20
"""xz -9 and zstd --ultra look back so far; what wants more is refused."""

_GZIP = 31  # zlib's wbits for a gzip header
_PADDING = b"\0"
_Errors = (
    lzma.LZMAError,
    zstd.ZstdError,
    cast("type[Exception]", isal_zlib.error),
    EOFError,
)


class BadFile(Exception):
    """The compressed file is damaged or not allowed; the text says why."""


class _Unpack(Protocol):
    """A decompressor of `lzma` and `zstd`; `_Gzip` makes zlib's one alike."""

    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """One gzip member."""

    def __init__(self) -> None:
        self._inner = isal_zlib.decompressobj(wbits=_GZIP)
        self._tail = b""

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof)

    @property
    def needs_input(self) -> bool:
        return not self._tail and not self.eof

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inner.unused_data)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out: bytes = self._inner.decompress(self._tail + data, max_length)
        self._tail = self._inner.unconsumed_tail
        return out


_OPEN: dict[str, Callable[[], object]] = {
    "gzip": _Gzip,
    # The decoder needs little more than its dictionary.
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=WINDOW_BYTES + (4 << 20)),
    "zstd": lambda: zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: WINDOW_BYTES.bit_length() - 1}
    ),
}


class Unpacker:
    """Turns the bytes of a compressed file into those of the file inside."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._open = cast("Callable[[], _Unpack]", _OPEN[kind])
        self._now: _Unpack | None = self._open()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what comes out, at most `BLOCK_BYTES` at a time. Raises BadFile."""
        while True:
            if self._now is None:  # another member may follow, or padding
                data = data.lstrip(_PADDING)
                if not data:
                    return
                self._now = self._open()
            now = self._now
            try:
                out = now.decompress(data, BLOCK_BYTES)
            except _Errors as error:
                raise BadFile(f"it cannot be unpacked as {self._kind}: {error}") from error
            if out:
                yield out
            data = b""
            if now.eof:
                data, self._now = now.unused_data, None
            elif now.needs_input and len(out) < BLOCK_BYTES:
                return

    def end(self) -> None:
        """Learn that the file ends here. Raises BadFile when there should be more."""
        if self._now is not None:
            raise BadFile(f"it ends in the middle of the {self._kind} stream")


class PackedStream:
    """A compressed raw image on its way to the disk.

    ``open_raw(start)`` gets the first bytes of what is inside, and refuses what is no raw image.
    What is damaged is told when the digest is proved, as with `QcowStream`.
    """

    def __init__(self, kind: str, url: str, open_raw: Callable[[bytes], RawStream]) -> None:
        self._kind, self._url, self._open_raw = kind, url, open_raw
        self._unpacker = Unpacker(kind)
        self._start = bytearray()
        self._raw: RawStream | None = None
        self._fault: JobFailed | None = None

    @property
    def edges(self) -> Edges:
        """See `RawStream.edges`."""
        assert self._raw is not None
        return self._raw.edges

    def write(self, data: bytes) -> None:
        """Take the next bytes of the file. Raises JobFailed of `RawStream` and ``open_raw``."""
        if self._fault is not None:
            return
        try:
            for part in self._unpacker.feed(data):
                self._take(part)
        except BadFile as error:
            self._refuse(error)

    def end(self) -> None:
        """Learn that the file ends here."""
        if self._fault is not None:
            return
        try:
            self._unpacker.end()
        except BadFile as error:
            self._refuse(error)
            return
        if self._raw is None:
            self._begin()
        assert self._raw is not None
        self._raw.end()

    def complete(self, read_again: ReadAgain) -> int:
        """Raise what is wrong: the digest is proved now."""
        del read_again
        if self._fault is not None:
            raise self._fault
        return 0

    def close(self) -> None:
        """Stop writing."""
        if self._raw is not None:
            self._raw.close()

    def _take(self, part: bytes) -> None:
        if self._raw is not None:
            self._raw.write(part)
            return
        self._start += part
        if len(self._start) >= BLOCK_BYTES:
            self._begin()

    def _begin(self) -> None:
        self._raw = self._open_raw(bytes(self._start))
        self._raw.write(bytes(self._start))
        self._start.clear()

    def _refuse(self, error: BadFile) -> None:
        self._fault = failure(
            "image-format",
            f"image {self._url} is a damaged or refused {self._kind} file: {error}",
            evidence=f"memory for unpacking is at most {show_bytes(WINDOW_BYTES)}",
        )
