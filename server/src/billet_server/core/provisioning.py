"""The states that put an image on a disk and take it off again."""

from datetime import datetime, timedelta

from billet_server.core.agents import AgentView
from billet_server.core.booting import (
    HAND_OVER,
    agent_for,
    boot_mode,
    job_number,
    job_result,
    nothing_runs,
)
from billet_server.core.bootway import by_kexec
from billet_server.core.download import Download, download_of
from billet_server.core.effects import (
    ReadPower,
    RestartFromDisk,
    SetDiskBoot,
    StartClean,
    StartDeploy,
    StartHandOver,
)
from billet_server.core.fasttrack import stay
from billet_server.core.host import Boot, Image, Period
from billet_server.core.images import hints_key, image_key, image_source
from billet_server.core.problems import Fault
from billet_server.core.profiles import hints_of, set_profile
from billet_server.core.protection import protects_data
from billet_server.core.reboot import taken_back
from billet_server.core.states import State
from billet_server.core.terms import BootMode, PowerState
from billet_server.core.turn import POWER, PROVISIONING, Turn
from billet_server.core.wording import printable


def provision(turn: Turn) -> None:
    """Write the image, prove it, leave the machine to its disk."""
    status, spec = turn.status, turn.host.spec
    image = spec.wanted_image
    if image is None:
        turn.note("ProvisioningAborted", "spec.image was removed while provisioning")
        turn.go(State.DEPROVISIONING)
        return
    if not status.provisioning.id:
        raw = turn.seen.entropy
        parts = (raw[:8], raw[8:12], "4" + raw[13:16], "8" + raw[17:20], raw[20:32])
        status.provisioning.id = "-".join(parts)
        status.operation_history.provision = Period(start=turn.now)
        turn.note("ProvisioningStarted", f"image {image.url}")
    if status.boot is not None and status.boot.purpose == HAND_OVER:
        _hand_over(turn, status.boot)
        return
    download = _download(turn, image)
    if isinstance(download, Fault):
        turn.stand(download._replace(message=f"{turn.host.key}: {download.message}"), PROVISIONING)
        return
    agent = agent_for(turn, "provision", PROVISIONING)
    if agent is None:
        return
    set_profile(turn)
    job = _deploy(turn, image, download)
    if job.job_id not in agent.jobs:
        status.provisioning.config_drive = turn.seen.data_version
    report = job_result(turn, agent, job, PROVISIONING)
    if report is None or status.boot is None:
        return
    if report.deploy is not None:
        if report.deploy.boot_mode in tuple(BootMode):
            status.provisioning.boot_mode = report.deploy.boot_mode
        text = (
            f"{report.deploy.checksum} on {report.deploy.root_disk}"
            f" ({report.deploy.root_disk_reason}), {report.deploy.image_bytes} bytes fetched"
        )
        turn.note("ImageWritten", printable(text, 900))
    status.provisioning.image = image
    status.provisioning.root_device_hints = hints_of(spec)
    status.boot.purpose = HAND_OVER
    turn.soften()
    turn.progress(HAND_OVER, "image verified and written; leaving the machine to its disk")
    turn.look_again(0.0)


def _download(turn: Turn, image: Image) -> Download | Fault:
    """Return how the image is fetched, or why it, or what annotations say of it, is no use."""
    download = download_of(turn.host.annotations, turn.rules.image_rate_bytes_s)
    source = image_source(image)
    return source if isinstance(source, Fault) else download


def _deploy(turn: Turn, image: Image, download: Download) -> StartDeploy:
    status = turn.status
    hints = hints_of(turn.host.spec)
    what = image_key(image) if hints is None else f"{image_key(image)}-{hints_key(hints)}"
    job_id = f"deploy/{status.provisioning.id}/{what}/{job_number(turn)}"
    clean = turn.host.spec.automated_cleaning_mode != "disabled"
    return StartDeploy(job_id, image, hints, clean, download, protects_data(turn.host.annotations))


def _hand_over(turn: Turn, boot: Boot) -> None:
    agent = turn.seen.agent if turn.seen.agent and turn.seen.agent.nonce == boot.nonce else None
    restarted, told = turn.outcome(RestartFromDisk), turn.outcome(StartHandOver)
    if restarted is not None:
        if restarted[1].fault is not None:
            turn.fail(restarted[1].fault, POWER)
        else:
            _provisioned(turn, "restarted from disk by its BMC")
        return
    turn.progress(HAND_OVER, "leaving the machine to its disk")
    if told is not None and told[1].fault is not None:
        boot.handed_over_at = None
    here = agent is not None and agent.connected
    if boot.handed_over_at is None:
        _tell_agent(turn, boot, here=here and told is None)
    elif agent is not None and agent.connected:
        _see_off(turn, agent, boot.handed_over_at)
    else:
        _prove(turn, agent, boot.handed_over_at)


def _tell_agent(turn: Turn, boot: Boot, *, here: bool) -> None:
    chosen = turn.outcome(SetDiskBoot)
    refused = chosen[1].fault if chosen is not None else None
    if refused is not None and refused.problem != "bmc-unsupported":
        # A BMC without the choice is no obstacle: boot entries and boot plan lead to the disk.
        turn.fail(refused, POWER)
    elif not here:
        # The agent went before it was told: its work is done, the BMC restarts the machine.
        _restart(turn)
    elif chosen is not None:
        # Written before the agent is told: should this server end now, the next one knows that
        # the machine may run its own system already, and does not cut its power.
        boot.handed_over_at = turn.now
        turn.wait(HAND_OVER, "asking the agent to leave", "agent")
        turn.ask(_hand_over_job(turn))
    elif not turn.blocked():
        turn.wait("bmc", "setting the next boot to disk", "bmc")
        turn.ask(SetDiskBoot(boot_mode(turn)))


