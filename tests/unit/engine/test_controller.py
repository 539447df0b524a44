"""The engine on twins: hosts reach their goals through crashes, lost agents and a stopped API."""

import base64

import pytest

from billet_server.core.bootplan import DiskBoot, RamdiskBoot
from billet_server.core.terms import BootDevice, PowerState
from billet_server.errors import NotFound
from billet_server.ports import BARE_METAL_HOST, HARDWARE_DATA
from billet_wire import Hello, Job, JobProblem, JobReport
from core_world import MAC
from engine_rig import NAME, NS, Rig, running_rig

IMAGE = {"url": "http://172.22.0.1/images/a.qcow2", "checksum": "0" * 32}


async def to_provisioned(rig: Rig) -> None:
    rig.api.put_secret(NS, "user", userData="#cloud-config\n")
    await rig.until_state("ready")
    await rig.edit(online=True, image=IMAGE, userData={"name": "user"})
    await rig.until_state("provisioned")


async def test_the_whole_life_of_a_host():
    async with running_rig() as rig:
        await rig.until_state("ready")
        hardware = await rig.api.get(HARDWARE_DATA, NS, NAME)
        assert hardware["spec"]["hardware"]["ramMebibytes"] == 4096
        assert hardware["metadata"]["ownerReferences"][0]["name"] == NAME

        async def off() -> bool:
            return (await rig.status()).get("poweredOn") is False

        await rig.until(off)
        assert rig.machine.power is PowerState.OFF
        assert isinstance(rig.directory.boot_plan(MAC), DiskBoot)
        await to_provisioned(rig)
        assert rig.disk == IMAGE["url"]
        drive = rig.deployed[0].config_drive
        assert drive is not None
        assert b"#cloud-config" in drive
        assert (await rig.status())["provisioning"]["image"]["url"] == IMAGE["url"]
        await rig.edit(image=None, online=False)
        await rig.until_state("ready")
        assert rig.disk == "wiped"
        await rig.api.delete(BARE_METAL_HOST, NS, NAME)

        async def gone() -> bool:
            try:
                await rig.host()
            except NotFound:
                return True
            return False

        await rig.until(gone)
        assert rig.machine.power is PowerState.OFF
        reasons = {reason for _, reason in await rig.events()}
        assert {"Registered", "InspectionComplete", "ProvisioningComplete"} <= reasons


@pytest.mark.parametrize("state", ["registering", "inspecting", "provisioning", "deprovisioning"])
async def test_a_killed_server_goes_on_where_it_was(state):
    def prepare(rig: Rig) -> None:
        rig.machine.unreachable = state == "registering"

    async with running_rig(prepare=prepare) as rig:
        held: list[Job] = []

        def hold(job: Job) -> list[JobReport]:
            held.append(job)
            return [JobReport(job.id, job.id.partition("/")[0], "running")]

        if state == "registering":
            await rig.until_state("registering")
        else:
            if state != "inspecting":
                await rig.until_state("ready")
            if state == "deprovisioning":
                await to_provisioned(rig)
            rig.script = hold
            if state == "provisioning":
                await rig.edit(online=True, image=IMAGE)
            if state == "deprovisioning":
                await rig.edit(image=None)

            async def working() -> bool:
                return bool(held)

            await rig.until(working)
            assert await rig.state() == state
        boots = len(rig.machine.boots)
        await rig.restart()
        rig.machine.unreachable = False
        rig.script = rig.obey
        if held:
            for report in rig.obey(held[-1]):
                assert rig.agent is not None
                await rig.agent.report(report)
        if state == "provisioning":
            await rig.until_state("provisioned")
        else:
            await rig.until_state("ready")
        if state == "deprovisioning":
            assert rig.disk == "wiped"
        if held:
            extra = 1 if state == "provisioning" else 0
            assert len(rig.machine.boots) <= boots + extra, "the running agent was used"


async def test_power_cut_half_way_is_named_and_repeated():
    async with running_rig() as rig:
        await rig.until_state("ready")
        rig.script = lambda job: [JobReport(job.id, "deploy", "running")]
        await rig.edit(online=True, image=IMAGE)

        async def writing() -> bool:
            return rig.agent is not None and any(j.startswith("deploy") for j in rig.agent.jobs)

        await rig.until(writing)
        await rig.cut_power()

        async def failed() -> bool:
            return (await rig.status()).get("errorType") == "provisioning error"

        await rig.until(failed)
        status = await rig.status()
        assert "power is off" in status["errorMessage"]
        assert status["problem"]["id"] == "agent-lost"
        rig.script = rig.obey
        await rig.until_state("provisioned")
        assert ("Warning", "ProvisioningError") in await rig.events()


async def test_a_second_agent_with_the_same_token_is_refused():
    async with running_rig() as rig:
        await rig.until_state("inspecting")

        async def agent_there() -> bool:
            return rig.agent is not None

        rig.script = lambda job: []
        await rig.until(agent_there)
        assert rig.agent is not None
        stolen = rig.agent.hello.token
        second = await rig.agents.connect(Hello(stolen, "thief", (MAC,), "legacy", 1, "0"))
        assert second.refused is not None
        assert second.refused.reason == "token-used"
        other = await rig.agents.connect(Hello(stolen, "thief", ("00:00:00:00:00:09",), "", 1, "0"))
        assert other.refused is not None
        assert other.refused.reason == "mac-mismatch"
        forged = await rig.agents.connect(Hello("b1.x.y", "thief", (MAC,), "legacy", 1, "0"))
        assert forged.refused is not None
        assert forged.refused.reason == "token-invalid"


