"""Scenarios on both APIs: hosts are detached, moved by their status, and taken up again."""

import json

import pytest

from scenarios import scenario
from server_rig import IMAGE, eventually

NAME = "metal3-node01"
DETACHED = "baremetalhost.metal3.io/detached"
STATUS = "baremetalhost.metal3.io/status"


async def provisioned(user, machine, kind):
    """Return a machine that runs its image."""
    box = machine(kind)
    await user.register(box)
    await user.until_state("ready")
    await user.provision()
    await user.until_state("provisioned")
    await eventually(lambda: box.booted == [IMAGE])
    return box


def annotations_of(host):
    return host["metadata"].get("annotations", {})


@scenario
async def test_detached_and_attached_again(user, machine):
    """Detached, nobody minds its power; attached, it is as the object says."""
    box = await provisioned(user, machine, "redfish")
    await user.annotate(f"{DETACHED}=")
    await user.until(lambda host: host["status"]["operationalStatus"] == "detached")
    assert (await user.row())["STATUS"] == "detached"
    box.bmc.order("power off")
    await user.patch({"online": True, "image": {"url": f"{IMAGE}-2"}})
    await user.rest(5)
    assert not box.show()["powered_on"]
    assert len(box.jobs("deploy")) == 1
    await user.patch({"image": {"url": IMAGE}})
    await user.annotate(f"{DETACHED}-")
    await user.until(
        lambda host: host["status"]["operationalStatus"] == "OK" and host["status"]["poweredOn"]
    )
    await eventually(lambda: box.booted == [IMAGE, IMAGE])
    assert len(box.jobs("deploy")) == 1
    assert box.jobs("clean") == []


@scenario
async def test_provision_detach_delete_recreate_deprovision(user, machine):
    """A host is moved: its object goes and comes with its status, its system never notices."""
    box = await provisioned(user, machine, "ipmi")
    host = await user.host()
    await user.annotate(f"{DETACHED}=")
    await user.until(lambda host: host["status"]["operationalStatus"] == "detached")
    await user.kubectl.run("delete", "baremetalhost", NAME, "--timeout=30s")
    assert await user.kubectl.run("get", "baremetalhosts,hardwaredata", "-o", "name") == ""
    assert box.show()["powered_on"]
    assert box.disk == IMAGE

    boots = box.show()["boots"]
    again = {
        "apiVersion": host["apiVersion"],
        "kind": host["kind"],
        "metadata": {"name": NAME, "annotations": {STATUS: json.dumps(host["status"])}},
        "spec": host["spec"],
    }
    await user.rest(1)  # until its last change was seen
    user.forget(NAME)
    await user.apply(again)
    found = await user.until_state("provisioned")
    found = await user.until(lambda host: STATUS not in annotations_of(host))
    assert found["status"]["hardware"] == host["status"]["hardware"]
    assert found["status"]["provisioning"]["ID"] == host["status"]["provisioning"]["ID"]
    assert found["metadata"]["uid"] != host["metadata"]["uid"]
    await user.rest(5)
    assert set(user.states[NAME]) == {"provisioned"}
    assert box.show()["boots"] == boots
    assert box.booted == [IMAGE]

    await user.patch({"image": None})
    await user.until_state("ready")
    assert box.disk == "empty"
    assert len(box.jobs("inspect")) == 1
    assert len(box.jobs("clean")) == 1
    assert user.states[NAME] == ["provisioned", "deprovisioning", "ready"]


@scenario
@pytest.mark.parametrize("state", ["provisioned", "externally provisioned"])
async def test_deleted_while_detached(user, machine, state):
    """The object goes, the machine stays as it is; `delay` waits until it is attached."""
    box = machine()
    external = state == "externally provisioned"
    await user.register(box, externallyProvisioned=external, online=True)
    if external:
        await user.until_state(state)
        await eventually(lambda: box.show()["powered_on"])
    else:
        await user.until_state("ready")
        await user.provision()
        await user.until_state(state)
        await eventually(lambda: box.booted == [IMAGE])
    disk, boots = box.disk, box.show()["boots"]
    await user.annotate(f"{DETACHED}=" + '{"deleteAction": "delay"}')
    await user.until(lambda host: host["status"]["operationalStatus"] == "detached")
    await user.kubectl.run("delete", "baremetalhost", NAME, "--wait=false")
    await user.until(lambda host: host["metadata"].get("deletionTimestamp"))
    await user.rest(3)
    assert (await user.host())["status"]["provisioning"]["state"] == state
    await user.annotate(f"{DETACHED}=")
    await user.until_gone()
    assert box.show()["powered_on"]
    assert (box.disk, box.show()["boots"]) == (disk, boots)
    assert box.jobs("clean") == []