def _hand_over_job(turn: Turn) -> StartHandOver:
    kexec = by_kexec(turn.host.annotations)
    return StartHandOver(f"hand-over/{turn.status.provisioning.id}", kexec)


def _see_off(turn: Turn, agent: AgentView, told_at: datetime) -> None:
    """The agent was told to leave and is still here."""
    until = _patience(turn, told_at)
    job = _hand_over_job(turn)
    failed = job.job_id in agent.jobs and agent.jobs[job.job_id].state in ("failed", "cancelled")
    if turn.exact_now >= until or failed:
        if not turn.blocked():
            turn.note("HandOverForced", "the agent did not reboot the machine", "Warning")
            _restart(turn)
        return
    turn.wait(HAND_OVER, "the agent restarts the machine", "agent", until)
    # told_at is of whole seconds: who called within that second may have been told. By another
    # server that was not this connection. Told twice, an agent starts a job once.
    another_told = turn.seen.started_at > told_at
    called_again = agent.connected_at > told_at + timedelta(seconds=1)
    if (
        (called_again or another_told)
        and job.job_id not in agent.jobs
        and turn.outcome(StartHandOver) is None
    ):
        turn.ask(job)


def _patience(turn: Turn, told_at: datetime) -> datetime:
    """Return until when the agent may be about to leave; a new server lets it call in first."""
    until, started = told_at + timedelta(seconds=turn.rules.hand_over_s), turn.seen.started_at
    if started > turn.exact_now:
        return until
    return max(until, started + timedelta(seconds=turn.rules.agent_return_s))


def _prove(turn: Turn, agent: AgentView | None, told_at: datetime) -> None:
    """The agent has left. On its word, or once it stays away, power is the last proof."""
    until = _patience(turn, told_at)
    on_purpose = agent is not None and agent.goodbye in ("reboot", "power-off", "kexec")
    if not on_purpose and turn.exact_now < until:
        text = "the agent's connection ended without a word; it has left, or it comes back"
        turn.wait(HAND_OVER, text, "machine", until)
        return
    rival = turn.seen.boot.rival_at
    if rival is not None and rival >= told_at:
        turn.note("HandOverForced", "the machine is still in the ramdisk", "Warning")
        _restart(turn)
        return
    last = turn.outcome(ReadPower)
    if last is None:
        if not turn.blocked():
            turn.wait(HAND_OVER, "reading the power state as proof", "bmc")
            turn.ask(ReadPower())
    elif last[1].fault is not None:
        turn.fail(last[1].fault, POWER)
    elif last[1].power is PowerState.ON:
        _provisioned(turn, _left_how(turn, agent))
    elif last[1].power is PowerState.UNKNOWN and turn.exact_now < until + timedelta(minutes=1):
        end = until + timedelta(minutes=1)
        turn.wait(HAND_OVER, "the BMC does not say yet whether the machine is on", "bmc", end)
        turn.look_again(5.0)
    else:
        _restart(turn)


def _left_how(turn: Turn, agent: AgentView | None) -> str:
    """Return the proof in words; tell where kexec was wanted and could not be."""
    job = _hand_over_job(turn)
    report = agent.jobs.get(job.job_id) if agent is not None else None
    result = report.hand_over if report is not None else None
    if job.kexec and result is not None:
        reason = printable(result.reason, 400)
        if result.action == "kexec":
            return f"the agent started the system without the firmware ({reason})"
        turn.note("KexecFallback", f"rebooted instead, because {reason}", "Warning")
    return "the agent left and the machine is on, booting from disk"


def _restart(turn: Turn) -> None:
    if not turn.blocked():
        turn.wait("bmc", "the BMC restarts the machine from its disk", "bmc")
        turn.ask(RestartFromDisk(boot_mode(turn)))


def _provisioned(turn: Turn, proof: str) -> None:
    status = turn.status
    status.operation_history.provision.end = turn.now
    status.boot = None
    status.powered_on = True
    image = status.provisioning.image
    turn.note("ProvisioningComplete", f"{image.url if image else 'image'}: {proof}")
    # Whoever asked for a restart meanwhile has had it.
    taken_back(turn)
    turn.go(State.PROVISIONED)


def deprovision(turn: Turn) -> None:
    """Wipe the metadata of the disks, forget the image."""
    status, spec = turn.status, turn.host.spec
    period = status.operation_history.deprovision
    if period.start is None or period.end is not None:
        period = status.operation_history.deprovision = Period(start=turn.now)
        turn.note("DeprovisioningStarted", "cleaning the disks")
    if spec.automated_cleaning_mode == "disabled":
        if nothing_runs(turn, PROVISIONING):
            _deprovisioned(turn, "not cleaned: automatedCleaningMode is disabled")
        return
    agent = agent_for(turn, "deprovision", PROVISIONING)
    if agent is None:
        return
    assert period.start is not None
    job_id = f"clean/{period.start:%Y%m%dT%H%M%SZ}/{job_number(turn)}"
    job = StartClean(job_id, protects_data(turn.host.annotations))
    report = job_result(turn, agent, job, PROVISIONING)
    if report is not None:
        wiped = ", ".join(report.clean.wiped) if report.clean else ""
        _deprovisioned(turn, f"cleaned {wiped}")


def _deprovisioned(turn: Turn, text: str) -> None:
    status = turn.status
    status.provisioning.image = None
    status.provisioning.id = ""
    status.provisioning.root_device_hints = None
    status.provisioning.custom_deploy = None
    status.provisioning.config_drive = ""
    status.operation_history.deprovision.end = turn.now
    stay(turn)
    turn.note("DeprovisioningComplete", text)
    taken_back(turn)
    turn.go(State.POWERING_OFF if turn.host.deleting else State.READY)
