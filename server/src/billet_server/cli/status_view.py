"""How `billet status` shows hosts: a row each, or everything about one. Pure: time is given."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from billet_server.core.annotations import DETACHED, INSPECT, MOVE, PAUSED, REBOOT, RETRY
from billet_server.core.host import Host, Image

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")
_HEADINGS = ("HOST", "STATE", "POWER", "STEP", "PROGRESS", "FOR", "WAITS FOR / PROBLEM")
_WIDE = ("WANTED", "BMC", "IMAGE", "UNTIL")


def render_table(hosts: Sequence[Host], now: datetime, *, wide: bool = False) -> RenderableType:
    """Return one row for each host."""
    if not hosts:
        return Text("There are no hosts.")
    table = Table(box=None, pad_edge=False)
    headings = (*_HEADINGS[:-1], *(_WIDE if wide else ()), _HEADINGS[-1])
    for heading in headings:
        last = heading == headings[-1]
        # Whatever is short stays whole; a narrow screen breaks the sentence at the end.
        table.add_column(heading, no_wrap=not last, overflow="fold")
    for host in hosts:
        cells = _cells(host, now)
        extra = _wide_cells(host, now) if wide else []
        table.add_row(*(_text(cell) for cell in (*cells[:-1], *extra, cells[-1])))
    return table


def render_details(hosts: Sequence[Host], now: datetime) -> RenderableType:
    """Return everything that is known of each of the hosts."""
    if not hosts:
        return Text("There is no such host.")
    return Group(*(_sheet(host, now) for host in hosts))


def summary_line(host: Host) -> str:
    """Return a line that changes only with state, step, whole percents, power, or words."""
    status, progress = host.status, host.status.progress
    parts = [str(host.key), _state(host), f"power {_power(status.powered_on)}"]
    if progress:
        parts.append(" ".join(filter(None, (progress.step, _percent(progress.percent)))))
    return _clean("  ".join(filter(None, (*parts, _words(host)))))


def _cells(host: Host, now: datetime) -> list[str]:
    status, progress = host.status, host.status.progress
    waiting, problem = status.waiting, status.problem
    since = (
        (problem and problem.since)
        or (progress and progress.started_at)
        or (waiting and waiting.since)
    )
    return [
        str(host.key),
        _state(host),
        _power(status.powered_on),
        progress.step if progress else "",
        _figures(host),
        _age(since, now) if since else "",
        _words(host) + _again(host, now),
    ]


def _wide_cells(host: Host, now: datetime) -> list[str]:
    waiting, image = host.status.waiting, host.spec.wanted_image
    return [
        _power(host.spec.online),
        host.spec.bmc.address,
        image.url if image else "",
        _until(waiting.until, now) if waiting and waiting.until else "",
    ]


def _sheet(host: Host, now: datetime) -> RenderableType:
    sheet = Table(box=None, pad_edge=False, show_header=False)
    sheet.add_column(no_wrap=True)
    sheet.add_column(overflow="fold")
    for name, value in _facts(host, now):
        if value:
            sheet.add_row(_text(name), _text(value))
    return sheet


def _facts(host: Host, now: datetime) -> Iterator[tuple[str, str]]:
    spec, status = host.spec, host.status
    yield "host", str(host.key)
    yield "state", _state(host)
    yield "power", f"{_power(status.powered_on)} (at rest: {_power(spec.online)})"
    yield "bmc", spec.bmc.address
    yield "boot MAC", spec.boot_mac_address
    yield from _annotated(host)
    if host.deleting:
        yield "deleting", "yes; the object goes when the machine is let go"
    if progress := status.progress:
        began = f", for {_age(progress.started_at, now)}" if progress.started_at else ""
        yield "step", f"{progress.step}: {progress.message}{began}"
        yield "progress", _figures(host)
    if waiting := status.waiting:
        # A wait for a problem repeats the problem's words, which follow below.
        message = "" if status.problem else f": {waiting.message}"
        yield "waits for", f"{waiting.cause}{message}; who acts: {waiting.actor}"
        if waiting.since:
            yield "  since", _age(waiting.since, now)
        if waiting.until:
            yield "  until", _until(waiting.until, now)
    if problem := status.problem:
        yield "problem", f"{problem.id}: {_without_key(host, problem.message)}"
        yield "  evidence", problem.evidence
        yield "  advice", problem.advice
        yield "  failures", str(status.error_count)
        yield "  next try", _next_try(host, now)
        yield "  more", f"docs/troubleshooting.md#{problem.id}"
    if boot := status.boot:
        called = "its agent has called" if boot.agent_connected_at else "no call from its agent yet"
        yield "boot", f"to {boot.purpose}, nonce {boot.nonce[:8]}…; {called}"
    yield "conditions", _conditions(host)
    yield "on the disk", _image(status.provisioning.image)
    yield "wanted image", _image(spec.wanted_image)


def _annotated(host: Host) -> Iterator[tuple[str, str]]:
    """What people and other controllers asked for by annotation."""
    notes = host.annotations
    if PAUSED in notes:
        yield "paused", f"{notes[PAUSED] or 'yes'}; `billet unpause` ends it"
    if DETACHED in notes:
        done = host.status.operational_status == "detached"
        yield "detached", "yes; `billet attach` ends it" if done else "asked for, not done yet"
    held = sorted(key.partition("/")[2] for key in notes if key.startswith(f"{REBOOT}/"))
    if held:
        yield "held off by", ", ".join(held)
    asked = {REBOOT: "a reboot", INSPECT: "an inspection", RETRY: "a retry", MOVE: "a move"}
    wanted = [word for key, word in asked.items() if key in notes and notes[key] != "disabled"]
    if wanted:
        yield "asked for", ", ".join(wanted)


def _next_try(host: Host, now: datetime) -> str:
    """When a problem is tried again and how often still; else that it is not."""
    problem = host.status.problem
    if problem is None:
        return ""
    if problem.next_retry_at is None:
        spent = problem.cause and f" (the last was {problem.cause})"
        return f"none, until somebody changes something or `billet retry`{spent}"
    left = "" if problem.retries_left is None else f"; {problem.retries_left} left"
    return _until(problem.next_retry_at, now) + left


def _conditions(host: Host) -> str:
    """Return the conditions in short: those that hold, then the others with their reasons."""
    told = [one for one in host.status.conditions or () if isinstance(one, Mapping)]
    holding = [str(one.get("type")) for one in told if one.get("status") == "True"]
    others = [
        f"{one.get('type')} ({one.get('reason')})" for one in told if one.get("status") == "False"
    ]
    parts = [", ".join(holding), f"not {', '.join(others)}" if others else ""]
    return "; ".join(filter(None, parts))


def _image(image: Image | None) -> str:
    return f"{image.url} (checksum {image.checksum})" if image else ""


def _state(host: Host) -> str:
    word = host.status.provisioning.state or "(new)"
    marks = []
    if PAUSED in host.annotations:
        marks.append("paused")
    if host.status.operational_status == "detached":
        marks.append("detached")
    return f"{word} ({', '.join(marks)})" if marks else word


def _power(on: bool | None) -> str:
    return {True: "on", False: "off", None: "?"}[on]


def _words(host: Host) -> str:
    problem, waiting = host.status.problem, host.status.waiting
    if problem is not None:
        return f"{problem.id}: {_without_key(host, problem.message)}"
    return host.status.error_message or (waiting.message if waiting else "")


def _again(host: Host, now: datetime) -> str:
    """Return the next try for a row, in brackets."""
    problem = host.status.problem
    if problem is None or problem.next_retry_at is None:
        return ""
    return f" (next try {_next_try(host, now)})"


def _without_key(host: Host, message: str) -> str:
    """Return a problem's sentence without the host's name, which stands beside it already."""
    return message.removeprefix(f"{host.key}: ")


def _figures(host: Host) -> str:
    progress = host.status.progress
    if progress is None:
        return ""
    parts = [_percent(progress.percent)]
    if progress.done_bytes is not None:
        total = f"/{progress.total_bytes / 2**20:.0f}" if progress.total_bytes else ""
        parts.append(f"{progress.done_bytes / 2**20:.0f}{total} MiB")
    if rate := progress.rate_bytes_per_second:
        parts.append(f"{rate / 2**20:.{0 if rate >= 10 * 2**20 else 1}f} MiB/s")
    if progress.eta_seconds is not None and progress.percent != 100:
        parts.append(f"{_duration(progress.eta_seconds)} left")
    return " ".join(filter(None, parts))


def _percent(percent: int | None) -> str:
    return "" if percent is None else f"{percent}%"


def _age(since: datetime, now: datetime) -> str:
    return _duration((now - since).total_seconds())


def _until(moment: datetime, now: datetime) -> str:
    left_s = (moment - now).total_seconds()
    return f"in {_duration(left_s)}" if left_s > 0 else f"{_duration(-left_s)} ago"


def _duration(seconds: float) -> str:
    """Return a time as kubectl shows ages: 45s, 12m30s, 5h10m, 3d4h."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole}s"
    if whole < 7200:
        return f"{whole // 60}m{whole % 60}s"
    if whole < 172800:
        return f"{whole // 3600}h{whole % 3600 // 60}m"
    return f"{whole // 86400}d{whole % 86400 // 3600}h"


def _text(value: str) -> Text:
    """Return text as it is: never as markup, and without what a terminal would obey."""
    return Text(_clean(value))


def _clean(value: str) -> str:
    return _CONTROL.sub(" ", value)
