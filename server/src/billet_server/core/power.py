"""Keeping a stable host's power as ``spec.online`` says."""

from datetime import timedelta

from billet_server.core import retries
from billet_server.core.backoff import share
from billet_server.core.booting import lost_at
from billet_server.core.effects import PowerCycle, PowerOff, PowerOn, ReadPower
from billet_server.core.reboot import (
    Request,
    acting,
    held,
    restart_failed,
    restarted_in_place,
    taken_back,
)
from billet_server.core.states import State
from billet_server.core.terms import PowerState
from billet_server.core.turn import POWER, Turn

_SWITCHES = (PowerOn, PowerOff, PowerCycle, ReadPower)


def keep_power(turn: Turn) -> None:
    """Read the power once a minute; switch where it is not as ``spec.online`` and reboots say."""
    if _failed(turn):
        return
    _drop_lost_ramdisk(turn)
    seen, requests = turn.seen.power, acting(turn)
    poll_s = turn.rules.power_poll_s
    if seen is None and not requests and (slot_s := _first_look_s(turn)) > 0:
        turn.look_again(slot_s)
        return
    age_s = (turn.exact_now - seen.at).total_seconds() if seen is not None else poll_s
    if seen is None or not 0 <= age_s < poll_s:
        # Reading goes on where switching was given up: the machine may have been switched by hand.
        if not turn.blocked() or given_up(turn):
            turn.go_on_waiting()
            turn.ask(ReadPower())
        return
    turn.look_again(poll_s - age_s)
    if seen.state is PowerState.UNKNOWN:
        until = seen.at + timedelta(seconds=poll_s)
        turn.wait("bmc", "the BMC does not say whether the machine is on", "bmc", until)
        return
    _enforce(turn, requests, on=seen.state is PowerState.ON)


def _failed(turn: Turn) -> bool:
    """Take in a failed command; False: there was none."""
    last = turn.seen.outcome
    if last is None or last.fault is None or not isinstance(last.effect, _SWITCHES):
        return False
    if isinstance(last.effect, PowerCycle):
        restart_failed(turn)
    if isinstance(last.effect, ReadPower) and given_up(turn) and turn.blocked():
        turn.look_again(turn.rules.power_poll_s)
    else:
        # Also where switching was given up and an edit has since called for new tries.
        turn.fail(last.fault, POWER)
    return True


def _enforce(turn: Turn, requests: tuple[Request, ...], *, on: bool) -> None:
    turn.status.powered_on = on
    if not on:
        # Whatever agent there was is gone with the power; so is its right to call.
        turn.status.boot = None
    if turn.host.spec.disable_power_off:
        if restarted_in_place(turn, requests, on=on):
            return
        requests = ()
    else:
        turn.status.reboot = None
    if not on and taken_back(turn):
        return
    if not on and requests:
        held(turn, requests)
    if on != (turn.host.spec.online and not requests):
        _switch(turn, requests)
        return
    retries.succeeded(turn.status, "power")
    if turn.status.error_type == POWER:
        turn.clear_problem()


def given_up(turn: Turn) -> bool:
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
    left_s = (lost_at(turn, boot) - turn.exact_now).total_seconds()
    if left_s > 0:
        turn.look_again(left_s)
    else:
        turn.status.boot = None


def _switch(turn: Turn, requests: tuple[Request, ...]) -> None:
    if turn.blocked():
        return
    # One Event when it begins: the tries that follow a failure are Warnings of their own.
    first = turn.status.problem is None
    if turn.host.spec.online and not requests:
        turn.wait("bmc", "switching the power on", "bmc")
        if first:
            turn.note("PowerOn", "switching on: spec.online is true")
        turn.ask(PowerOn())
        return
    if turn.host.spec.disable_power_off:
        turn.wait("change", "spec.disablePowerOff forbids switching off", "user")
        return
    # An idle ramdisk has nothing to lose; a running system is asked first, and once only.
    soft = turn.state in (State.PROVISIONED, State.EXTERNALLY_PROVISIONED)
    soft = soft and turn.status.error_count == 0 and not any(each.hard for each in requests)
    keys = ", ".join(each.key for each in requests)
    if first:
        reason = f"annotation {keys}" if keys else "spec.online is false"
        turn.note("PowerOff", f"switching off: {reason}")
    if soft:
        until = turn.exact_now + timedelta(seconds=turn.rules.soft_off_s)
        turn.wait("bmc", "the machine's system is asked to switch off", "bmc", until)
    else:
        turn.wait("bmc", "switching the power off", "bmc")
    turn.ask(PowerOff(soft=soft))
