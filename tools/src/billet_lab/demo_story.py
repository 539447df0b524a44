"""What the demo tells: a timeline of states and steps, and its machine-readable summary."""

import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

PLAIN_INTERVAL_S = 10.0
"""Without a terminal, signs of life come at most this often."""

_MIB = 1 << 20
_COLUMN = re.compile(r"(?:^|(?<=\s{2}))\S")


class View(NamedTuple):
    """What of a host is told: its state, its step, how far that is, what it waits for."""

    state: str = ""
    step: str = ""
    message: str = ""
    figures: str = ""
    percent: float | None = None
    waiting: str = ""
    error: str = ""


def read_view(host: dict[str, Any]) -> View:
    """Return what is told of a BareMetalHost, from its status alone."""
    status = host.get("status") or {}
    progress = status.get("progress") or {}
    return View(
        state=(status.get("provisioning") or {}).get("state", ""),
        step=progress.get("step", ""),
        message=progress.get("message", ""),
        figures=render_figures(progress),
        percent=progress.get("percent"),
        waiting=(status.get("waiting") or {}).get("message", ""),
        error=status.get("errorMessage", ""),
    )


def render_figures(progress: dict[str, Any]) -> str:
    """Return ``45 %, 53 of 118 MiB, 12 MiB/s, 5 s left`` as far as it is known."""
    done, total = progress.get("doneBytes"), progress.get("totalBytes")
    rate, left = progress.get("rateBytesPerSecond"), progress.get("etaSeconds")
    parts = []
    if progress.get("percent") is not None:
        parts.append(f"{progress['percent']:.0f} %")
    if done is not None and total:
        parts.append(f"{done / _MIB:.0f} of {total / _MIB:.0f} MiB")
    if rate:
        parts.append(f"{rate / _MIB:.0f} MiB/s")
    if left is not None:
        parts.append(f"{left} s left")
    return ", ".join(parts)


