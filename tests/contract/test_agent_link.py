"""ports.AgentLink: one suite for the gateway (a real client over TLS) and for its twin."""

import asyncio
import ssl

import aiohttp
import pytest

from billet_server import pki
from billet_server.core.terms import HostKey
from billet_server.errors import AgentError
from billet_server.gateway.server import Gateway
from billet_server.gateway.token import mint, read
from billet_server.memory.agents import FakeAgent, MemoryAgents
from billet_server.ports import Admission
from billet_wire import (
    CancelJob,
    Clean,
    Goodbye,
    Hello,
    Inspect,
    Job,
    JobReport,
    Progress,
    Refused,
    RunJob,
    Welcome,
    decode_server,
    encode,
)

KEY = b"0123456789abcdef0123456789abcdef"
MAC = "52:54:00:00:00:01"
HOST = HostKey("metal", "node-1")
INSPECT = Job("uid-1.inspect.1", Inspect())


class Directory:
    """Binds a nonce to the first agent that shows its token, as the engine's directory does."""

    def __init__(self) -> None:
        self.bound: dict[str, str] = {}
        self.changes: asyncio.Queue[str] = asyncio.Queue()

    async def admit(self, hello: Hello, peer: str) -> Admission:
        claim = read(KEY, hello.token)
        if claim is None:
            return Admission(False, reason="token", message="the token is not ours")
        holder = self.bound.setdefault(claim.nonce, hello.agent_id)
        if holder != hello.agent_id:
            return Admission(False, HOST, reason="claimed", message=peer, retry_after_s=7.0)
        return Admission(True, HOST, claim.host_uid, claim.nonce)

    def agent_changed(self, host_uid: str) -> None:
        self.changes.put_nowait(host_uid)


class WireAgent:
    """FakeAgent's interface, over a real WebSocket."""

    def __init__(self, http: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse):
        self._http, self._socket = http, socket
        self.refused: Refused | None = None

    async def next_message(self):
        return decode_server(await self._socket.receive_str())

    async def closed(self):
        while (await self._socket.receive()).type not in {
            aiohttp.WSMsgType.CLOSE,
            aiohttp.WSMsgType.CLOSED,
            aiohttp.WSMsgType.ERROR,
        }:
            pass

    async def report(self, report):
        await self._socket.send_str(encode(report))

    async def goodbye(self, reason):
        await self._socket.send_str(encode(Goodbye(reason)))

    async def drop(self):
        await self._http.close()


class Wire:
    """The gateway and how to dial it."""

    def __init__(self, directory, tmp_path):
        authority = pki.ensure_authority(tmp_path)
        leaf = pki.ensure_leaf(authority, tmp_path, "gateway", ["127.0.0.1"])
        self._server_tls = leaf.server_context()
        self._client_tls = ssl.create_default_context(cafile=str(authority.cert_path))
        self.link = Gateway(directory, authority.cert_pem)
        # Held, since a connection dies with the last reference to it.
        self._agents: list[WireAgent] = []

    async def start(self):
        self._port = await self.link.start("127.0.0.1", 0, self._server_tls)

    async def stop(self):
        for agent in self._agents:
            await agent.drop()
        await self.link.stop()

    async def connect(self, hello):
        http = aiohttp.ClientSession(f"https://127.0.0.1:{self._port}")
        socket = await http.ws_connect("/agent/v1/link", ssl=self._client_tls)
        agent = WireAgent(http, socket)
        self._agents.append(agent)
        await socket.send_str(encode(hello))
        return agent


class Memory:
    """The twin."""

    def __init__(self, directory, _tmp_path):
        self.link = MemoryAgents(directory)

    async def start(self):
        pass

    async def stop(self):
        pass

    async def connect(self, hello) -> FakeAgent:
        return await self.link.connect(hello)


@pytest.fixture
def directory():
    return Directory()


@pytest.fixture(params=[Memory, Wire])
async def world(request, directory, tmp_path):
    world = request.param(directory, tmp_path)
    await world.start()
    yield world
    await world.stop()


def hello(agent_id="agent-a", uid="uid-1", nonce="nonce-1", jobs=()):
    token = mint(KEY, uid, MAC, nonce)
    return Hello(token, agent_id, (MAC,), "UEFI", 4.5, "0.1.0", jobs=jobs)


def running(percent, job_id=INSPECT.id):
    return JobReport(job_id, "inspect", "running", Progress("collect", percent))


async def admitted(world, opening):
    agent = await world.connect(opening)
    assert isinstance(await agent.next_message(), Welcome)
    return agent


async def until(world, directory, condition, uid="uid-1"):
    """Wait for a view that fulfils the condition; each change must have been announced."""
    async with asyncio.timeout(20):
        while True:
            view = world.link.view(uid)
            if view is not None and condition(view):
                return view
            while await directory.changes.get() != uid:
                pass


async def test_an_admitted_agent_is_welcomed_and_seen(world, directory):
    assert world.link.view("uid-1") is None
    agent = await world.connect(hello())
    welcome = await agent.next_message()
    assert isinstance(welcome, Welcome)
    assert welcome.host == "metal/node-1"
    view = await until(world, directory, lambda view: view.connected)
    assert (view.agent_id, view.nonce, view.boot_mode, view.version) == (
        "agent-a",
        "nonce-1",
        "UEFI",
        "0.1.0",
    )
    assert (view.uptime_s, view.goodbye, dict(view.jobs)) == (4.5, None, {})
    assert view.connected_at.tzinfo is not None


