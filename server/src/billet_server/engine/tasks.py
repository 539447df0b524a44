"""Eternal tasks under guard: the one place of the engine that catches every exception.

`app` starts each background task through `guarded`, so that one that ends or raises is logged
and started again instead of silently missing or taking the process down.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from billet_server.ports import Clock

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0


async def guarded(
    name: str,
    coro_fn: Callable[[], Awaitable[object]],
    log: logging.Logger,
    clock: Clock,
    *,
    on_failure: Callable[[str, Exception | None], None] | None = None,
) -> None:
    """Run ``coro_fn()`` for ever; when it ends or raises, log that and start it again.

    The pause before a restart doubles from 1 s to 60 s and starts over once the task has run
    for longer than the longest pause. ``on_failure`` gets the name and the exception (None:
    it returned), for metrics. Cancelling ends it.
    """
    pause_s = FIRST_PAUSE_S
    while True:
        started = clock.monotonic()
        failure: Exception | None = None
        try:
            await coro_fn()
            log.error("task %s ended though it should run for ever", name)
        except Exception as exc:
            failure = exc
            log.exception("task %s failed", name)
        if on_failure is not None:
            on_failure(name, failure)
        if clock.monotonic() - started > LONGEST_PAUSE_S:
            pause_s = FIRST_PAUSE_S
        log.warning("task %s starts again in %.0f s", name, pause_s)
        await clock.sleep(pause_s)
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
