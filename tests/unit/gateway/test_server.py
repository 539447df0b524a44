"""What the gateway does about agents that misbehave; plain TLS client, short deadlines."""

import asyncio
import logging
import ssl

import aiohttp
import aiohttp.web
import pytest

from billet_server import pki
from billet_server.core.terms import HostKey
from billet_server.errors import BootError
from billet_server.gateway import server as gateway_server
from billet_server.gateway.link import MAX_INBOUND_BYTES
from billet_server.gateway.server import Gateway
from billet_server.ports import Admission
from billet_wire import (
    STANDBY,
    Hello,
    Job,
    JobReport,
    Log,
    Refused,
    Welcome,
    decode_server,
    encode,
)
from billet_wire.jobs import Deploy, ImageSource

MAC = "52:54:00:00:00:01"
HELLO = Hello("token", "agent-a", (MAC,), "legacy", 3.0, "0.1.0")


class Directory:
    def __init__(self) -> None:
        self.answer: Admission | Exception = Admission(
            True, HostKey("metal", "node-1"), "uid-1", "nonce-1"
        )
        self.changes: list[str] = []
        self.asked: list[tuple[Hello, str]] = []

    async def admit(self, hello, peer):
        self.asked.append((hello, peer))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def agent_changed(self, host_uid):
        self.changes.append(host_uid)


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    authority = pki.ensure_authority(folder)
    leaf = pki.ensure_leaf(authority, folder, "gateway", ["127.0.0.1"])
    return leaf.server_context(), ssl.create_default_context(cafile=str(authority.cert_path))


class World:
    def __init__(self, tls, directory, **options):
        self.tls, self.directory = tls, directory
        self.gateway = Gateway(directory, b"PEM", **options)

    async def __aenter__(self):
        self.port = await self.gateway.start("127.0.0.1", 0, self.tls[0])
        connector = aiohttp.TCPConnector(ssl=self.tls[1])
        self.http = aiohttp.ClientSession(f"https://127.0.0.1:{self.port}", connector=connector)
        return self

    async def __aexit__(self, *_):
        await self.http.close()
        await self.gateway.stop()

    async def dial(self, **options):
        return await self.http.ws_connect("/agent/v1/link", max_msg_size=0, **options)

    async def join(self, **options):
        socket = await self.dial(**options)
        await socket.send_str(encode(HELLO))
        assert isinstance(decode_server(await socket.receive_str()), Welcome)
        await self.view(lambda view: view.connected)
        return socket

    async def view(self, condition):
        async with asyncio.timeout(20):
            while True:
                view = self.gateway.view("uid-1")
                if view is not None and condition(view):
                    return view
                await asyncio.sleep(0.005)


@pytest.fixture
def directory():
    return Directory()


@pytest.fixture
async def world(tls, directory, tmp_path):
    async with World(tls, directory, log_dir=tmp_path / "logs") as world:
        yield world


async def refusal(socket):
    message = decode_server(await socket.receive_str())
    assert isinstance(message, Refused)
    assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
    return message


async def test_silence_instead_of_a_hello(tls, directory):
    async with World(tls, directory, hello_s=0.05) as world:
        assert (await refusal(await world.dial())).reason == "no-hello"
    assert directory.asked == []


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ("not json", "not a message of an agent"),
        ("{}", "not a message of an agent"),
        ("[" * 100_000, "not a message of an agent"),
        (encode(Log("info", "hi", 1.0)), "the first message is not a hello"),
        (encode(Hello("t", "a", (), "UEFI", 1.0, "1", protocol=2)), "speaks protocol 2"),
        (encode(Hello("t" * 513, "a", (), "UEFI", 1.0, "1")), "token"),
        (encode(Hello("", "a", (), "UEFI", 1.0, "1")), "token"),
        (encode(Hello("t", "a/b", (), "UEFI", 1.0, "1")), "agent_id"),
        (encode(Hello("t", "a", ("AA:BB:CC:DD:EE:FF",), "UEFI", 1.0, "1")), "macs"),
        (encode(Hello("t", "a", (MAC,) * 257, "UEFI", 1.0, "1")), "macs"),
        (encode(Hello("t", "a", (), "bios", 1.0, "1")), "boot_mode"),
        (encode(Hello("t", "a", (), "UEFI", -1.0, "1")), "uptime_s"),
        (encode(Hello("t", "a", (), "UEFI", 1.0, "1\n")), "version"),
    ],
)
async def test_a_bad_opening_never_reaches_the_directory(world, directory, frame, said):
    socket = await world.dial()
    await socket.send_str(frame)
    message = await refusal(socket)
    assert message.reason == "malformed"
    assert said in message.message
    assert directory.asked == []


