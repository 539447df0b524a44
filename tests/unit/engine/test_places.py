"""Twelve hosts and two places, through the whole engine: order, failures, killed servers."""

import asyncio
import contextlib
from collections import Counter

import pytest

from billet_server.core.bootplan import RamdiskBoot
from billet_server.core.seen import Rules
from billet_server.core.terms import BootDevice, PowerState
from billet_server.engine.controller import Controller
from billet_server.engine.directory import AgentAddress, Directory
from billet_server.memory.agents import MemoryAgents
from billet_server.memory.bmc import MemoryBmcs, MemoryMachine
from billet_server.memory.clock import ManualClock
from billet_server.memory.kube import MemoryKube
from billet_server.ports import BARE_METAL_HOST, EVENT
from billet_wire import CleanResult, Deploy, DeployResult, Hello, JobReport
from core_world import INVENTORY
from engine_rig import NS, Tokens

IMAGE = {"url": "http://172.22.0.1/images/a.qcow2", "checksum": "0" * 32}
HOSTS = 12
BUSY = {"inspecting": "inspect", "provisioning": "provision", "deprovisioning": "clean"}


def mac_of(number):
    return f"00:c2:fc:00:00:{number:02x}"


class Fleet:
    """Machines that boot the ramdisk in 20 s and do any job in 30 s."""

    def __init__(self, *, most=2, hosts=HOSTS):
        self.rules = Rules(max_inspecting=most, max_provisioning=most, max_cleaning=most)
        self.names = [f"node{number:02}" for number in range(hosts)]
        self.clock = ManualClock()
        self.api = MemoryKube(clock=self.clock)
        self.bmcs = MemoryBmcs(answer_s=0.01)
        self.machines = {}
        self.dead: set[int] = set()
        self.over: list[str] = []
        self.most: Counter[str] = Counter()
        self.begun: list[tuple[str, str]] = []
        self._last: dict[str, str] = {}
        self._tasks: set[asyncio.Task] = set()
        self._server = None
        self.api.put_namespace(NS)
        for number in range(hosts):
            machine = self.bmcs.add(MemoryMachine(self.bmc(number), "admin", "secret"))
            machine.on_boot = lambda choice, number=number: self._booted(number, choice)
            self.machines[number] = machine
        self._build()

    @staticmethod
    def bmc(number):
        return f"ipmi://172.22.1.{number}"

    def _build(self):
        address = AgentAddress("172.22.0.1:8443", "ab" * 32, "http://172.22.0.1:8080/ca.pem")
        self.directory = Directory(self.api, self.clock, Tokens(), address)
        self.agents = MemoryAgents(self.directory, now=self.clock.now)
        self.controller = Controller(
            self.api, self.bmcs, self.agents, self.clock, rules=self.rules, workers=4
        )
        self.directory.attach(self.controller)

    async def start(self):
        self._server = asyncio.create_task(self.controller.run())
        await self.clock.settle()

    async def stop(self):
        self._server.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._server
        self.controller.queue.close()

    async def kill(self):
        await self.stop()
        self._build()
        await self.start()

    async def add(self, number, **spec):
        self.api.put_secret(NS, f"node{number:02}-bmc", username="admin", password="secret")
        body = {
            "bmc": {"address": self.bmc(number), "credentialsName": f"node{number:02}-bmc"},
            "bootMACAddress": mac_of(number),
            "online": False,
        }
        await self.api.create(
            BARE_METAL_HOST,
            {
                "apiVersion": "metal3.io/v1alpha1",
                "kind": "BareMetalHost",
                "metadata": {"name": f"node{number:02}", "namespace": NS},
                "spec": body | spec,
            },
        )

    async def edit(self, number, **spec):
        await self.api.patch(BARE_METAL_HOST, NS, f"node{number:02}", {"spec": spec})

    async def hosts(self):
        return {each["metadata"]["name"]: each for each in
                (await self.api.list(BARE_METAL_HOST, NS)).items}  # fmt: skip

    async def states(self):
        found = await self.hosts()
        return [(found[name].get("status") or {}).get("provisioning", {}).get("state", "")
                for name in self.names if name in found]  # fmt: skip

    async def look(self):
        """Count who is at what; never may it be more than there are places."""
        at_work: Counter[str] = Counter()
        for name, host in (await self.hosts()).items():
            status = host.get("status") or {}
            state = status.get("provisioning", {}).get("state", "")
            cause = (status.get("waiting") or {}).get("cause", "")
            operation = BUSY.get(state)
            working = operation is not None and cause not in ("capacity", "retry", "change")
            if working:
                at_work[operation] += 1
                if self._last.get(name) != operation:
                    self.begun.append((operation, name))
            self._last[name] = operation if working else ""
        for operation, count in at_work.items():
            self.most[operation] = max(self.most[operation], count)

    async def until(self, condition, limit_s=20_000):
        passed = 0
        while not await condition():
            assert passed < limit_s, await self.hosts()
            await self.clock.advance(1)
            await asyncio.sleep(0)
            await self.look()
            passed += 1

    async def all_in(self, state, limit_s=20_000):
        async def there():
            return set(await self.states()) == {state}

        await self.until(there, limit_s)

    async def events(self, reason):
        await self.clock.settle()
        return [each for each in (await self.api.list(EVENT, NS)).items if each["reason"] == reason]

    def _booted(self, number, choice):
        if choice is not None and choice.device is BootDevice.NETWORK and number not in self.dead:
            task = asyncio.ensure_future(self._ramdisk(number, len(self.machines[number].boots)))
            self._tasks.add(task)

    async def _ramdisk(self, number, boot):
        machine = self.machines[number]
        await self.clock.sleep(20)
        plan = self.directory.boot_plan(mac_of(number))
        if not isinstance(plan, RamdiskBoot):
            return
        for stage in ("dhcp", "script"):
            self.directory.boot_seen(mac_of(number), stage)
        text = next(word for word in plan.arguments if word.startswith("billet.token="))
        jobs: dict[str, JobReport] = {}
        agent = None
        while machine.power is PowerState.ON and len(machine.boots) == boot:
            if agent is None or not agent.connected or agent._agents is not self.agents:
                hello = Hello(
                    text.partition("=")[2], f"agent-{number}-{boot}", (mac_of(number),), "legacy",
                    9, "0", jobs=tuple(jobs.values()),
                )  # fmt: skip
                agent = await self.agents.connect(hello, script=lambda job: [
                    JobReport(job.id, job.id.partition("/")[0], "running")])  # fmt: skip
            await self.clock.sleep(30)
            jobs.update(agent.jobs)
            for report in [report for report in jobs.values() if report.state == "running"]:
                if report.kind == "hand-over":
                    await agent.goodbye("reboot")
                    return
                jobs[report.id] = self._done(report)
                await agent.report(jobs[report.id])

    @staticmethod
    def _done(report):
        if report.kind == "inspect":
            return JobReport(report.id, report.kind, "succeeded", inspect=INVENTORY)
        if report.kind == "clean":
            result = CleanResult(("/dev/vda",))
            return JobReport(report.id, report.kind, "succeeded", clean=result)
        assert report.kind == Deploy.__name__.lower()
        result = DeployResult("/dev/vda", "only disk", 1, 2, "md5:0", "legacy", None, {})
        return JobReport(report.id, report.kind, "succeeded", deploy=result)


