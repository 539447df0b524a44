"""``baremetalhost.metal3.io/detached``: the host is let alone until the annotation goes.

Detached is no state but an ``operationalStatus``: the state is kept, nothing is done at the BMC,
no power is enforced. On the way back the credentials are tried again, and nothing else.
"""

from typing import Any, NamedTuple

import msgspec

from billet_server.core.annotations import DETACHED
from billet_server.core.booting import HAND_OVER, nothing_runs
from billet_server.core.states import State
from billet_server.core.turn import INSPECTION, PREPARATION, PROVISIONING, Turn

WORD = "detached"
"""Metal3 ``status.operationalStatus``."""

_AT_REST = (State.READY, State.PROVISIONED, State.EXTERNALLY_PROVISIONED)
_BY_FORCE = {
    State.INSPECTING: INSPECTION,
    State.PREPARING: PREPARATION,
    State.PROVISIONING: PROVISIONING,
}


class Detachment(NamedTuple):
    """What the annotation says. ``fault``: what of it makes no sense."""

    delays_deletion: bool = False
    force: bool = False
    fault: str = ""


def parse_detachment(value: str) -> Detachment:
    """Read ``{"deleteAction": "delay"|"delete", "force": bool}``; any other text just detaches."""
    try:
        raw: Any = msgspec.json.decode(value)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return Detachment()
    if not isinstance(raw, dict):
        return Detachment()
    fields = {name.lower(): field for name, field in raw.items()}
    action, force = fields.get("deleteaction") or "delete", fields.get("force") or False
    fault = ""
    if action not in ("delay", "delete"):
        fault = "deleteAction is neither delete nor delay; taken as delete"
    elif not isinstance(force, bool):
        fault = "force is neither true nor false; taken as false"
    return Detachment(action == "delay", force is True, fault)


def detached(turn: Turn) -> bool:
    """Follow the annotation; True: nothing else is to be done for the host."""
    status, value = turn.status, turn.host.annotations.get(DETACHED)
    was = status.operational_status == WORD
    if value is None:
        if was:
            _attach(turn)
        return False
    wish = parse_detachment(value)
    if wish.fault:
        turn.remark("InvalidAnnotationValue", f"annotation {DETACHED}: {wish.fault}", "Warning")
    allowed = turn.state in _AT_REST or (turn.state in _BY_FORCE and (wish.force or was))
    if not allowed:
        _not_now(turn)
        return False
    if turn.host.deleting and not wish.delays_deletion:
        turn.note("DetachedDelete", "the object goes; the machine is left as it is")
        turn.go(State.DELETING)
        return False
    if not _let_go(turn):
        return True
    _rest(turn, was=was)
    return True


def _attach(turn: Turn) -> None:
    turn.status.operational_status = "OK"
    # What was good then is tried again; only then is the power looked after.
    turn.status.good_credentials = None
    turn.note("Attached", f"annotation {DETACHED} is gone; the credentials are tried again")


def _not_now(turn: Turn) -> None:
    if turn.host.deleting or turn.state in (State.NONE, State.POWERING_OFF, State.DELETING):
        return
    text = f"annotation {DETACHED} waits for the host to be at rest"
    if turn.state in _BY_FORCE:
        text += ' ({"force": true} ends what is under way)'
    turn.remark("DetachDelayed", text)


def _let_go(turn: Turn) -> bool:
    """Whether nothing runs on the host any more; stops what does."""
    boot, error_type = turn.status.boot, _BY_FORCE.get(turn.state)
    if boot is None:
        return True
    if error_type is not None:
        if boot.purpose == HAND_OVER:
            # Its image is written, its system may run already: on return the proof is made up
            # for, instead of writing the disk again.
            return True
        if not nothing_runs(turn, error_type):
            return False
    turn.status.boot = None
    return True


def _rest(turn: Turn, *, was: bool) -> None:
    status = turn.status
    if not was:
        turn.note("Detached", "power and machine are left alone; the BMC is not talked to")
    turn.clear_problem()
    status.operational_status = WORD
    status.progress = status.reboot = None
    if turn.host.deleting:
        text = f'the object goes when annotation {DETACHED} (deleteAction "delay") is removed'
    else:
        text = f"nothing is done until annotation {DETACHED} is removed"
    turn.wait("detached", text, "user")