async def test_a_binary_opening_is_closed(world, directory):
    socket = await world.dial()
    await socket.send_bytes(b"\0" * 10)
    assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
    assert directory.asked == []


async def test_an_oversized_message_is_closed_unread(world, directory):
    socket = await world.dial()
    await socket.send_str(" " * (MAX_INBOUND_BYTES + 1))
    closing = await socket.receive()
    assert closing.type is aiohttp.WSMsgType.CLOSE
    assert closing.data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
    assert directory.asked == []


async def test_a_server_that_cannot_decide_asks_to_come_back(world, directory, caplog):
    directory.answer = RuntimeError("the API is away")
    socket = await world.dial()
    with caplog.at_level(logging.ERROR):
        await socket.send_str(encode(HELLO))
        message = await refusal(socket)
    assert (message.reason, message.retry_after_s) == ("server-error", 5.0)
    assert "the API is away" not in message.message
    assert "the API is away" in caplog.text


async def test_who_is_refused_again_and_again_is_shut_out(world, directory, caplog):
    directory.answer = Admission(False, reason="token", message="not ours")
    statuses = []
    for _ in range(int(gateway_server.FAILURES_BURST) + 2):
        try:
            socket = await world.dial()
        except aiohttp.WSServerHandshakeError as error:
            statuses.append(error.status)
            continue
        await socket.send_str(encode(HELLO))
        await refusal(socket)
    assert statuses
    assert set(statuses) == {429}
    assert len(directory.asked) >= gateway_server.FAILURES_BURST
    assert "refused agent agent-a at 127.0.0.1 for no host: token: not ours" in caplog.text


async def test_garbage_after_the_hello_ends_the_connection(world):
    socket = await world.join()
    await socket.send_str('{"type": "nonsense"}')
    closing = await socket.receive()
    assert closing.type is aiohttp.WSMsgType.CLOSE
    await world.view(lambda view: not view.connected)


async def test_a_second_hello_ends_the_connection(world):
    socket = await world.join()
    await socket.send_str(encode(HELLO))
    assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE


async def test_a_dead_peer_is_noticed(tls, directory):
    async with World(tls, directory, ping_s=0.05) as world:
        socket = await world.join(autoping=False)
        assert (await socket.receive()).type is aiohttp.WSMsgType.PING
        view = await world.view(lambda view: not view.connected)
        assert view.goodbye is None
        assert directory.changes[-1] == "uid-1"


async def test_a_quiet_but_living_peer_stays(tls, directory):
    # Five pings are longer than the three that a silent peer is given, on a busy machine too.
    async with World(tls, directory, ping_s=0.3) as world:
        socket = await world.join(autoping=False)
        began = world.gateway.view("uid-1").last_seen
        for _ in range(5):
            message = await socket.receive()
            assert message.type is aiohttp.WSMsgType.PING
            await socket.pong(message.data)
        view = await world.view(lambda view: view.last_seen > began)
        assert view.connected


async def test_an_agents_own_ping_is_answered(world):
    socket = await world.join(autoping=False)
    await socket.ping(b"there?")
    message = await socket.receive()
    assert (message.type, bytes(message.data)) == (aiohttp.WSMsgType.PONG, b"there?")


async def test_a_large_job_arrives_whole(world):
    socket = await world.join()
    drive = bytes(range(256)) * 40_000
    source = ImageSource("http://images.test/x.qcow2", "0" * 32)
    job = Job("uid-1.deploy.1", Deploy(source, config_drive=drive))
    await world.gateway.run_job("uid-1", job)
    assert decode_server(await socket.receive_str()).job == job