@pytest.fixture
async def fleet():
    made = Fleet()
    await made.start()
    yield made
    await made.stop()
    for task in made._tasks:
        task.cancel()


async def fill(fleet, count=HOSTS, **spec):
    for number in range(count):
        await fleet.add(number, **spec)
        await fleet.clock.advance(2)


async def test_a_whole_fleet_goes_through_two_places_in_order(fleet):
    await fill(fleet)
    await fleet.all_in("ready")
    assert fleet.most == {"inspect": 2}
    order = [name for operation, name in fleet.begun if operation == "inspect"]
    assert order == fleet.names
    for number in reversed(range(HOSTS)):
        await fleet.edit(number, online=True, image=IMAGE)
        await fleet.clock.advance(2)
        await fleet.look()
    waits = (await fleet.hosts())["node00"]["status"]
    assert waits["operationalStatus"] == "delayed"
    assert waits["waiting"]["cause"] == "capacity"
    assert waits["provisioning"]["state"] == "ready"
    assert waits["waiting"]["message"].startswith("all 2 places to provision are taken; number ")
    await fleet.all_in("provisioned")
    assert fleet.most["provision"] == 2
    order = [name for operation, name in fleet.begun if operation == "provision"]
    assert order == fleet.names[::-1]
    delayed = {each["involvedObject"]["name"] for each in await fleet.events("Delayed")}
    assert set(fleet.names[:-2]) <= delayed
    for number in range(HOSTS):
        await fleet.edit(number, image=None)
    await fleet.all_in("ready")
    assert fleet.most["clean"] == 2
    statuses = {each["status"]["operationalStatus"] for each in (await fleet.hosts()).values()}
    assert statuses == {"OK"}


