"""A digest made in a thread of its own, so that hashing and everything else go on side by side."""

import hashlib
import queue
import threading

_BLOCKS = 16


class HashThread:
    """Takes blocks in order; at most `_BLOCKS` of them wait."""

    def __init__(self, algorithm: str) -> None:
        self._hash = hashlib.new(algorithm)
        self._blocks: queue.Queue[bytes | None] = queue.Queue(_BLOCKS)
        self._thread = threading.Thread(target=self._work, name="billet-hash", daemon=True)
        self._thread.start()

    def update(self, block: bytes) -> None:
        """Take the next bytes; waits while too much is waiting."""
        self._blocks.put(block)

    def finish(self) -> str:
        """Return the digest (lower-case hex) of all that came; ends the thread."""
        self.close()
        return self._hash.hexdigest()

    def close(self) -> None:
        """End the thread; more than once does no harm."""
        if self._thread.is_alive():
            self._blocks.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (block := self._blocks.get()) is not None:
            self._hash.update(block)