async def test_many_changes_are_few_calls(world, directory):
    socket = await world.join()
    directory.changes.clear()
    report = JobReport("j", "inspect", "running")
    for _ in range(50):
        await socket.send_str(encode(report))
    done = JobReport("j", "inspect", "succeeded")
    await socket.send_str(encode(done))
    await world.view(lambda view: view.jobs.get("j") == done)
    assert len(directory.changes) <= 2


async def test_log_lines_are_kept_without_control_characters(world, tmp_path):
    socket = await world.join()
    await socket.send_str(encode(Log("info", "one\x1b[2Jtwo\nthree", 12.5)))
    await socket.send_str(encode(JobReport("j", "inspect", "running")))
    await world.view(lambda view: view.jobs)
    assert world.gateway.log_lines("uid-1") == ["[    12.500] info: one [2Jtwo three"]
    written = (tmp_path / "logs" / "metal_node-1.log").read_text()
    assert written == "[    12.500] info: one [2Jtwo three\n"
    await world.gateway.forget("uid-1")
    assert world.gateway.log_lines("uid-1") == []


async def test_plain_pages_and_plain_requests(world):
    async with world.http.get("/healthz") as response:
        assert await response.text() == "ok\n"
    async with world.http.get("/ca.pem") as response:
        assert await response.read() == b"PEM"
    async with world.http.get("/agent/v1/link") as response:
        assert response.status == 400


@pytest.mark.parametrize("answered", [False, True])
async def test_an_agent_that_leaves_while_it_is_greeted_is_no_error(
    world, monkeypatch, caplog, answered
):
    prepare = aiohttp.web.WebSocketResponse.prepare

    async def on_a_dead_line(response, request):
        request.transport.abort()
        if not answered:
            raise ConnectionResetError("nobody is there")
        return await prepare(response, request)

    with monkeypatch.context() as patched, caplog.at_level(logging.INFO):
        patched.setattr(aiohttp.web.WebSocketResponse, "prepare", on_a_dead_line)
        with pytest.raises(aiohttp.ClientError):
            await world.dial()
    assert "left while it was greeted" in caplog.text
    assert "Error handling request" not in caplog.text
    assert "Unhandled exception" not in caplog.text
    await world.join()


async def test_stopping_closes_agents_with_going_away(tls, directory):
    async with World(tls, directory) as world:
        socket = await world.join()
        stopping = asyncio.create_task(world.gateway.stop())
        closing = await socket.receive()
        assert (closing.type, closing.data) == (aiohttp.WSMsgType.CLOSE, 1001)
        await stopping


async def test_a_taken_port_is_named(tls, directory):
    async with World(tls, directory) as world:
        with pytest.raises(BootError, match=f"port {world.port}: .*in use"):
            await Gateway(directory, b"").start("127.0.0.1", world.port, tls[0])


async def test_dismissed_agents_are_told_and_may_come_back(world):
    socket = await world.join()
    await world.gateway.dismiss("this server leads no more")
    closing = await socket.receive()
    assert (closing.type, closing.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.GOING_AWAY)
    assert closing.extra == "this server leads no more"
    await world.view(lambda view: not view.connected)
    await world.join()


async def test_whom_the_server_asks_to_come_back_is_not_locked_out(world, directory):
    """An agent calls its standby every second for as long as there is no leader."""
    directory.answer = Admission(
        accepted=False, reason=STANDBY, message="it does not lead", retry_after_s=1.0
    )
    for _ in range(40):
        socket = await world.dial()
        await socket.send_str(encode(HELLO))
        answer = decode_server(await socket.receive_str())
        assert (answer.reason, answer.retry_after_s) == (STANDBY, 1.0)
        await socket.close()


async def test_readiness_is_what_the_server_says(tls, directory):
    said = [(False, "not ready: reading the hosts"), (True, "ready: leading")]
    async with World(tls, directory, readiness=lambda: said[0]) as world:
        async with world.http.get("/readyz") as response:
            assert response.status == 503
        said.pop(0)
        async with world.http.get("/readyz") as response:
            assert (response.status, await response.text()) == (200, "ready: leading\n")
