"""The machine's own time behind `ports.Clock`; only `app` builds it, tests use virtual time."""

import asyncio
import time
from datetime import UTC, datetime


class SystemClock:
    """`ports.Clock` on the operating system's clocks and asyncio's timers."""

    def now(self) -> datetime:
        """Return the wall clock, aware, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never go back; usable from any thread."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait; zero or less only lets other tasks run."""
        await asyncio.sleep(seconds)
