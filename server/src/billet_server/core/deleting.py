"""The way out: deprovision, power off, let the object go."""

from billet_server.core.effects import PowerOff, RemoveFinalizer
from billet_server.core.preflight import credentials, standing_fault
from billet_server.core.problems import Fault
from billet_server.core.provisioning import deprovision
from billet_server.core.states import State
from billet_server.core.turn import POWER, Turn


def delete(turn: Turn) -> None:
    """Take the host's way out, from whatever state it is in."""
    match turn.state:
        case State.NONE | State.UNMANAGED | State.REGISTERING:
            turn.go(State.DELETING)
        case State.INSPECTING | State.PREPARING | State.READY | State.EXTERNALLY_PROVISIONED:
            turn.go(State.POWERING_OFF)
        case State.PROVISIONING | State.PROVISIONED:
            turn.go(State.DEPROVISIONING)
        case State.DEPROVISIONING:
            if _gave_up(turn, "cleaning", standing_fault(turn)):
                turn.go(State.POWERING_OFF)
            elif credentials(turn):
                deprovision(turn)
        case State.POWERING_OFF:
            _power_off(turn)
        case State.DELETING:
            turn.ask(RemoveFinalizer())


def _gave_up(turn: Turn, what: str, unusable: Fault | None) -> bool:
    if unusable is not None or turn.status.error_count > turn.rules.give_up_deleting_after:
        why = unusable.message if unusable else turn.status.error_message
        turn.note(
            "DeleteIncomplete",
            f"{what} was given up, the machine may still run its old system: {why}",
            "Warning",
        )
        return True
    return False


def _power_off(turn: Turn) -> None:
    last = turn.outcome(PowerOff)
    if last is not None and last[1].fault is None:
        turn.status.powered_on, turn.status.boot = False, None
        turn.go(State.DELETING)
        return
    if last is not None and last[1].fault is not None:
        turn.fail(last[1].fault, POWER)
    elder = turn.seen.bmc_conflict
    unusable = turn.seen.secret.fault
    if elder:
        text = f"the power is left as it is: the machine belongs to host {elder}"
        turn.note("PowerOffSkipped", text)
        turn.go(State.DELETING)
    elif turn.host.spec.disable_power_off or _gave_up(turn, "switching off", unusable):
        turn.go(State.DELETING)
    elif not turn.blocked():
        turn.wait("bmc", "switching the power off before the object goes", "bmc")
        turn.ask(PowerOff(soft=False))
