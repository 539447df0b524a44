"""The agents' way in: one WebSocket each, over TLS, dialled by them.

A connection is nobody until its `Hello` was admitted: until then it may cost ten seconds, one
message, and one of a bounded number of places. Who may speak for a host is the directory's
decision alone; the gateway carries it out.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import WSCloseCode, web

from billet_server.core.ratelimit import RateLimit
from billet_server.errors import AgentError, BootError
from billet_server.gateway.agentlog import AgentLogs
from billet_server.gateway.link import HELLO_S, PING_S, Link
from billet_server.gateway.sessions import Connection, Session, Sessions
from billet_server.ports import Admission, AgentDirectory, AgentView, Readiness, always_ready
from billet_wire import (
    STANDBY,
    AgentMessage,
    CancelJob,
    Goodbye,
    Hello,
    Job,
    JobReport,
    Log,
    RunJob,
    Welcome,
)

log = logging.getLogger(__name__)

ADMIT_S = 15.0
MAX_STRANGERS = 256
"""Connections at once that have not yet been admitted."""


FAILURES_PER_S, FAILURES_BURST = 0.5, 30.0
"""Refused openings that one address may make: a second, and at once."""


def utc_now() -> datetime:
    """Return the wall clock, aware, UTC."""
    return datetime.now(UTC)


class Gateway:
    """All agent connections (implements `ports.AgentLink`), and the log lines they send.

    ``ping_s`` is how long a silent agent is left in peace; after three times as long it counts
    as gone. ``log_dir`` None keeps log lines in memory only.
    """

    def __init__(
        self,
        directory: AgentDirectory,
        ca_pem: bytes,
        *,
        log_dir: Path | None = None,
        ping_s: float = PING_S,
        hello_s: float = HELLO_S,
        now: Callable[[], datetime] = utc_now,
        readiness: Readiness = always_ready,
    ) -> None:
        self._directory, self._ca_pem, self._now = directory, ca_pem, now
        self._ping_s, self._hello_s = ping_s, hello_s
        self._readiness = readiness
        self._sessions = Sessions()
        self._logs = AgentLogs(log_dir)
        self._failures = RateLimit(FAILURES_PER_S, FAILURES_BURST)
        self._strangers = 0
        self._changed: set[str] = set()
        self._runner: web.AppRunner | None = None
        self._links: set[Link] = set()

    # AgentLink

    def view(self, host_uid: str) -> AgentView | None:
        """Return the latest session of a host's agent."""
        session = self._sessions.get(host_uid)
        return session.view() if session is not None else None

    async def run_job(self, host_uid: str, job: Job) -> None:
        """Send a job to a connected agent. Raises AgentError."""
        connection = self._connection(host_uid, f"run job {job.id}")
        if (session := self._sessions.get(host_uid)) is not None:
            session.begin(job)
        await connection.send(RunJob(job))

    async def cancel_job(self, host_uid: str, job_id: str) -> None:
        """Ask a connected agent to stop a job. Raises AgentError."""
        await self._connection(host_uid, f"cancel job {job_id}").send(CancelJob(job_id))

    async def forget(self, host_uid: str) -> None:
        """Drop a host's session, its connection and its log lines in memory."""
        session = self._sessions.drop(host_uid)
        self._logs.forget(host_uid)
        if session is not None and session.connection is not None:
            await session.connection.close("the server let go of this host")

    def log_lines(self, host_uid: str) -> list[str]:
        """Return the latest log lines of a host's agents, oldest first."""
        return self._logs.lines(host_uid)

    # lifecycle

    async def start(self, host: str | Sequence[str], port: int, tls: ssl.SSLContext) -> int:
        """Listen on these addresses only; return the port (chosen when 0). Raises BootError."""
        app = web.Application(client_max_size=1024)
        app.router.add_get("/agent/v1/link", self._handle)
        app.router.add_get("/ca.pem", self._ca)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._ready)
        runner = self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
        await runner.setup()
        for address in [host] if isinstance(host, str) else host:
            try:
                await web.TCPSite(runner, address, port, ssl_context=tls).start()
            except OSError as error:
                await self.stop()
                raise BootError(
                    f"cannot listen for agents on {address} port {port}: {error.strerror}; choose "
                    "another address or port for the gateway, or stop what listens there "
                    f"(ss -ltnp 'sport = :{port}')"
                ) from error
            port = runner.addresses[0][1]
        return port

    async def stop(self) -> None:
        """Close every connection; agents dial again when a server is back."""
        await self.dismiss("the server is stopping")
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def dismiss(self, reason: str) -> None:
        """Close every connection, so that the agents dial again: here or at another server."""
        links = [link.close(reason, code=WSCloseCode.GOING_AWAY) for link in self._links]
        await asyncio.gather(*links)

    # connections

    async def _ca(self, request: web.Request) -> web.StreamResponse:
        del request
        return web.Response(body=self._ca_pem, content_type="application/x-pem-file")

    async def _health(self, request: web.Request) -> web.StreamResponse:
        del request
        return web.Response(text="ok\n")

    async def _ready(self, request: web.Request) -> web.StreamResponse:
        del request
        is_ready, words = self._readiness()
        return web.Response(text=f"{words}\n", status=200 if is_ready else 503)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        peer = request.remote or "unknown"
        if self._failures.left(peer, asyncio.get_running_loop().time()) < 1:
            return web.Response(status=429, text="Too many refused agents at this address.\n")
        if self._strangers >= MAX_STRANGERS:
            return web.Response(status=503, text="Too many agents are connecting at once.\n")
        link = Link(peer, self._ping_s)
        self._links.add(link)
        try:
            session = await self._meet(link, request)
            if session is not None:
                await self._serve(link, session)
        finally:
            self._links.discard(link)
            await link.close("")
        # An agent that left before it was answered has no WebSocket that could be ended.
        return link.response if link.response.prepared else web.Response(status=400)

    async def _meet(self, link: Link, request: web.Request) -> Session | None:
        self._strangers += 1
        try:
            await link.accept(request)
            hello = await link.hello(self._hello_s)
            if hello is None:
                self._count_failure(link.peer)
                return None
            admission = await self._decide(hello, link)
            if admission.host is None or not admission.accepted:
                return None
            await link.send(Welcome(host=str(admission.host), ping_s=self._ping_s))
        except AgentError as error:
            log.info("%s", error)
            return None
        finally:
            self._strangers -= 1
        session, replaced = self._sessions.open(
            (admission.host, admission.host_uid, admission.nonce), hello, link, self._now()
        )
        self._touch(session)
        log.info("agent %s of %s connected from %s", hello.agent_id, session.host, link.peer)
        if replaced is not None:
            log.warning("a newer connection of %s's agent replaces the old one", session.host)
            await replaced.close("a newer connection took over")
        return session

    async def _decide(self, hello: Hello, link: Link) -> Admission:
        try:
            async with asyncio.timeout(ADMIT_S):
                admission = await self._directory.admit(hello, link.peer)
        except Exception:
            # The process's edge towards an agent: whatever failed, it shall try again.
            log.exception("cannot decide about the agent at %s", link.peer)
            await link.refuse("server-error", "the server could not decide; try again", 5.0)
            return Admission(accepted=False)
        if not admission.accepted:
            # Whom the server itself asks to come back has done nothing wrong.
            if admission.retry_after_s is None:
                self._count_failure(link.peer)
            log.log(
                logging.DEBUG if admission.reason == STANDBY else logging.WARNING,
                "refused agent %s at %s for %s: %s: %s",
                hello.agent_id,
                link.peer,
                admission.host or "no host",
                admission.reason,
                admission.message,
            )
            await link.refuse(admission.reason, admission.message, admission.retry_after_s)
        return admission

    async def _serve(self, link: Link, session: Session) -> None:
        try:
            async with contextlib.aclosing(link.messages()) as messages:
                async for message in messages:
                    session.last_seen = self._now()
                    if message is not None and not self._take(session, message):
                        break
        finally:
            if session.connection is link:
                session.connection = None
                log.info("agent of %s disconnected", session.host)
                self._touch(session)

    def _take(self, session: Session, message: AgentMessage) -> bool:
        """Take a message of an admitted agent; return whether to go on listening."""
        match message:
            case JobReport():
                if session.report(message, self._now()):
                    self._touch(session)
            case Log():
                self._logs.add(session.host, session.host_uid, message)
            case Goodbye():
                log.info("agent of %s says goodbye: %s", session.host, message.reason)
                session.goodbye = message.reason
                return False
            case Hello():
                log.warning("agent of %s said hello twice", session.host)
                return False
        return True

    def _touch(self, session: Session) -> None:
        # Several changes in one turn of the loop are one call.
        if not self._changed:
            asyncio.get_running_loop().call_soon(self._tell)
        self._changed.add(session.host_uid)

    def _tell(self) -> None:
        changed, self._changed = self._changed, set()
        for host_uid in changed:
            self._directory.agent_changed(host_uid)

    def _count_failure(self, peer: str) -> None:
        self._failures.take(peer, asyncio.get_running_loop().time())

    def _connection(self, host_uid: str, what: str) -> Connection:
        session = self._sessions.get(host_uid)
        if session is None:
            raise AgentError(f"cannot {what}: no agent of host uid {host_uid} has called in")
        if session.connection is None:
            raise AgentError(
                f"cannot {what}: the agent of {session.host} is not connected, "
                f"last seen {session.last_seen:%Y-%m-%dT%H:%M:%SZ}"
            )
        return session.connection
