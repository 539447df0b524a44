"""Fast track on both APIs: one network boot from registration to image; whiles that end."""

import asyncio

import pytest

from scenarios import scenario
from server_rig import IMAGE, IMAGE_2, Machine, Server, eventually, world


def netboots(box):
    return box.show()["boots"].count("Pxe")


def waits_in_ramdisk(host):
    return host["status"].get("waiting", {}).get("cause") == "fast-track"


@scenario
@pytest.mark.parametrize("kind", ["ipmi", "redfish"])
async def test_one_boot_by_way_of_the_ramdisk(user, machine, kind):
    """On and without an image the host waits in the ramdisk; then its agent writes the image."""
    box = machine(kind)
    await user.register(box, online=True)
    host = await user.until(waits_in_ramdisk)
    assert host["status"]["provisioning"]["state"] == "ready"
    assert host["status"]["poweredOn"] is True
    assert host["status"]["waiting"]["until"] > host["status"]["lastUpdated"]
    ready = [c for c in host["status"]["conditions"] if c["type"] == "AvailableForProvisioning"]
    assert host["status"]["waiting"]["message"] in ready[0]["message"]
    await user.provision()
    await user.until_state("provisioned")
    await eventually(lambda: box.booted == [IMAGE])
    assert netboots(box) == 1
    assert len(box.agents) == 1
    assert any(text.startswith("FastTrack: the machine stays") for text in await user.events())


@scenario
async def test_one_boot_when_registered_with_an_image(user, machine):
    """Inspection and provisioning of a host that has its image from the start."""
    box = machine("redfish")
    image = {"url": IMAGE, "checksum": f"{IMAGE}.md5sum"}
    await user.register(box, online=True, image=image)
    await user.until_state("provisioned")
    await eventually(lambda: box.booted == [IMAGE])
    assert (netboots(box), len(box.agents)) == (1, 1)


@scenario
async def test_one_boot_to_clean_and_write_again(user, machine):
    """The ramdisk that cleaned the disks writes the next image."""
    box = machine()
    image = {"url": IMAGE, "checksum": f"{IMAGE}.md5sum"}
    await user.register(box, online=True, image=image)
    await user.until_state("provisioned")
    await user.patch({"image": None})
    await user.until(waits_in_ramdisk)
    await user.patch({"image": {"url": IMAGE_2, "checksum": f"{IMAGE_2}.md5sum"}})
    await eventually(lambda: box.booted == [IMAGE, IMAGE_2])
    await user.until_state("provisioned")
    assert netboots(box) == 2
    assert len(box.agents) == 2


@scenario
async def test_online_false_ends_the_waiting(user, machine):
    """Switched off at once; what comes later is booted."""
    box = machine("redfish")
    await user.register(box, online=True)
    await user.until(waits_in_ramdisk)
    await user.patch({"online": False})
    host = await user.until_off()
    assert not box.show()["powered_on"]
    assert "boot" not in host["status"]
    await user.provision()
    await user.until_state("provisioned")
    assert netboots(box) == 2


@scenario
async def test_an_agent_that_died_while_waiting(user, machine):
    """Nothing is lost by it but a boot: no problem, no Warning."""
    box = machine()
    await user.register(box, online=True)
    await user.until(waits_in_ramdisk)
    box.agent.fall_silent()
    await user.provision()
    await user.until_state("provisioned")
    await eventually(lambda: box.booted == [IMAGE])
    assert len(box.agents) == 2
    assert await user.events("Warning") == []


@pytest.mark.parametrize("image", ["before", "after"])
async def test_a_server_killed_meanwhile_finds_the_agent_again(user, machine, billet, image):
    """An image that is set while there is no server, or just before it ends."""
    box = machine()
    await user.register(box, online=True)
    host = await user.until(waits_in_ramdisk)
    if image == "before":
        gate = box.hold("deploy")
        await user.provision()
        await eventually(lambda: box.jobs("deploy"))
        await billet.crash()
        gate.set()
    else:
        await billet.crash()
        found = await user.host()
        assert found["status"]["waiting"] == host["status"]["waiting"], "the while goes on"
        await user.provision()
    await user.until_state("provisioned")
    assert len(box.agents) == 1
    assert netboots(box) == 1


async def test_the_while_ends(simulators, tmp_path):
    """Off, on, from what is on the disk; the agent's token is of no use any more."""
    server = Server(tmp_path, options=("--fast-track-s", "3"))
    try:
        await server.restart()
        async with world(server) as user:
            box = user.plug_in(Machine(simulators("ipmi", 1), "ipmi", server))
            await user.register(box, online=True)
            await user.until(waits_in_ramdisk)
            await eventually(lambda: box.booted == ["empty"])
            host = await user.until(
                lambda host: host["status"].get("poweredOn") and "boot" not in host["status"]
            )
            assert "waiting" not in host["status"]
            assert netboots(box) == 1
            assert any(text.startswith("FastTrackEnded") for text in await user.events())
            await user.provision()
            await user.until_state("provisioned")
            assert netboots(box) == 2
    finally:
        assert await asyncio.to_thread(server.stop) == 0, server.text()
