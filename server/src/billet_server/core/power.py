"""Keeping a stable host's power as ``spec.online`` says."""

from datetime import timedelta

from billet_server.core.effects import PowerOff, PowerOn, ReadPower
from billet_server.core.states import State
from billet_server.core.terms import PowerState
from billet_server.core.turn import POWER, Turn


def keep_power(turn: Turn) -> None:
    """Read the power once a minute and switch it where it differs from ``spec.online``."""
    last = turn.seen.outcome
    if last is not None and isinstance(last.effect, PowerOn | PowerOff | ReadPower) and last.fault:
        turn.fail(last.fault, POWER)
        return
    seen = turn.seen.power
    poll = timedelta(seconds=turn.rules.power_poll_s)
    if seen is None or turn.exact_now - seen.at >= poll:
        if not turn.blocked():
            turn.ask(ReadPower())
        return
    turn.status.powered_on = on = seen.state is PowerState.ON
    if not on:
        # Whatever agent there was is gone with the power; so is its right to call.
        turn.status.boot = None
    if on != turn.host.spec.online and seen.state is not PowerState.UNKNOWN:
        _switch(turn)
        return
    if turn.status.error_type == POWER:
        turn.clear_problem()
    turn.look_again((seen.at + poll - turn.exact_now).total_seconds())


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
