"""Where an image's bytes go while they arrive; here: those that hold a file until it is whole."""

import os
from collections.abc import Callable
from typing import Protocol

from billet_agent.disk import Disk
from billet_agent.image.hashing import HashThread
from billet_agent.image.stream import RawStream
from billet_agent.image.unpack import KINDS, PackedStream
from billet_agent.plan.formats import Inspected, detect_format, inspect_image
from billet_agent.plan.qcow2_decoder import BLOCK_BYTES
from billet_agent.problems import failure, show_bytes

MIB = 1 << 20
RESERVE_BYTES = 192 * MIB
"""Memory that stays free for the agent and qemu-img while an image is held."""

_CHECK_EVERY = 32 * MIB
_FLUSH_EVERY = 128 * MIB


class Store(Protocol):
    """Takes the image's bytes in order."""

    def write(self, data: bytes) -> None:
        """Take the next bytes."""

    def end(self) -> None:
        """Learn that all has come."""

    def close(self) -> None:
        """Free what is held."""


class MemoryStore:
    """An anonymous file in memory: no mount limits it, and it goes with the process."""

    def __init__(
        self, total_bytes: int | None, available: Callable[[], int], url: str = "image"
    ) -> None:
        self._available = available
        self._url = url
        self._room(total_bytes or 0)
        self._fd = os.memfd_create("billet-image", os.MFD_CLOEXEC)
        self._size = 0
        self._checked = 0

    @property
    def path(self) -> str:
        """Return a path under which other processes of this user can open the bytes."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    @property
    def size_bytes(self) -> int:
        """Return how many bytes are held."""
        return self._size

    def start(self, length: int) -> bytes:
        """Return the first bytes."""
        return os.pread(self._fd, length, 0)

    def write(self, data: bytes | memoryview) -> None:
        """Append; raises JobFailed image-memory before the machine runs out of memory."""
        if self._size + len(data) > self._checked:
            self._room(_CHECK_EVERY)
            self._checked = self._size + _CHECK_EVERY
        view = memoryview(data)
        while view:
            written = os.write(self._fd, view)
            view, self._size = view[written:], self._size + written

    def end(self) -> None:
        """Nothing is left to be done."""

    def close(self) -> None:
        """Free the memory."""
        os.close(self._fd)

    def _room(self, needed: int) -> None:
        free = self._available()
        if needed + RESERVE_BYTES > free:
            raise failure(
                "image-memory",
                f"{self._url} does not fit in memory: {show_bytes(needed)} and "
                f"{show_bytes(RESERVE_BYTES)} reserve are needed, {show_bytes(free)} are free",
            )


class DiskStore:
    """An image file held at the end of the disk it is for, where memory is too small for it.

    Between the disk inside the image and the last MiB there must be room for the file; it is
    overwritten by what comes there later. `room` tells whether there is.
    """

    def __init__(self, disk: Disk, virtual_bytes: int, total_bytes: int) -> None:
        self._disk = disk
        self._total = total_bytes
        self._size = 0
        self._flushed = 0
        self.offset = self._place(disk, total_bytes)
        if self.offset < virtual_bytes:
            raise ValueError("there is no room behind the image's disk")

    @staticmethod
    def room(disk: Disk, virtual_bytes: int, total_bytes: int) -> bool:
        """Tell whether a file of an announced size fits behind the image's disk."""
        return DiskStore._place(disk, total_bytes) >= virtual_bytes

    @staticmethod
    def _place(disk: Disk, total_bytes: int) -> int:
        return (disk.size_bytes - MIB - total_bytes) // MIB * MIB

    @property
    def path(self) -> str:
        """Return the disk's path; the file starts at ``offset`` bytes in it."""
        return self._disk.path

    @property
    def size_bytes(self) -> int:
        """Return how many bytes are held."""
        return self._size

    def start(self, length: int) -> bytes:
        """Return the first bytes."""
        return self._disk.read(self.offset, min(length, self._size))

    def write(self, data: bytes | memoryview) -> None:
        """Append; raises JobFailed image-fetch when more comes than was announced."""
        if self._size + len(data) > self._total:
            raise failure("image-fetch", f"more came than the announced {self._total} bytes")
        self._disk.write(self.offset + self._size, data)
        self._size += len(data)
        if self._size - self._flushed > _FLUSH_EVERY:
            self._disk.flush()
            self._flushed = self._size

    def end(self) -> None:
        """Nothing is left to be done."""

    def close(self) -> None:
        """Take away the file's header, so that nothing mistakes it for an image."""
        if self._size:
            self._disk.zero(self.offset, min(self._size, MIB))
            self._size = 0


def fits_in_memory(total_bytes: int | None, available_bytes: int) -> bool:
    """Tell whether `MemoryStore` would take a file of that size now."""
    return (total_bytes or 0) + RESERVE_BYTES <= available_bytes


class ImageReceiver:
    """The sink of an image: hashes every byte, looks at the first ones, then fills a store."""

    def __init__(
        self,
        url: str,
        declared: str | None,
        algorithm: str,
        open_store: Callable[[Inspected, int | None], Store],
    ) -> None:
        self._url = url
        self._declared = declared
        self._algorithm = algorithm
        self._open_store = open_store
        self._hash: HashThread | None = None
        self._block = bytearray()
        self._total: int | None = None
        self.store: Store | None = None
        self.inspected: Inspected | None = None

    def begin(self, total_bytes: int | None) -> None:
        """Start, or start over: digest and store begin anew."""
        self.close()
        self._hash = HashThread(self._algorithm)
        self._total = total_bytes

    def write(self, data: memoryview) -> None:
        """Take the next bytes; raises JobFailed image-format, image-unsafe and the store's."""
        while data:
            part = data[: BLOCK_BYTES - len(self._block)]
            self._block += part
            data = data[len(part) :]
            if len(self._block) == BLOCK_BYTES:
                self._hand_on()

    def finish(self) -> str:
        """Return the digest (lower-case hex) when all bytes came and the store has them."""
        self._hand_on()
        if self.store is not None:
            self.store.end()
        if self._hash is None:
            raise TypeError("an image that was fetched has begun")
        return self._hash.finish()

    def close(self) -> None:
        """Free the store."""
        if self._hash is not None:
            self._hash.close()
        if self.store is not None:
            self.store.close()
        self._block.clear()
        self._hash, self.store, self.inspected = None, None, None

    def _hand_on(self) -> None:
        block = bytes(self._block)
        self._block.clear()
        if self._hash is not None:
            self._hash.update(block)
        if self.store is None:
            self.store = self._open(block)
        self.store.write(block)

    def _open(self, block: bytes) -> Store:
        """Decide by the first block, which is more than `inspect_image` looks at."""
        kind = detect_format(block)
        if kind in KINDS and self._declared in {None, "raw"}:
            return PackedStream(kind, self._url, self._open_raw)
        self.inspected = inspect_image(block, self._declared, self._url, self._total)
        return self._open_store(self.inspected, self._total)

    def _open_raw(self, start: bytes) -> RawStream:
        inspected = inspect_image(start, None, f"inside {self._url}")
        store = self._open_store(inspected, None) if inspected.format == "raw" else None
        if not isinstance(store, RawStream):
            raise failure(
                "image-format",
                f"image {self._url} is a compressed {inspected.format}; only raw images may be "
                "compressed as a whole",
                advice="Give the image as it is inside: qcow2 has a compression of its own "
                "(qemu-img convert -c).",
            )
        return store
