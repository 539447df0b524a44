"""Inspection: the ramdisk reports the hardware, or a person tells it, or nobody does."""

from billet_server.core.annotations import HARDWARE_DETAILS, INSPECT
from billet_server.core.booting import (
    agent_for,
    job_number,
    job_result,
    next_job,
    nothing_runs,
)
from billet_server.core.capacity import Operation
from billet_server.core.details import read_details
from billet_server.core.effects import PutHardwareData, StartInspect
from billet_server.core.fasttrack import stay
from billet_server.core.hardware import render_hardware
from billet_server.core.host import Host, Period
from billet_server.core.problems import Fault
from billet_server.core.states import State
from billet_server.core.turn import INSPECTION, Turn

_DETAILS = "hardware-details"


def is_disabled(host: Host) -> bool:
    """Whether the host is not to be inspected; the annotation counts where the spec is silent."""
    mode = host.spec.inspection_mode
    return mode == "disabled" or (not mode and host.annotations.get(INSPECT) == "disabled")


def is_asked_for(host: Host) -> bool:
    """Whether the annotation asks for an inspection: any value but "disabled", as Metal3 has it."""
    return host.annotations.get(INSPECT, "disabled") != "disabled"


def start(turn: Turn, why: str) -> None:
    """Go and inspect, once there is a place for it."""
    if not turn.place(Operation.INSPECT):
        return
    text = "the ramdisk will report the hardware"
    if turn.host.spec.inspection_mode == "fast":
        text += "; inspectionMode fast means the same, no inventory is read from BMCs"
    turn.status.operation_history.inspect = Period(start=turn.now)
    turn.note("InspectionStarted", f"{why}: {text}")
    turn.go(State.INSPECTING)


def inspect_again(turn: Turn) -> bool:
    """Follow the annotation that asks a host at rest to be inspected; False: it does not."""
    if not is_asked_for(turn.host):
        return False
    if turn.host.spec.inspection_mode == "disabled":
        text = f"annotation {INSPECT} was dropped: spec.inspectionMode is disabled"
        turn.note("InvalidAnnotationValue", text, "Warning")
        turn.remove_annotations(INSPECT)
    else:
        start(turn, f"annotation {INSPECT}")
    return True


def inspect(turn: Turn) -> None:
    """Get an agent there, have it report, save what it says."""
    if is_disabled(turn.host):
        if nothing_runs(turn, INSPECTION):
            turn.note("InspectionSkipped", "inspection was disabled meanwhile")
            _leave(turn)
        return
    if is_asked_for(turn.host):
        # It has begun, whether or not this annotation began it.
        turn.remove_annotations(INSPECT)
        return
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
    job_id = f"inspect/{period.start:%Y%m%dT%H%M%SZ}/{job_number(turn)}"
    report = job_result(turn, agent, StartInspect(job_id), INSPECTION)
    if report is None:
        return
    if report.inspect is None:
        next_job(turn)
        turn.fail(Fault("inspection-empty", f"{turn.host.key}: empty inventory"), INSPECTION)
    elif not turn.blocked():
        status.provisioning.boot_mode = agent.boot_mode
        turn.wait("api", "saving the inventory", "billet")
        turn.ask(PutHardwareData(render_hardware(report.inspect)))


def take_details(turn: Turn) -> bool:
    """Take in hardware that an annotation tells; False: nothing else is done in this pass."""
    text = turn.host.annotations.get(HARDWARE_DETAILS)
    fault, details = None, {}
    if text is not None:
        where = f"{turn.host.key}: annotation {HARDWARE_DETAILS}"
        found = read_details(text)
        if isinstance(found, str):
            fault = Fault(_DETAILS, f"{where} {found}")
        elif not is_disabled(turn.host):
            fault = Fault(_DETAILS, f"{where} is taken only where inspection is disabled")
        else:
            details = found
    if fault is not None:
        turn.stand(fault, INSPECTION)
        return False
    if turn.status.problem is not None and turn.status.problem.id == _DETAILS:
        turn.clear_problem()
    if text is not None:
        _save(turn, details)
    return text is None


def _save(turn: Turn, details: dict[str, object]) -> None:
    saved = turn.outcome(PutHardwareData)
    if saved is not None and saved[1].fault is not None:
        turn.fail(saved[1].fault, INSPECTION)
    elif saved is not None and saved[0].hardware == details:
        turn.status.hardware = details
        turn.clear_problem()
        turn.note("UpdateHardwareDetails", f"the hardware is as annotation {HARDWARE_DETAILS} says")
        turn.remove_annotations(HARDWARE_DETAILS)
    elif not turn.blocked():
        turn.wait("api", "saving the hardware that the annotation tells", "billet")
        turn.ask(PutHardwareData(details))


def _inspected(turn: Turn, saved: PutHardwareData) -> None:
    turn.status.hardware = saved.hardware
    turn.status.operation_history.inspect.end = turn.now
    turn.note("InspectionComplete", "the hardware is in status.hardware and HardwareData")
    _leave(turn)


def _leave(turn: Turn) -> None:
    stay(turn)
    turn.go(State.PREPARING)
