"""What waits to be sent: the latest report of each job, and log lines, oldest dropped first."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

from billet_wire import AgentMessage, JobReport, Log

MOST_LINES = 500
MOST_CHARS = 4000

Level = Literal["debug", "info", "warning", "error"]


def uptime_s() -> float:
    """Return the seconds since kernel start."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Outbox:
    """Messages between connections; `add_log` may be called from any thread."""

    def __init__(self, uptime: Callable[[], float] = uptime_s) -> None:
        self._uptime = uptime
        self._reports: dict[str, JobReport] = {}
        self._lines: deque[Log] = deque(maxlen=MOST_LINES)
        self._states: dict[str, str] = {}
        self._dropped = 0
        self.urgent = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._reports or self._lines)

    def add_report(self, report: JobReport) -> None:
        """Keep a report; a change of state is urgent, progress waits for its second."""
        self._reports[report.id] = report
        if report.state != "running" or self._states.get(report.id) != report.state:
            self.urgent.set()
        self._states[report.id] = report.state
        while len(self._states) > MOST_LINES:
            del self._states[next(iter(self._states))]

    def add_log(self, level: Level, message: str) -> None:
        """Keep a line."""
        if len(self._lines) == MOST_LINES:
            self._dropped += 1
        self._lines.append(Log(level, message[:MOST_CHARS], self._uptime()))

    def drop_reports(self) -> None:
        """Forget waiting reports: the next `Hello` tells them all."""
        self._reports.clear()

    def take(self) -> list[AgentMessage]:
        """Return everything that waits, lines first, and forget it."""
        self.urgent.clear()
        messages: list[AgentMessage] = []
        if self._dropped:
            words = f"{self._dropped} log lines were dropped while there was no connection"
            messages.append(Log("warning", words, self._uptime()))
            self._dropped = 0
        while self._lines:
            messages.append(self._lines.popleft())
        messages += self._reports.values()
        self._reports.clear()
        return messages


class OutboxHandler(logging.Handler):
    """Sends log records to the server and to the machine's screen."""

    def __init__(self, outbox: Outbox, show: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._outbox = outbox
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        text = record.getMessage()
        level: Level = "info"
        if record.levelno >= logging.ERROR:
            level = "error"
        elif record.levelno >= logging.WARNING:
            level = "warning"
        self._outbox.add_log(level, text)
        self._show(text)
