"""What a decision adds to the metrics, by comparing a status with the next. Pure."""

from typing import NamedTuple

from billet_server.core import effects as ask
from billet_server.core.capacity import CAPACITY, Operation, claim
from billet_server.core.detach import WORD as DETACHED
from billet_server.core.host import Host, Status
from billet_server.core.states import State, read_state
from billet_server.core.turn import REGISTRATION, Step

Labels = tuple[str, ...]

_OF_PROBLEM = {
    "bmc-secret-missing": "metal3_credentials_missing_total",
    "bmc-secret-malformed": "metal3_credentials_invalid_total",
    "user-data-missing": "metal3_host_config_data_error_total",
    "user-data-malformed": "metal3_host_config_data_error_total",
}
_NO_ACCESS = frozenset({"bmc-auth", "bmc-unreachable", "bmc-rejected", "bmc-unsupported"})
_ON_ENTRY = {
    State.REGISTERING: "metal3_host_registration_required_total",
    State.UNMANAGED: "metal3_host_unmanaged_total",
}
_GIVEN_UP = {
    State.DEPROVISIONING: "metal3_delete_without_deprovisioning_total",
    State.POWERING_OFF: "metal3_delete_without_powering_off_total",
}
_LENGTHS = {
    "register": "metal3_operation_register_duration_seconds",
    "inspect": "metal3_operation_inspect_duration_seconds",
    "provision": "metal3_operation_provision_duration_seconds",
    "deprovision": "metal3_operation_deprovision_duration_seconds",
}


class Tally(NamedTuple):
    """Counters to count up by one, and durations, each with its labels."""

    counts: tuple[tuple[str, Labels], ...]
    durations: tuple[tuple[str, float, Labels], ...]


_NOTHING = Tally((), ())


def tally(host: Host, step: Step) -> Tally:
    """Return what a step, whose status has been written, adds up to."""
    old, new = host.status, step.status
    where = tuple(host.key)
    counts: list[tuple[str, Labels]] = []
    if isinstance(step.effect, ask.PowerOn):
        counts.append(("metal3_operation_power_change_total", (*where, "on")))
    elif isinstance(step.effect, ask.PowerOff):
        counts.append(("metal3_operation_power_change_total", (*where, "off")))
    if old == new:
        return Tally(tuple(counts), ()) if counts else _NOTHING
    before, after = old.provisioning.state, new.provisioning.state
    if before != after:
        counts.append(("metal3_provisioning_state_change_total", (before, after)))
        name = _ON_ENTRY.get(read_state(after))
        if name is not None:
            counts.append((name, where))
    if new.error_count > old.error_count:
        counts += _of_problem(new, where)
    delayed = _newly_delayed(old, new)
    if delayed is not None:
        counts.append((delayed, where))
    if _credentials_updated(old, new):
        counts.append(("metal3_credentials_updated_total", where))
    given_up = any(note.reason == "DeleteIncomplete" for note in step.events)
    if given_up and read_state(before) in _GIVEN_UP:
        counts.append((_GIVEN_UP[read_state(before)], where))
    if host.deleting and _waits_detached(old, new):
        counts.append(("metal3_delete_delayed_for_detached_total", where))
    return Tally(tuple(counts), tuple(_durations(old, new, where)))


def _of_problem(new: Status, where: Labels) -> list[tuple[str, Labels]]:
    counts: list[tuple[str, Labels]] = [("metal3_host_error_total", (new.error_type,))]
    problem = new.problem.id if new.problem is not None else ""
    if problem in _OF_PROBLEM:
        counts.append((_OF_PROBLEM[problem], where))
    elif problem in _NO_ACCESS and new.error_type == REGISTRATION:
        counts.append(("metal3_credentials_no_management_access_total", where))
    return counts


def _newly_delayed(old: Status, new: Status) -> str | None:
    was, waits = old.waiting, new.waiting
    if waits is None or waits.cause != CAPACITY or (was is not None and was.cause == CAPACITY):
        return None
    wanted = claim(read_state(new.provisioning.state), CAPACITY)
    cleans = wanted is not None and wanted.operation is Operation.CLEAN
    if cleans:
        return "metal3_delayed__deprovisioning_total"
    return "metal3_delayed__provisioning_total"


def _waits_detached(old: Status, new: Status) -> bool:
    """Whether a wait for the end of the detachment is news: when the deletion begins, say."""
    waits = new.waiting
    return waits is not None and waits.cause == DETACHED and waits != old.waiting


def _credentials_updated(old: Status, new: Status) -> bool:
    was, now = old.good_credentials, new.good_credentials
    return was is not None and now is not None and was != now


def _durations(old: Status, new: Status, where: Labels) -> list[tuple[str, float, Labels]]:
    found = []
    for period, name in _LENGTHS.items():
        was, now = getattr(old.operation_history, period), getattr(new.operation_history, period)
        if now.end is not None and now.start is not None and now.end != was.end:
            seconds = max(0.0, (now.end - now.start).total_seconds())
            found.append((name, seconds, where))
    return found
