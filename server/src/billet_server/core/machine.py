"""The host state machine: one pure function from what is known to what is done next.

Theory of operation. ``step`` sees the object (its status is the only memory), the observations
of this pass, and the time. It returns the status to write, at most one effect to perform after
the write, Events, and when to look again. It is called again on any change and after each
effect with its outcome. Losing any call, outcome or process in between only repeats work:
everything needed to go on is in the status (state, boot nonce, operation id), in the agent
(its jobs) or in the machine (power).

The order in every state: conditions that forbid acting, then the credentials, then the state's
own work. States and legal transitions are in `states`; problems and their retries in `turn`.
"""

import re
from datetime import datetime

from billet_server.core.booting import IDLE, agent_for, job_result
from billet_server.core.effects import (
    AddFinalizer,
    CheckBmc,
    ForgetAgent,
    PowerOff,
    PutHardwareData,
    RemoveFinalizer,
    StartInspect,
)
from billet_server.core.hardware import render_hardware
from billet_server.core.host import (
    FINALIZER,
    INSPECT,
    PAUSED,
    CredentialsStatus,
    Host,
    Period,
    SecretReference,
)
from billet_server.core.images import same_image
from billet_server.core.power import keep_power
from billet_server.core.problems import Fault
from billet_server.core.provisioning import deprovision, provision
from billet_server.core.seen import Rules, Seen
from billet_server.core.states import State
from billet_server.core.terms import PowerState
from billet_server.core.turn import INSPECTION, POWER, PROVISIONING, REGISTRATION, Step, Turn

_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")

_ERROR_TYPES = {
    State.INSPECTING: INSPECTION,
    State.PROVISIONING: PROVISIONING,
    State.DEPROVISIONING: PROVISIONING,
}


def step(host: Host, seen: Seen, now: datetime, rules: Rules) -> Step:
    """Decide what to do next for one host. Never raises for anything the object may hold."""
    if PAUSED in host.annotations:
        return Step(host.status, None, (), None)
    turn = Turn(host, seen, now, rules)
    if host.deleting:
        if FINALIZER in host.finalizers:
            _delete(turn)
    elif FINALIZER not in host.finalizers:
        turn.ask(AddFinalizer())
    else:
        _live(turn)
    _let_go(turn)
    return turn.finish()


def trouble(host: Host, fault: Fault, now: datetime, rules: Rules) -> Step:
    """Say on the object that the server itself has trouble with it; the next step takes it back.

    Changes nothing but the problem: what is written now was accepted before.
    """
    turn = Turn(host, Seen("", now), now, rules)
    turn.stand(fault, _ERROR_TYPES.get(turn.state, REGISTRATION))
    return turn.finish()


def _let_go(turn: Turn) -> None:
    """Cut off an agent of a boot that is over; what it said is of no use any more."""
    agent, boot = turn.seen.agent, turn.status.boot
    stale = agent is not None and (boot is None or agent.nonce != boot.nonce)
    if stale and turn.effect is None and turn.host.finalizers:
        turn.ask(ForgetAgent())


def _live(turn: Turn) -> None:
    if not turn.host.spec.bmc.address and not turn.host.spec_fault:
        _unmanaged(turn)
        return
    if turn.host.status_fault:
        _preflight(turn)
        return
    if turn.state in (State.NONE, State.UNMANAGED):
        turn.status.operational_status = ""
        turn.status.operation_history.register = Period(start=turn.now)
        turn.go(State.REGISTERING)
        return
    if turn.state is State.REGISTERING:
        _register(turn)
    elif _preflight(turn) and _credentials(turn):
        _act(turn)


def _act(turn: Turn) -> None:
    match turn.state:
        case State.INSPECTING:
            _inspect(turn)
        case State.READY:
            _ready(turn)
        case State.PROVISIONING:
            provision(turn)
        case State.PROVISIONED:
            _provisioned(turn)
        case State.DEPROVISIONING:
            deprovision(turn)
        case State.EXTERNALLY_PROVISIONED:
            _externally_provisioned(turn)
        case State.POWERING_OFF | State.DELETING:
            # A deletion cannot be taken back; without deletionTimestamp somebody restored
            # the object from a backup: it starts over.
            turn.status.provisioning.state = State.NONE.value
            turn.look_again(0.0)
        case _:
            raise AssertionError(turn.state)


