"""The engine against lies, floods, dead racks, refusing APIs and hosts that come and go."""

import pytest

from billet_server import errors
from billet_server.core.terms import PowerState
from billet_server.engine.controller import BMC_EFFECTS
from billet_server.memory.bmc import MemoryMachine
from billet_server.memory.kube import MemoryKube
from billet_server.ports import BARE_METAL_HOST, EVENT, HARDWARE_DATA, Kind, Object
from billet_wire import Hello, JobReport, Progress
from core_world import INVENTORY, MAC
from engine_rig import BMC, NAME, NS, Rig, running_rig

IMAGE = {"url": "http://172.22.0.1/images/a.qcow2", "checksum": "0" * 32}


class Refusing(MemoryKube):
    """An API that refuses what a test tells it to."""

    refuses = staticmethod(lambda kind, body: False)
    writes = 0

    async def create(self, kind: Kind, obj: Object) -> Object:
        self._judge(kind, obj)
        return await super().create(kind, obj)

    async def patch(self, kind: Kind, namespace: str, name: str, patch: Object, **more) -> Object:
        self._judge(kind, patch)
        if kind is BARE_METAL_HOST:
            self.writes += 1
        return await super().patch(kind, namespace, name, patch, **more)

    def _judge(self, kind: Kind, body: Object) -> None:
        if self.refuses(kind, body):
            raise errors.Invalid("spec.x: Invalid value", 422, "Invalid")


def refusing(rig: Rig) -> None:
    rig.api = Refusing(clock=rig.clock)
    rig.build()


async def problem(rig: Rig, name: str = NAME) -> str:
    return (await rig.status(name)).get("problem", {}).get("id", "")


async def test_a_refused_inventory_is_a_problem_of_the_host():
    async with running_rig(prepare=refusing) as rig:
        rig.api.refuses = lambda kind, body: kind is HARDWARE_DATA

        async def named() -> bool:
            return await problem(rig) == "inventory-refused"

        await rig.until(named)
        assert (await rig.status())["errorType"] == "inspection error"
        rig.api.refuses = lambda kind, body: False
        await rig.until_state("ready")


async def test_a_refused_status_is_a_problem_of_the_host():
    async with running_rig(prepare=refusing) as rig:
        rig.api.refuses = lambda kind, body: "hardware" in (body.get("status") or {})

        async def named() -> bool:
            return await problem(rig) == "status-refused"

        await rig.until(named)
        assert "Invalid value" in (await rig.status())["errorMessage"]
        before = rig.api.writes
        await rig.clock.advance(600)
        assert rig.api.writes - before < 100
        rig.api.refuses = lambda kind, body: False
        await rig.until_state("ready")


async def test_absurd_progress_does_not_stop_a_host():
    async with running_rig() as rig:
        absurd = Progress("x" * 5000, float("inf"), 10**40, -1, float("nan"))
        rig.script = lambda job: [
            JobReport(job.id, "inspect", "running", progress=absurd),
            JobReport(job.id, "inspect", "succeeded", inspect=INVENTORY),
        ]
        await rig.until_state("ready")


async def test_a_dead_rack_starves_nobody():
    def prepare(rig: Rig) -> None:
        for number in range(40):
            machine = rig.bmcs.add(MemoryMachine(f"ipmi://10.0.0.{number}", "admin", "secret"))
            machine.delay_s = 3600.0

    async with running_rig(host=False, prepare=prepare) as rig:
        for number in range(40):
            name = f"dead{number}"
            rig.put_secret(name=name)
            mac = f"00:00:00:00:01:{number:02x}"
            bmc = {"address": f"ipmi://10.0.0.{number}", "credentialsName": f"{name}-bmc"}
            await rig.add_host(name, bmc=bmc, bootMACAddress=mac)
        await rig.clock.advance(2)
        assert rig.controller.queue.busy == 40 < BMC_EFFECTS
        await rig.add_host()
        await rig.until_state("ready", limit_s=300)


async def test_a_talkative_agent_costs_a_few_passes_a_second():
    async with running_rig() as rig:
        rig.script = lambda job: [JobReport(job.id, "inspect", "running")]

        async def working() -> bool:
            return rig.agent is not None and bool(rig.agent.jobs)

        await rig.until(working)
        (job,) = rig.agent.jobs
        passes = 0
        view = rig.agents.view

        def counted(uid: str):
            nonlocal passes
            passes += 1
            return view(uid)

        rig.agents.view = counted
        for number in range(500):
            progress = Progress("write", done_bytes=number)
            await rig.agent.report(JobReport(job, "inspect", "running", progress=progress))
            await rig.clock.advance(0.002)
        assert 2 <= passes < 12
        await rig.clock.advance(3)
        assert (await rig.status())["progress"]["doneBytes"] == 499


async def test_a_refused_agent_is_told_as_an_event_once_and_its_machine_boots_again():
    async with running_rig() as rig:
        rig.script = lambda job: [JobReport(job.id, "inspect", "running")]

        async def working() -> bool:
            return rig.agent is not None and bool(rig.agent.jobs)

        await rig.until(working)
        token = rig.agent.hello.token
        await rig.agent.drop()
        rig.script = rig.obey
        boots = len(rig.machine.boots)
        for _ in range(10):
            await rig.clock.advance(5)
            await rig.agents.connect(Hello(token, "restarted", (MAC,), "legacy", 99, "0"))
        found = [event for event in (await rig.api.list(EVENT, NS)).items
                 if event["reason"] == "AgentRefused"]  # fmt: skip
        assert len(found) == 1
        assert found[0]["count"] == 1
        assert len(rig.machine.boots) == boots + 1, "booted again well within a minute"
        await rig.until_state("ready")


