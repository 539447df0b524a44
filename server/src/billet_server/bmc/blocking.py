"""Threads for a library that blocks: bounded, with deadlines, and never in the way of an exit."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class BlockingPool:
    """At most ``threads`` calls at a time; a place is free when its *thread* has ended.

    One daemon thread per call (some 0.1 ms, against milliseconds for any request): unlike
    `concurrent.futures`, whose threads the interpreter waits for when it exits, a request stuck
    in a dead BMC does not hold up the end of the process.
    """

    def __init__(self, threads: int) -> None:
        self._places = asyncio.Semaphore(threads)

    async def run(self, work: Callable[[], T], within_s: float) -> T:
        """Run blocking work in a thread. Raises TimeoutError ``within_s`` after it *began*.

        After that, or when cancelled, the thread goes on until the library's own time-out and
        its outcome is dropped.
        """
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def ended(result: T | None, error: BaseException | None) -> None:
            self._places.release()
            if future.cancelled():
                return
            if error is None:
                future.set_result(result)  # type: ignore[arg-type]
            else:
                future.set_exception(error)

        def body() -> None:
            result: T | None = None
            failed: BaseException | None = None
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - a thread's edge: handed to the caller
                failed = error
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(ended, result, failed)

        threading.Thread(target=body, name="billet-redfish", daemon=True).start()
        async with asyncio.timeout(within_s):
            return await future
