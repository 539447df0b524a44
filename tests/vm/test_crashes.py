"""The server is killed, the machine loses its power: the host reaches its goal by itself."""

import asyncio
import secrets
from pathlib import Path

import pytest

from billet_lab import console, leaks
from vm_rig import BOOTED_FROM_DISK, IMAGE, NAME, SUMS, Rig, left_behind, rig

# pytest's own timeout ends the process without cleaning up: it is there for the worst only.
pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.timeout(2400)]

BOOT_S = 600.0
WRITE_S = 600.0
STORY_S = 2200.0
SLOW_DISK_MIB_S = 80


async def test_a_host_reaches_its_goal_through_kills_and_a_power_cut(tmp_path: Path):
    before = leaks.snapshot()
    async with asyncio.timeout(STORY_S), rig(tmp_path) as made:
        await made.lab.control(NAME).set_faults({"disk_write_mib_s": SLOW_DISK_MIB_S})
        await killed_while_inspecting(made)
        await killed_while_provisioning(made)
        await killed_while_deprovisioning(made)
        await power_cut_while_writing(made)
    assert left_behind(before, tmp_path, made.lab.namespace) == []


async def killed_while_inspecting(made: Rig) -> None:
    await made.register(online=True)
    await made.until_step("ramdisk", 0, BOOT_S)
    await made.restart_server()
    host = await made.until_state("ready", BOOT_S)
    assert host["status"]["hardware"]["storage"][0]["sizeBytes"] == 8 << 30
    assert len(await made.events("InspectionComplete")) == 1
    assert made.server_log().count("NetworkBoot(") == 1  # the machine was not booted again


async def killed_while_provisioning(made: Rig) -> None:
    token = f"billet-token-{secrets.token_hex(8)}"
    await made.user_data(f"#!/bin/sh\necho {token} > /dev/ttyS0\n")
    await made.image(f"slow/12/{IMAGE}", made.url(f"ok/{SUMS}"))
    beginning = await made.until_step("write", 10, BOOT_S)
    assert not made.disk_boots()
    await made.restart_server()
    writing = await made.until_step("write", 50, WRITE_S)
    assert not made.disk_boots()
    await made.restart_server()
    assert max(beginning.percent, writing.percent) < 100
    await made.until_state("provisioned", WRITE_S)
    assert made.agent_log().count("root disk /dev/vda: ") == 1
    assert len(await made.events("ImageWritten")) == 1
    assert [event for event in await made.events() if event["type"] == "Warning"] == []
    await console.wait_for(made.console, token, deadline_s=BOOT_S)
    assert BOOTED_FROM_DISK in console.plain(made.console.read_bytes())


async def killed_while_deprovisioning(made: Rig) -> None:
    assert made.disk_boots()
    await made.patch(image=None)
    await made.until_state("deprovisioning", BOOT_S)
    await made.until_step("ramdisk", 0, BOOT_S)
    await made.restart_server()
    await made.until_state("ready", BOOT_S)
    assert made.disk_is_empty()


async def power_cut_while_writing(made: Rig) -> None:
    await made.image(f"ok/{IMAGE}", made.url(f"ok/{SUMS}"))
    await made.until_step("write", 10, WRITE_S)
    seen = console.size(made.console)
    await made.lab.control(NAME).power("cut")
    await made.lab.control(NAME).set_faults({"disk_write_mib_s": 0})
    written = made.disk.stat().st_blocks
    assert written * 512 > 8 << 20  # much of the image is there, but
    assert not made.disk_boots()
    host = await made.until(lambda host, _: problem(host) == "agent-lost", "lost", BOOT_S)
    assert host["status"]["errorType"] == "provisioning error"
    assert "power" in host["status"]["errorMessage"]
    assert [event["type"] for event in await made.events("ProvisioningError")] == ["Warning"]
    await made.until_step("write", 0, BOOT_S)  # nobody helped
    console_since = made.console.read_bytes()[seen:]
    assert BOOTED_FROM_DISK not in console.plain(console_since)
    host = await made.until_state("provisioned", WRITE_S)
    assert host["status"].get("errorMessage", "") == ""
    await console.wait_for(made.console, BOOTED_FROM_DISK, offset=seen, deadline_s=BOOT_S)


def problem(host: dict) -> str:
    return ((host.get("status") or {}).get("problem") or {}).get("id", "")
