"""What the machine's own screen and serial line show: one plain line for every change."""

import time
from collections.abc import Callable

from billet_agent.problems import show_bytes
from billet_wire import JobReport, Progress

_EVERY_S = 5.0
_BAR = 20


def print_line(line: str) -> None:
    """Write a line to standard output, which the unit leads to journal and console."""
    print(line, flush=True)  # noqa: T201 - the one place that prints


class Console:
    """Lines for people; equal ones in a row and progress faster than every 5 s are left out."""

    def __init__(
        self,
        write: Callable[[str], None] = print_line,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._clock = clock
        self._last = ""
        self._step = ""
        self._shown_at = 0.0
        self._host = ""

    def welcomed(self, host: str) -> None:
        """Learn the host's name, shown with every line from now on."""
        self._host = host

    def line(self, text: str) -> None:
        """Show one line."""
        if text == self._last:
            return
        self._last = text
        where = f" {self._host}" if self._host else ""
        for part in text.splitlines():
            self._write(f"billet{where}: {printable(part)}")

    def report(self, report: JobReport) -> None:
        """Show a job's new state; progress only at a new step or every 5 s."""
        if report.state == "running" and report.progress is not None:
            self._progress(report.kind, report.progress)
            return
        self._step = ""
        if report.problem is not None:
            problem = report.problem
            self.line(f"{report.kind} failed, {problem.problem}: {problem.message}")
            if problem.advice:
                self.line(f"  what to do: {problem.advice}")
        else:
            self.line(f"{report.kind} {report.state}")

    def _progress(self, kind: str, progress: Progress) -> None:
        now = self._clock()
        step = f"{kind} {progress.step} {progress.message}"
        if step != self._step and progress.done_bytes is None:
            self._step, self._shown_at = step, now
            self.line(f"{kind}: {progress.step} {progress.message}".rstrip())
        elif progress.done_bytes is not None and now - self._shown_at >= _EVERY_S:
            self._shown_at = now
            self.line(f"{kind}: {render_progress(progress)}")


def render_progress(progress: Progress) -> str:
    """Return a step with bar, percent, bytes, rate and seconds left, as far as they are known."""
    words = [progress.step]
    if progress.percent is not None:
        done = round(_BAR * progress.percent / 100)
        words.append(f"[{'#' * done}{'.' * (_BAR - done)}] {progress.percent:.0f} %")
    if progress.done_bytes is not None:
        total = f" of {_short(progress.total_bytes)}" if progress.total_bytes else ""
        words.append(f"{_short(progress.done_bytes)}{total}")
    if progress.rate_bytes_s is not None and progress.rate_bytes_s < 1:
        words.append("stands still")
    elif progress.rate_bytes_s is not None:
        words.append(f"{_short(int(progress.rate_bytes_s))}/s")
    if progress.eta_s is not None:
        words.append(f"{_span(progress.eta_s)} left")
    return " ".join(words)


def _span(seconds: float) -> str:
    """Return a time of which only the order matters."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def printable(text: str) -> str:
    """Return the text without control characters: what comes from outside may hold any."""
    return "".join(char if char.isprintable() else "?" for char in text.replace("\t", " "))


def _short(count: int) -> str:
    return show_bytes(count).partition(" (")[0]
