"""Which jobs this agent knows: idempotent by id, one at a time, each in a thread of its own."""

import asyncio
import contextlib
import logging
import threading
import traceback
from collections.abc import Callable

import msgspec

from billet_agent.jobs.context import JobContext
from billet_agent.problems import JobCancelled, JobFailed, failure
from billet_wire import (
    CleanResult,
    DeployResult,
    HandOver,
    HandOverResult,
    InspectResult,
    Job,
    JobParams,
    JobProblem,
    JobReport,
    Progress,
    reports_that_hold,
)

MOST_JOBS = 64
"""The server takes no more in a `Hello`; the oldest finished ones are forgotten."""

Result = InspectResult | CleanResult | DeployResult | HandOverResult | None
Run = Callable[[JobParams, JobContext], Result]

log = logging.getLogger("billet.jobs")


class Registry:
    """Jobs and their reports; all methods belong to the event loop's thread.

    ``run`` does a job's work (blocking, in a thread). ``changed`` is called with every new
    report.
    """

    def __init__(self, run: Run, changed: Callable[[JobReport], None]) -> None:
        self._run = run
        self._changed = changed
        self._reports: dict[str, JobReport] = {}
        self._running: str | None = None
        self._context: JobContext | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def reports(self) -> tuple[JobReport, ...]:
        """Return every known job's present report, oldest first."""
        return tuple(self._reports.values())

    def start(self, job: Job) -> JobReport:
        """Start a job and return its report; a known id only gets its present report.

        While another job runs the report is failed with problem agent-busy and not kept, so the
        same id can be started later.
        """
        known = self._reports.get(job.id)
        if known is not None:
            return known
        kind = _kind(job.params)
        if self._running is not None:
            other = self._reports[self._running]
            problem = failure(
                "agent-busy", f"job {job.id} was refused: {other.kind} job {other.id} is running"
            ).problem
            return JobReport(job.id, kind, "failed", problem=problem)
        report = JobReport(job.id, kind, "running", progress=Progress(step="start"))
        self._reports = reports_that_hold(self._reports, job)
        self._running = job.id
        self._idle.clear()
        self._keep(report)
        loop = asyncio.get_running_loop()

        def tell(told: Callable[..., None], *words: object) -> None:
            with contextlib.suppress(RuntimeError):  # the agent has stopped without this job
                loop.call_soon_threadsafe(told, *words)

        def publish(progress: Progress) -> None:
            tell(self._progressed, job.id, progress)

        context = JobContext(publish, log.info)
        self._context = context

        def work() -> None:
            report = execute(self._run, job, context)
            tell(self._finished, report)

        threading.Thread(target=work, name=f"job-{kind}", daemon=True).start()
        return report

    def cancel(self, job_id: str) -> JobReport | None:
        """Ask a running job to stop; return the present report, None for an unknown id."""
        if job_id == self._running and self._context is not None:
            self._context.cancel()
        return self._reports.get(job_id)

    async def stop(self, timeout_s: float) -> None:
        """Cancel what runs and wait for its end, but not longer than the timeout."""
        if self._context is not None:
            self._context.cancel()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("job %s did not stop in %.0f s", self._running, timeout_s)

    def _progressed(self, job_id: str, progress: Progress) -> None:
        if job_id == self._running:
            self._keep(msgspec.structs.replace(self._reports[job_id], progress=progress))

    def _finished(self, report: JobReport) -> None:
        last = self._reports[report.id].progress
        self._running, self._context = None, None
        self._idle.set()
        self._keep(msgspec.structs.replace(report, progress=last))

    def _keep(self, report: JobReport) -> None:
        self._reports[report.id] = report
        while len(self._reports) > MOST_JOBS:
            old = next(key for key in self._reports if key != self._running)
            del self._reports[old]
        self._changed(report)


def execute(run: Run, job: Job, context: JobContext) -> JobReport:
    """Do a job's work and turn every way it can end into its last report."""
    kind = _kind(job.params)
    try:
        result = run(job.params, context)
    except JobCancelled:
        return JobReport(job.id, kind, "cancelled")
    except JobFailed as error:
        return JobReport(job.id, kind, "failed", problem=error.problem)
    except Exception as error:  # noqa: BLE001 - the edge of the job's thread
        return JobReport(job.id, kind, "failed", problem=_unexpected(kind, error))
    report = JobReport(job.id, kind, "succeeded")
    match result:
        case InspectResult():
            return msgspec.structs.replace(report, inspect=result)
        case CleanResult():
            return msgspec.structs.replace(report, clean=result)
        case DeployResult():
            return msgspec.structs.replace(report, deploy=result)
        case HandOverResult():
            return msgspec.structs.replace(report, hand_over=result)
    return report


def _unexpected(kind: str, error: Exception) -> JobProblem:
    return failure(
        "agent-internal",
        f"the {kind} job failed in a way it did not expect: {type(error).__name__}: {error}"[:500],
        evidence="".join(traceback.format_exception(error)),
    ).problem


def _kind(params: JobParams) -> str:
    return "hand-over" if isinstance(params, HandOver) else type(params).__name__.lower()
