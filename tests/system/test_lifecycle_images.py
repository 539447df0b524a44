"""Scenarios on both APIs: images come, change and go; systems that others put there."""

import pytest

from billet_wire import Deploy
from scenarios import scenario
from server_rig import IMAGE, IMAGE_2, eventually

NAME = "metal3-node01"


async def ready(user, machine, kind="ipmi", **spec):
    """Return a machine whose host is ready."""
    box = machine(kind)
    await user.register(box, **spec)
    await user.until_state("ready")
    return box


def wiped_first(box):
    """For each image written: whether the disks were to be wiped before it."""
    return [job.clean for _, _, job in box.ran if isinstance(job, Deploy)]


@scenario
async def test_image_change(user, machine):
    """Another URL provisions anew, by way of deprovisioning; nothing else does."""
    box = await ready(user, machine, "redfish")
    await user.provision()
    first = await user.until_state("provisioned")
    await user.patch({"image": {"checksum": "0" * 32}, "userData": None, "description": "x"})
    await user.patch({"automatedCleaningMode": "metadata"})
    await user.patch({"image": {"url": IMAGE_2, "checksum": f"{IMAGE_2}.md5sum"}})
    host = await user.until(
        lambda host: host["status"]["provisioning"].get("image", {}).get("url") == IMAGE_2
    )
    host = await user.until_state("provisioned")
    assert host["status"]["provisioning"]["ID"] != first["status"]["provisioning"]["ID"]
    assert host["status"]["provisioning"]["image"]["checksum"] == f"{IMAGE_2}.md5sum"
    assert len(box.jobs("deploy")) == 2, "once for each URL"
    assert len(box.jobs("clean")) == 1
    await eventually(lambda: box.booted == [IMAGE, IMAGE_2])
    assert user.states[NAME] == [
        "registering", "inspecting", "preparing", "ready", "provisioning", "provisioned",
        "deprovisioning", "ready", "provisioning", "provisioned",
    ]  # fmt: skip


@scenario
@pytest.mark.parametrize("mode", ["metadata", "disabled"])
async def test_automated_cleaning(user, machine, mode):
    """Wiped before the first image and when it goes; `disabled` does neither."""
    box = await ready(user, machine, automatedCleaningMode=mode)
    await user.provision()
    await user.until_state("provisioned")
    boots = len(box.show()["boots"])
    await user.patch({"image": None})
    await user.until_state("ready")
    wipes = mode == "metadata"
    assert wiped_first(box) == [wipes]
    assert len(box.jobs("clean")) == int(wipes)
    assert box.disk == ("empty" if wipes else IMAGE)
    if not wipes:
        # No ramdisk was booted for it either.
        assert "Pxe" not in box.show()["boots"][boots:]


@scenario
async def test_cleaning_switched_off_on_a_running_host(user, machine):
    """The way out for a host whose disks cannot be wiped."""
    box = await ready(user, machine, "redfish")
    await user.provision()
    await user.until_state("provisioned")
    await user.patch({"automatedCleaningMode": "disabled"})
    await user.patch({"image": None})
    await user.until_state("ready")
    assert box.jobs("clean") == []
    assert box.disk == IMAGE


@scenario
async def test_externally_provisioned_at_creation(user, machine):
    """Somebody's system: never booted into the ramdisk, only the power is looked after."""
    box = machine()
    box.disk = "somebody's system"
    await user.register(box, externallyProvisioned=True, online=True)
    await user.until_state("externally provisioned")
    await eventually(lambda: box.show()["powered_on"])
    await user.until(lambda host: host["status"].get("poweredOn"))
    assert (await user.row())["PROVISIONING STATUS"] == "externally provisioned"
    assert box.agents == []
    await user.patch({"online": False})
    await user.until_off()
    assert not box.show()["powered_on"]
    await user.patch({"image": {"url": IMAGE, "checksum": f"{IMAGE}.md5sum"}, "online": True})
    await eventually(lambda: box.show()["powered_on"])
    await user.kubectl.run("delete", "baremetalhost", NAME, "--timeout=30s")
    assert box.disk == "somebody's system"
    assert box.agents == []
    assert user.states[NAME] == [
        "registering", "externally provisioned", "powering off before delete", "deleting",
    ]  # fmt: skip


@scenario
async def test_externally_provisioned_from_ready(user, machine):
    """A host that was inspected is handed to somebody else's hands."""
    box = await ready(user, machine, "redfish")
    host = await user.until_off()
    await user.patch({"externallyProvisioned": True, "online": True})
    host = await user.until_state("externally provisioned")
    assert host["status"]["hardware"]["ramMebibytes"] == 4096, "what is known is kept"
    await eventually(lambda: box.show()["powered_on"])
    assert len(box.agents) == 1
    assert box.jobs("clean") == []


@scenario
async def test_externally_provisioned_taken_back(user, machine):
    """With no image in the spec the host is deprovisioned, its disks wiped."""
    box = machine()
    box.disk = "somebody's system"
    await user.register(box, externallyProvisioned=True, online=True)
    await user.until_state("externally provisioned")
    await user.patch({"externallyProvisioned": False})
    await user.until_state("ready")
    assert box.disk == "empty"
    assert len(box.jobs("clean")) == 1
    assert user.states[NAME] == [
        "registering", "externally provisioned", "provisioned", "deprovisioning", "ready",
    ]  # fmt: skip


@scenario
async def test_externally_provisioned_adopted(user, machine):
    """With an image in the spec the machine counts as running it; another one replaces it."""
    box = machine("redfish")
    box.disk = "somebody's system"
    image = {"url": IMAGE, "checksum": f"{IMAGE}.md5sum"}
    await user.register(box, externallyProvisioned=True, online=True, image=image)
    await user.until_state("externally provisioned")
    await eventually(lambda: box.booted == ["somebody's system"])
    await user.patch({"externallyProvisioned": False})
    host = await user.until_state("provisioned")
    assert host["status"]["provisioning"]["image"]["url"] == IMAGE
    await user.rest(5)
    assert (box.disk, box.agents) == ("somebody's system", [])
    assert box.booted == ["somebody's system"]
    await user.patch({"image": {"url": IMAGE_2, "checksum": f"{IMAGE_2}.md5sum"}})
    await eventually(lambda: box.booted == ["somebody's system", IMAGE_2])
    await user.until_state("provisioned")
    assert len(box.jobs("clean")) == 1
