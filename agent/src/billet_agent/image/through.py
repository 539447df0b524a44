"""Writing past the kernel's memory: a slow disk is never hidden, and old bytes push nothing out.

Whole pages go to the device by direct I/O. What is less than a page, and everything where the
device or file system does not know direct I/O, is written as usual, sent on at once, and waited for
when too much is on its way. A page is never written both ways, so neither undoes the other.
"""

import threading
from collections import deque

from billet_agent.disk import PAGE_BYTES, Disk

WINDOW_BYTES = 24 << 20


class Through:
    """Writes on one disk, from several threads. Raises JobFailed disk-write."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._sent: deque[tuple[int, int]] = deque()
        self._sent_bytes = 0
        self._lock = threading.Lock()

    def write(self, offset: int, data: memoryview) -> None:
        """Write ``data``, the start of an anonymous mmap, at ``offset`` bytes."""
        count = 0
        if offset % PAGE_BYTES == 0:
            count = len(data) // PAGE_BYTES * PAGE_BYTES
            if count and not self._disk.write_direct(offset, data[:count]):
                count = 0
        if count < len(data):
            self._send(offset + count, data[count:])

    def _send(self, offset: int, data: memoryview) -> None:
        self._disk.write(offset, data)
        self._disk.start_writeback(offset, len(data))
        oldest: list[tuple[int, int]] = []
        with self._lock:
            self._sent.append((offset, len(data)))
            self._sent_bytes += len(data)
            while self._sent_bytes > WINDOW_BYTES:
                oldest.append(self._sent.popleft())
                self._sent_bytes -= oldest[-1][1]
        for place in oldest:
            self._disk.finish_writeback(*place)
