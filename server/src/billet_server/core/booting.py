"""Getting an agent onto a host, keeping it there, and giving it jobs."""

from datetime import datetime, timedelta

from billet_server.core.agents import AgentView
from billet_server.core.effects import (
    CancelJob,
    NetworkBoot,
    ReadPower,
    StartClean,
    StartDeploy,
    StartHandOver,
    StartInspect,
)
from billet_server.core.host import Boot
from billet_server.core.problems import Fault
from billet_server.core.terms import BootMode, PowerState
from billet_server.core.turn import Turn
from billet_wire import JobReport

HAND_OVER = "hand-over"
IDLE = "idle"
NETBOOT_PURPOSES = frozenset({"inspect", "provision", "deprovision", IDLE})
"""While `Boot.purpose` is one of these, the machine's boot plan is the ramdisk."""

StartJob = StartInspect | StartClean | StartDeploy | StartHandOver

_LOST_POWER_POLL = timedelta(seconds=10)


def boot_mode(turn: Turn) -> BootMode | None:
    """Return the mode to ask of the firmware; None where only the machine itself knows."""
    if turn.host.spec.boot_mode is not None:
        return turn.host.spec.boot_mode
    known = turn.status.provisioning.boot_mode
    return BootMode(known) if known in tuple(BootMode) else None


def agent_for(turn: Turn, purpose: str, error_type: str) -> AgentView | None:
    """Return the connected agent, or do the next thing to get one there.

    An agent that is there already (after inspection, or waiting for a retry) is used as it is.
    """
    boot, agent = turn.status.boot, turn.seen.agent
    if boot is not None and boot.purpose in NETBOOT_PURPOSES:
        if agent is not None and agent.connected and agent.nonce == boot.nonce:
            return _arrived(turn, boot, agent, purpose)
        if boot.purpose != purpose:
            boot = turn.status.boot = None
    else:
        boot = turn.status.boot = None
    if boot is None:
        if turn.blocked():
            return None
        boot = turn.status.boot = Boot(
            nonce=turn.seen.entropy,
            purpose=purpose,
            mac=turn.host.spec.boot_mac_address.lower(),
            chosen_at=turn.now,
        )
    if boot.started_at is None and not _power_cycled(turn, boot, error_type):
        return None
    if boot.agent_connected_at is not None:
        _wait_for_return(turn, boot, error_type)
    else:
        _wait_for_first_call(turn, boot, error_type)
    return None


def job_result(turn: Turn, agent: AgentView, start: StartJob, error_type: str) -> JobReport | None:
    """Return the report of a job that succeeded, or do the next thing to get there."""
    for other in agent.jobs.values():
        if other.state == "running" and other.id != start.job_id:
            turn.wait("agent-job", f"stopping job {other.kind}, no longer wanted", "agent")
            if turn.outcome(CancelJob) is None:
                turn.ask(CancelJob(other.id))
            turn.look_again(5.0)
            return None
    report = agent.jobs.get(start.job_id)
    if report is None:
        _start(turn, start, error_type)
        return None
    if report.state == "succeeded":
        return report
    if report.state == "running":
        _mirror(turn, report)
        return None
    problem = report.problem
    if problem is None:
        turn.fail(Fault("agent-internal", f"job {report.kind} ended {report.state}"), error_type)
        return None
    fault = Fault(
        problem.problem,
        f"{turn.host.key}: {problem.message}",
        problem.evidence,
        problem.advice or None,
        problem.heals,
    )
    turn.fail(fault, error_type)
    return None


def _start(turn: Turn, start: StartJob, error_type: str) -> None:
    last = turn.outcome(type(start))
    if last is not None and last[0].job_id == start.job_id:
        if last[1].fault is not None:
            turn.fail(last[1].fault, error_type)
        else:
            # The agent's first report is on its way; without one the job is sent again.
            turn.wait("agent-job", "the agent takes the job", "agent")
            turn.look_again(5.0)
        return
    if not turn.blocked():
        turn.wait("agent-job", "giving the agent its job", "billet")
        turn.ask(start)


def _arrived(turn: Turn, boot: Boot, agent: AgentView, purpose: str) -> AgentView:
    boot.purpose = purpose
    boot.agent_id = agent.agent_id
    if boot.started_at is None:
        boot.started_at = turn.now
    if boot.agent_connected_at is None:
        boot.agent_connected_at = turn.now
        turn.note("AgentConnected", f"agent called {agent.uptime_s:.0f} s after kernel start")
    turn.status.powered_on = True
    return agent