def _unmanaged(turn: Turn) -> None:
    if turn.state is State.NONE:
        turn.note("Discovered", "the host has no BMC address yet")
        turn.go(State.UNMANAGED)
    if turn.state is State.UNMANAGED:
        turn.status.operational_status = "discovered"
        turn.wait("change", "spec.bmc.address is empty", "user")
        return
    text = f"{turn.host.key}: spec.bmc.address was removed from a managed host"
    turn.stand(Fault("spec-invalid", text, advice="set spec.bmc.address again"), REGISTRATION)


def _preflight(turn: Turn) -> bool:
    """Check what must hold before anything is done; False: a problem stands."""
    fault = _standing_fault(turn)
    if fault is not None:
        registers = fault is turn.seen.secret.fault
        error_type = REGISTRATION if registers else _ERROR_TYPES.get(turn.state, REGISTRATION)
        turn.stand(fault, error_type)
        return False
    standing = turn.status.problem
    if standing is not None and standing.id in _STANDING:
        turn.clear_problem()
    return True


def _standing_fault(turn: Turn) -> Fault | None:
    """Return what only a change of object, Secret or other hosts can heal."""
    host, seen = turn.host, turn.seen
    key, mac, address = host.key, host.spec.boot_mac_address, host.spec.bmc.address
    if host.status_fault:
        return Fault("status-invalid", f"{key}: {host.status_fault}")
    if host.spec_fault:
        return Fault("spec-invalid", f"{key}: {host.spec_fault}")
    if seen.secret.fault is not None:
        return seen.secret.fault
    if mac and not _MAC.fullmatch(mac):
        return Fault("boot-mac-invalid", f"{key}: spec.bootMACAddress is {mac!r}")
    if mac and seen.mac_conflict:
        return Fault("boot-mac-conflict", f"{key}: host {seen.mac_conflict} has {mac.lower()} too")
    if seen.bmc_conflict:
        return Fault("bmc-conflict", f"{key}: host {seen.bmc_conflict} has BMC {address} too")
    if not mac and turn.state in _ERROR_TYPES:
        return Fault("boot-mac-missing", f"{key}: cannot network boot without its MAC")
    return None


_STANDING = frozenset(
    {
        "spec-invalid",
        "status-invalid",
        "status-refused",
        "internal",
        "bmc-conflict",
        "bmc-secret-missing",
        "bmc-secret-malformed",
        "boot-mac-invalid",
        "boot-mac-conflict",
        "boot-mac-missing",
    }
)


def _checked(turn: Turn) -> bool:
    """Take in the outcome of a credential check; False when it failed."""
    last = turn.outcome(CheckBmc)
    if last is None or last[0] != _check(turn):
        return True  # what was tried is no longer what the object says: it is tried anew
    if last[1].fault is not None:
        turn.fail(last[1].fault, REGISTRATION)
        return False
    turn.status.good_credentials = _credentials_status(turn)
    if last[1].power is not PowerState.UNKNOWN:
        turn.status.powered_on = last[1].power is PowerState.ON
    if turn.status.error_type == REGISTRATION:
        turn.clear_problem()
    turn.status.operational_status = "OK"
    return True


def _check(turn: Turn) -> CheckBmc:
    return CheckBmc(turn.seen.secret.version, turn.host.spec.bmc.address)


def _credentials(turn: Turn) -> bool:
    """Re-check when the Secret changed or the last check failed; False: not usable now."""
    if not _checked(turn):
        return False
    wanted, status = _credentials_status(turn), turn.status
    if status.good_credentials == wanted:
        if status.error_type == REGISTRATION:
            turn.clear_problem()  # the edit that led to it was taken back
        return True
    if not turn.blocked():
        status.tried_credentials = wanted
        turn.wait("bmc", "trying the credentials of the changed Secret", "bmc")
        turn.ask(_check(turn))
    return False


def _credentials_status(turn: Turn) -> CredentialsStatus:
    reference = SecretReference(turn.host.spec.bmc.credentials_name, turn.host.key.namespace)
    return CredentialsStatus(reference, turn.seen.secret.version)


