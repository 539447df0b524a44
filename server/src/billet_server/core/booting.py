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
from billet_server.core.problems import Fault, of_agent
from billet_server.core.terms import BootMode, PowerState
from billet_server.core.turn import Turn
from billet_server.core.wording import MOST_NUMBER, printable, whole
from billet_wire import JobReport

HAND_OVER = "hand-over"
IDLE = "idle"
NETBOOT_PURPOSES = frozenset({"inspect", "provision", "deprovision", IDLE})
"""While `Boot.purpose` is one of these, the machine's boot plan is the ramdisk."""

StartJob = StartInspect | StartClean | StartDeploy | StartHandOver

_LOST_POWER_POLL = timedelta(seconds=10)
_BOOT_POWER_POLL = timedelta(seconds=20)
_WHOLE_SECONDS = timedelta(seconds=2)

_RESTARTED = (
    "another agent called with this boot's token, which belongs to the first one: the agent was"
    " restarted on the machine, or somebody copied the token"
)


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
        moved = boot.mac != turn.host.spec.boot_mac_address.lower()
        if boot.purpose == IDLE and not moved and _comes_back(turn, boot):
            return None
        if boot.purpose != purpose or moved:
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


def lost_at(turn: Turn, boot: Boot) -> datetime:
    """Return when an idle agent that is not connected counts as lost."""
    agent = turn.seen.agent
    known = agent.last_seen if agent is not None and agent.nonce == boot.nonce else None
    moments = (boot.chosen_at, boot.agent_connected_at, known, turn.seen.started_at)
    past = [moment for moment in moments if moment is not None and moment <= turn.exact_now]
    if not past:
        return turn.exact_now
    last = max(past)
    rival = _since(turn.seen.boot.rival_at, last)
    lost_s = turn.rules.agent_lost_s if rival is None else turn.rules.agent_return_s
    return last + timedelta(seconds=lost_s)


def _comes_back(turn: Turn, boot: Boot) -> bool:
    """Whether an idle agent that is not connected is waited for; if not, the machine is booted.

    That is no failure: nothing was under way.
    """
    until, power = lost_at(turn, boot), turn.seen.power
    off = power is not None and power.state is PowerState.OFF
    if off or turn.exact_now >= until:
        return False
    text = "the agent in the ramdisk is not connected; it may call again"
    turn.wait("agent-return", text, "machine", until)
    _poll_power(turn, _LOST_POWER_POLL)
    return True


def job_result(turn: Turn, agent: AgentView, start: StartJob, error_type: str) -> JobReport | None:
    """Return the report of a job that succeeded, or do the next thing to get there."""
    for other in agent.jobs.values():
        if other.state == "running" and other.id != start.job_id:
            _cancel(turn, other, error_type)
            return None
    report = agent.jobs.get(start.job_id)
    if report is None:
        _start(turn, start, error_type)
        return None
    if report.state == "succeeded":
        return report
    if report.state == "running":
        _follow(turn, agent, report, error_type)
    elif report.problem is not None:
        next_job(turn)
        turn.fail(of_agent(report.problem, str(turn.host.key)), error_type)
    else:
        text = f"{turn.host.key}: the agent's job {_kind(report)} ended {report.state}, unasked"
        next_job(turn)
        turn.fail(Fault("agent-internal", text), error_type)
    return None


def _start(turn: Turn, start: StartJob, error_type: str) -> None:
    last = turn.outcome(type(start))
    asked = last is not None and last[0].job_id == start.job_id
    if last is not None and asked and last[1].fault is not None:
        turn.fail(last[1].fault, error_type)
        return
    if not asked and turn.blocked():
        return
    kind = start.job_id.partition("/")[0]
    until = turn.waiting_since("agent-start") + timedelta(seconds=turn.rules.job_start_s)
    if turn.exact_now >= until:
        _stalled(turn, f"it was given job {kind} and reported nothing about it", error_type)
        return
    turn.wait("agent-start", f"the agent takes job {kind}", "agent", until)
    if not asked:
        turn.ask(start)
    # Without a first report the job is sent again: the agent knows it by its id.
    turn.look_again(5.0)


def job_number(turn: Turn) -> int:
    """Return the part of a job's id that makes a retry a new job, and a repetition not."""
    return turn.status.boot.failed_jobs if turn.status.boot is not None else 0


