"""The written system is started from the ramdisk, without the firmware."""

import asyncio
import secrets
from pathlib import Path
from typing import Literal

import pytest

from billet_lab import console, leaks
from vm_rig import BOOTED_FROM_DISK, IMAGE, NAME, SUMS, left_behind, rig

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.timeout(1200)]

BOOT_S = 500.0
STORY_S = 1100.0


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
async def test_a_system_starts_without_the_firmware(
    tmp_path: Path, firmware: Literal["bios", "uefi"]
):
    before = leaks.snapshot()
    async with asyncio.timeout(STORY_S), rig(tmp_path, firmware=firmware) as made:
        await made.register(online=True)
        await made.kubectl.run("annotate", "baremetalhost", NAME, "billet.dev/boot=kexec")
        token = f"billet-token-{secrets.token_hex(8)}"
        await made.user_data(f"#!/bin/sh\necho {token} > /dev/ttyS0\n")
        await made.image(f"ok/{IMAGE}", made.url(f"ok/{SUMS}"))
        await made.until_state("provisioned", BOOT_S)
        await console.wait_for(made.console, token, deadline_s=BOOT_S)
        assert await made.events("KexecFallback") == []
        said = made.console.read_bytes().decode(errors="replace")
        assert BOOTED_FROM_DISK not in said, "the boot loader of the disk has not run"
        complete = await made.events("ProvisioningComplete")
        assert "without the firmware (kexec: /boot/vmlinuz" in complete[-1]["message"]
    assert left_behind(before, tmp_path, made.lab.namespace) == []
