"""The agent against a server with real TLS: trust, hello, reconnect, reports, goodbye."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agent_server import FakeServer, Pki, fake_server
from billet_agent.agent import Agent
from billet_agent.backoff import Backoff
from billet_agent.console import Console
from billet_agent.jobs.context import JobContext
from billet_agent.jobs.registry import Result
from billet_agent.problems import failure
from billet_agent.settings import Address
from billet_agent.trust import MemoryClock
from billet_wire import (
    STANDBY,
    CancelJob,
    Clean,
    CleanResult,
    Deploy,
    Goodbye,
    HandOver,
    ImageSource,
    Inspect,
    Job,
    JobParams,
    JobReport,
    Log,
    Refused,
    RunJob,
    Welcome,
)

SLOW = Job("slow", Deploy(ImageSource("http://x/i", "0" * 32)))


class Rig:
    """An agent with scripted jobs; a deploy runs until ``go``."""

    def __init__(self, server: FakeServer, **changes: str) -> None:
        self.lines: list[str] = []
        self.left: list[str] = []
        self.go = threading.Event()
        self.heeds_cancel = True
        self.runs: list[JobParams] = []
        self.clock = MemoryClock(time.time())
        self.agent = Agent(
            server.settings(**changes),
            run_job=self.work,
            macs=lambda: ("52:54:00:00:00:01",),
            boot_mode="legacy",
            leave=self.left.append,
            console=Console(self.lines.append),
            clock=self.clock,
            backoff=Backoff(0.05, 0.1),
        )

    def work(self, params: JobParams, context: JobContext) -> Result:
        self.runs.append(params)
        if isinstance(params, Deploy):
            with context.step("write"):
                while not self.go.wait(0.01):
                    if self.heeds_cancel:
                        context.check()
            raise failure("image-fetch", "it broke")
        if isinstance(params, Inspect):
            raise ZeroDivisionError("boom")
        if isinstance(params, Clean):
            context.log("wiping")
            return CleanResult(("/dev/vda",))
        return None

    def saw(self, words: str) -> bool:
        return any(words in line for line in self.lines)

    async def until(self, ready: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not ready():
                await asyncio.sleep(0.01)


@pytest.fixture(name="server")
async def _server(tmp_path: Path) -> AsyncIterator[FakeServer]:
    async with fake_server(Pki(tmp_path / "pki")) as server:
        yield server


@contextlib.asynccontextmanager
async def running(server: FakeServer, **changes: str) -> AsyncIterator[Rig]:
    rig = Rig(server, **changes)
    task = asyncio.create_task(rig.agent.run())
    try:
        yield rig
    finally:
        rig.go.set()
        rig.agent.stop()
        async with asyncio.timeout(20):
            await task


def reports(server: FakeServer, job_id: str) -> list[JobReport]:
    return [m for m in server.messages if isinstance(m, JobReport) and m.id == job_id]


async def test_hello_welcome_job_and_result(server: FakeServer) -> None:
    async with running(server) as rig:
        await server.until(lambda: bool(server.hellos))
        hello = server.hellos[0]
        assert (hello.token, hello.macs) == ("the-token", ("52:54:00:00:00:01",))
        await server.send(RunJob(Job("c1", Clean())))
        await server.until(lambda: any(r.state == "succeeded" for r in reports(server, "c1")))
        assert reports(server, "c1")[0].state in {"running", "succeeded"}
        assert reports(server, "c1")[-1].clean == CleanResult(("/dev/vda",))
        await server.until(lambda: any(isinstance(m, Log) for m in server.messages))
        await rig.until(lambda: rig.saw("clean succeeded"))
        assert rig.saw("metal/node-1")


async def test_a_known_id_starts_nothing_and_a_second_job_is_refused(server: FakeServer) -> None:
    async with running(server) as rig:
        await server.until(lambda: bool(server.hellos))
        await server.send(RunJob(SLOW))
        await server.send(RunJob(SLOW))
        await server.send(RunJob(Job("c2", Clean())))
        await server.until(lambda: bool(reports(server, "c2")))
        problem = reports(server, "c2")[0].problem
        assert problem is not None
        assert problem.problem == "agent-busy"
        assert "slow" in problem.message
        rig.go.set()
        await server.until(lambda: reports(server, "slow")[-1].state == "failed")
        await server.send(RunJob(Job("c2", Clean())))
        await server.until(lambda: reports(server, "c2")[-1].state == "succeeded")
        told = len(reports(server, "c2"))
        await server.send(RunJob(Job("c2", Clean())))
        await server.until(lambda: len(reports(server, "c2")) > told)
        assert [type(run).__name__ for run in rig.runs] == ["Deploy", "Clean"]


async def test_cancel(server: FakeServer) -> None:
    async with running(server) as rig:
        await server.until(lambda: bool(server.hellos))
        await server.send(RunJob(SLOW))
        await rig.until(lambda: bool(rig.runs))
        await server.send(CancelJob("slow"))
        await server.send(CancelJob("unknown"))
        await server.until(lambda: any(r.state == "cancelled" for r in reports(server, "slow")))
        await rig.until(lambda: rig.saw("unknown job unknown"))


async def test_no_job_begins_once_the_agent_stops(server: FakeServer) -> None:
    async with running(server) as rig:
        await server.until(lambda: bool(server.hellos))
        rig.heeds_cancel = False
        await server.send(RunJob(SLOW))
        await rig.until(lambda: bool(rig.runs))
        rig.agent.stop()
        await server.send(RunJob(Job("c1", Clean())))
        await rig.until(lambda: rig.saw("job c1 came while stopping"))
    assert [type(run).__name__ for run in rig.runs] == ["Deploy"]


async def test_a_surprise_in_a_job_is_a_problem_not_a_traceback(server: FakeServer) -> None:
    async with running(server) as rig:
        await server.until(lambda: bool(server.hellos))
        await server.send(RunJob(Job("i", Inspect())))
        await server.until(lambda: any(r.state == "failed" for r in reports(server, "i")))
        problem = reports(server, "i")[-1].problem
        assert problem is not None
        assert problem.problem == "agent-internal"
        assert "boom" in problem.message
        assert "Traceback" not in problem.message
        assert len(problem.evidence) <= 4096
        await rig.until(lambda: rig.saw("agent-internal"))
        assert not rig.saw("Traceback")


async def test_jobs_go_on_without_a_server_and_are_told_on_return(server: FakeServer) -> None:
    async with running(server) as rig:
        await server.until(lambda: bool(server.hellos))
        await server.send(RunJob(SLOW))
        await rig.until(lambda: bool(rig.runs))
        await server.stop()
        await rig.until(lambda: rig.saw("cannot reach server"))
        assert any("next try in" in line for line in rig.lines)
        rig.go.set()
        await rig.until(lambda: rig.saw("deploy failed, image-fetch"))
        await server.start()
        await server.until(lambda: len(server.hellos) > 1)
        again = server.hellos[-1]
        assert again.agent_id == server.hellos[0].agent_id
        assert [(job.id, job.state) for job in again.jobs] == [("slow", "failed")]


async def test_hand_over_says_goodbye_then_reboots(server: FakeServer) -> None:
    async with running(server) as rig:
        await server.until(lambda: bool(server.hellos))
        await server.send(RunJob(Job("h", HandOver())))
        await rig.until(lambda: bool(rig.left))
        assert rig.left == ["reboot"]
        assert rig.agent.handed_over == "reboot"
        await server.until(lambda: server.messages[-1:] == [Goodbye("reboot")])
        states = [report.state for report in reports(server, "h")]
        assert states[-1] == "succeeded"


async def test_stop_says_goodbye(server: FakeServer) -> None:
    async with running(server) as rig:
        await server.until(lambda: bool(server.hellos))
        await server.send(RunJob(SLOW))
        await server.until(lambda: bool(reports(server, "slow")))
        rig.agent.stop()
        await server.until(lambda: server.messages[-1] == Goodbye("stop"))
    assert reports(server, "slow")[-1].state == "cancelled"


async def test_refused_says_why_and_tries_again(server: FakeServer) -> None:
    server.answer = Refused("stale", "this token is of an earlier boot", retry_after_s=0.01)
    async with running(server) as rig:
        await server.until(lambda: len(server.hellos) > 1)
        assert rig.saw("refused this machine (stale): this token is of an earlier boot")
        server.answer = Welcome("metal/node-1")
        await rig.until(lambda: rig.saw("connected to server"))


async def test_a_silent_server_is_left_and_called_again(server: FakeServer) -> None:
    server.deaf = True
    async with running(server) as rig:
        await server.until(lambda: len(server.hellos) > 1)
        assert server.pings > 0
        assert rig.saw("it was silent for")


async def test_pongs_keep_a_quiet_connection(server: FakeServer) -> None:
    async with running(server) as rig:
        await server.until(lambda: server.pings >= 5)
        assert len(server.hellos) == 1
        assert not rig.saw("silent")


async def test_another_ca_is_refused(server: FakeServer, tmp_path: Path) -> None:
    other = Pki(tmp_path / "other")
    server.ca_text = other.ca_pem
    async with running(server) as rig:
        await rig.until(lambda: rig.saw("refusing to talk to this server"))
        assert rig.saw(f"pins sha256:{server.pki.fingerprint}")
        assert not server.hellos
        server.ca_text = other.ca_pem + server.pki.ca_pem
        await server.until(lambda: bool(server.hellos))


@pytest.mark.parametrize(
    ("status", "text", "words"),
    [(404, "", "answered 404"), (200, "<html>hello</html>", "is no certificate")],
)
async def test_a_ca_url_without_a_ca(
    server: FakeServer, status: int, text: str, words: str
) -> None:
    server.ca_status, server.ca_text = status, text
    async with running(server) as rig:
        await rig.until(lambda: rig.saw(words))
        assert not server.hellos


async def test_a_server_that_has_not_the_cas_key_is_refused(tmp_path: Path) -> None:
    pinned, other = Pki(tmp_path / "pinned"), Pki(tmp_path / "other")
    async with fake_server(other) as server:
        server.ca_text = pinned.ca_pem
        async with running(server, ca_sha256=pinned.fingerprint) as rig:
            await rig.until(lambda: rig.saw("not valid for the pinned CA"))
            assert not server.hellos


async def test_a_certificate_for_another_address_is_refused(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki", names=("192.0.2.1",))
    async with fake_server(pki) as server, running(server) as rig:
        await rig.until(lambda: rig.saw("not valid for the pinned CA"))
        assert not server.hellos


@pytest.mark.parametrize(("wrong_s", "is_set"), [(-3e8, True), (7200, True), (5, False)])
async def test_the_clock_follows_the_servers_date(
    server: FakeServer, wrong_s: float, is_set: bool
) -> None:
    rig = Rig(server)
    start = time.time() + wrong_s
    rig.clock.set(start)
    task = asyncio.create_task(rig.agent.run())
    await server.until(lambda: bool(server.hellos))
    assert (rig.clock.now() != start) is is_set
    assert rig.saw("the clock was") is is_set
    rig.agent.stop()
    await task


async def test_malformed_words_end_the_session_not_the_agent(server: FakeServer) -> None:
    async with running(server) as rig:
        await server.until(lambda: bool(server.hellos))
        await server.sockets[-1].send_str('{"type":"nonsense"}')
        await server.until(lambda: len(server.hellos) > 1)
        assert rig.saw("not a message of a server")


# several servers


@contextlib.asynccontextmanager
async def calling(first: FakeServer, second: FakeServer) -> AsyncIterator[Rig]:
    """An agent that knows two servers of one CA; the first has the CA file too."""
    more = {
        "other_servers": (Address("127.0.0.1", second.port),),
        "other_ca_urls": (f"http://127.0.0.1:{second.ca_port}/ca.pem",),
    }
    async with running(first, **more) as rig:  # type: ignore[arg-type]
        yield rig


@pytest.fixture(name="replica")
async def _replica(server: FakeServer) -> AsyncIterator[FakeServer]:
    async with fake_server(server.pki) as replica:
        yield replica


STANDS_BY = Refused(STANDBY, "this server does not lead", 0.2)


async def test_a_standby_sends_on_to_the_leader(server: FakeServer, replica: FakeServer) -> None:
    server.answer = STANDS_BY
    async with calling(server, replica) as rig:
        await rig.until(lambda: rig.saw(f"connected to server 127.0.0.1:{replica.port} as host"))
        assert len(server.hellos) == 1
        assert rig.saw("this server does not lead; next try in 0.3 s")


async def test_jobs_go_on_while_the_servers_change(server: FakeServer, replica: FakeServer) -> None:
    replica.answer = STANDS_BY
    async with calling(server, replica) as rig:
        await server.until(lambda: bool(server.hellos))
        await server.send(RunJob(SLOW))
        await server.until(lambda: bool(reports(server, "slow")))
        await server.stop()
        await replica.until(lambda: len(replica.hellos) >= 3)
        replica.answer = Welcome("metal/node-1")
        count = len(replica.hellos)
        await replica.until(lambda: len(replica.hellos) > count)
        await rig.until(lambda: rig.saw(f"connected to server 127.0.0.1:{replica.port} as host"))
        assert [(job.id, job.state) for job in replica.hellos[-1].jobs] == [("slow", "running")]
        assert len(rig.runs) == 1
        assert len({hello.agent_id for hello in (*server.hellos, *replica.hellos)}) == 1


async def test_a_dead_first_server_does_not_keep_the_agent_from_the_second(
    server: FakeServer, replica: FakeServer
) -> None:
    await server.stop()
    async with calling(server, replica) as rig:
        await rig.until(lambda: rig.saw(f"connected to server 127.0.0.1:{replica.port} as host"))
