"""``status.conditions``: the six statements of Metal3, for `kubectl wait` and for alerts.

They say again what the rest of the status says and nothing that changes by itself (no time, no
percentage), so that a host that does not change is not written. Conditions of other types
belong to others and stay as they are.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from billet_server.core.host import FAST_TRACK, Host, ProblemStatus, Status
from billet_server.core.states import State, read_state

MANAGEABLE: Final = "Manageable"
AVAILABLE: Final = "AvailableForProvisioning"
PROVISIONED: Final = "Provisioned"
READY: Final = "Ready"
PROGRESSING: Final = "Progressing"
HEALTHY: Final = "Healthy"

TYPES: Final = (MANAGEABLE, AVAILABLE, PROVISIONED, READY, PROGRESSING, HEALTHY)

Condition = Mapping[str, Any]

_AT_REST: Final = frozenset({State.READY, State.PROVISIONED, State.EXTERNALLY_PROVISIONED})
_UNKNOWN_BMC: Final = frozenset({State.NONE, State.UNMANAGED, State.REGISTERING})
_REASONS: Final = {State.NONE: "New", State.READY: "Available"}
_LONGEST: Final = 2000


class Statement(NamedTuple):
    """Whether something holds: "True", "False" or "Unknown"; why, in a word and a sentence."""

    status: str
    reason: str
    message: str


def with_conditions(host: Host, status: Status, now: datetime) -> list[dict[str, Any]]:
    """Return all conditions of the host: others' as they are, ours as ``status`` has it."""
    old = [one for one in status.conditions or () if isinstance(one, Mapping)]
    told = statements(host, status)
    kept = [dict(one) for one in old if one.get("type") not in told]
    before = {one.get("type"): one for one in old}
    return kept + [
        _render(kind, told[kind], before.get(kind, {}), host.generation, now) for kind in TYPES
    ]


def same_but_generation(old: Sequence[Any], new: Sequence[Any]) -> bool:
    """Whether two lists of conditions say the same, if maybe of another generation."""
    return [_without_generation(one) for one in old] == [_without_generation(one) for one in new]


def statements(host: Host, status: Status) -> dict[str, Statement]:
    """Return what each of our conditions says."""
    state = read_state(status.provisioning.state)
    return {
        MANAGEABLE: _manageable(state, status),
        AVAILABLE: _available(host, state, status),
        PROVISIONED: _provisioned(state),
        READY: _ready(host, state, status),
        PROGRESSING: _progressing(state, status),
        HEALTHY: Statement(
            "Unknown", "NotReported", "the BMC's own view of its health is not read"
        ),
    }


def _manageable(state: State, status: Status) -> Statement:
    problem = status.problem
    if status.operational_status == "detached":
        return _detached()
    if problem is not None and (state in _UNKNOWN_BMC or _is_of_bmc(status, problem)):
        return _hindered(problem)
    if state in _UNKNOWN_BMC:
        return Statement("False", _reason(state), "no BMC has taken the credentials yet")
    return Statement("True", "Registered", "the BMC takes the credentials")


def _is_of_bmc(status: Status, problem: ProblemStatus) -> bool:
    of_bmc = problem.id.startswith("bmc-") or problem.cause.startswith("bmc-")
    return of_bmc or status.error_type == "registration error"


def _available(host: Host, state: State, status: Status) -> Statement:
    if state is not State.READY or host.deleting:
        return _in_state("False", host, state)
    if status.operational_status == "detached":
        return _detached()
    if status.problem is not None:
        return _hindered(status.problem)
    if host.spec.wanted_image is not None:
        return Statement("False", "ImageSet", "spec.image is set already")
    text = "spec.image may be set"
    if status.waiting is not None and status.waiting.cause == FAST_TRACK:
        text = f"{text}; the host waits {status.waiting.message}"
    return Statement("True", "Available", text)


def _provisioned(state: State) -> Statement:
    if state in (State.PROVISIONED, State.EXTERNALLY_PROVISIONED):
        return Statement("True", _reason(state), f"the host is {state.value}")
    return Statement("False", _reason(state), f"the host is {_word(state)}")


def _ready(host: Host, state: State, status: Status) -> Statement:
    if status.problem is not None:
        return _hindered(status.problem)
    if status.operational_status == "detached":
        return _detached()
    rests = state in _AT_REST and not host.deleting
    return _in_state("True" if rests else "False", host, state)


def _progressing(state: State, status: Status) -> Statement:
    problem = status.problem
    if status.operational_status == "detached":
        return _detached()
    if status.operational_status == "delayed":
        return Statement("False", "Delayed", "waiting for a place, see status.waiting")
    if state in _AT_REST or state is State.UNMANAGED:
        return Statement("False", _reason(state), f"at rest: the host is {_word(state)}")
    if problem is None:
        return Statement("True", _reason(state), f"the host is {_word(state)}")
    if problem.next_retry_at is None:
        return _hindered(problem)
    return Statement("True", "Retrying", _cut(problem.message))


def _in_state(holds: str, host: Host, state: State) -> Statement:
    if host.deleting and state in _AT_REST:
        return Statement("False", "Deleting", "the object is being deleted")
    return Statement(holds, _reason(state), f"the host is {_word(state)}")


def _hindered(problem: ProblemStatus) -> Statement:
    return Statement("False", _camel(problem.id), _cut(problem.message))


def _detached() -> Statement:
    return Statement("False", "Detached", "the annotation detached leaves the machine alone")


def _reason(state: State) -> str:
    return _REASONS.get(state) or _camel(state.value)


def _word(state: State) -> str:
    return state.value or "new"


def _camel(words: str) -> str:
    return "".join(word.capitalize() for word in words.replace("-", " ").split()) or "Unknown"


def _cut(text: str) -> str:
    return text[:_LONGEST]


def _render(
    kind: str, told: Statement, old: Condition, generation: int, now: datetime
) -> dict[str, Any]:
    moment = old.get("lastTransitionTime") if old.get("status") == told.status else None
    return {
        "type": kind,
        "status": told.status,
        "reason": told.reason,
        "message": told.message,
        "observedGeneration": generation,
        "lastTransitionTime": moment or f"{now:%Y-%m-%dT%H:%M:%SZ}",
    }


def _without_generation(condition: Any) -> Any:
    if not isinstance(condition, Mapping):
        return condition
    return {key: value for key, value in condition.items() if key != "observedGeneration"}
