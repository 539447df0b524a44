"""Virtual time: a `ports.Clock` that moves only when a test says so.

Chosen over a patched event loop because the wall clock and the monotonic clock then move
together and real sockets in the same test keep working.
"""

import asyncio
import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_SETTLE_ROUNDS = 50  # loop passes: enough for a wake-up to travel through queue and tasks


class ManualClock:
    """`ports.Clock` in virtual time; sleepers wake in the order of their times."""

    def __init__(self, start: datetime = _EPOCH) -> None:
        self._start = start
        self._elapsed_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now(self) -> datetime:
        """Return the virtual wall clock, aware, UTC."""
        return self._start + timedelta(seconds=self._elapsed_s)

    def monotonic(self) -> float:
        """Return virtual seconds since the start."""
        return self._elapsed_s

    async def sleep(self, seconds: float) -> None:
        """Wait in virtual time; zero or less only lets other tasks run."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._elapsed_s + seconds, self._count, waiter))
        await waiter

    @property
    def sleepers(self) -> int:
        """How many sleeps are pending."""
        return sum(not waiter.done() for _, _, waiter in self._sleepers)

    async def settle(self) -> None:
        """Let every task run until it waits for time or for the outside."""
        for _ in range(_SETTLE_ROUNDS):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        """Move time, waking each sleeper at its own moment and letting it run on."""
        target = self._elapsed_s + seconds
        await self.settle()
        while (due := self._next_due()) is not None and due <= target:
            await self._wake_next()
        self._elapsed_s = max(self._elapsed_s, target)
        await self.settle()

    async def run_until(self, condition: Callable[[], bool], *, limit_s: float = 3600.0) -> None:
        """Jump from sleeper to sleeper until ``condition`` holds.

        Raises TimeoutError when it does not hold within ``limit_s`` virtual seconds or when
        nothing is left to wake.
        """
        end = self._elapsed_s + limit_s
        await self.settle()
        while not condition():
            due = self._next_due()
            if due is None or due > end:
                raise TimeoutError(f"condition does not hold after {limit_s} virtual seconds")
            await self._wake_next()

    def _next_due(self) -> float | None:
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    async def _wake_next(self) -> None:
        due, _, waiter = heapq.heappop(self._sleepers)
        self._elapsed_s = max(self._elapsed_s, due)
        waiter.set_result(None)
        await self.settle()