def next_job(turn: Turn) -> None:
    """Say that the present job failed: the next is another one."""
    if turn.status.boot is not None:
        turn.status.boot.failed_jobs += 1


def nothing_runs(turn: Turn, error_type: str) -> bool:
    """Whether no job runs on the host; stops the one that does."""
    agent, boot = turn.seen.agent, turn.status.boot
    if agent is None or boot is None or not agent.connected or agent.nonce != boot.nonce:
        return True
    for job in agent.jobs.values():
        if job.state == "running":
            _cancel(turn, job, error_type)
            return False
    return True


def _cancel(turn: Turn, job: JobReport, error_type: str) -> None:
    until = turn.waiting_since("agent-cancel") + timedelta(seconds=turn.rules.job_cancel_s)
    if turn.exact_now >= until:
        _stalled(turn, f"its job {_kind(job)} is no longer wanted and does not stop", error_type)
        return
    text = f"the agent stops job {_kind(job)}, which is no longer wanted"
    turn.wait("agent-cancel", text, "agent", until)
    if turn.outcome(CancelJob) is None:
        turn.ask(CancelJob(job.id))
    turn.look_again(5.0)


def _follow(turn: Turn, agent: AgentView, report: JobReport, error_type: str) -> None:
    """Mirror a running job's progress, as long as there is any."""
    known = (agent.connected_at, agent.reported_at, turn.seen.started_at)
    news = max((moment for moment in known if moment and moment <= turn.exact_now), default=None)
    until = (news or turn.exact_now) + timedelta(seconds=turn.rules.job_stall_s)
    if turn.exact_now >= until:
        step = report.progress.step if report.progress is not None else "start"
        minutes = turn.rules.job_stall_s / 60
        text = f"job {_kind(report)} is in step {printable(step, 40)} without news for"
        _stalled(turn, f"{text} {minutes:.0f} minutes", error_type)
        return
    _mirror(turn, report, until)


def _stalled(turn: Turn, text: str, error_type: str) -> None:
    turn.status.boot = None
    turn.fail(Fault("agent-stalled", f"{turn.host.key}: the agent is connected, but {text}"),
              error_type)  # fmt: skip


def _arrived(turn: Turn, boot: Boot, agent: AgentView, purpose: str) -> AgentView:
    boot.purpose = purpose
    boot.agent_id = agent.agent_id
    turn.status.powered_on = True
    if boot.started_at is None:
        boot.started_at = turn.now
    if boot.agent_connected_at is None:
        boot.agent_connected_at = turn.now
        turn.note("AgentConnected", f"agent called {agent.uptime_s:.0f} s after kernel start")
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
    began = _began(turn, boot.started_at)
    mac = turn.host.spec.boot_mac_address
    script = _since(seen.script_at, boot.chosen_at or boot.started_at)
    dhcp = _since(seen.dhcp_at, boot.chosen_at or boot.started_at)
    if script is not None:
        kernel = "kernel and ramdisk fetched" if _since(seen.initramfs_at, script) else "booting"
        step, text = "ramdisk", f"{kernel}; waiting for the agent's first call"
        until = _began(turn, script) + timedelta(seconds=rules.agent_call_s)
        fault = Fault("agent-silent", f"{key}: no call from the agent since its boot script")
    elif dhcp is not None:
        step, text = "network-boot", f"{mac} got an address; waiting for it to fetch its script"
        until = _began(turn, dhcp) + timedelta(seconds=rules.boot_script_s)
        fault = Fault("boot-no-script", f"{key}: {mac} did not fetch its boot script after DHCP")
    else:
        step = "firmware"
        text = f"machine is in its firmware (POST); waiting for the DHCP request of {mac}"
        until = began + timedelta(seconds=rules.boot_request_s)
        fault = Fault("boot-no-request", f"{key}: no DHCP request from {mac} since power on")
    # A machine that starts over again and again begins each stage anew, but not for ever.
    limit_s = rules.boot_request_s + rules.boot_script_s + rules.agent_call_s
    until = min(until, began + timedelta(seconds=limit_s))
    rival = _since(seen.rival_at, boot.chosen_at or boot.started_at)
    if rival is not None and boot.agent_id:
        until = min(until, rival + timedelta(seconds=rules.agent_return_s))
        fault = Fault("agent-lost", f"{key}: {_RESTARTED}")
    stranger = seen.stranger
    if stranger is not None and _since(stranger.at, boot.chosen_at or boot.started_at):
        until = min(until, stranger.at + timedelta(seconds=rules.agent_return_s))
        fault = Fault("agent-mac", f"{key}: the agent that called has no interface {mac}")
        fault = fault._replace(evidence=stranger.text)
    power = turn.seen.power
    if power is not None and power.at > began and power.state is PowerState.OFF:
        turn.status.powered_on = False
        fault = Fault("boot-power-off", f"{key}: the power went off while the machine was booting")
        until = turn.exact_now
    if turn.exact_now >= until:
        turn.status.boot = None
        turn.fail(fault, error_type)
        return
    turn.progress(step, text)
    turn.wait(step, text, "machine", until)
    _poll_power(turn, _BOOT_POWER_POLL)