def fit_table(text: str, width: int) -> str:
    """Return kubectl's table with narrower gaps where only that makes it fit the width."""
    lines = text.rstrip().splitlines()
    if max(map(len, lines), default=0) <= width:
        return text
    starts = [match.start() for match in _COLUMN.finditer(lines[0])]
    ends = [*starts[1:], None]
    rows = [[line[a:b].rstrip() for a, b in zip(starts, ends, strict=True)] for line in lines]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [
        "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(padded) if max(map(len, padded)) <= width else text


class Ledger:
    """How long each phase took, and each step in it, in the order in which they came. Seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._phase, self._step = "", ""
        self._phase_at = self._step_at = self.began = clock()
        self._ended_at: float | None = None
        self.phases: dict[str, float] = {}
        self.steps: dict[tuple[str, str], float] = {}

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning, or in all once it has ended."""
        return (self._clock() if self._ended_at is None else self._ended_at) - self.began

    def enter(self, phase: str, step: str = "") -> None:
        """From now on it is this phase and step; what ran until now is booked."""
        now = self._clock()
        if (phase, step) != (self._phase, self._step):
            if self._step:
                key = (self._phase, self._step)
                self.steps[key] = self.steps.get(key, 0.0) + now - self._step_at
            self._step, self._step_at = step, now
        if phase != self._phase:
            if self._phase:
                self.phases[self._phase] = self.phases.get(self._phase, 0.0) + now - self._phase_at
            self._phase, self._phase_at = phase, now

    def end(self) -> None:
        """Book what runs; time does not count any more. May be repeated."""
        self.enter("")
        if self._ended_at is None:
            self._ended_at = self._clock()

    def seconds(self) -> dict[str, float]:
        """Rounded seconds by phase, and ``total``."""
        found = {name: round(value, 1) for name, value in self.phases.items()}
        return found | {"total": round(self.elapsed_s, 1)}

    def step_seconds(self) -> dict[str, float]:
        """Rounded seconds by ``phase/step``."""
        return {f"{phase}/{step}": round(value, 1) for (phase, step), value in self.steps.items()}

    def table(self) -> Table:
        """Phases with their steps below them, for people."""
        table = Table("WHAT", "SECONDS", box=None, pad_edge=False)
        table.columns[1].justify = "right"
        for phase, value in self.phases.items():
            table.add_row(f"[bold]{phase}[/bold]", f"[bold]{value:.1f}[/bold]")
            for (owner, step), spent in self.steps.items():
                if owner == phase and spent >= 0.05:
                    table.add_row(f"  {step}", f"{spent:.1f}")
        table.add_row("[bold]total[/bold]", f"[bold]{self.elapsed_s:.1f}[/bold]")
        return table


class Timeline:
    """Prints each change once; between them one live line on a terminal, else a line now and then.

    Use as a context manager: the live line goes when it is left.
    """

    def __init__(self, console: Console, ledger: Ledger) -> None:
        self._console, self._ledger = console, ledger
        self._last = View()
        self._said_at = 0.0
        self._live: Progress | None = None
        if console.is_terminal:
            self._live = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(24),
                TextColumn("{task.fields[figures]}", markup=False),
                TimeElapsedColumn(),
                console=console,
                transient=True,
            )
            self._task = self._live.add_task("", total=None, figures="")

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print one line with the time; rich markup."""
        self._said_at = self._ledger.elapsed_s
        self._console.print(f"[dim]{self._said_at:7.1f}s[/dim]  {text}", highlight=False)

    def see(self, host: dict[str, Any]) -> bool:
        """Take in an object; True when its provisioning state is another than before."""
        view, last = read_view(host), self._last
        self._last = view
        self._ledger.enter(view.state or "registering", view.step)
        if (view.state, view.step, view.error) != (last.state, last.step, last.error):
            self._tell(view)
            self.restart()
        self.breathe(view.message if view.step else view.waiting, view.figures, view.percent)
        return view.state != last.state

    def breathe(
        self, text: str, figures: str = "", percent: float | None = None, label: str = ""
    ) -> None:
        """Show that something is going on: the live line, or without one a line now and then."""
        label = label or " · ".join(word for word in (self._last.state, self._last.step) if word)
        if self._live is not None:
            width = max(20, self._console.width - 62 - len(label))
            short = text if len(text) <= width else text[: width - 1] + "…"
            self._live.update(
                self._task,
                description=f"{label}: {short}" if short else label,
                figures=figures,
                total=None if percent is None else 100,
                completed=percent or 0,
            )
        elif self._ledger.elapsed_s - self._said_at >= PLAIN_INTERVAL_S:
            self.say(f"  {label}: {escape(figures or text)}")

    def restart(self) -> None:
        """Something new begins: the live line's own clock starts over."""
        if self._live is not None:
            self._live.reset(self._task, total=None, description="", figures="")

    def _tell(self, view: View) -> None:
        text = f"[bold]{view.state or '(new)'}[/bold]"
        if view.step:
            text += escape(f" · {view.step}: {view.message}" if view.message else f" · {view.step}")
        if view.error:
            text += f" [red]{escape(view.error)}[/red]"
        self.say(text)


class Result(msgspec.Struct):
    """``build/demo/result.json``. Times are seconds, sizes bytes.

    ``seconds`` by phase: start, the states, first boot, total. ``steps`` by ``phase/step``.
    ``error`` is empty when the demo reached its end.
    """

    state: str = ""
    userdata_token_seen: bool = False
    firmware: str = ""
    bmc: str = ""
    accel: str = ""
    seconds: dict[str, float] = {}
    steps: dict[str, float] = {}
    image_bytes: int = 0
    ramdisk_bytes: int = 0
    agent_first_call_s: list[float] = []
    server_rss_mib: dict[str, float] = {}
    versions: dict[str, str] = {}
    error: str = ""
