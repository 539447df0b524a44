"""Cells of a table: values in kubectl's words, and the computed cells of built-in kinds."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]

_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_YEAR = 365 * _DAY


def parse_time(text: str) -> datetime:
    """Parse RFC 3339 with any precision. Raises ValueError."""
    parsed = datetime.fromisoformat(text)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def render_duration(seconds: float) -> str:
    """Render an age as kubectl does: two units at most, fewer as it grows (``4m30s``, ``3d``).

    The thresholds are those of k8s.io/apimachinery's HumanDuration.
    """
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    whole = max(whole, 0)
    if whole < 2 * _MINUTE:
        return f"{whole}s"
    if whole < 10 * _MINUTE:
        return _two(whole, _MINUTE, "m", 1, "s")
    if whole < 3 * _HOUR:
        return f"{whole // _MINUTE}m"
    if whole < 8 * _HOUR:
        return _two(whole, _HOUR, "h", _MINUTE, "m")
    if whole < 2 * _DAY:
        return f"{whole // _HOUR}h"
    if whole < 8 * _DAY:
        return _two(whole, _DAY, "d", _HOUR, "h")
    if whole < 2 * _YEAR:
        return f"{whole // _DAY}d"
    if whole < 8 * _YEAR:
        return _two(whole, _YEAR, "y", _DAY, "d")
    return f"{whole // _YEAR}y"


def _two(seconds: int, unit: int, sign: str, part: int, part_sign: str) -> str:
    first, rest = divmod(seconds, unit)
    second = rest // part
    return f"{first}{sign}{second}{part_sign}" if second else f"{first}{sign}"


def render_age(text: Any, now: datetime) -> str:
    """Render the time since an RFC 3339 timestamp; ``<unknown>`` without one."""
    if not isinstance(text, str) or not text:
        return "<unknown>"
    try:
        then = parse_time(text)
    except ValueError:
        return "<invalid>"
    return render_duration((now - then).total_seconds())


def _data_count(obj: Object, _now: datetime) -> int:
    return len(obj.get("data") or ()) + len(obj.get("binaryData") or ())


def _age(obj: Object, now: datetime) -> str:
    return render_age((obj.get("metadata") or {}).get("creationTimestamp"), now)


def _event_last_seen(event: Object, now: datetime) -> str:
    series = event.get("series") or {}
    seen = series.get("lastObservedTime") or event.get("lastTimestamp")
    return render_age(seen or _event_begin(event), now)


def _event_first_seen(event: Object, now: datetime) -> str:
    return render_age(_event_begin(event), now)


def _event_begin(event: Object) -> Any:
    return event.get("firstTimestamp") or event.get("eventTime")


def _event_object(event: Object, _now: datetime) -> str:
    target = event.get("involvedObject") or {}
    name = target.get("name") or ""
    kind = str(target.get("kind") or "").lower()
    return f"{kind}/{name}" if kind else str(name)


def _event_source(event: Object, _now: datetime) -> str:
    source = event.get("source") or {}
    component = source.get("component") or event.get("reportingComponent") or ""
    host = source.get("host") or event.get("reportingInstance") or ""
    return ", ".join(part for part in (component, host) if part)


def _event_count(event: Object, _now: datetime) -> int:
    return int((event.get("series") or {}).get("count") or event.get("count") or 1)


COMPUTED: dict[str, Callable[[Object, datetime], Any]] = {
    "=age": _age,
    "=data_count": _data_count,
    "=event_count": _event_count,
    "=event_first_seen": _event_first_seen,
    "=event_last_seen": _event_last_seen,
    "=event_object": _event_object,
    "=event_source": _event_source,
}
