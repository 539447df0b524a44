"""Reboot, detached and paused through the engine: what is written, and what a crash leaves."""

import asyncio

import pytest

from billet_server.core.terms import PowerState
from billet_server.errors import NotFound
from billet_server.ports import BARE_METAL_HOST
from billet_wire import Job, JobReport
from engine_rig import BMC, NAME, NS, Rig, running_rig

IMAGE = {"url": "http://172.22.0.1/images/a.qcow2", "checksum": "0" * 32}
REBOOT = "reboot.metal3.io"
DETACHED = "baremetalhost.metal3.io/detached"
PAUSED = "baremetalhost.metal3.io/paused"


async def annotate(rig: Rig, key: str, value: str | None = "", name: str = NAME) -> None:
    patch = {"metadata": {"annotations": {key: value}}}
    await rig.api.patch(BARE_METAL_HOST, NS, name, patch)


async def annotations(rig: Rig) -> dict[str, str]:
    return (await rig.host())["metadata"].get("annotations") or {}


async def to_provisioned(rig: Rig, **spec) -> None:
    await rig.until_state("ready")
    await rig.edit(online=True, image=IMAGE, **spec)
    await rig.until_state("provisioned")
    await rig.clock.advance(70)
    rig.machine.calls.clear()
    rig.machine.boots.clear()


async def test_a_reboot_takes_the_annotation_off_between_off_and_on():
    async with running_rig() as rig:
        await to_provisioned(rig)
        await annotate(rig, REBOOT)

        async def taken() -> bool:
            return REBOOT not in await annotations(rig)

        rig.machine.on_boot = lambda _: calls.append("boot")
        calls: list[str] = []
        await rig.until(taken)
        assert "soft_off" in rig.machine.calls
        await rig.clock.advance(120)
        assert calls == ["boot"]
        assert rig.machine.power is PowerState.ON
        assert (await rig.status())["operationalStatus"] == "OK"


@pytest.mark.parametrize("never_off", [False, True])
@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.015, 0.025, 0.035, 0.05, 0.07])
async def test_a_server_killed_anywhere_in_a_reboot_leaves_one(never_off, after_s):
    async with running_rig() as rig:
        await to_provisioned(rig, disablePowerOff=never_off)
        rig.machine.delay_s = 0.01
        await annotate(rig, REBOOT)
        await rig.clock.settle()
        # The twin's BMC takes its time in real seconds.
        await asyncio.sleep(after_s)
        await rig.restart()

        async def over() -> bool:
            return REBOOT not in await annotations(rig) and rig.machine.power is PowerState.ON

        await rig.until(over)
        for _ in range(40):
            await rig.clock.advance(5)
            await asyncio.sleep(0.003)
        assert rig.machine.power is PowerState.ON
        if never_off:
            uncertain = ("Warning", "RebootUncertain") in await rig.events()
            assert len(rig.machine.boots) == 1 or (uncertain and not rig.machine.boots)
        else:
            assert len(rig.machine.boots) == 1


async def test_a_client_holds_and_lets_go():
    async with running_rig() as rig:
        await to_provisioned(rig)
        await annotate(rig, f"{REBOOT}/remediation", '{"mode": "hard"}')

        async def off() -> bool:
            return ((await rig.status()).get("waiting") or {}).get("cause") == "held"

        await rig.until(off)
        version = (await rig.host())["metadata"]["resourceVersion"]
        await rig.clock.advance(600)
        assert rig.machine.power is PowerState.OFF
        assert rig.machine.boots == []
        assert "soft_off" not in rig.machine.calls
        written = (await rig.host())["metadata"]["resourceVersion"]
        assert written == version, "a held host is not written again and again"
        await annotate(rig, f"{REBOOT}/remediation", None)

        async def on() -> bool:
            return (await rig.status()).get("poweredOn") is True

        await rig.until(on)
        assert len(rig.machine.boots) == 1


async def test_a_detached_host_is_not_talked_to_and_comes_back_running():
    async with running_rig() as rig:
        await to_provisioned(rig)
        await annotate(rig, DETACHED)
        await rig.clock.advance(5)
        assert (await rig.status())["operationalStatus"] == "detached"
        rig.machine.calls.clear()
        rig.put_secret("another")
        await rig.clock.advance(3600)
        assert rig.machine.calls == []
        rig.machine.password = "another"
        await annotate(rig, DETACHED, None)
        await rig.clock.advance(120)
        status = await rig.status()
        assert (status["operationalStatus"], status["provisioning"]["state"]) == (
            "OK",
            "provisioned",
        )
        assert set(rig.machine.calls) == {"power_state"}
        assert rig.machine.boots == []


