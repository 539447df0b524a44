"""``reboot.metal3.io``: a machine is restarted once, or held off until a client lets it go.

The annotation alone asks for one restart: off, and when the machine was seen off the annotation
is taken away and the power follows ``spec.online`` again. With ``/key`` appended it holds the
machine off until whoever set it removes it; several must all be gone. Nothing of this needs a
memory of its own, because off is a state that any server can read from the BMC.

A restart in place (``spec.disablePowerOff``) leaves no such trace; it is on record in
``status.reboot`` before the BMC is told, and never told twice for one request.
"""

from typing import Any, NamedTuple

import msgspec

from billet_server.core.annotations import REBOOT
from billet_server.core.effects import PowerCycle, PowerOff, RemoveAnnotations
from billet_server.core.host import Host, RebootStatus
from billet_server.core.states import State
from billet_server.core.terms import PowerState
from billet_server.core.turn import POWER, Turn
from billet_server.core.wording import printable

_KEYED = f"{REBOOT}/"
_SETTLED = (State.PROVISIONED, State.EXTERNALLY_PROVISIONED)
_INTERRUPTIBLE = (State.INSPECTING, State.PROVISIONING)


class Request(NamedTuple):
    """One annotation. ``fault`` says what is wrong with its value, which then asks for soft."""

    key: str
    hard: bool = False
    force: bool = False
    fault: str = ""


def requests(host: Host) -> tuple[Request, ...]:
    """Return what the host's annotations ask for, by key."""
    found = sorted(host.annotations.items())
    return tuple(
        parse_request(key, value) for key, value in found if key == REBOOT or key.startswith(_KEYED)
    )


def parse_request(key: str, value: str) -> Request:
    """Read ``{"mode": "soft"|"hard", "force": bool}``; empty is soft.

    As Metal3: what cannot be read, or an unknown mode, asks for a soft restart without force.
    """
    if not value.strip():
        return Request(key)
    shown = printable(value, 100)
    try:
        raw: Any = msgspec.json.decode(value)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return Request(key, fault=f"{shown!r} is not JSON")
    if raw is None:
        return Request(key)
    if not isinstance(raw, dict):
        return Request(key, fault=f'{shown!r} is not an object like {{"mode": "hard"}}')
    # Go's decoder, by which Metal3 reads this, takes keys of any case.
    fields = {name.lower(): field for name, field in raw.items()}
    mode, force = fields.get("mode") or "soft", fields.get("force") or False
    if not isinstance(mode, str) or not isinstance(force, bool):
        return Request(key, fault=f"{shown!r}: mode must be a string and force true or false")
    if mode not in ("soft", "hard"):
        return Request(
            key, force=force, fault=f"mode {printable(mode, 40)!r} is neither soft nor hard"
        )
    return Request(key, hard=mode == "hard", force=force)


def acting(turn: Turn) -> tuple[Request, ...]:
    """Return the requests that may act in the host's state."""
    found = requests(turn.host)
    return found if turn.state in _SETTLED else tuple(each for each in found if each.force)


def remark_on_requests(turn: Turn) -> None:
    """Say what is wrong with a request, or why it does not act now."""
    late = []
    for request in requests(turn.host):
        if request.fault:
            text = f"annotation {request.key}: {request.fault}; taken as a soft reboot"
            turn.remark("InvalidAnnotationValue", text, "Warning")
        if turn.state not in _SETTLED and not request.force:
            late.append(request.key)
    if late:
        text = (
            f"annotation {', '.join(late)} acts when the host is provisioned"
            ' (at rest and while inspecting or provisioning only with {"force": true})'
        )
        turn.remark("RebootDelayed", text)


def taken_back(turn: Turn) -> bool:
    """Take the request for one restart off a machine that was seen off; False: there is none."""
    if REBOOT not in turn.host.annotations:
        return False
    turn.remove_annotations(REBOOT)
    return True


def held(turn: Turn, found: tuple[Request, ...]) -> None:
    """Say that a machine that is off stays off, and whose turn it is."""
    keys = ", ".join(each.key for each in found)
    turn.wait("held", f"kept off until annotation {keys} is removed by whoever set it", "user")


def restarted_in_place(turn: Turn, found: tuple[Request, ...], *, on: bool) -> bool:
    """Do the next thing for a restart of a machine that must not be off; False: nothing to do."""
    status, removed = turn.status, turn.outcome(RemoveAnnotations)
    if all(each.key == REBOOT for each in found) and removed and REBOOT in removed[0].keys:
        # What was asked for is done; an annotation that is there all the same is a new one.
        status.reboot = None
    if not found:
        status.reboot = None
        return False
    if status.reboot is None:
        if on:
            _restart(turn, found)
            return True
        status.reboot = RebootStatus(started_at=turn.now, ended_at=turn.now)
    elif status.reboot.ended_at is None:
        _ended(turn, status.reboot)
    if taken_back(turn):
        return True
    keys = ", ".join(each.key for each in found)
    text = f"restarted, since spec.disablePowerOff forbids off; annotation {keys} is still set"
    turn.wait("held", text, "user")
    return False


def restart_failed(turn: Turn) -> None:
    """Forget a restart that the BMC refused: it may be told again."""
    turn.status.reboot = None


def interrupted(turn: Turn) -> bool:
    """Switch off in the middle of an operation when asked by force; it then starts over."""
    if turn.state not in _INTERRUPTIBLE:
        return False
    found = acting(turn)
    if not found:
        return False
    last = turn.outcome(PowerOff)
    if last is not None and last[1].fault is not None:
        turn.fail(last[1].fault, POWER)
        return True
    if turn.host.spec.disable_power_off:
        # The operation starts over with a restart into the ramdisk, which is what was asked for.
        turn.status.boot = None
    elif not _is_off(turn):
        _cut(turn, found)
        return True
    if taken_back(turn):
        return True
    held(turn, found)
    return True


def _is_off(turn: Turn) -> bool:
    seen, poll_s = turn.seen.power, turn.rules.power_poll_s
    if seen is None or seen.state is not PowerState.OFF:
        return False
    age_s = (turn.exact_now - seen.at).total_seconds()
    if not 0 <= age_s < poll_s:
        return False
    turn.look_again(poll_s - age_s)
    turn.status.powered_on, turn.status.boot = False, None
    if turn.status.error_type == POWER:
        turn.clear_problem()
    return True


def _cut(turn: Turn, found: tuple[Request, ...]) -> None:
    if turn.status.problem is not None and turn.blocked():
        return
    if turn.status.boot is not None:
        keys = ", ".join(each.key for each in found)
        turn.note("PowerOff", f"switching off in state {turn.state.value}: annotation {keys}")
    turn.status.boot = turn.status.progress = None
    turn.wait("bmc", "switching the power off", "bmc")
    turn.ask(PowerOff(soft=False))


def _restart(turn: Turn, found: tuple[Request, ...]) -> None:
    if turn.blocked():
        return
    hard = any(each.hard for each in found) or turn.status.error_count > 0
    turn.status.reboot = RebootStatus(mode="hard" if hard else "soft", started_at=turn.now)
    keys = ", ".join(each.key for each in found)
    turn.note("Reboot", f"restarting by the BMC: annotation {keys}; disablePowerOff forbids off")
    turn.wait("bmc", "the BMC restarts the machine", "bmc")
    turn.ask(PowerCycle(soft=not hard))


def _ended(turn: Turn, record: RebootStatus) -> None:
    record.ended_at = turn.now
    if turn.outcome(PowerCycle) is None:
        text = (
            "the server ended while the BMC was told to restart the machine; it is not told again"
        )
        turn.note("RebootUncertain", text, "Warning")
