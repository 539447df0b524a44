"""The agent put together: link, jobs, screen, and how it leaves."""

import asyncio
import logging
import secrets
import signal
from collections.abc import Callable

from billet_agent import VERSION
from billet_agent.backoff import Backoff
from billet_agent.console import Console
from billet_agent.jobs.handover import Action
from billet_agent.jobs.registry import Registry, Run
from billet_agent.link import Link
from billet_agent.outbox import Outbox, OutboxHandler, uptime_s
from billet_agent.settings import Settings
from billet_agent.trust import WallClock
from billet_wire import (
    CancelJob,
    Goodbye,
    Hello,
    JobReport,
    RunJob,
    ServerMessage,
)

log = logging.getLogger("billet.agent")

_GOODBYE_S = 5.0
_STOP_S = 8.0


class Agent:
    """One agent instance; `run` lasts until it hands over or is told to stop.

    ``run_job`` does a job's work, ``macs`` reads the NICs, ``leave`` reboots, powers off, or
    starts the kernel that was loaded.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        run_job: Run,
        macs: Callable[[], tuple[str, ...]],
        boot_mode: str,
        leave: Callable[[Action], None],
        console: Console | None = None,
        clock: WallClock | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._settings = settings
        self._macs = macs
        self._boot_mode = boot_mode
        self._leave = leave
        self._console = console or Console()
        self._id = secrets.token_hex(16)
        self._outbox = Outbox()
        self._registry = Registry(run_job, self._job_changed)
        self._leaving: asyncio.Task[None] | None = None
        self._stopping = False
        self.handed_over: Action | None = None
        self._link = Link(
            settings,
            self._outbox,
            hello=self._hello,
            received=self._received,
            state=self._console.line,
            welcomed=self._console.welcomed,
            clock=clock,
            backoff=backoff,
        )

    async def run(self) -> None:
        """Serve until the hand-over (then the machine reboots) or `stop`."""
        handler = OutboxHandler(self._outbox, self._console.line)
        logger = logging.getLogger("billet")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            await self._link.run()
            if self._leaving is not None:
                await self._leaving
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            logger.removeHandler(handler)

    def stop(self) -> None:
        """Leave because the service stops; a hand-over that began goes on."""
        if self._leaving is None:
            self._stopping = True
            self._leaving = asyncio.create_task(self._stop(), name="agent-stop")

    async def _stop(self) -> None:
        self._console.line("stopping")
        await self._registry.stop(_STOP_S)
        await self._link.leave(Goodbye("stop"), _GOODBYE_S)

    async def _hand_over(self, action: Action) -> None:
        self.handed_over = action
        self._console.line(f"leaving the machine to its disk: {action}")
        await self._link.leave(Goodbye(action), _GOODBYE_S)
        await asyncio.to_thread(self._leave, action)

    def _hello(self) -> Hello:
        return Hello(
            token=self._settings.token,
            agent_id=self._id,
            macs=self._macs(),
            boot_mode=self._boot_mode,
            uptime_s=round(uptime_s(), 1),
            version=VERSION,
            jobs=self._registry.reports,
        )

    def _received(self, message: ServerMessage) -> None:
        match message:
            case RunJob(job=job) if self._stopping:
                log.info("job %s came while stopping: not begun", job.id)
            case RunJob(job=job):
                self._outbox.add_report(self._registry.start(job))
            case CancelJob(id=job_id):
                report = self._registry.cancel(job_id)
                if report is None:
                    log.warning("asked to cancel the unknown job %s", job_id)
                else:
                    self._outbox.add_report(report)
            case _:
                log.warning("the server sent a %s out of turn", type(message).__name__)

    def _job_changed(self, report: JobReport) -> None:
        self._outbox.add_report(report)
        self._console.report(report)
        if report.kind == "hand-over" and report.state == "succeeded" and self._leaving is None:
            action = report.hand_over.action if report.hand_over is not None else "reboot"
            self._leaving = asyncio.create_task(self._hand_over(action), name="agent-hand-over")