async def test_all_at_once_is_no_more_than_there_are_places(fleet):
    await asyncio.gather(*(fleet.add(number) for number in range(HOSTS)))
    await fleet.all_in("ready")
    assert fleet.most == {"inspect": 2}
    await asyncio.gather(*(fleet.edit(number, online=True, image=IMAGE) for number in range(HOSTS)))
    await fleet.all_in("provisioned")
    assert fleet.most == {"inspect": 2, "provision": 2}


async def test_a_killed_server_neither_begins_more_nor_forgets_the_order(fleet):
    await fill(fleet)
    await fleet.all_in("ready")
    fleet.begun.clear()
    for number in range(HOSTS):
        await fleet.edit(number, online=True, image=IMAGE)
        await fleet.clock.advance(2)
        await fleet.look()
    for _ in range(12):
        await fleet.kill()
        await fleet.clock.advance(0.5)
        await fleet.look()
        for _ in range(35):
            await fleet.clock.advance(1)
            await fleet.look()
    await fleet.all_in("provisioned")
    assert fleet.most["provision"] == 2
    order = [name for operation, name in fleet.begun if operation == "provision"]
    assert list(dict.fromkeys(order)) == fleet.names
    assert all(len(machine.boots) <= 4 for machine in fleet.machines.values())


async def test_hosts_that_fail_give_their_places_to_others(fleet):
    fleet.dead = {0, 1, 2}
    await fill(fleet)

    async def others_are_ready():
        return (await fleet.states())[3:] == ["ready"] * (HOSTS - 3)

    await fleet.until(others_are_ready)
    assert fleet.most["inspect"] == 2
    hosts = await fleet.hosts()
    assert all(hosts[name]["status"]["errorCount"] >= 1 for name in fleet.names[:2])
    fleet.dead.clear()
    await fleet.all_in("ready")
    assert fleet.most["inspect"] == 2


async def test_deleting_and_power_do_not_wait(fleet):
    await fill(fleet, 6, online=True, image=IMAGE)

    async def provisioned():
        return (await fleet.states()) == ["provisioned"] * 6

    await fleet.until(provisioned)
    fleet.dead = set(range(6))
    for number in range(6):
        await fleet.edit(number, image=None)
    await fleet.until(lambda: _waiting(fleet, 4))
    await fleet.edit(5, online=False)
    await fleet.until(lambda: _off(fleet, 5))
    before = await fleet.hosts()
    assert before["node05"]["status"]["waiting"]["cause"] == "capacity"
    await fleet.api.delete(BARE_METAL_HOST, NS, "node04")

    async def cleaned():
        state = (await fleet.hosts())["node04"]["status"]["provisioning"]["state"]
        return state == "deprovisioning" and fleet.machines[4].power is PowerState.ON

    boots = len(fleet.machines[4].boots)
    await fleet.until(cleaned, limit_s=120)
    await fleet.until(lambda: _booted(fleet, 4, boots), limit_s=120)


async def _waiting(fleet, count):
    causes = [(each["status"].get("waiting") or {}).get("cause") for each in
              (await fleet.hosts()).values()]  # fmt: skip
    return causes.count("capacity") == count


async def _off(fleet, number):
    return fleet.machines[number].power is PowerState.OFF


async def _booted(fleet, number, boots):
    return len(fleet.machines[number].boots) > boots


async def test_waiting_for_long_costs_few_writes_however_many_wait():
    fleet = Fleet(most=1, hosts=40)
    fleet.dead = {0}
    fleet.rules = fleet.rules._replace(boot_request_s=3600)
    fleet._build()
    await fleet.start()
    await fill(fleet, 40)
    await fleet.until(lambda: _waiting(fleet, 39))
    await fleet.clock.advance(120)
    versions = {n: h["metadata"]["resourceVersion"] for n, h in (await fleet.hosts()).items()}
    await fleet.clock.advance(1800)
    after = {n: h["metadata"]["resourceVersion"] for n, h in (await fleet.hosts()).items()}
    changed = [name for name in fleet.names[1:] if versions[name] != after[name]]
    assert not changed
    await fleet.stop()