async def test_an_agent_of_a_provisioned_host_is_refused_and_told():
    async with running_rig() as rig:
        await rig.until_state("ready")
        await rig.edit(online=True, image=IMAGE)
        tokens = []

        def keep(job):
            tokens.append(rig.agent.hello.token)
            return rig.obey(job)

        rig.script = keep
        await rig.until_state("provisioned")
        again = await rig.agents.connect(Hello(tokens[-1], "ghost", (MAC,), "legacy", 99, "0"))
        assert again.refused is not None
        assert again.refused.reason == "token-expired"
        assert ("Warning", "AgentRefused") in await rig.events()
        assert await rig.state() == "provisioned"


async def test_an_agent_without_the_hosts_mac_is_named_on_the_object():
    async with running_rig(prepare=lambda rig: setattr(rig, "netboots", False)) as rig:

        async def booting() -> bool:
            return bool((await rig.status()).get("boot", {}).get("startedAt"))

        await rig.until(booting)
        plan = rig.directory.boot_plan(MAC)
        word = next(word for word in plan.arguments if word.startswith("billet.token="))
        hello = Hello(word.partition("=")[2], "a", ("00:00:00:00:00:99",), "legacy", 9, "0")
        boots = len(rig.machine.boots)
        for _ in range(4):
            refused = await rig.agents.connect(hello)
            assert refused.refused.reason == "mac-mismatch"
            await rig.clock.advance(5)

        async def named() -> bool:
            return await problem(rig) == "agent-mac"

        await rig.until(named, limit_s=30)
        status = await rig.status()
        assert f"no interface {MAC}" in status["errorMessage"]
        assert "00:00:00:00:00:99" in status["problem"]["evidence"]
        assert status["problem"]["nextRetryAt"]
        told = [event for event in (await rig.api.list(EVENT, NS)).items
                if event["reason"] == "AgentRefused"]  # fmt: skip
        assert len(told) == 1
        assert "00:00:00:00:00:99" in told[0]["message"]
        rig.netboots = True
        await rig.until_state("ready")
        assert len(rig.machine.boots) == boots + 1


async def test_a_host_made_anew_under_its_name_has_nothing_of_the_old_one():
    async with running_rig() as rig:
        await rig.until_state("ready")
        old = (await rig.host())["metadata"]["uid"]
        await rig.edit(online=True)
        # By force: no server takes part.
        meta = {"finalizers": None}
        await rig.stop()
        await rig.api.patch(BARE_METAL_HOST, NS, NAME, {"metadata": meta})
        await rig.api.delete(BARE_METAL_HOST, NS, NAME)
        await rig.add_host()
        await rig.start()
        await rig.until_state("ready")
        assert (await rig.host())["metadata"]["uid"] != old
        assert rig.agents.view(old) is None


async def test_two_hosts_with_one_bmc_do_not_fight():
    async with running_rig() as rig:
        await rig.until_state("ready")
        await rig.clock.advance(5)
        rig.put_secret(name="twin")
        address = f"{BMC}/"
        rig.bmcs.machines[address] = rig.machine
        bmc = {"address": address, "credentialsName": "twin-bmc"}
        await rig.add_host("twin", bmc=bmc, bootMACAddress="00:00:00:00:00:77", online=True)

        async def named() -> bool:
            return await problem(rig, "twin") == "bmc-conflict"

        await rig.until(named)
        await rig.clock.advance(300)
        assert rig.machine.power is PowerState.OFF
        await rig.api.delete(BARE_METAL_HOST, NS, NAME)

        async def goes_on() -> bool:
            return await rig.state("twin") == "inspecting"

        await rig.until(goes_on)


async def test_a_user_data_secret_that_appears_needs_no_edit():
    async with running_rig() as rig:
        await rig.until_state("ready")
        await rig.edit(online=True, image=IMAGE, userData={"name": "user"})

        async def named() -> bool:
            return await problem(rig) == "user-data-missing"

        await rig.until(named)
        rig.api.put_secret(NS, "user", userData="#!/bin/sh\n")
        await rig.until_state("provisioned")


@pytest.mark.parametrize("online", [True, False])
async def test_an_idle_host_is_not_written(online):
    async with running_rig(host=False, prepare=refusing) as rig:
        await rig.add_host(online=online)
        await rig.until_state("ready")
        await rig.clock.advance(120)
        before = rig.api.writes
        events = await rig.events()
        await rig.clock.advance(1800)
        assert rig.api.writes == before
        assert await rig.events() == events
        assert rig.controller.queue.delayed == 1


async def test_unknown_power_is_asked_for_once_a_minute():
    async with running_rig() as rig:
        await rig.until_state("ready")
        await rig.clock.advance(120)
        rig.machine.power = PowerState.UNKNOWN
        before = len(rig.machine.calls)
        await rig.clock.advance(600)
        assert len(rig.machine.calls) - before <= 12


async def test_a_bug_in_an_effect_is_a_problem_and_not_silence():
    async with running_rig() as rig:

        def broken(target):
            raise RuntimeError("unexpected")

        rig.bmcs.open = broken
        await rig.edit(description="wake up")

        async def named() -> bool:
            return await problem(rig) == "internal"

        await rig.until(named)
        assert "RuntimeError: unexpected" in (await rig.status())["errorMessage"]
        await rig.clock.advance(60)
        assert (await rig.status())["errorCount"] in (2, 3, 4), "retried with a back-off"
