"""Provisioning states and their legal transitions, as one table that can draw itself.

The words are Metal3's. `State.READY` is written as "ready" or "available" by a setting; both
are read. ``target`` None of a transition means that the object is gone.
"""

import enum


class State(enum.StrEnum):
    """Metal3 ``status.provisioning.state``."""

    NONE = ""
    UNMANAGED = "unmanaged"
    REGISTERING = "registering"
    INSPECTING = "inspecting"
    PREPARING = "preparing"
    READY = "ready"
    PROVISIONING = "provisioning"
    PROVISIONED = "provisioned"
    EXTERNALLY_PROVISIONED = "externally provisioned"
    DEPROVISIONING = "deprovisioning"
    POWERING_OFF = "powering off before delete"
    DELETING = "deleting"


_S = State
TRANSITIONS: dict[State, frozenset[State]] = {
    _S.NONE: frozenset({_S.UNMANAGED, _S.REGISTERING, _S.DELETING}),
    _S.UNMANAGED: frozenset({_S.REGISTERING, _S.DELETING}),
    _S.REGISTERING: frozenset(
        {_S.INSPECTING, _S.PREPARING, _S.EXTERNALLY_PROVISIONED, _S.UNMANAGED, _S.DELETING}
    ),
    _S.INSPECTING: frozenset({_S.PREPARING, _S.POWERING_OFF, _S.DELETING}),
    _S.PREPARING: frozenset({_S.READY, _S.POWERING_OFF, _S.DELETING}),
    _S.READY: frozenset(
        {
            _S.INSPECTING,
            _S.PREPARING,
            _S.PROVISIONING,
            _S.EXTERNALLY_PROVISIONED,
            _S.POWERING_OFF,
            _S.DELETING,
        }
    ),
    _S.PROVISIONING: frozenset({_S.PROVISIONED, _S.DEPROVISIONING, _S.DELETING}),
    _S.PROVISIONED: frozenset({_S.DEPROVISIONING, _S.DELETING}),
    _S.EXTERNALLY_PROVISIONED: frozenset({_S.PROVISIONED, _S.POWERING_OFF, _S.DELETING}),
    _S.DEPROVISIONING: frozenset({_S.READY, _S.POWERING_OFF}),
    _S.POWERING_OFF: frozenset({_S.DELETING}),
    _S.DELETING: frozenset(),
}

SYNONYMS = {
    "available": State.READY,
    # Of 2019: the hardware was known, and its profile was being chosen.
    "match profile": State.PREPARING,
}

ERRORS_OF_2019 = frozenset(
    {
        "registration error",
        "validation error",
        "provisioning error",
        "power management error",
    }
)
"""Metal3 of 2019 wrote these over the state; what the host was in is told by other facts."""


def is_known(word: str) -> bool:
    """Whether somebody wrote it who knows what it means."""
    return word in SYNONYMS or word in tuple(State)


def resume(word: str, *, has_image: bool, is_external: bool, has_hardware: bool) -> str:
    """Return the state to go on from where Metal3 of 2019 left a host in an error.

    It chose what to do anew in each pass, from these facts; a changed Secret put even a host
    whose image runs back to "registering". A machine that may run a system is left alone.
    """
    if word not in ERRORS_OF_2019 and not (word == State.REGISTERING and has_image):
        return word
    if has_image:
        return State.PROVISIONED.value
    if is_external:
        return State.EXTERNALLY_PROVISIONED.value
    if word == "provisioning error":
        # Half an image may be on the disk.
        return State.DEPROVISIONING.value
    if has_hardware:
        return State.READY.value
    # Whose power failed must have been known; with no fact left, nobody knows what is there.
    return word if word == "power management error" else State.NONE.value


def read_state(word: str) -> State:
    """Return the state of a word in an object; unknown words, which are not acted on, are NONE."""
    if word in SYNONYMS:
        return SYNONYMS[word]
    try:
        return State(word)
    except ValueError:
        return State.NONE


def is_legal(old: State, new: State) -> bool:
    """Whether the machine may go from ``old`` to ``new`` in one step (staying is legal)."""
    return old is new or new in TRANSITIONS[old]


def render_dot() -> str:
    """Return the diagram in Graphviz's language."""
    lines = [
        f'  "{old.value or "(new)"}" -> "{new.value}";'
        for old, targets in TRANSITIONS.items()
        for new in sorted(targets)
    ]
    return "digraph states {\n" + "\n".join(lines) + "\n}\n"
