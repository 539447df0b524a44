"""A provisioned machine is rebooted and held off by annotation, given another image, set free."""

import asyncio
import json
import secrets
from pathlib import Path

import pytest

from billet_lab import console, leaks
from vm_rig import IMAGE, NAME, SUMS, Rig, left_behind, rig

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.timeout(1800)]

BOOT_S = 600.0
STORY_S = 1700.0
REBOOT = "reboot.metal3.io"


async def test_a_machine_is_rebooted_held_off_reprovisioned_and_set_free(tmp_path: Path):
    before = leaks.snapshot()
    async with asyncio.timeout(STORY_S), rig(tmp_path) as made:
        await made.register(online=True)
        await made.until_state("ready", BOOT_S)
        first = await provision(made, f"ok/{IMAGE}")
        await rebooted_softly(made)
        await held_off(made)
        second = await provision(made, f"slow/900/{IMAGE}")
        assert first in said(made)
        assert second in said(made)
        assert len(await made.events("DeprovisioningComplete")) == 1
        await set_free(made)
    assert left_behind(before, tmp_path, made.lab.namespace) == []


async def provision(made: Rig, place: str) -> str:
    """Another image, another proof: the user's data of this provisioning, on the console."""
    token = f"billet-token-{secrets.token_hex(8)}"
    await made.user_data(f"#!/bin/sh\necho {token} > /dev/ttyS0\n")
    await made.image(place, made.url(f"ok/{SUMS}"))

    def done(host, view) -> bool:
        image = host["status"]["provisioning"].get("image") or {}
        return view.state == "provisioned" and image.get("url") == made.url(place)

    await made.until(done, f"provisioned with {place}", BOOT_S)
    await console.wait_for(made.console, token, deadline_s=BOOT_S)
    return token


async def rebooted_softly(made: Rig) -> None:
    """The system is asked to shut down, by ACPI; then the machine is switched on again, once."""
    boots = await count_boots(made)
    end = console.size(made.console)
    await annotate(made, f"{REBOOT}={json.dumps({'mode': 'soft'})}")
    await made.until(lambda host, _: REBOOT not in annotations(host), "rebooting", BOOT_S)
    await console.wait_for(made.console, "ended: guest power-off", deadline_s=BOOT_S, offset=end)
    await console.wait_for(made.console, r"login:", deadline_s=BOOT_S, offset=end)
    await made.until(lambda host, _: host["status"]["poweredOn"] is True, "on", BOOT_S)
    assert await count_boots(made) == boots + 1


async def held_off(made: Rig) -> None:
    """Two clients hold the machine off; it comes back when the last of them lets go."""
    boots = await count_boots(made)
    await annotate(made, f'{REBOOT}/one={{"mode":"hard"}}', f"{REBOOT}/two=")
    await made.until(lambda host, _: host["status"]["poweredOn"] is False, "off", BOOT_S)
    control = made.lab.control(NAME)
    assert not (await control.status()).powered_on
    await annotate(made, f"{REBOOT}/one-")
    await asyncio.sleep(15)  # longer than the rig's power poll
    assert not (await control.status()).powered_on
    end = console.size(made.console)
    await annotate(made, f"{REBOOT}/two-")
    await made.until(lambda host, _: host["status"]["poweredOn"] is True, "on again", BOOT_S)
    await console.wait_for(made.console, r"login:", deadline_s=BOOT_S, offset=end)
    assert await count_boots(made) == boots + 1
    host = await made.kubectl.json("get", "baremetalhost", NAME)
    assert host["status"]["provisioning"]["state"] == "provisioned"
    assert not [event for event in await made.events() if event["type"] == "Warning"]


async def set_free(made: Rig) -> None:
    assert made.disk_boots()
    await made.patch(image=None, online=False)
    await made.until_state("ready", BOOT_S)
    assert made.disk_is_empty()
    await made.until(lambda host, _: host["status"]["poweredOn"] is False, "off", BOOT_S)


async def annotate(made: Rig, *changes: str) -> None:
    await made.kubectl.run("annotate", "--overwrite", "baremetalhost", NAME, *changes)


def annotations(host) -> dict[str, str]:
    return host["metadata"].get("annotations") or {}


def said(made: Rig) -> str:
    return console.plain(made.console.read_bytes())


async def count_boots(made: Rig) -> int:
    """How often the machine was started, as its lab knows."""
    return len((await made.lab.control(NAME).status()).boots)
