"""A disk (or a plain file in its place): bytes at offsets, flush, zero, discard, re-read."""

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from billet_agent.problems import JobFailed, failure

_BLKRRPART = 0x125F
_BLKSSZGET = 0x1268
_BLKDISCARD = 0x1277
_BLKZEROOUT = 0x127F
_CHUNK = 1 << 20
_REREAD_TRIES = 5
_REREAD_PAUSE_S = 0.2
_CLEAR_BYTES = 1 << 30
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_SYNC_START, _SYNC_WAIT = 2, 1 | 2 | 4
_libc = ctypes.CDLL(None, use_errno=True)
_OFF = ctypes.c_int64
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, _OFF, _OFF)
_libc.sync_file_range.argtypes = (ctypes.c_int, _OFF, _OFF, ctypes.c_uint)

PAGE_BYTES = 4096
"""The unit of direct I/O: no sector is bigger."""

EDGE_BYTES = 1 << 20
"""How much of a disk's start and end holds partition tables and signatures."""


class Disk:
    """An open disk; use as a context manager. All errors are JobFailed disk-write."""

    def __init__(self, path: str) -> None:
        self.path = path
        # For block devices O_EXCL claims the disk: what is mounted or part of a RAID is refused.
        try:
            claim = os.O_EXCL if stat.S_ISBLK(Path(path).stat().st_mode) else 0
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | claim)
        except OSError as error:
            raise failure(
                "disk-write", f"disk {path} cannot be opened: {error.strerror or error}"
            ) from error
        self.is_block = stat.S_ISBLK(os.fstat(self._fd).st_mode)
        self.size_bytes = os.lseek(self._fd, 0, os.SEEK_END)
        self.sector_bytes = self._sector()
        self._direct: int | None = None
        with contextlib.suppress(OSError):  # not every file system knows it
            again = os.O_RDWR | os.O_CLOEXEC | os.O_DIRECT
            self._direct = os.open(f"/proc/self/fd/{self._fd}", again)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._direct is not None:
            os.close(self._direct)
        os.close(self._fd)

    def _sector(self) -> int:
        if not self.is_block:
            return 512
        return int(struct.unpack("i", fcntl.ioctl(self._fd, _BLKSSZGET, bytes(4)))[0])

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data`` at ``offset`` bytes."""
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._fd, view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            raise self._write_failed(offset, error) from error

    def write_direct(self, offset: int, data: memoryview) -> bool:
        """Write whole pages from page-aligned memory past the kernel's; False where it cannot."""
        if self._direct is None:
            return False
        try:
            while data:
                written = os.pwrite(self._direct, data, offset)
                data, offset = data[written:], offset + written
                if written % PAGE_BYTES:
                    self.write(offset, data)
                    break
        except OSError as error:
            raise self._write_failed(offset, error) from error
        return True

    def start_writeback(self, offset: int, length: int) -> None:
        """Have the kernel begin to bring a range to the medium; errors are told by `flush`."""
        _libc.sync_file_range(self._fd, offset, length, _SYNC_START)

    def finish_writeback(self, offset: int, length: int) -> None:
        """Wait until a range is on its way through, and let the kernel forget it.

        sync_file_range(2) gives no promise about the medium's own cache: `flush` does.
        """
        if _libc.sync_file_range(self._fd, offset, length, _SYNC_WAIT) != 0:
            code = ctypes.get_errno()
            if code not in {errno.ESPIPE, errno.ENOSYS}:
                raise self._write_failed(offset, OSError(code, os.strerror(code)))
        with contextlib.suppress(OSError):
            os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_DONTNEED)

    def _write_failed(self, offset: int, error: OSError) -> JobFailed:
        return failure("disk-write", f"writing to {self.path} at byte {offset} failed: {error}")

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset``, from the disk where it can be asked."""
        with contextlib.suppress(OSError):
            os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_DONTNEED)
        parts: list[bytes] = []
        try:
            while length > 0:
                part = os.pread(self._fd, min(length, 4 * _CHUNK), offset)
                if not part:
                    break
                parts.append(part)
                offset, length = offset + len(part), length - len(part)
        except OSError as error:
            raise failure(
                "disk-write", f"reading {self.path} at byte {offset} failed: {error}"
            ) from error
        return b"".join(parts)

    def flush(self) -> None:
        """Return when all that was written is on the medium."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise failure("disk-write", f"flushing {self.path} failed: {error}") from error

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros, by the kernel's own command where there is one."""
        length = min(length, self.size_bytes - offset)
        if length <= 0:
            return
        if self.is_block:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._fd, _BLKZEROOUT, struct.pack("QQ", offset, length))
                return
        zeros = bytes(min(length, _CHUNK))
        while length > 0:
            self.write(offset, zeros[:length])
            offset, length = offset + _CHUNK, length - _CHUNK

    def clear(self, offset: int, length: int, check: Callable[[], None] = lambda: None) -> bool:
        """Make a range read as zeros by the disk's own quick command; False where it has none.

        Punching a hole is the one command that never falls back to writing (fallocate(2); for
        block devices blkdev_fallocate with NOFALLBACK). ``check`` is called now and then.
        """
        sector = self.sector_bytes
        end = min(-(-(offset + length) // sector) * sector, self.size_bytes)
        while offset < end:
            check()
            part = min(end - offset, _CLEAR_BYTES)
            if _libc.fallocate(self._fd, _PUNCH_HOLE | _KEEP_SIZE, offset, part) != 0:
                return False
            offset += part
        return True

    def wipe_edges(self) -> None:
        """Zero the first and last MiB (both GPTs, RAID and file system signatures) and flush."""
        self.zero(0, EDGE_BYTES)
        self.zero(max(0, self.size_bytes - EDGE_BYTES), EDGE_BYTES)
        self.flush()

    def discard(self) -> bool:
        """Tell a thin or flash disk that its content is not needed; False where it cannot."""
        if not self.is_block:
            return False
        try:
            fcntl.ioctl(self._fd, _BLKDISCARD, struct.pack("QQ", 0, self.size_bytes))
        except OSError:
            return False
        return True

    def reread_table(self) -> bool:
        """Ask the kernel to read the partition table; False when it cannot (busy, plain file).

        While udev looks at a partition the kernel answers EBUSY, so it is asked some times.
        """
        for _ in range(_REREAD_TRIES if self.is_block else 0):
            try:
                fcntl.ioctl(self._fd, _BLKRRPART)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    return False
                time.sleep(_REREAD_PAUSE_S)
            else:
                return True
        return False
