"""Agents without a network: the twin of the gateway, and fake agents to drive it with.

A test connects a `FakeAgent` by a `Hello`, and either speaks for it (`report`, `goodbye`,
`drop`) or gives it a script that answers each new job.
"""

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Literal

from billet_server.errors import AgentError
from billet_server.ports import Admission, AgentDirectory, AgentView
from billet_wire import (
    CancelJob,
    Goodbye,
    Hello,
    Job,
    JobReport,
    Refused,
    RunJob,
    ServerMessage,
    Welcome,
    reports_that_hold,
)

Script = Callable[[Job], Iterable[JobReport]]
"""What an agent reports, in order, when it gets a job that it does not know."""


class FakeAgent:
    """One agent instance; ``refused`` is set when it was not let in, ``jobs`` by job id."""

    def __init__(self, agents: "MemoryAgents", hello: Hello, script: Script | None) -> None:
        self.hello, self.script = hello, script
        self.jobs = {report.id: report for report in hello.jobs}
        self.refused: Refused | None = None
        self._agents = agents
        self._inbox: asyncio.Queue[ServerMessage] = asyncio.Queue()
        self._closed = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether the server's side still holds this connection."""
        return not self._closed.is_set()

    async def next_message(self) -> ServerMessage:
        """Return the next message from the server, waiting for it."""
        return await self._inbox.get()

    async def closed(self) -> None:
        """Wait until the connection has ended."""
        await self._closed.wait()

    async def report(self, report: JobReport) -> None:
        """Send a job's report."""
        self.jobs[report.id] = report
        self._agents.heard(self, report)

    async def goodbye(self, reason: Literal["reboot", "power-off", "kexec", "stop"]) -> None:
        """Leave on purpose."""
        self._agents.heard(self, Goodbye(reason))

    async def drop(self) -> None:
        """Lose the connection without a word."""
        self._agents.lost(self)

    def take(self, message: ServerMessage) -> None:
        """Receive a message, as an agent does: a job that it knows is only reported again."""
        self._inbox.put_nowait(message)
        if not isinstance(message, RunJob):
            return
        known = self.jobs.get(message.job.id)
        if known is not None:
            self._agents.heard(self, known)
        elif self.script is not None:
            self.jobs = reports_that_hold(self.jobs, message.job)
            for report in self.script(message.job):
                self.jobs[report.id] = report
                self._agents.heard(self, report)

    def close(self) -> None:
        """End the connection from the server's side."""
        self._closed.set()


class MemoryAgents:
    """`ports.AgentLink` in memory; ``now`` is the wall clock of the sessions."""

    def __init__(
        self,
        directory: AgentDirectory,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._directory, self._now = directory, now
        self._agents: dict[str, FakeAgent] = {}
        self._views: dict[str, AgentView] = {}

    async def connect(
        self, hello: Hello, *, peer: str = "192.0.2.1", script: Script | None = None
    ) -> FakeAgent:
        """Dial in; the agent returned is connected, or has ``refused`` set."""
        agent = FakeAgent(self, hello, script)
        admission = await self._directory.admit(hello, peer)
        if not admission.accepted or admission.host is None:
            agent.refused = Refused(admission.reason, admission.message, admission.retry_after_s)
            agent.take(agent.refused)
            agent.close()
            return agent
        agent.take(Welcome(str(admission.host)))
        self._open(admission, agent)
        return agent

    def view(self, host_uid: str) -> AgentView | None:
        """Return the latest session of a host's agent."""
        return self._views.get(host_uid)

    async def run_job(self, host_uid: str, job: Job) -> None:
        """Give a connected agent a job. Raises AgentError."""
        agent = self._connected(host_uid, f"run job {job.id}")
        view = self._views[host_uid]
        self._views[host_uid] = view._replace(jobs=reports_that_hold(view.jobs, job))
        agent.take(RunJob(job))

    async def cancel_job(self, host_uid: str, job_id: str) -> None:
        """Ask a connected agent to stop a job. Raises AgentError."""
        self._connected(host_uid, f"cancel job {job_id}").take(CancelJob(job_id))

    async def forget(self, host_uid: str) -> None:
        """Drop a host's session and its connection."""
        self._views.pop(host_uid, None)
        agent = self._agents.pop(host_uid, None)
        if agent is not None:
            agent.close()

    def heard(self, agent: FakeAgent, message: JobReport | Goodbye) -> None:
        """Take what an agent says; one that is no longer connected is not heard."""
        host_uid = self._host_of(agent)
        if host_uid is None:
            return
        view = self._views[host_uid]
        if isinstance(message, Goodbye):
            self._views[host_uid] = view._replace(goodbye=message.reason)
            self.lost(agent)
            return
        if view.jobs.get(message.id) != message:
            jobs = {**view.jobs, message.id: message}
            now = self._now()
            self._views[host_uid] = view._replace(jobs=jobs, last_seen=now, reported_at=now)
            self._directory.agent_changed(host_uid)

    def lost(self, agent: FakeAgent) -> None:
        """Note that an agent's connection has ended."""
        host_uid = self._host_of(agent)
        agent.close()
        if host_uid is not None:
            del self._agents[host_uid]
            self._views[host_uid] = self._views[host_uid]._replace(
                connected=False, last_seen=self._now()
            )
            self._directory.agent_changed(host_uid)

    def _open(self, admission: Admission, agent: FakeAgent) -> None:
        host_uid, hello, now = admission.host_uid, agent.hello, self._now()
        old_agent = self._agents.get(host_uid)
        jobs = {report.id: report for report in hello.jobs}
        self._agents[host_uid] = agent
        self._views[host_uid] = AgentView(
            host_uid=host_uid,
            nonce=admission.nonce,
            agent_id=hello.agent_id,
            connected=True,
            connected_at=now,
            last_seen=now,
            boot_mode=hello.boot_mode,
            uptime_s=hello.uptime_s,
            version=hello.version,
            jobs=jobs,
            reported_at=now if hello.jobs else None,
        )
        if old_agent is not None:
            old_agent.close()
        self._directory.agent_changed(host_uid)

    def _host_of(self, agent: FakeAgent) -> str | None:
        return next((uid for uid, held in self._agents.items() if held is agent), None)

    def _connected(self, host_uid: str, what: str) -> FakeAgent:
        agent = self._agents.get(host_uid)
        if agent is None:
            raise AgentError(f"cannot {what}: no agent of host uid {host_uid} is connected")
        return agent