async def test_missing_and_malformed_secret_then_repaired():
    async with running_rig(secret=False) as rig:

        async def says(text: str) -> bool:
            return text in (await rig.status()).get("errorMessage", "")

        await rig.until(lambda: says("does not exist"))
        assert (await rig.status())["errorType"] == "registration error"
        rig.api.put_secret(NS, f"{NAME}-bmc", username="admin")
        await rig.until(lambda: says("no usable password"))
        rig.put_secret()
        await rig.until_state("ready")
        assert "errorMessage" not in await rig.status() or not (await rig.status())["errorMessage"]


async def test_wrong_password_and_changed_secret():
    async with running_rig(secret=False) as rig:
        rig.put_secret("pa55-oops")

        async def refused() -> bool:
            return (await rig.status()).get("problem", {}).get("id") == "bmc-auth"

        await rig.until(refused)
        status = await rig.status()
        assert "goodCredentials" not in status
        assert "pa55" not in str(status)
        rig.put_secret("secret")
        await rig.until_state("ready")
        status = await rig.status()
        assert status["goodCredentials"] == status["triedCredentials"]


async def test_unreachable_bmc_backs_off_and_heals():
    async with running_rig(prepare=lambda rig: setattr(rig.machine, "unreachable", True)) as rig:

        async def counted() -> bool:
            return (await rig.status()).get("errorCount", 0) >= 3

        await rig.until(counted)
        status = await rig.status()
        assert status["problem"]["id"] == "bmc-unreachable"
        assert status["waiting"]["cause"] == "retry"
        assert status["waiting"]["until"]
        rig.machine.unreachable = False
        await rig.until_state("ready")


async def test_unknown_scheme_is_named():
    async with running_rig(host=False) as rig:
        await rig.add_host(bmc={"address": "ilo4://1.2.3.4", "credentialsName": f"{NAME}-bmc"})

        async def named() -> bool:
            return (await rig.status()).get("problem", {}).get("id") == "bmc-address"

        await rig.until(named)
        assert "ilo4" in (await rig.status())["errorMessage"]


async def test_the_younger_of_two_hosts_with_one_mac_waits():
    async with running_rig() as rig:
        await rig.until_state("inspecting")
        await rig.clock.advance(5)
        rig.put_secret(name="node02")
        await rig.add_host("node02")

        async def conflict() -> bool:
            return (await rig.status("node02")).get("problem", {}).get("id") == "boot-mac-conflict"

        await rig.until(conflict)
        await rig.until_state("ready")
        assert f"{NS}/{NAME}" in (await rig.status("node02"))["errorMessage"]
        await rig.api.delete(BARE_METAL_HOST, NS, NAME)

        async def goes_on() -> bool:
            return await rig.state("node02") == "ready"

        await rig.until(goes_on)


async def test_api_stopped_and_started_again_in_the_middle():
    async with running_rig() as rig:
        await rig.until_state("inspecting")
        rig.api.unavailable = True
        await rig.clock.advance(120)
        rig.api.unavailable = False
        await rig.until_state("ready")


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        (None, "does not exist"),
        ({"other": "x"}, "neither key"),
    ],
)
async def test_user_data_secret_problems_are_named_and_heal(secret, text):
    async with running_rig() as rig:
        await rig.until_state("ready")
        if secret:
            rig.api.put_secret(NS, "user", **secret)
        await rig.edit(online=True, image=IMAGE, userData={"name": "user"})

        async def named() -> bool:
            return text in (await rig.status()).get("errorMessage", "")

        await rig.until(named)
        assert rig.disk == "empty"
        rig.api.put_secret(NS, "user", userData="#!/bin/sh\n")
        await rig.edit(description="look again")
        await rig.until_state("provisioned")


async def test_checksum_mismatch_reaches_the_object_and_heals_by_an_edit():
    async with running_rig() as rig:
        await rig.until_state("ready")
        wrong = JobProblem("image-checksum", "md5 of x is 1, not 0", "", "correct it", heals=True)
        rig.script = lambda job: [JobReport(job.id, "deploy", "failed", problem=wrong)]
        await rig.edit(online=True, image=IMAGE)

        async def failed() -> bool:
            return (await rig.status()).get("problem", {}).get("id") == "image-checksum"

        await rig.until(failed)
        assert await rig.state() == "provisioning"
        assert "md5 of x is 1" in (await rig.status())["errorMessage"]
        rig.script = rig.obey
        await rig.edit(image=IMAGE | {"checksum": "1" * 32})
        await rig.until_state("provisioned", limit_s=60)


async def test_bmc_that_ignores_the_boot_override_is_named():
    def prepare(rig: Rig) -> None:
        rig.machine.ignores_override = True

    async with running_rig(prepare=prepare) as rig:

        async def named() -> bool:
            return (await rig.status()).get("problem", {}).get("id") == "boot-no-request"

        await rig.until(named)
        rig.machine.ignores_override = False
        await rig.until_state("ready")


async def test_one_boot_has_one_token_and_hosts_not_booting_get_the_disk():
    async with running_rig() as rig:
        await rig.until_state("inspecting")

        async def booting() -> bool:
            return isinstance(rig.directory.boot_plan(MAC), RamdiskBoot)

        await rig.until(booting)
        first, again = rig.directory.boot_plan(MAC), rig.directory.boot_plan(MAC)
        assert first == again
        assert isinstance(rig.directory.boot_plan("00:00:00:00:00:99"), DiskBoot)
        assert rig.machine.boots[-1] is None or rig.machine.boots[-1].device is BootDevice.NETWORK


async def test_secrets_never_show():
    async with running_rig() as rig:
        await to_provisioned(rig)
        shown = str(await rig.host()) + str(await rig.events())
        assert "secret" not in shown.replace("secrets", "")
        assert base64.b64encode(b"secret").decode() not in shown
