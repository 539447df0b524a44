"""The keyed work queue between informers, timers and reconciling workers.

Level-triggered: a key says "look at this object again", never what happened to it, so a key
that is queued already need not be queued twice. Invariants:

* a key is handed to at most one worker at a time;
* a key added while it is being worked on is queued again when that work is `done`;
* a later moment never replaces an earlier one, and "now" replaces every moment: the run that
  follows decides anew when the next one is due.
"""

import asyncio
import heapq
from collections import deque
from typing import Generic, TypeVar

from billet_server.ports import Clock

K = TypeVar("K")

_SPARE_ENTRIES = 64  # outdated heap entries tolerated before the heap is rebuilt


class WorkQueue(Generic[K]):
    """Keys to look at, now or later. One timer for all; every call is O(log n) or better."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ready: deque[K] = deque()
        self._queued: set[K] = set()  # in _ready, or to be put there when done
        self._busy: set[K] = set()
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._count = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.Task[None] | None = None
        self._timer_due = 0.0

    def __len__(self) -> int:
        """How many keys wait for a worker."""
        return len(self._ready)

    @property
    def busy(self) -> int:
        """How many keys are being worked on."""
        return len(self._busy)

    @property
    def delayed(self) -> int:
        """How many keys have a moment in the future."""
        return len(self._due)

    def add(self, key: K) -> None:
        """Have ``key`` looked at as soon as a worker is free."""
        self._due.pop(key, None)
        if key in self._queued:
            return
        self._queued.add(key)
        if key not in self._busy:
            self._put_ready(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Have ``key`` looked at in ``seconds``, unless it will be looked at sooner."""
        if seconds <= 0:
            self.add(key)
            return
        due = self._clock.monotonic() + seconds
        if key in self._queued or self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, key))
        self._drop_outdated()
        self._arm()

    async def get(self) -> K:
        """Wait for a key and hand it out; the taker must call `done` with it."""
        self._promote()
        while not self._ready:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()  # the wake-up was meant for a key: pass it on
                raise
        key = self._ready.popleft()
        self._queued.discard(key)
        self._busy.add(key)
        return key

    def done(self, key: K) -> None:
        """Say that the work on ``key`` has ended, well or badly."""
        if key not in self._busy:
            raise ValueError(f"{key!r} is not being worked on")
        self._busy.discard(key)
        if key in self._queued:
            self._put_ready(key)

    def abandon(self) -> None:
        """Say that nobody works on anything any more: all workers were cancelled."""
        for key in list(self._busy):
            self.done(key)

    def forget(self, key: K) -> None:
        """Drop the moment set for ``key``.

        A look that is queued already still happens: it may stand for a new object of the
        same name.
        """
        self._due.pop(key, None)

    def close(self) -> None:
        """Stop the timer. Keys can still be added and taken, moments no longer come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _put_ready(self, key: K) -> None:
        self._ready.append(key)
        self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _promote(self) -> None:
        """Queue every key whose moment has come."""
        now = self._clock.monotonic()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                self.add(key)

    def _drop_outdated(self) -> None:
        """Keep the heap in proportion to the keys; amortised O(1)."""
        if len(self._heap) > 2 * len(self._due) + _SPARE_ENTRIES:
            self._heap = [entry for entry in self._heap if self._due.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    def _arm(self) -> None:
        due = self._heap[0][0]
        if self._timer is not None and not self._timer.done() and self._timer_due <= due:
            return
        self.close()
        self._timer_due = due
        self._timer = asyncio.get_running_loop().create_task(self._ring(), name="queue-timer")

    async def _ring(self) -> None:
        while self._heap:
            self._timer_due = self._heap[0][0]
            await self._clock.sleep(self._timer_due - self._clock.monotonic())
            self._promote()
