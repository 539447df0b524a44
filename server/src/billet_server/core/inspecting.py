"""Inspection: the ramdisk reports the hardware."""

from billet_server.core.booting import IDLE, agent_for, job_number, job_result, next_job
from billet_server.core.effects import PutHardwareData, StartInspect
from billet_server.core.hardware import render_hardware
from billet_server.core.problems import Fault
from billet_server.core.states import State
from billet_server.core.turn import INSPECTION, Turn


def inspect(turn: Turn) -> None:
    """Get an agent there, have it report, save what it says."""
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


def _inspected(turn: Turn, saved: PutHardwareData) -> None:
    status = turn.status
    status.hardware = saved.hardware
    status.hardware_profile = turn.host.spec.hardware_profile or "unknown"
    status.operation_history.inspect.end = turn.now
    if status.boot is not None:
        status.boot.purpose = IDLE
    turn.note("InspectionComplete", "the hardware is in status.hardware and HardwareData")
    turn.go(State.PREPARING)
