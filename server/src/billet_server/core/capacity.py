"""How many hosts may be in the ramdisk at once, by what they are there for.

A **place** is held from the decision to begin an operation until it ends, fails or stands still
for somebody to change something. Who holds one, and who waits for one since when, is written in
each host's status, so that a restarted server knows both: `claim` reads it. The limit is on
beginnings: what is under way already, whatever began it, counts and is never stopped.
"""

import enum
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from billet_server.core.annotations import PAUSED
from billet_server.core.host import Status
from billet_server.core.states import State, read_state

CAPACITY: Final = "capacity"
DELAYED: Final = "delayed"
"""Metal3 ``operationalStatus`` of a host that waits for a place."""

GIVEN_BACK: Final = frozenset({CAPACITY, "retry", "change", "held", "detached"})
"""Wait causes in which a host in a limited state holds no place."""

_EXACT: Final = 10
_NEAR_S: Final = 60.0
_FAR_S: Final = 600.0


class Operation(enum.StrEnum):
    """What is limited; the words are those of metrics and of `Seats`."""

    INSPECT = "inspect"
    PROVISION = "provision"
    CLEAN = "clean"


OPERATIONS: Final = {
    State.INSPECTING: Operation.INSPECT,
    State.PROVISIONING: Operation.PROVISION,
    State.DEPROVISIONING: Operation.CLEAN,
}

_NEXT: Final = {
    State.REGISTERING: Operation.INSPECT,
    State.EXTERNALLY_PROVISIONED: Operation.INSPECT,
    State.PROVISIONED: Operation.CLEAN,
} | OPERATIONS
"""What a host that waits for a place is about to do; at rest its spec decides."""


class Seat(NamedTuple):
    """Whether a host may begin an operation now.

    ``position`` is its place in the queue, from 1, ``limit`` how many may be at it (0: no limit).
    """

    granted: bool = True
    position: int = 0
    limit: int = 0


class Seats(NamedTuple):
    """One host's `Seat` for each `Operation`."""

    inspect: Seat = Seat()
    provision: Seat = Seat()
    clean: Seat = Seat()


class Claim(NamedTuple):
    """A place that a host holds, or waits for since a moment (RFC 3339, UTC, whole seconds)."""

    operation: Operation
    held: bool
    since: str = ""


def claim(state: State, cause: str, since: str = "", *, provisions: bool = False) -> Claim | None:
    """Return the claim that a status makes: its state and its wait."""
    if cause == CAPACITY:
        at_rest = Operation.PROVISION if provisions else Operation.INSPECT
        return Claim(_NEXT.get(state, at_rest), held=False, since=since)
    operation = OPERATIONS.get(state)
    if operation is None or cause in GIVEN_BACK:
        return None
    return Claim(operation, held=True)


def claim_of(status: Status) -> Claim | None:
    """Return the claim of a status that is being decided on."""
    cause = status.waiting.cause if status.waiting is not None else ""
    return claim(read_state(status.provisioning.state), cause)


def claim_of_object(obj: Mapping[str, Any]) -> Claim | None:
    """Return the claim of a Kubernetes object, which may hold anything at all.

    A paused or detached host has none: nobody would ever give its place back.
    """
    status, spec, meta = (_mapping(obj.get(part)) for part in ("status", "spec", "metadata"))
    if PAUSED in _mapping(meta.get("annotations")):
        return None
    if status.get("operationalStatus") == "detached":
        return None
    waiting = _mapping(status.get("waiting"))
    word = _mapping(status.get("provisioning")).get("state")
    state = read_state(word) if isinstance(word, str) else State.NONE
    provisions = bool(_mapping(spec.get("image")).get("url")) and spec.get("online") is True
    cause, since = str(waiting.get("cause", "")), str(waiting.get("since", ""))
    return claim(state, cause, since, provisions=provisions)


def describe_wait(operation: Operation, seat: Seat) -> str:
    """Return the sentence for a host that waits for a place."""
    return f"all {seat.limit} places to {operation} are taken; {_position(seat.position)}"


def look_again_s(seat: Seat) -> float:
    """Return when to see how far the queue has come; a granted place is told at once."""
    return _NEAR_S if seat.position <= _EXACT else _FAR_S


def _position(position: int) -> str:
    """Coarse where it is far: thousands of hosts must not be written for each one that goes."""
    if position <= _EXACT:
        return f"number {position} in the queue"
    bound, steps = _EXACT, (2.0, 2.5, 2.0)
    for turn in range(60):
        if position <= bound:
            break
        bound = int(bound * steps[turn % 3])
    return f"among the first {bound:,} in the queue"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
