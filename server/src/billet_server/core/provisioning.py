"""The states that put an image on a disk and take it off again."""

from datetime import timedelta

from billet_server.core.booting import HAND_OVER, IDLE, agent_for, boot_mode, job_result
from billet_server.core.effects import (
    ReadPower,
    RestartFromDisk,
    SetDiskBoot,
    StartClean,
    StartDeploy,
    StartHandOver,
)
from billet_server.core.host import Boot, Image, Period
from billet_server.core.images import PROFILE_HINTS, image_key, image_source
from billet_server.core.problems import Fault
from billet_server.core.states import State
from billet_server.core.terms import PowerState
from billet_server.core.turn import POWER, PROVISIONING, Turn
from billet_wire import RootDeviceHints


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
    source = image_source(image)
    if isinstance(source, Fault):
        turn.stand(source._replace(message=f"{turn.host.key}: {source.message}"), PROVISIONING)
        return
    agent = agent_for(turn, "provision", PROVISIONING)
    if agent is None:
        return
    report = job_result(turn, agent, _deploy(turn, image), PROVISIONING)
    if report is None or status.boot is None:
        return
    if report.deploy is not None:
        status.provisioning.boot_mode = report.deploy.boot_mode or status.provisioning.boot_mode
        turn.note(
            "ImageWritten",
            f"{report.deploy.checksum} on {report.deploy.root_disk}"
            f" ({report.deploy.root_disk_reason}), {report.deploy.image_bytes} bytes fetched",
        )
    status.provisioning.image = image
    status.provisioning.root_device_hints = _hints(turn)
    status.boot.purpose = HAND_OVER
    turn.soften()
    turn.progress(HAND_OVER, "image verified and written; leaving the machine to its disk")
    turn.look_again(0.0)


def _deploy(turn: Turn, image: Image) -> StartDeploy:
    status = turn.status
    job_id = f"deploy/{status.provisioning.id}/{image_key(image)}/{status.error_count}"
    clean = turn.host.spec.automated_cleaning_mode != "disabled"
    return StartDeploy(job_id, image, _hints(turn), clean)


def _hints(turn: Turn) -> RootDeviceHints | None:
    return turn.host.spec.root_device_hints or PROFILE_HINTS.get(turn.host.spec.hardware_profile)


def _hand_over(turn: Turn, boot: Boot) -> None:
    agent = turn.seen.agent
    here = agent is not None and agent.connected and agent.nonce == boot.nonce
    restarted = turn.outcome(RestartFromDisk)
    if restarted is not None:
        if restarted[1].fault is not None:
            turn.fail(restarted[1].fault, POWER)
        else:
            _provisioned(turn, "restarted from disk by its BMC")
        return
    turn.progress(HAND_OVER, "leaving the machine to its disk")
    if boot.handed_over_at is None:
        _tell_agent(turn, boot, here=here)
        return
    if here:
        _still_here(turn, boot)
        return
    if not _left(turn, boot):
        return
    last = turn.outcome(ReadPower)
    if last is None:
        if not turn.blocked():
            turn.wait(HAND_OVER, "reading the power state as proof", "bmc")
            turn.ask(ReadPower())
    elif last[1].fault is not None:
        turn.fail(last[1].fault, POWER)
    elif last[1].power is PowerState.ON:
        _provisioned(turn, "the agent left and the machine is on, booting from disk")
    else:
        _restart(turn)


def _still_here(turn: Turn, boot: Boot) -> None:
    agent = turn.seen.agent
    assert boot.handed_over_at is not None
    assert agent is not None
    until = boot.handed_over_at + timedelta(seconds=turn.rules.hand_over_s)
    if turn.exact_now >= until:
        turn.note("HandOverForced", "the agent did not reboot the machine", "Warning")
        _restart(turn)
        return
    turn.wait(HAND_OVER, "the agent restarts the machine", "agent", until)
    if _hand_over_id(turn) not in agent.jobs and turn.outcome(StartHandOver) is None:
        # The order got lost with a connection; the agent takes it once, however often it comes.
        turn.ask(StartHandOver(_hand_over_id(turn)))


def _left(turn: Turn, boot: Boot) -> bool:
    """Whether the agent is gone for good: it said goodbye, or did not come back in time.

    A broken connection is no proof, and a server that was restarted has seen nothing yet.
    """
    agent = turn.seen.agent
    known = agent is not None and agent.nonce == boot.nonce
    if known and agent is not None and agent.goodbye is not None:
        return True
    assert boot.handed_over_at is not None
    last_seen = agent.last_seen if known and agent is not None else boot.handed_over_at
    since = max(last_seen, turn.seen.started_at)
    until = since + timedelta(seconds=turn.rules.agent_lost_s)
    if turn.exact_now >= until:
        return True
    turn.wait(HAND_OVER, "the agent left without a goodbye; it may come back", "agent", until)
    return False


def _hand_over_id(turn: Turn) -> str:
    return f"hand-over/{turn.status.provisioning.id}"


def _tell_agent(turn: Turn, boot: Boot, *, here: bool) -> None:
    told = turn.outcome(StartHandOver)
    if told is not None and told[1].fault is None:
        boot.handed_over_at = turn.now
        turn.look_again(0.0)
        return
    chosen = turn.outcome(SetDiskBoot)
    refused = chosen[1].fault if chosen is not None else None
    if refused is not None and refused.problem != "bmc-unsupported":
        # A BMC without the choice is no obstacle: boot entries and boot plan lead to the disk.
        turn.fail(refused, POWER)
    elif not here or (told is not None and told[1].fault is not None):
        # The agent went before it was told: its work is done, the BMC restarts the machine.
        _restart(turn)
    elif chosen is not None:
        turn.wait(HAND_OVER, "asking the agent to leave", "agent")
        turn.ask(StartHandOver(_hand_over_id(turn)))
    elif not turn.blocked():
        turn.wait("bmc", "setting the next boot to disk", "bmc")
        turn.ask(SetDiskBoot(boot_mode(turn)))


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
    turn.go(State.PROVISIONED)


def deprovision(turn: Turn) -> None:
    """Wipe the metadata of the disks, forget the image."""
    status, spec = turn.status, turn.host.spec
    period = status.operation_history.deprovision
    if period.start is None or period.end is not None:
        period = status.operation_history.deprovision = Period(start=turn.now)
        turn.note("DeprovisioningStarted", "cleaning the disks")
    if spec.automated_cleaning_mode == "disabled":
        _deprovisioned(turn, "not cleaned: automatedCleaningMode is disabled")
        return
    agent = agent_for(turn, "deprovision", PROVISIONING)
    if agent is None:
        return
    assert period.start is not None
    job_id = f"clean/{period.start:%Y%m%dT%H%M%SZ}/{status.error_count}"
    report = job_result(turn, agent, StartClean(job_id), PROVISIONING)
    if report is not None:
        wiped = ", ".join(report.clean.wiped) if report.clean else ""
        _deprovisioned(turn, f"cleaned {wiped}")


def _deprovisioned(turn: Turn, text: str) -> None:
    status = turn.status
    status.provisioning.image = None
    status.provisioning.id = ""
    status.provisioning.root_device_hints = None
    status.operation_history.deprovision.end = turn.now
    if status.boot is not None:
        status.boot.purpose = IDLE
    turn.note("DeprovisioningComplete", text)
    turn.go(State.POWERING_OFF if turn.host.deleting else State.READY)
