"""Who may act when several servers share one API: a Kubernetes Lease, judged as client-go does.

Clocks of different machines are never compared. A candidate looks at *when it saw the Lease
change last*, on its own monotonic clock, and takes it over when the Lease has stood still for
its whole duration. The holder counts from the moment it *sent* its last good renewal and stops
acting after two thirds of the duration. So clocks may differ by any amount, and run faster or
slower than one another by up to a fifth, before two servers act at once.

The one Lease is for all hosts: one server reconciles, the others keep their caches warm.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

ACT_SHARE = 2 / 3
DEFAULT_DURATION_S = 15.0
DEFAULT_RENEW_S = 2.0
RELEASED_DURATION_S = 1

_MICRO_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


class Terms(NamedTuple):
    """How this server takes part. ``identity`` is no other process's; times in seconds."""

    identity: str
    duration_s: float = DEFAULT_DURATION_S
    renew_s: float = DEFAULT_RENEW_S

    @property
    def act_s(self) -> float:
        """How long a holder may act after it sent a renewal that was accepted."""
        return self.duration_s * ACT_SHARE


class Record(NamedTuple):
    """A Lease as it was read. ``version`` changes with every write of it."""

    holder: str
    duration_s: float
    transitions: int
    version: str
    acquired: str = ""
    renewed: str = ""


class View(NamedTuple):
    """What a candidate knows: the Lease, and since when (own monotonic clock) it stands still.

    ``missing``: there is no Lease now; ``record`` is the last one seen, if any.
    """

    record: Record | None = None
    still_since_s: float = 0.0
    missing: bool = True


class Moment(NamedTuple):
    """One moment on both clocks of this machine: monotonic seconds, and wall clock seconds."""

    monotonic_s: float
    wall_s: float


class Create(NamedTuple):
    """Make the Lease, held by us."""


class Take(NamedTuple):
    """Write our name into this Lease, which is free or has run out."""

    record: Record


class Renew(NamedTuple):
    """Renew this Lease, which is ours."""

    record: Record


class Wait(NamedTuple):
    """Another one holds it, for ``seconds`` more unless it is renewed."""

    holder: str
    seconds: float


Decision = Create | Take | Renew | Wait


def parse_lease(obj: Mapping[str, Any]) -> Record:
    """Read a Lease object (coordination.k8s.io/v1); what is absent or odd counts as unset."""
    spec = obj.get("spec")
    spec = spec if isinstance(spec, dict) else {}
    return Record(
        holder=str(spec.get("holderIdentity") or ""),
        duration_s=_count(spec.get("leaseDurationSeconds"), DEFAULT_DURATION_S),
        transitions=int(_count(spec.get("leaseTransitions"), 0)),
        version=str(obj["metadata"]["resourceVersion"]),
        acquired=str(spec.get("acquireTime") or ""),
        renewed=str(spec.get("renewTime") or ""),
    )


def observe(view: View, record: Record | None, now_s: float) -> View:
    """Take what was just read (None: there is no Lease) at ``now_s``."""
    if record is None:
        # Who deletes a Lease does not end its holder: it may act until its time is over.
        return view._replace(missing=True)
    if view.record is not None and view.record.version == record.version:
        return view._replace(missing=False)
    return View(record, now_s, missing=False)


def decide(view: View, terms: Terms, now_s: float) -> Decision:
    """Return what to do about the Lease at ``now_s``."""
    record = view.record
    if record is None:
        return Create()
    left_s = view.still_since_s + record.duration_s - now_s
    mine, free = record.holder == terms.identity, not record.holder or left_s <= 0
    if not mine and not free:
        return Wait(record.holder, left_s)
    if view.missing:
        return Create()
    return Renew(record) if mine else Take(record)


def may_act(held: Moment | None, now: Moment, terms: Terms) -> bool:
    """Whether a holder may still act whose last good renewal was sent at ``held``.

    The wall clock counts too: the monotonic one stands still while the machine is suspended.
    """
    if held is None:
        return False
    passed_s = max(now.monotonic_s - held.monotonic_s, now.wall_s - held.wall_s)
    return passed_s < terms.act_s


def act_left_s(held: Moment, now: Moment, terms: Terms) -> float:
    """Return for how many seconds a holder may still act."""
    passed_s = max(now.monotonic_s - held.monotonic_s, now.wall_s - held.wall_s)
    return terms.act_s - passed_s


def render_spec(decision: Create | Take | Renew, terms: Terms, now: datetime) -> dict[str, Any]:
    """Return the ``spec`` to write for a decision."""
    spec: dict[str, Any] = {
        "holderIdentity": terms.identity,
        "leaseDurationSeconds": max(1, round(terms.duration_s)),
        "renewTime": _micro_time(now),
    }
    if isinstance(decision, Renew):
        # Without any change there is no new version, by which the others see us alive.
        if decision.record.renewed >= spec["renewTime"]:
            spec["renewTime"] = _after(decision.record.renewed, now)
        return spec
    before = decision.record.transitions + 1 if isinstance(decision, Take) else 0
    return spec | {"acquireTime": spec["renewTime"], "leaseTransitions": before}


def render_release(now: datetime) -> dict[str, Any]:
    """Return the ``spec`` that gives the Lease back."""
    return {
        "holderIdentity": "",
        "leaseDurationSeconds": RELEASED_DURATION_S,
        "renewTime": _micro_time(now),
    }


def _micro_time(moment: datetime) -> str:
    return moment.strftime(_MICRO_TIME)


def _after(text: str, now: datetime) -> str:
    """Return the microsecond after a written time; the present where it is none."""
    try:
        moment = datetime.strptime(text, _MICRO_TIME)  # noqa: DTZ007 - written and read as UTC
        return _micro_time(moment + timedelta(microseconds=1))
    except (ValueError, OverflowError):
        return _micro_time(now)


def _count(value: object, otherwise: float) -> float:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return float(value)
    return otherwise
