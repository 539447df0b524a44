"""What is known of each host's agent, in bounded memory. No sockets: time is handed in."""

from collections import OrderedDict
from datetime import datetime
from typing import Protocol

from billet_server.core.terms import HostKey
from billet_server.gateway.hello import is_report
from billet_server.ports import AgentView
from billet_wire import Hello, Job, JobReport, ServerMessage, reports_that_hold

MAX_SESSIONS = 20_000
MAX_JOBS = 64


class Connection(Protocol):
    """The way to an agent."""

    async def send(self, message: ServerMessage) -> None:
        """Send one message. Raises AgentError."""

    async def close(self, reason: str) -> None:
        """Close the connection; never raises."""


class Session:
    """One agent instance on one host: its latest connection, if any, and its jobs' reports."""

    def __init__(
        self, host: HostKey, host_uid: str, nonce: str, hello: Hello, now: datetime
    ) -> None:
        self.host, self.host_uid, self.nonce = host, host_uid, nonce
        self.agent_id = hello.agent_id
        self.connection: Connection | None = None
        self.connected_at = self.last_seen = now
        self.reported_at: datetime | None = None
        self.goodbye: str | None = None
        self.jobs: OrderedDict[str, JobReport] = OrderedDict()
        self._hello = hello

    def greet(self, hello: Hello, connection: Connection, now: datetime) -> None:
        """Take a new connection of this agent: its jobs are as it says now."""
        self._hello, self.connection = hello, connection
        self.connected_at = self.last_seen = now
        self.goodbye = None
        told = {report.id for report in hello.jobs}
        for gone in [job_id for job_id in self.jobs if job_id not in told]:
            del self.jobs[gone]
        for report in hello.jobs:
            self.report(report, now)

    def begin(self, job: Job) -> None:
        """Note that the agent is given a job: what it undoes is no longer so."""
        self.jobs = OrderedDict(reports_that_hold(self.jobs, job))

    def report(self, report: JobReport, now: datetime) -> bool:
        """Keep a job's report; return whether it says anything new."""
        if self.jobs.get(report.id) == report or not is_report(report):
            return False
        self.reported_at = now
        self.jobs.pop(report.id, None)
        self.jobs[report.id] = report
        if len(self.jobs) > MAX_JOBS:
            self.jobs.popitem(last=False)
        return True

    def view(self) -> AgentView:
        """Return a snapshot."""
        return AgentView(
            host_uid=self.host_uid,
            nonce=self.nonce,
            agent_id=self.agent_id,
            connected=self.connection is not None,
            connected_at=self.connected_at,
            last_seen=self.last_seen,
            boot_mode=self._hello.boot_mode,
            uptime_s=self._hello.uptime_s,
            version=self._hello.version,
            jobs=dict(self.jobs),
            goodbye=self.goodbye,
            reported_at=self.reported_at,
        )


class Sessions:
    """The latest session of each host, at most ``MAX_SESSIONS``: idle ones are let go first."""

    def __init__(self, most: int = MAX_SESSIONS) -> None:
        self._most = most
        self._by_host: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_host)

    def get(self, host_uid: str) -> Session | None:
        """Return a host's session."""
        return self._by_host.get(host_uid)

    def all(self) -> list[Session]:
        """Return every session."""
        return list(self._by_host.values())

    def open(
        self, whom: tuple[HostKey, str, str], hello: Hello, connection: Connection, now: datetime
    ) -> tuple[Session, Connection | None]:
        """Return the session of an admitted agent and the connection that it takes over from.

        ``whom`` is the host, its UID and the boot nonce that the agent was admitted for.
        The same agent of the same boot goes on with its session; any other starts a new one.
        """
        host, host_uid, nonce = whom
        session = self._by_host.pop(host_uid, None)
        replaced = session.connection if session is not None else None
        if session is None or (session.agent_id, session.nonce) != (hello.agent_id, nonce):
            session = Session(host, host_uid, nonce, hello, now)
        session.host = host
        session.greet(hello, connection, now)
        self._by_host[host_uid] = session
        self._shrink()
        return session, replaced

    def drop(self, host_uid: str) -> Session | None:
        """Forget a host's session and return it."""
        return self._by_host.pop(host_uid, None)

    def _shrink(self) -> None:
        if len(self._by_host) <= self._most:
            return
        idle = (uid for uid, session in self._by_host.items() if session.connection is None)
        # With nobody idle the bound gives way: live agents are never dropped for memory.
        uid = next(idle, None)
        if uid is not None:
            del self._by_host[uid]