def _power_cycled(turn: Turn, boot: Boot, error_type: str) -> bool:
    last = turn.outcome(NetworkBoot)
    if last is not None and last[0].nonce == boot.nonce:
        if last[1].fault is None:
            boot.started_at = turn.now
            turn.status.powered_on = True
            turn.note("NetworkBootStarted", f"power cycled into the ramdisk to {boot.purpose}")
            return True
        turn.status.boot = None
        turn.fail(last[1].fault, error_type)
        return False
    if not turn.blocked():
        turn.progress("boot", "power cycling into the ramdisk")
        turn.wait("bmc", "the BMC power cycles the machine into the ramdisk", "bmc")
        turn.ask(NetworkBoot(boot.nonce, boot_mode(turn)))
    return False


def _wait_for_first_call(turn: Turn, boot: Boot, error_type: str) -> None:
    assert boot.started_at is not None
    seen, rules, key = turn.seen.boot, turn.rules, turn.host.key
    began = max(boot.started_at, turn.seen.started_at)
    mac = turn.host.spec.boot_mac_address
    script = _since(seen.script_at, boot.chosen_at or boot.started_at)
    dhcp = _since(seen.dhcp_at, boot.chosen_at or boot.started_at)
    if script is not None:
        kernel = "kernel and ramdisk fetched" if _since(seen.initramfs_at, script) else "booting"
        step, text = "ramdisk", f"{kernel}; waiting for the agent's first call"
        until = script + timedelta(seconds=rules.agent_call_s)
        fault = Fault("agent-silent", f"{key}: no call from the agent since its boot script")
    elif dhcp is not None:
        step, text = "network-boot", f"{mac} got an address; waiting for it to fetch its script"
        until = dhcp + timedelta(seconds=rules.boot_script_s)
        fault = Fault("boot-no-script", f"{key}: {mac} did not fetch its boot script after DHCP")
    else:
        step = "firmware"
        text = f"machine is in its firmware (POST); waiting for the DHCP request of {mac}"
        until = began + timedelta(seconds=rules.boot_request_s)
        fault = Fault("boot-no-request", f"{key}: no DHCP request from {mac} since power on")
    if turn.exact_now >= until:
        turn.status.boot = None
        turn.fail(fault, error_type)
        return
    turn.progress(step, text)
    turn.wait(step, text, "machine", until)


def _wait_for_return(turn: Turn, boot: Boot, error_type: str) -> None:
    assert boot.agent_connected_at is not None
    agent, key = turn.seen.agent, turn.host.key
    known = agent is not None and agent.nonce == boot.nonce
    last_seen = agent.last_seen if agent is not None and known else boot.agent_connected_at
    until = max(last_seen, turn.seen.started_at) + timedelta(seconds=turn.rules.agent_lost_s)
    power = turn.seen.power
    if power is not None and power.at > last_seen and power.state is PowerState.OFF:
        turn.status.boot, turn.status.powered_on = None, False
        turn.fail(Fault("agent-lost", f"{key}: agent silent and the power is off"), error_type)
        return
    if turn.exact_now >= until:
        turn.status.boot = None
        text = f"{key}: agent silent since {last_seen:%H:%M:%S} UTC, power is still on"
        turn.fail(Fault("agent-lost", text), error_type)
        return
    turn.wait("agent-return", "the agent's connection is lost; it may come back", "machine", until)
    stale = power is None or turn.exact_now - power.at >= _LOST_POWER_POLL
    if stale and turn.outcome(ReadPower) is None:
        turn.ask(ReadPower())
    turn.look_again(_LOST_POWER_POLL.total_seconds())


def _mirror(turn: Turn, report: JobReport) -> None:
    turn.soften()
    progress = report.progress
    if progress is None:
        turn.progress(report.kind, f"agent runs {report.kind}")
    else:
        turn.progress(
            progress.step,
            progress.message,
            percent=_whole(progress.percent),
            done_bytes=progress.done_bytes,
            total_bytes=progress.total_bytes,
            rate_bytes_per_second=_whole(progress.rate_bytes_s),
            eta_seconds=_whole(progress.eta_s),
        )
    turn.wait("agent-job", f"agent runs {report.kind}", "agent")


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _since(moment: datetime | None, start: datetime) -> datetime | None:
    """Return ``moment`` when it belongs to a boot begun at ``start`` (a whole second)."""
    return moment if moment is not None and moment >= start - timedelta(seconds=2) else None
