"""Scenarios on both APIs: a host is deleted in every state, and nothing of it stays."""

import pytest

from billet_lab.kubectl import KubectlError
from scenarios import scenario
from server_rig import IMAGE, eventually

NAME = "metal3-node01"


async def delete(user):
    """Delete the host as a person does, and see what is left: its Secret, and no more."""
    await user.kubectl.run("delete", "baremetalhost", NAME, "--timeout=60s", deadline_s=70)
    assert await user.kubectl.run("get", "baremetalhosts,hardwaredata", "-o", "name") == ""
    secret = await user.kubectl.json("get", "secret", f"{NAME}-credentials")
    assert not secret["metadata"].get("finalizers"), "nothing holds what the user may delete"


async def delete_at_work(user, box, kind):
    """Delete while a job runs that would never end by itself."""
    await eventually(lambda: box.jobs(kind))
    await delete(user)
    await eventually(lambda: not box.show()["powered_on"])


@scenario
async def test_deleted_while_unmanaged(user, machine):
    box = machine()
    credentials, host = user.manifests(box)
    del host["spec"]["bmc"]
    await user.apply(credentials, host)
    found = await user.until_state("unmanaged")
    assert found["status"]["operationalStatus"] == "discovered"
    await delete(user)
    assert user.states[NAME] == ["unmanaged", "deleting"]


@scenario
@pytest.mark.parametrize("trouble", ["bmc", "password", "secret"])
async def test_deleted_while_registering(user, machine, trouble):
    """Also when it never registered, and never will."""
    box = machine()
    credentials, host = user.manifests(box, password="not-the-password")
    if trouble == "bmc":
        box.switch("bmc_dead=on")
    if trouble == "secret":
        host["spec"]["bmc"]["credentialsName"] = "not-there"
    await user.apply(credentials, host)
    await user.until(lambda host: host["status"].get("errorCount"))
    await delete(user)
    assert user.states[NAME] == ["registering", "deleting"]


@scenario
async def test_deleted_while_inspecting(user, machine):
    box = machine()
    box.hold("inspect")
    await user.register(box)
    await delete_at_work(user, box, "inspect")
    assert user.states[NAME] == [
        "registering", "inspecting", "powering off before delete", "deleting",
    ]  # fmt: skip


@scenario
async def test_deleted_while_ready(user, machine):
    box = machine("redfish")
    await user.register(box, online=True)
    await user.until_state("ready")
    await user.until(lambda host: host["status"].get("poweredOn"))
    await delete(user)
    assert not box.show()["powered_on"]
    assert box.jobs("clean") == []


@scenario
async def test_deleted_while_provisioning(user, machine):
    box = machine()
    await user.register(box)
    await user.until_state("ready")
    box.hold("deploy")
    await user.provision()
    await delete_at_work(user, box, "deploy")
    assert box.cancelled == [box.jobs("deploy")[0][1]]
    assert box.disk == "empty"
    assert box.booted == []
    assert user.states[NAME][-4:] == [
        "provisioning", "deprovisioning", "powering off before delete", "deleting",
    ]  # fmt: skip


@scenario
@pytest.mark.parametrize("mode", ["metadata", "disabled"])
async def test_deleted_while_provisioned(user, machine, mode):
    box = machine("redfish")
    await user.register(box, automatedCleaningMode=mode)
    await user.until_state("ready")
    await user.provision()
    await user.until_state("provisioned")
    await delete(user)
    assert box.disk == ("empty" if mode == "metadata" else IMAGE)
    assert not box.show()["powered_on"]
    assert user.states[NAME][-4:] == [
        "provisioned", "deprovisioning", "powering off before delete", "deleting",
    ]  # fmt: skip


@scenario
async def test_deleted_while_deprovisioning(user, machine):
    box = machine()
    await user.register(box)
    await user.until_state("ready")
    await user.provision()
    await user.until_state("provisioned")
    gate = box.hold("clean")
    await user.patch({"image": None})
    await eventually(lambda: box.jobs("clean"))
    await user.kubectl.run("delete", "baremetalhost", NAME, "--wait=false")
    gate.set()
    await delete_again(user)
    assert box.disk == "empty"
    assert len(box.jobs("clean")) == 1
    assert not box.show()["powered_on"]


async def delete_again(user):
    """Delete what may be gone already."""
    await user.until_gone()
    with pytest.raises(KubectlError, match="not found"):
        await user.kubectl.run("delete", "baremetalhost", NAME)


@scenario
async def test_deleted_while_externally_provisioned(user, machine):
    box = machine("redfish")
    box.disk = "somebody's system"
    await user.register(box, externallyProvisioned=True, online=True)
    await user.until_state("externally provisioned")
    await eventually(lambda: box.show()["powered_on"])
    await delete(user)
    assert not box.show()["powered_on"]
    assert box.disk == "somebody's system"
    assert box.agents == []


@scenario
async def test_deleted_while_its_bmc_is_dead(user, machine):
    """Given up after some tries, with a Warning that says what may still run."""
    box = machine()
    await user.register(box)
    await user.until_state("ready")
    await user.until_off()
    box.switch("bmc_dead=on")
    await delete(user)
    warnings = await user.events("Warning")
    assert any(event.startswith("DeleteIncomplete:") for event in warnings), warnings
