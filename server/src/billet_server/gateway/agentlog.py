"""Agents' log lines: a bounded ring for each host, and a rotating file where one is wanted."""

import logging
import re
from collections import OrderedDict, deque
from pathlib import Path

from billet_server.core.terms import HostKey
from billet_wire import Log

log = logging.getLogger(__name__)

MAX_HOSTS = 20_000
MAX_LINES = 500
MAX_CHARS = 64 * 1024 * 1024
"""Of all rings together: the host that has been silent for longest is forgotten first."""

MAX_LINE_CHARS = 2000
MAX_FILE_BYTES = 1024 * 1024

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")
_UNSAFE = re.compile(r"[^A-Za-z0-9.-]")


def render_line(entry: Log) -> str:
    """Return one printable line: no control characters reach a terminal or split a line."""
    text = _CONTROL.sub(" ", entry.message)
    if len(text) > MAX_LINE_CHARS:
        text = text[:MAX_LINE_CHARS] + " [cut]"
    return f"[{entry.uptime_s:10.3f}] {entry.level}: {text}"


def log_path(folder: Path, host: HostKey) -> Path:
    """Return a host's log file, ``<namespace>_<name>.log``, always inside ``folder``."""
    namespace, name = (_UNSAFE.sub("-", part).strip(".") or "-" for part in host)
    return folder / f"{namespace}_{name}.log"


class AgentLogs:
    """Keeps the latest lines of each host; ``folder`` None writes no files."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._rings: OrderedDict[str, deque[str]] = OrderedDict()
        self._chars = 0

    def add(self, host: HostKey, host_uid: str, entry: Log) -> None:
        """Append one line; a disk that does not take it is reported once in our own log."""
        line = render_line(entry)
        self._keep(host_uid, line)
        if self._folder is None:
            return
        try:
            self._append(log_path(self._folder, host), line)
        except OSError as error:
            log.warning("agent logs are kept in memory only from now on: %s", error)
            self._folder = None

    def lines(self, host_uid: str) -> list[str]:
        """Return the latest lines of a host's agents, oldest first."""
        return list(self._rings.get(host_uid, ()))

    def forget(self, host_uid: str) -> None:
        """Drop a host's lines from memory; its file stays."""
        self._chars -= sum(map(len, self._rings.pop(host_uid, ())))

    def _keep(self, host_uid: str, line: str) -> None:
        ring = self._rings.setdefault(host_uid, deque())
        self._rings.move_to_end(host_uid)
        ring.append(line)
        self._chars += len(line)
        if len(ring) > MAX_LINES:
            self._chars -= len(ring.popleft())
        while len(self._rings) > 1 and (len(self._rings) > MAX_HOSTS or self._chars > MAX_CHARS):
            self.forget(next(iter(self._rings)))

    @staticmethod
    def _append(path: Path, line: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(line + "\n")
            full = file.tell() > MAX_FILE_BYTES
        if full:
            path.replace(path.with_suffix(".log.1"))
