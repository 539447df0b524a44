"""A machine is inspected, waits in the ramdisk and gets its image, all in one network boot."""

import asyncio
import secrets
from pathlib import Path

import pytest

from billet_lab import console, leaks
from vm_rig import BOOTED_FROM_DISK, IMAGE, SUMS, left_behind, rig

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.timeout(1200)]

BOOT_S = 500.0
STORY_S = 1100.0
KERNEL_FETCHED = "boot stage kernel"


def waits_in_ramdisk(host, view) -> bool:
    waiting = host.get("status", {}).get("waiting") or {}
    return view.state == "ready" and waiting.get("cause") == "fast-track"


async def test_inspected_and_provisioned_in_one_network_boot(tmp_path: Path):
    before = leaks.snapshot()
    async with asyncio.timeout(STORY_S), rig(tmp_path) as made:
        await made.register(online=True)
        host = await made.until(waits_in_ramdisk, "waiting in the ramdisk", BOOT_S)
        assert host["status"]["poweredOn"] is True
        agent = host["status"]["boot"]["agentID"]
        await made.restart_server()
        token = f"billet-token-{secrets.token_hex(8)}"
        await made.user_data(f"#!/bin/sh\necho {token} > /dev/ttyS0\n")
        await made.image(f"ok/{IMAGE}", made.url(f"ok/{SUMS}"))

        def is_at_work(host, _) -> bool:
            status = host["status"]
            return (status.get("boot") or {}).get("purpose") == "provision"

        host = await made.until(is_at_work, "provisioning", BOOT_S)
        assert host["status"]["boot"]["agentID"] == agent, "the agent that inspected it"
        await made.until_state("provisioned", BOOT_S)
        await console.wait_for(made.console, token, deadline_s=BOOT_S)
        assert made.server_log().count(KERNEL_FETCHED) == 1
        said = made.console.read_bytes().decode(errors="replace")
        assert said.count(BOOTED_FROM_DISK) == 1
        assert len(await made.events("NetworkBootStarted")) == 1
    assert left_behind(before, tmp_path, made.lab.namespace) == []
