"""Two whole servers on one API, one machine between them, in virtual time."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from billet_server import errors, settings
from billet_server.core.terms import HostKey
from billet_server.engine.controller import Controller
from billet_server.engine.directory import AgentAddress, Directory
from billet_server.engine.duty import Duty
from billet_server.engine.fence import FencedAgents, FencedKube
from billet_server.memory.agents import MemoryAgents
from billet_server.memory.bmc import MemoryBmcs
from billet_server.ports import BARE_METAL_HOST
from billet_wire import STANDBY, Deploy, DeployResult, Hello, JobReport
from core_world import MAC
from engine_rig import NAME, NS, Rig, Tokens, running_rig

IMAGE = {"url": "http://172.22.0.1/images/a.qcow2", "checksum": "0" * 32}


class Dhcp:
    def __init__(self):
        self.serves = False
        self.fails = False

    async def start(self):
        if self.fails:
            raise errors.BootError("no dnsmasq")
        self.serves = True

    async def stop(self):
        self.serves = False


class Replica:
    """A server on the rig's API and machine. ``said`` is what it announced."""

    def __init__(self, rig: Rig, name: str, folder: Path) -> None:
        self.rig, self.said, self.dhcp = rig, [], Dhcp()
        inputs = settings.Inputs(
            state_dir=str(folder / name), kubeconfig=str(folder / "kubeconfig"),
            lease_namespace=NS, agent_addresses=("172.22.0.1:8443", "172.22.0.2:8443"),
        )  # fmt: skip
        self.duty = Duty(settings.check(inputs), rig.api, rig.clock, name, self.said.append)
        check = self.duty.leader.check
        self.bmcs = MemoryBmcs(rig.bmcs.machines.values(), answer_s=0.01, permit=check)
        address = AgentAddress("a:1,b:2", "ab" * 32, "http://a:8080/ca.pem")
        api = FencedKube(rig.api, check)
        self.directory = Directory(api, rig.clock, Tokens(), address, standby=self.duty.why_not)
        self.agents = MemoryAgents(self.directory, now=rig.clock.now)
        self.controller = Controller(
            api, self.bmcs, FencedAgents(self.agents, check), rig.clock, workers=4
        )
        self.directory.attach(self.controller)
        self.dismissed = 0
        self.connected = []
        self.task: asyncio.Task | None = None

    async def dismiss(self, reason):
        self.dismissed += 1
        for agent in self.connected:
            await agent.drop()
        self.connected.clear()

    async def start(self):
        await self.duty.prepare()
        self.task = asyncio.create_task(self.duty.run(self.controller, self, self.dhcp))
        await self.rig.clock.settle()

    async def kill(self):
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            self.task = None
        self.controller.queue.close()
        await self.dismiss("dead")


class Two:
    """Both replicas; the machine's ramdisk and agent find whoever leads."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.rig = rig
        (folder / "kubeconfig").touch()
        self.one, self.two = Replica(rig, "one", folder), Replica(rig, "two", folder)
        rig._ramdisk = self._ramdisk

    @property
    def leaders(self):
        return [each for each in (self.one, self.two) if each.duty.leader.leading]

    async def _ramdisk(self):
        await self.rig.clock.sleep(5)
        while not self.leaders:
            await self.rig.clock.sleep(1)
        self.rig.directory = self.leaders[0].directory
        plan = self.rig.directory.boot_plan(MAC)
        text = next(word for word in plan.arguments if word.startswith("billet.token="))
        self.rig._agent_count += 1
        self.hello = Hello(
            text.partition("=")[2], f"agent-{self.rig._agent_count}", (MAC,), "legacy", 9, "0"
        )
        await self.rig.clock.sleep(20)
        await self.dial()

    async def dial(self, jobs=()):
        """Call one after the other until one lets us in."""
        hello = Hello(self.hello.token, self.hello.agent_id, (MAC,), "legacy", 9, "0", jobs=jobs)
        while True:
            for each in (self.one, self.two):
                if each.task is None:
                    continue
                agent = await each.agents.connect(hello, script=self.rig._ask_script)
                if agent.refused is None:
                    each.connected.append(agent)
                    self.rig.agent = agent
                    return agent
                assert agent.refused.reason == STANDBY
                assert agent.refused.retry_after_s == 1.0
            await self.rig.clock.sleep(1)


@pytest.fixture
async def two(tmp_path):
    def no_server(rig):
        async def nothing():
            return None

        rig.start = nothing

    async with running_rig(prepare=no_server) as rig:
        made = Two(rig, tmp_path)
        async with contextlib.AsyncExitStack() as stack:
            for each in (made.one, made.two):
                await each.start()
                stack.push_async_callback(each.kill)
            yield made


async def deploying(two):
    """Bring the host to the middle of writing its image; return the job's id."""
    rig = two.rig

    def half(job):
        if isinstance(job.params, Deploy):
            rig.deployed.append(job.params)
            return [JobReport(job.id, "deploy", "running")]
        return rig.obey(job)

    rig.script = half
    await rig.until_state("ready")
    await rig.edit(online=True, image=IMAGE)

    async def written_to():
        return bool(rig.deployed)

    await rig.until(written_to)
    await rig.clock.advance(5)
    (report,) = [each for each in rig.agent.jobs.values() if each.kind == "deploy"]
    return report


async def test_one_leads_and_the_other_says_what_it_waits_for(two):
    assert two.leaders == [two.one]
    assert two.one.dhcp.serves
    assert not two.two.dhcp.serves
    assert two.one.said[-1] == "ready"
    assert two.two.said == [f"waiting for the lease held by one ({NS}/billet)"]
    await two.rig.until_state("ready")
    assert two.two.controller.synced, "its caches are warm"
    assert two.two.bmcs.opened == []