async def test_a_forged_token_is_refused(world, directory):
    opening = hello()
    forged = Hello(opening.token[:-2] + "AA", "agent-a", (MAC,), "UEFI", 1.0, "0.1.0")
    agent = await world.connect(forged)
    assert await agent.next_message() == Refused("token", "the token is not ours", None)
    await agent.closed()
    assert world.link.view("uid-1") is None
    assert directory.changes.empty()


async def test_a_second_claimant_is_refused_and_changes_nothing(world, directory):
    await admitted(world, hello("agent-a"))
    second = await world.connect(hello("agent-b"))
    refused = await second.next_message()
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.retry_after_s) == ("claimed", 7.0)
    await second.closed()
    view = await until(world, directory, lambda view: view.connected)
    assert view.agent_id == "agent-a"


async def test_jobs_go_down_and_reports_come_up(world, directory):
    agent = await admitted(world, hello())
    await until(world, directory, lambda view: view.connected)
    await world.link.run_job("uid-1", INSPECT)
    assert await agent.next_message() == RunJob(INSPECT)
    await agent.report(running(10.0))
    view = await until(world, directory, lambda view: view.jobs)
    assert view.jobs == {INSPECT.id: running(10.0)}
    await world.link.cancel_job("uid-1", INSPECT.id)
    assert await agent.next_message() == CancelJob(INSPECT.id)
    cancelled = JobReport(INSPECT.id, "inspect", "cancelled")
    await agent.report(cancelled)
    await until(world, directory, lambda view: view.jobs[INSPECT.id] == cancelled)


async def test_a_view_is_a_snapshot(world, directory):
    agent = await admitted(world, hello())
    await agent.report(running(1.0))
    before = await until(world, directory, lambda view: view.jobs)
    await agent.report(running(2.0))
    await until(world, directory, lambda view: view.jobs[INSPECT.id] == running(2.0))
    assert before.jobs[INSPECT.id] == running(1.0)


async def test_a_lost_connection_is_noticed_and_its_reports_stay(world, directory):
    agent = await admitted(world, hello())
    await agent.report(running(50.0))
    await until(world, directory, lambda view: view.jobs)
    await agent.drop()
    view = await until(world, directory, lambda view: not view.connected)
    assert view.goodbye is None
    assert view.jobs[INSPECT.id] == running(50.0)
    with pytest.raises(AgentError, match="run job"):
        await world.link.run_job("uid-1", INSPECT)
    with pytest.raises(AgentError, match="cancel job"):
        await world.link.cancel_job("uid-1", INSPECT.id)


async def test_a_host_never_seen_has_no_agent(world):
    with pytest.raises(AgentError, match="uid-9"):
        await world.link.run_job("uid-9", INSPECT)
    await world.link.forget("uid-9")


async def test_a_goodbye_ends_the_session(world, directory):
    agent = await admitted(world, hello())
    await agent.goodbye("reboot")
    view = await until(world, directory, lambda view: not view.connected)
    assert view.goodbye == "reboot"
    await agent.closed()


async def test_the_same_agent_dialling_again_takes_over(world, directory):
    old = await admitted(world, hello())
    await old.report(running(50.0))
    await until(world, directory, lambda view: view.jobs)
    done = JobReport(INSPECT.id, "inspect", "succeeded")
    new = await admitted(world, hello(jobs=(done,)))
    await old.closed()
    view = await until(world, directory, lambda view: view.jobs[INSPECT.id] == done)
    assert view.connected
    await world.link.run_job("uid-1", Job("uid-1.clean.1", Clean()))
    message = await new.next_message()
    assert isinstance(message, RunJob)
    assert message.job.id == "uid-1.clean.1"


async def test_the_next_boot_starts_afresh(world, directory):
    first = await admitted(world, hello())
    await first.report(running(50.0))
    await until(world, directory, lambda view: view.jobs)
    await first.goodbye("reboot")
    await until(world, directory, lambda view: not view.connected)
    await admitted(world, hello("agent-b", nonce="nonce-2"))
    view = await until(world, directory, lambda view: view.connected)
    assert (view.agent_id, view.nonce, view.goodbye) == ("agent-b", "nonce-2", None)
    assert not view.jobs


async def test_a_forgotten_host_has_no_view_and_no_connection(world, directory):
    agent = await admitted(world, hello())
    await until(world, directory, lambda view: view.connected)
    await world.link.forget("uid-1")
    await agent.closed()
    assert world.link.view("uid-1") is None


async def test_hosts_do_not_mix(world, directory):
    await admitted(world, hello())
    await until(world, directory, lambda view: view.connected)
    other = await admitted(world, hello("agent-b", uid="uid-2", nonce="nonce-2"))
    await until(world, directory, lambda view: view.connected, uid="uid-2")
    await other.report(running(5.0))
    await until(world, directory, lambda view: view.jobs, uid="uid-2")
    view = world.link.view("uid-1")
    assert view is not None
    assert not view.jobs
