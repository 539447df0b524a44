"""Rough handling in virtual time: floods of edits, an API that is away, foreign hands in status."""

import pytest

from billet_server import errors
from billet_server.core.annotations import RETRY
from billet_server.core.conditions import TYPES
from billet_server.memory.kube import MemoryKube
from billet_server.ports import BARE_METAL_HOST, Kind, Object
from billet_wire import CleanResult, Deploy, DeployResult, Job, JobReport
from core_world import INVENTORY
from engine_rig import NAME, NS, Rig, running_rig

IMAGE = {"url": "http://172.22.0.1/images/a.qcow2", "checksum": "0" * 32}
FIVE_MINUTES_S = 300


class Counting(MemoryKube):
    """Counts the writes of statuses."""

    writes = 0

    async def patch(self, kind: Kind, namespace: str, name: str, patch: Object, **more) -> Object:
        if kind is BARE_METAL_HOST and more.get("subresource") == "status":
            self.writes += 1
        return await super().patch(kind, namespace, name, patch, **more)


def counting(rig: Rig) -> None:
    rig.api = Counting(clock=rig.clock)
    rig.build()


class Slow:
    """An agent whose job of one kind ends when the test says so."""

    def __init__(self, rig: Rig, kind: str) -> None:
        self.rig, self.kind, self.job = rig, kind, ""
        rig.script = self.work

    def work(self, job: Job) -> list[JobReport]:
        kind = job.id.partition("/")[0]
        if kind != self.kind:
            return self.rig.obey(job)
        self.job = job.id
        if isinstance(job.params, Deploy):
            self.rig.deployed.append(job.params)
        return [JobReport(job.id, kind, "running")]

    async def begun(self) -> bool:
        return bool(self.job)

    async def end(self) -> None:
        result = {
            "inspect": {"inspect": INVENTORY},
            "clean": {"clean": CleanResult(("/dev/vda",))},
            "deploy": {
                "deploy": DeployResult("/dev/vda", "only", 1, 2, "md5:0", "legacy", None, {})
            },
        }[self.kind]
        assert self.rig.agent is not None
        await self.rig.agent.report(JobReport(self.job, self.kind, "succeeded", **result))


async def generation_is_seen(rig: Rig) -> bool:
    host = await rig.host()
    told = host["status"]["conditions"]
    return {one["observedGeneration"] for one in told} == {host["metadata"]["generation"]}


@pytest.mark.parametrize("state", ["ready", "provisioning", "provisioned"])
async def test_a_thousand_edits_cost_few_writes(state):
    async with running_rig(prepare=counting) as rig:
        slow = Slow(rig, "deploy")
        await rig.until_state("ready")
        if state != "ready":
            await rig.edit(online=True, image=IMAGE)
            await rig.until(slow.begun)
        if state == "provisioned":
            await slow.end()
            await rig.until_state("provisioned")
        await rig.clock.advance(130)
        writes, events = rig.api.writes, await rig.events()
        commands, deployed = len(rig.machine.calls), len(rig.deployed)
        for number in range(1000):
            await rig.edit(description=f"edit {number}")
            await rig.clock.advance(0.01)
        await rig.until(lambda: generation_is_seen(rig), limit_s=10)
        assert rig.api.writes - writes < 30
        assert await rig.events() == events
        assert len(rig.machine.calls) - commands < 5
        assert len(rig.deployed) == deployed
        assert await rig.state() == state


async def api_is_away(rig: Rig) -> None:
    rig.api.unavailable = True
    await rig.clock.advance(FIVE_MINUTES_S)
    rig.api.unavailable = False


async def gone(rig: Rig) -> bool:
    try:
        await rig.host()
    except errors.NotFound:
        return True
    return False


@pytest.mark.parametrize("when", ["before", "during", "after"])
@pytest.mark.parametrize(("kind", "state", "goal"), [
    ("inspect", "inspecting", "ready"),
    ("deploy", "provisioning", "provisioned"),
    ("clean", "deprovisioning", "ready"),
])  # fmt: skip
async def test_the_api_is_away_while_an_agent_works(kind, state, goal, when):
    """The agent ends its job before, during or after: it is done once, and written afterwards."""
    async with running_rig() as rig:
        slow = Slow(rig, kind)
        if kind != "inspect":
            await rig.until_state("ready")
            await rig.edit(online=True, image=IMAGE)
        if kind == "clean":
            await rig.until_state("provisioned")
            await rig.edit(image=None)
        await rig.until(slow.begun)
        assert await rig.state() == state
        boots, first = len(rig.machine.boots), slow.job
        rig.api.unavailable = True
        if when == "before":
            await slow.end()
        await rig.clock.advance(FIVE_MINUTES_S / 2)
        if when == "during":
            await slow.end()
        await rig.clock.advance(FIVE_MINUTES_S / 2)
        rig.api.unavailable = False
        if when == "after":
            await rig.clock.advance(30)
            await slow.end()
        await rig.until_state(goal, limit_s=120)
        assert slow.job == first, "done once"
        assert len(rig.machine.boots) == boots, "the agent was there all the time"
        assert len(rig.deployed) <= 1
        assert (await rig.status())["errorCount"] == 0