def _register(turn: Turn) -> None:
    if not _preflight(turn) or not _checked(turn):
        return
    status, spec = turn.status, turn.host.spec
    if status.good_credentials != _credentials_status(turn):
        if not turn.blocked():
            status.tried_credentials = _credentials_status(turn)
            turn.wait("bmc", f"trying the credentials at {spec.bmc.address}", "bmc")
            turn.ask(_check(turn))
        return
    status.operation_history.register.end = turn.now
    turn.note("Registered", f"BMC {spec.bmc.address} accepts the credentials")
    if spec.externally_provisioned:
        turn.go(State.EXTERNALLY_PROVISIONED)
    elif spec.inspection_mode == "disabled" or turn.host.annotations.get(INSPECT) == "disabled":
        status.hardware_profile = spec.hardware_profile or "unknown"
        turn.note("InspectionSkipped", "inspection is disabled")
        turn.go(State.READY)
    else:
        status.operation_history.inspect = Period(start=turn.now)
        turn.note("InspectionStarted", "the ramdisk will report the hardware")
        turn.go(State.INSPECTING)


def _inspect(turn: Turn) -> None:
    status = turn.status
    saved = turn.outcome(PutHardwareData)
    if saved is not None and saved[1].fault is None:
        _inspected(turn, saved[0])
        return
    if saved is not None and saved[1].fault is not None:
        turn.fail(saved[1].fault, INSPECTION)
        return
    period = status.operation_history.inspect
    if period.start is None:
        period.start = turn.now
    agent = agent_for(turn, "inspect", INSPECTION)
    if agent is None:
        return
    job_id = f"inspect/{period.start:%Y%m%dT%H%M%SZ}/{status.error_count}"
    report = job_result(turn, agent, StartInspect(job_id), INSPECTION)
    if report is None:
        return
    if report.inspect is None:
        turn.fail(Fault("inspection-empty", f"{turn.host.key}: empty inventory"), INSPECTION)
    elif not turn.blocked():
        status.provisioning.boot_mode = agent.boot_mode
        turn.wait("api", "saving the inventory", "billet")
        turn.ask(PutHardwareData(render_hardware(report.inspect)))


def _inspected(turn: Turn, saved: PutHardwareData) -> None:
    status = turn.status
    status.hardware = saved.hardware
    status.hardware_profile = turn.host.spec.hardware_profile or "unknown"
    status.operation_history.inspect.end = turn.now
    if status.boot is not None:
        status.boot.purpose = IDLE
    turn.note("InspectionComplete", "the hardware is in status.hardware and HardwareData")
    turn.go(State.READY)


def _ready(turn: Turn) -> None:
    spec = turn.host.spec
    if spec.externally_provisioned:
        turn.status.boot = None
        turn.go(State.EXTERNALLY_PROVISIONED)
        return
    if spec.wanted_image is not None and spec.online:
        turn.status.provisioning.id = ""
        turn.go(State.PROVISIONING)
        return
    keep_power(turn)
    if spec.wanted_image is not None and turn.effect is None:
        turn.wait("change", "an image is set but spec.online is false", "user")


def _externally_provisioned(turn: Turn) -> None:
    if not turn.host.spec.externally_provisioned:
        # As Metal3: what was there counts as provisioned, and not by the image of the spec.
        turn.note("NoLongerExternal", "spec.externallyProvisioned was taken back")
        turn.go(State.PROVISIONED)
        return
    keep_power(turn)


def _provisioned(turn: Turn) -> None:
    held, wanted = turn.status.provisioning.image, turn.host.spec.wanted_image
    if held is None or not same_image(held, wanted):
        turn.status.operation_history.deprovision = Period(start=turn.now)
        turn.note("DeprovisioningStarted", "spec.image was removed or changed")
        turn.go(State.DEPROVISIONING)
        return
    keep_power(turn)


def _delete(turn: Turn) -> None:
    match turn.state:
        case State.NONE | State.UNMANAGED | State.REGISTERING:
            turn.go(State.DELETING)
        case State.INSPECTING | State.READY | State.EXTERNALLY_PROVISIONED:
            turn.go(State.POWERING_OFF)
        case State.PROVISIONING | State.PROVISIONED:
            turn.go(State.DEPROVISIONING)
        case State.DEPROVISIONING:
            if _gave_up(turn, "cleaning", _standing_fault(turn)):
                turn.go(State.POWERING_OFF)
            elif _credentials(turn):
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
