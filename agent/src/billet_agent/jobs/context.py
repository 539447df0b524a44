"""What a running job is given: progress to report to, cancellation to look at, durations."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from billet_agent.problems import JobCancelled
from billet_wire import Progress

Clock = Callable[[], float]
_EVERY_S = 0.25
_SMOOTH = 0.3


class JobContext:
    """One job's reporting line; used from the job's thread only, but for `cancel`.

    ``publish`` gets a `Progress` when a step starts and at most every quarter second within it.
    """

    def __init__(
        self,
        publish: Callable[[Progress], None] = lambda _: None,
        log: Callable[[str], None] = lambda _: None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._publish = publish
        self._clock = clock
        self._cancel = threading.Event()
        self.log = log
        self.seconds: dict[str, float] = {}
        self._step = self._message = ""
        self._total: int | None = None
        self._mark = (0.0, 0)
        self._rate: float | None = None

    def cancel(self) -> None:
        """Ask the job to stop; from any thread."""
        self._cancel.set()

    @property
    def cancelled(self) -> bool:
        """Whether the job was asked to stop."""
        return self._cancel.is_set()

    def check(self) -> None:
        """Raise JobCancelled when the job was asked to stop."""
        if self._cancel.is_set():
            raise JobCancelled

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than until the job is cancelled."""
        self._cancel.wait(seconds)
        self.check()

    @contextmanager
    def step(self, name: str, message: str = "") -> Iterator[None]:
        """Run a step: it is published, its duration kept in ``seconds``."""
        self.check()
        start = self._clock()
        self.begin(name, message)
        try:
            yield
        finally:
            self.seconds[name] = round(self._clock() - start, 3)

    def begin(self, name: str, message: str = "") -> None:
        """Publish that a step starts."""
        self._step, self._message = name, message
        self._total, self._rate = None, None
        self._mark = (self._clock(), 0)
        self._publish(Progress(step=name, message=message))

    def expect(self, total_bytes: int | None) -> None:
        """Tell how many bytes the step will move."""
        self._total = total_bytes

    def advance(self, done_bytes: int) -> None:
        """Tell how many bytes the step has moved so far."""
        now = self._clock()
        then, before = self._mark
        finished = done_bytes == self._total
        if now - then < _EVERY_S and not finished:
            return
        if now > then and done_bytes >= before:
            rate = (done_bytes - before) / (now - then)
            old = self._rate
            self._rate = rate if old is None else old + _SMOOTH * (rate - old)
        self._mark = (now, done_bytes)
        self._publish(self._progress(done_bytes))

    def _progress(self, done: int) -> Progress:
        total, rate = self._total, self._rate
        percent = round(min(100.0, 100 * done / total), 1) if total else None
        eta = max(0, total - done) / rate if total and rate else None
        return Progress(
            step=self._step,
            message=self._message,
            percent=percent,
            done_bytes=done,
            total_bytes=total,
            rate_bytes_s=rate,
            eta_s=eta,
        )
