"""Keeping a stable host's power as ``spec.online`` says."""

from billet_server.core import retries
from billet_server.core.backoff import share
from billet_server.core.effects import PowerOff, PowerOn, ReadPower
from billet_server.core.states import State
from billet_server.core.terms import PowerState
from billet_server.core.turn import POWER, Turn


def keep_power(turn: Turn) -> None:
    """Read the power once a minute and switch it where it differs from ``spec.online``."""
    last = turn.seen.outcome
    if last is not None and isinstance(last.effect, PowerOn | PowerOff | ReadPower) and last.fault:
        if not (isinstance(last.effect, ReadPower) and _given_up(turn)):
            turn.fail(last.fault, POWER)
            return
        turn.look_again(turn.rules.power_poll_s)
        turn.blocked()
        return
    _drop_lost_ramdisk(turn)
    seen = turn.seen.power
    poll_s = turn.rules.power_poll_s
    if seen is None and (slot_s := _first_look_s(turn)) > 0:
        turn.look_again(slot_s)
        return
    age_s = (turn.exact_now - seen.at).total_seconds() if seen is not None else poll_s
    if seen is None or not 0 <= age_s < poll_s:
        # Reading goes on where switching was given up: the machine may have been switched by hand.
        if not turn.blocked() or _given_up(turn):
            turn.ask(ReadPower())
        return
    turn.look_again(poll_s - age_s)
    if seen.state is PowerState.UNKNOWN:
        turn.wait("bmc", "the BMC does not say whether the machine is on", "bmc")
        return
    turn.status.powered_on = on = seen.state is PowerState.ON
    if not on:
        # Whatever agent there was is gone with the power; so is its right to call.
        turn.status.boot = None
    if on != turn.host.spec.online:
        _switch(turn)
        return
    retries.succeeded(turn.status, "power")
    if turn.status.error_type == POWER:
        turn.clear_problem()


def _given_up(turn: Turn) -> bool:
    """Whether switching was given up for another reason than a wrong password."""
    problem = turn.status.problem
    return problem is not None and problem.id == retries.EXHAUSTED and problem.cause != "bmc-auth"


def _first_look_s(turn: Turn) -> float:
    """Return how long a new server may trust what is written about a settled host.

    Thousands of hosts take turns in the first minute, and in every minute after it.
    """
    if turn.status.powered_on is not turn.host.spec.online or turn.status.problem is not None:
        return 0.0
    slot_s = turn.rules.power_poll_s * share(turn.host.uid, "poll")
    return slot_s - (turn.exact_now - turn.seen.started_at).total_seconds()


def _drop_lost_ramdisk(turn: Turn) -> None:
    """Forget an idle ramdisk whose agent is lost: the next use boots a new one."""
    boot, agent = turn.status.boot, turn.seen.agent
    if boot is None or (agent is not None and agent.connected and agent.nonce == boot.nonce):
        return
    known = agent.last_seen if agent is not None and agent.nonce == boot.nonce else None
    moments = (boot.chosen_at, boot.agent_connected_at, known, turn.seen.started_at)
    last = max((m for m in moments if m is not None and m <= turn.exact_now), default=None)
    left_s = 0.0
    if last is not None:
        left_s = turn.rules.agent_lost_s - (turn.exact_now - last).total_seconds()
    if left_s > 0:
        turn.look_again(left_s)
    else:
        turn.status.boot = None


def _switch(turn: Turn) -> None:
    if turn.blocked():
        return
    if turn.host.spec.online:
        turn.wait("bmc", "switching the power on", "bmc")
        turn.note("PowerOn", "switching on: spec.online is true")
        turn.ask(PowerOn())
        return
    if turn.host.spec.disable_power_off:
        turn.wait("change", "spec.disablePowerOff forbids switching off", "user")
        return
    # An idle ramdisk has nothing to lose; a running system is asked first.
    soft = turn.state in (State.PROVISIONED, State.EXTERNALLY_PROVISIONED)
    turn.wait("bmc", "switching the power off", "bmc")
    turn.note("PowerOff", "switching off: spec.online is false")
    turn.ask(PowerOff(soft=soft))