def _wait_for_return(turn: Turn, boot: Boot, error_type: str) -> None:
    assert boot.agent_connected_at is not None
    agent, key = turn.seen.agent, turn.host.key
    known = agent is not None and agent.nonce == boot.nonce
    last_seen = agent.last_seen if agent is not None and known else boot.agent_connected_at
    if last_seen > turn.exact_now:
        last_seen = boot.agent_connected_at
    rival = _since(turn.seen.boot.rival_at, last_seen)
    lost_s = turn.rules.agent_lost_s if rival is None else turn.rules.agent_return_s
    until = _began(turn, last_seen) + timedelta(seconds=lost_s)
    power = turn.seen.power
    off = power is not None and power.at > last_seen and power.state is PowerState.OFF
    if off or turn.exact_now >= until:
        text = "the agent is silent, and the power is not known to be off"
        if off:
            text, turn.status.powered_on = "the agent is silent and the power is off", False
        elif rival is not None:
            text = _RESTARTED
        turn.status.boot = None
        # Between two tries, or given up, nothing is lost by it: the next try boots again.
        if not turn.held_back():
            evidence = f"last heard of at {last_seen:%Y-%m-%d %H:%M:%S} UTC"
            turn.fail(Fault("agent-lost", f"{key}: {text}", evidence), error_type)
        return
    if turn.held_back():
        turn.look_again((until - turn.exact_now).total_seconds())
        return
    turn.wait("agent-return", "the agent's connection is lost; it may come back", "machine", until)
    _poll_power(turn, _LOST_POWER_POLL)


def _poll_power(turn: Turn, every: timedelta) -> None:
    """Keep the power reading at most ``every`` old while the machine is silent."""
    power = turn.seen.power
    stale = power is None or turn.exact_now - power.at >= every
    if stale and turn.outcome(ReadPower) is None:
        turn.ask(ReadPower())
    turn.look_again(every.total_seconds())


def _mirror(turn: Turn, report: JobReport, until: datetime) -> None:
    turn.soften()
    progress = report.progress
    if progress is None:
        turn.progress(_kind(report), f"agent runs {_kind(report)}")
    else:
        turn.progress(
            printable(progress.step, 60),
            printable(progress.message, 500),
            percent=_figure(progress.percent, 100),
            done_bytes=_figure(progress.done_bytes),
            total_bytes=_figure(progress.total_bytes),
            rate_bytes_per_second=_figure(progress.rate_bytes_s),
            eta_seconds=_figure(progress.eta_s),
        )
    turn.wait("agent-job", f"agent runs {_kind(report)}", "agent", until)


def _figure(value: float | None, most: int = MOST_NUMBER) -> int | None:
    return None if value is None else whole(value, most)


def _kind(report: JobReport) -> str:
    return printable(report.kind, 20)


def _began(turn: Turn, moment: datetime) -> datetime:
    """Return when waiting began that began at ``moment``: a new server waits anew."""
    started = turn.seen.started_at
    return max(moment, started) if started <= turn.exact_now else moment


def _since(moment: datetime | None, start: datetime) -> datetime | None:
    """Return ``moment`` when it belongs to a boot begun at ``start`` (a whole second)."""
    return moment if moment is not None and moment >= start - _WHOLE_SECONDS else None
