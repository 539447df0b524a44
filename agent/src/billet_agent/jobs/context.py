"""What a running job is given: progress to report to, cancellation to look at, durations."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from billet_agent.plan.pace import Pace
from billet_agent.problems import JobCancelled
from billet_wire import Progress

Clock = Callable[[], float]
_EVERY_S = 0.25


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
        self._step = self._message = self._timed = ""
        self._total: int | None = None
        self._noted_at = clock()
        self._pace = Pace(self._noted_at)

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
        self._timed = name
        self.begin(name, message)
        try:
            yield
        finally:
            self.seconds[self._timed] = round(self._clock() - start, 3)

    def become(self, name: str, message: str) -> None:
        """Give the step that runs another name, now that it is known what it does."""
        self._timed = self._step = name
        self._message = message
        self._publish(Progress(step=name, message=message, total_bytes=self._total))

    def begin(self, name: str, message: str = "") -> None:
        """Publish that a step starts."""
        self._step, self._message = name, message
        self._total, self._noted_at = None, self._clock()
        self._pace = Pace(self._noted_at)
        self._publish(Progress(step=name, message=message))

    def expect(self, total_bytes: int | None) -> None:
        """Tell how many bytes the step will move; from now on the rate is measured."""
        self._total = total_bytes
        self._pace = Pace(self._clock())

    def advance(self, done_bytes: int) -> None:
        """Tell how many bytes the step has moved so far; also now and then while none move."""
        now = self._clock()
        if now - self._noted_at < _EVERY_S and done_bytes != self._total:
            return
        self._noted_at = now
        self._pace.note(done_bytes, now)
        self._publish(self._progress(done_bytes))

    def _progress(self, done: int) -> Progress:
        total = self._total
        return Progress(
            step=self._step,
            message=self._message,
            percent=round(min(100.0, 100 * done / total), 1) if total else None,
            done_bytes=done,
            total_bytes=total,
            rate_bytes_s=self._pace.rate_s,
            eta_s=self._pace.eta_s(total),
        )