async def test_a_killed_leaders_host_goes_on_under_the_other_without_a_second_write(two):
    rig = two.rig
    report = await deploying(two)
    cycles = list(rig.machine.calls)
    agent = rig.agent
    jobs = tuple(agent.jobs.values())
    await two.one.kill()
    died = rig.clock.monotonic()
    dialling = asyncio.create_task(two.dial(jobs))
    await rig.clock.run_until(lambda: rig.agent is not agent)
    await rig.clock.settle()
    took = rig.clock.monotonic() - died
    assert took < 17, took
    assert await dialling is rig.agent
    await rig.clock.advance(10)
    assert "power_off" not in rig.machine.calls[len(cycles) :], "nobody touched its power"
    assert len(rig.deployed) == 1
    rig.disk = "written"
    rig.script = rig.obey
    result = DeployResult("/dev/vda", "only disk", 1, 2, "md5:0", "legacy", None, {})
    await rig.agent.report(JobReport(report.id, "deploy", "succeeded", deploy=result))
    await rig.until_state("provisioned")
    assert len(rig.deployed) == 1
    assert two.two.dhcp.serves


async def test_a_new_leader_gives_the_agent_time_to_come_back(two):
    """An agent that needs most of `agent_lost_s` is not given up: the wait begins anew."""
    rig = two.rig
    await deploying(two)
    calls = len(rig.machine.calls)
    jobs = tuple(rig.agent.jobs.values())
    await two.one.kill()
    await rig.clock.run_until(lambda: two.two.duty.leader.leading)
    await rig.clock.advance(50)
    assert (await rig.status())["waiting"]["cause"] == "agent-return"
    await two.dial(jobs)
    await rig.clock.advance(20)
    assert "power_off" not in rig.machine.calls[calls:]
    assert len(rig.deployed) == 1


async def test_a_stopped_leader_hands_over_in_two_seconds(two):
    await two.rig.until_state("ready")
    await two.one.kill()
    await two.one.duty.leader.release()
    await two.rig.clock.advance(2.1)
    assert two.leaders == [two.two]
    assert two.two.said[-1] == "ready"


async def test_a_leader_cut_off_from_the_api_lets_go_of_agents_and_keeps_dhcp(two):
    rig = two.rig
    await deploying(two)
    rig.api.unavailable = True
    await rig.clock.advance(11)
    assert two.leaders == []
    assert two.one.dismissed == 1
    assert two.one.dhcp.serves, "machines that boot now still get addresses"
    assert "could not be renewed in time" in two.one.said[-1]
    rig.api.unavailable = False
    await rig.clock.advance(20)
    assert len(two.leaders) == 1
    (leader,) = two.leaders
    other = two.one if leader is two.two else two.two
    assert leader.dhcp.serves
    assert not other.dhcp.serves


async def test_nothing_is_done_past_the_deadline(two):
    """Every way outwards of a leader that was stopped for too long says no."""
    rig = two.rig
    await rig.until_state("ready")
    frozen = two.one
    frozen.task.cancel()  # nothing of its own runs any more, as under SIGSTOP
    await asyncio.gather(frozen.task, return_exceptions=True)
    await rig.clock.run_until(lambda: two.two.duty.leader.leading)
    two.two.task.cancel()
    await asyncio.gather(two.two.task, return_exceptions=True)
    before, calls = await rig.host(), len(rig.machine.calls)
    await rig.edit(online=True, image=IMAGE)
    follows = asyncio.create_task(frozen.controller.follow())
    working = asyncio.create_task(frozen.controller.work())  # and then it goes on where it was
    await rig.clock.advance(30)
    assert frozen.controller.hosts.get(NS, NAME)["spec"]["online"], "it knows what it should do"
    assert rig.machine.calls[calls:] == []
    assert (await rig.host())["status"] == before["status"]
    for task in (working, follows):
        task.cancel()
    await asyncio.gather(working, follows, return_exceptions=True)


async def test_dhcp_that_cannot_start_ends_the_server_with_its_own_words(two):
    two.two.dhcp.fails = True
    await two.one.kill()
    with pytest.raises(TimeoutError):
        await two.rig.clock.run_until(lambda: False, limit_s=20)
    with pytest.raises(errors.BootError, match="no dnsmasq"):
        await two.two.task


async def test_readiness_is_told_by_both(two):
    assert two.one.duty.readiness() == (True, f"ready: leading, with the lease {NS}/billet")
    ready, words = two.two.duty.readiness()
    assert ready
    assert "waiting for the lease held by one" in words


async def test_a_server_that_leads_again_believes_nothing_it_knew_before(two):
    """Outcomes and readings are dropped, and objects are read again before anything is decided."""
    rig = two.rig
    await rig.until_state("ready")
    controller = two.one.controller
    await rig.clock.advance(30)
    key = HostKey(NS, NAME)
    old = controller.memo(key)
    assert old.power is not None
    rig.api.unavailable = True
    await rig.clock.advance(11)
    two.two.task.cancel()
    await asyncio.gather(two.two.task, return_exceptions=True)
    rig.api.unavailable = False
    edited = await rig.api.patch(BARE_METAL_HOST, NS, NAME, {"spec": {"description": "new"}})
    await rig.clock.run_until(lambda: two.leaders == [two.one])
    await rig.clock.settle()
    assert controller.memo(key) is not old
    assert controller.memo(key).power is not old.power
    version = edited["metadata"]["resourceVersion"]
    assert int(controller.hosts.get(NS, NAME)["metadata"]["resourceVersion"]) >= int(version)