async def test_a_detached_host_goes_and_its_machine_stays_on():
    async with running_rig() as rig:
        await to_provisioned(rig)
        await annotate(rig, DETACHED)
        await rig.clock.advance(5)
        rig.machine.calls.clear()
        await rig.api.delete(BARE_METAL_HOST, NS, NAME)
        await rig.clock.advance(5)
        with pytest.raises(NotFound):
            await rig.host()
        assert rig.machine.calls == []
        assert rig.machine.power is PowerState.ON


async def test_the_machine_of_a_detached_host_can_be_another_hosts():
    async with running_rig() as rig:
        await to_provisioned(rig)
        rig.put_secret(name="twin")
        await rig.clock.advance(1)
        bmc = {"address": BMC, "credentialsName": "twin-bmc"}
        await rig.add_host("twin", bmc=bmc, online=True, externallyProvisioned=True)

        async def problem() -> str:
            return (await rig.status("twin")).get("problem", {}).get("id", "")

        async def refused() -> bool:
            return await problem() in ("bmc-conflict", "boot-mac-conflict")

        await rig.until(refused)
        await annotate(rig, DETACHED)

        async def taken_over() -> bool:
            return await rig.state("twin") == "externally provisioned"

        await rig.until(taken_over, limit_s=60)
        await annotate(rig, DETACHED, None)
        await rig.clock.advance(60)
        assert await refused(), "one of the two claims is refused again"
        assert rig.machine.boots == []


async def test_what_ended_while_paused_is_not_done_again():
    async with running_rig() as rig:
        await rig.until_state("ready")
        rig.machine.power_delay_s = 20
        rig.machine.calls.clear()
        await rig.edit(online=True, image=IMAGE)

        async def begun() -> bool:
            return "power_off" in rig.machine.calls or "power_on" in rig.machine.calls

        await rig.until(begun)
        await annotate(rig, PAUSED)
        await rig.clock.advance(1)
        frozen = await rig.status()
        await rig.clock.advance(3600)
        assert await rig.status() == frozen
        boots = len(rig.machine.boots)
        await annotate(rig, PAUSED, None)
        rig.machine.power_delay_s = 0
        await rig.clock.advance(30)
        assert len(rig.machine.boots) == boots, "the boot that ended while paused counts"
        assert "problem" not in await rig.status()


async def test_a_paused_host_lets_no_new_agent_in_and_takes_it_when_it_goes_on():
    async with running_rig() as rig:
        await rig.until_state("inspecting")

        async def booting() -> bool:
            return "startedAt" in ((await rig.status()).get("boot") or {})

        await rig.until(booting)
        await annotate(rig, PAUSED)
        await rig.clock.advance(1)
        frozen = await rig.status()
        await rig.clock.advance(3600)
        assert rig.agent is not None
        assert rig.agent.refused is not None
        assert rig.agent.refused.reason == "host-paused"
        assert rig.agent.refused.retry_after_s
        assert await rig.status() == frozen
        await annotate(rig, PAUSED, None)
        await rig.clock.advance(5)
        rig.agent = await rig.agents.connect(rig.agent.hello, script=rig.script)
        assert rig.agent.refused is None
        await rig.until_state("ready")
        assert "NetworkBootStarted" in {reason for _, reason in await rig.events()}
        assert len(rig.machine.boots) == 1


async def test_a_job_goes_on_while_its_host_is_paused():
    async with running_rig() as rig:
        held: list[Job] = []

        def hold(job: Job) -> list[JobReport]:
            held.append(job)
            return [JobReport(job.id, job.id.partition("/")[0], "running")]

        await rig.until_state("ready")
        rig.script = lambda job: hold(job) if job.id.startswith("deploy") else rig.obey(job)
        await rig.edit(online=True, image=IMAGE)

        async def running() -> bool:
            return bool(held)

        await rig.until(running)
        await annotate(rig, PAUSED)
        await rig.clock.advance(2)
        frozen = await rig.status()
        for report in rig.obey(held[0]):
            rig.agents.heard(rig.agent, report)
        await rig.clock.advance(7200)
        assert await rig.status() == frozen
        rig.script = rig.obey
        await annotate(rig, PAUSED, None)
        await rig.until_state("provisioned")
        assert len(held) == 1


async def test_deleting_a_paused_host_waits():
    async with running_rig() as rig:
        await to_provisioned(rig)
        await annotate(rig, PAUSED)
        await rig.api.delete(BARE_METAL_HOST, NS, NAME)
        await rig.clock.advance(3600)
        assert await rig.state() == "provisioned"
        assert rig.machine.calls == []
        await annotate(rig, PAUSED, None)

        async def gone() -> bool:
            try:
                await rig.host()
            except NotFound:
                return True
            return False

        await rig.until(gone)