@pytest.mark.parametrize("state", ["registering", "booting", "ready", "provisioned", "deleting"])
async def test_the_api_is_away_in_the_other_states(state):
    slow_s = 0.5 if state == "registering" else 0.0
    async with running_rig(prepare=lambda rig: setattr(rig.machine, "delay_s", slow_s)) as rig:
        if state == "registering":
            assert await rig.state() == "registering"
        elif state == "booting":
            await rig.until_state("inspecting")
        else:
            await rig.until_state("ready")
        if state in ("provisioned", "deleting"):
            await rig.edit(online=True, image=IMAGE)
            await rig.until_state("provisioned")
        if state == "deleting":
            await rig.api.delete(BARE_METAL_HOST, NS, NAME)
            await rig.until_state("powering off before delete", "deprovisioning")
        await api_is_away(rig)
        rig.machine.delay_s = 0.0
        if state == "deleting":
            await rig.until(lambda: gone(rig), limit_s=900)
            return
        if state != "provisioned":
            await rig.until_state("ready", limit_s=900)
            await rig.edit(online=True, image=IMAGE)
        await rig.until_state("provisioned", limit_s=900)
        assert len(rig.deployed) == 1
        assert (await rig.status()).get("problem") is None


FOREIGN = {
    "type": "example.com/Racked",
    "status": "True",
    "reason": "Scanned",
    "message": "rack 7",
    "lastTransitionTime": "2020-01-01T00:00:00Z",
}


@pytest.mark.parametrize(
    "patch",
    [
        {"errorMessage": "who wrote this?", "errorType": "power management error", "errorCount": 9},
        {"operationalStatus": "error"},
        {"boot": None},
        {"progress": None, "waiting": None, "conditions": None},
        {"conditions": [FOREIGN]},
        {"problem": {"id": "no-such", "message": "?", "nextRetryAt": "2099-01-01T00:00:00Z"}},
        {"failures": {"basis": "?", "inspection": 99}, "provisioningFailCount": 99},
        {"provisioning": {"state": "ready", "ID": None}},
        {"goodCredentials": None},
    ],
    ids="-".join,
)
async def test_a_status_that_somebody_else_writes_into(patch):
    async with running_rig() as rig:
        slow = Slow(rig, "deploy")
        await rig.until_state("ready")
        await rig.edit(online=True, image=IMAGE)
        await rig.until(slow.begun)
        await rig.api.patch(BARE_METAL_HOST, NS, NAME, {"status": patch}, subresource="status")
        await rig.clock.advance(3)
        rig.script = rig.obey
        if rig.agent is not None and slow.job in rig.agent.jobs:
            await slow.end()
        await rig.until_state("provisioned", limit_s=900)
        await rig.clock.advance(120)
        status = await rig.status()
        assert status["operationalStatus"] == "OK"
        assert status["errorMessage"] == ""
        assert "problem" not in status
        kinds = [one["type"] for one in status["conditions"]]
        assert [kind for kind in kinds if kind in TYPES] == list(TYPES)
        if patch.get("conditions"):
            assert FOREIGN in status["conditions"]


async def test_the_annotation_is_taken_off_by_the_server():
    async with running_rig(prepare=lambda rig: setattr(rig.machine, "password", "new")) as rig:

        async def waits() -> bool:
            return (await rig.status()).get("errorCount", 0) >= 4

        await rig.until(waits)
        rig.machine.password = "secret"
        annotation = {"metadata": {"annotations": {RETRY: "now"}}}
        await rig.api.patch(BARE_METAL_HOST, NS, NAME, annotation)
        await rig.until_state("inspecting", limit_s=5)
        assert RETRY not in (await rig.host())["metadata"].get("annotations", {})
        assert ("Normal", "RetryRequested") in await rig.events()
