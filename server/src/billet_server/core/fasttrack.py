"""Fast track: a host that is meant to be on waits in the ramdisk and is not booted again.

The agent stays after an inspection or a cleaning for ``Rules.fast_track_s``. An image that is
set till then is written by this very agent. When the while is over the machine is switched off,
and from then on powered as any other host at rest. All of it is in ``status.boot`` (the nonce,
the agent's ID, since when), so a restarted server knows the agent that calls it; one that stays
away costs nothing but an ordinary network boot.
"""

from datetime import datetime, timedelta

from billet_server.core.booting import IDLE
from billet_server.core.effects import PowerCycle, PowerOff, ReadPower
from billet_server.core.host import FAST_TRACK, Boot, whole_second
from billet_server.core.power import given_up
from billet_server.core.reboot import acting
from billet_server.core.terms import PowerState
from billet_server.core.turn import POWER, Turn


def stay(turn: Turn) -> None:
    """Leave the agent where it is: what it was there for is done."""
    boot = turn.status.boot
    if boot is not None:
        boot.purpose, boot.idle_since = IDLE, turn.now


def left_ramdisk(turn: Turn) -> bool:
    """Have a machine leave the ramdisk whose while is over; True: nothing else is done now."""
    boot, status = _waits(turn), turn.status
    if boot is None:
        return False
    last = turn.seen.outcome
    if last is not None and isinstance(last.effect, PowerOff | PowerCycle):
        if last.fault is not None:
            turn.fail(last.fault, POWER)
            turn.look_again(turn.rules.power_poll_s)
            return True
        if isinstance(last.effect, PowerCycle):
            status.boot = None
            return False
    if turn.exact_now < _until(turn, boot):
        return False
    if given_up(turn):
        text = "the machine stays on in the ramdisk, which is of no use any more"
        turn.note("FastTrackEnded", f"{text}: {status.error_message}", "Warning")
        status.boot = None
        return False
    if turn.blocked():
        return True
    if status.problem is None:
        text = "the machine leaves the ramdisk, where it waited long enough"
        turn.note("FastTrackEnded", f"{text}; from now on it is powered as spec.online says")
    turn.wait("bmc", "the machine leaves the ramdisk, where it waited long enough", "bmc")
    turn.ask(PowerCycle(soft=False) if turn.host.spec.disable_power_off else PowerOff(soft=False))
    return True


def tell(turn: Turn) -> None:
    """Say that the host waits in the ramdisk, and until when."""
    boot, effect = _waits(turn), turn.effect
    looks = effect is None or isinstance(effect, ReadPower)
    if boot is None or not looks or turn.status.problem is not None:
        return
    until, old = whole_second(_until(turn, boot)), turn.host.status.waiting
    text = f"in the ramdisk until {until:%Y-%m-%d %H:%M:%S} UTC; what is wanted till then needs"
    text = f"{text} no boot"
    if old is None or old.cause != FAST_TRACK:
        turn.note("FastTrack", f"the machine stays {text}")
    turn.wait("fast-track", text, "user", until)


def _waits(turn: Turn) -> Boot | None:
    """Return the boot of a host that is in the ramdisk, idle, and meant to be on."""
    boot, seen = turn.status.boot, turn.seen.power
    if boot is None or boot.purpose != IDLE or not turn.host.spec.online or acting(turn):
        return None
    if boot.idle_since is None:
        # Of a server that knew no while, or wiped by somebody.
        boot.idle_since = turn.now
    off = seen is not None and seen.state is PowerState.OFF and seen.at >= boot.idle_since
    return None if off else boot


def _until(turn: Turn, boot: Boot) -> datetime:
    assert boot.idle_since is not None
    return boot.idle_since + timedelta(seconds=turn.rules.fast_track_s)
