"""Frames of the agent link; see the package's docstring for their order."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from billet_wire.jobs import Clean, Deploy, Job
from billet_wire.reports import CleanResult, DeployResult, HandOverResult, InspectResult

PROTOCOL = 1

STANDBY = "standby"
"""`Refused.reason` of a server that does not lead: another one of the agent's servers does."""

JobState = Literal["running", "succeeded", "failed", "cancelled"]


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a running job is: step's id, percent 0..100, bytes, bytes/s, seconds left."""

    step: str
    percent: float | None = None
    done_bytes: int | None = None
    total_bytes: int | None = None
    rate_bytes_s: float | None = None
    eta_s: float | None = None
    message: str = ""


class JobProblem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a job failed.

    ``problem`` is a stable id of docs/troubleshooting (image-checksum, image-fetch, ...);
    ``message`` one sentence with what was tried and what came back; ``evidence`` raw text (a
    tool's output, bounded to 4 KiB); ``advice`` what a person should do. ``heals``, whether
    trying again later can help, is only asked for an id that the server's catalogue lacks;
    agents of this version leave it out, older ones always say it.
    """

    problem: str
    message: str
    evidence: str = ""
    advice: str = ""
    heals: bool | None = None


class JobReport(msgspec.Struct, frozen=True, tag_field="type", tag="job"):
    """A job's present state. ``result`` is set when succeeded, ``problem`` when failed."""

    id: str
    kind: str
    state: JobState
    progress: Progress | None = None
    inspect: InspectResult | None = None
    clean: CleanResult | None = None
    deploy: DeployResult | None = None
    hand_over: HandOverResult | None = None
    problem: JobProblem | None = None


def reports_that_hold(reports: Mapping[str, JobReport], job: Job) -> dict[str, JobReport]:
    """Return the reports that still hold once ``job`` begins; a known job begins nothing.

    What a finished disk job said of the disk is history as soon as another one writes there: if
    the first is wanted again, it has to be done again.
    """
    if job.id in reports or not isinstance(job.params, Clean | Deploy):
        return dict(reports)
    return {
        key: report
        for key, report in reports.items()
        if report.state == "running" or report.kind not in {"clean", "deploy"}
    }


class Hello(msgspec.Struct, frozen=True, tag_field="type", tag="hello"):
    """The agent's opening: who it is and the proof that it was booted by this server.

    ``token`` is from the kernel line; ``agent_id`` is random for each start of the agent;
    ``macs`` are all interfaces' permanent MACs, lower case; ``uptime_s`` counts from kernel
    start; ``boot_mode`` is "UEFI" or "legacy"; ``jobs`` are all jobs this agent knows.
    """

    token: str
    agent_id: str
    macs: tuple[str, ...]
    boot_mode: str
    uptime_s: float
    version: str
    protocol: int = PROTOCOL
    jobs: tuple[JobReport, ...] = ()


class Log(msgspec.Struct, frozen=True, tag_field="type", tag="log"):
    """One line of the agent's log."""

    level: Literal["debug", "info", "warning", "error"]
    message: str
    uptime_s: float


class Goodbye(msgspec.Struct, frozen=True, tag_field="type", tag="goodbye"):
    """The agent leaves on purpose: reboot, power-off, kexec or stop."""

    reason: Literal["reboot", "power-off", "kexec", "stop"]


class Welcome(msgspec.Struct, frozen=True, tag_field="type", tag="welcome"):
    """The session is accepted; ``host`` is "namespace/name" for the host's own screen."""

    host: str
    ping_s: float = 10.0


class Refused(msgspec.Struct, frozen=True, tag_field="type", tag="refused"):
    """The session is refused; the connection closes. Retry only after ``retry_after_s``."""

    reason: str
    message: str
    retry_after_s: float | None = None


class RunJob(msgspec.Struct, frozen=True, tag_field="type", tag="run-job"):
    """Start a job, or ask for its report when the id is known."""

    job: Job


class CancelJob(msgspec.Struct, frozen=True, tag_field="type", tag="cancel-job"):
    """Stop a job as soon as it is safe; answered by a report in state cancelled."""

    id: str


AgentMessage = Hello | JobReport | Log | Goodbye
ServerMessage = Welcome | Refused | RunJob | CancelJob
