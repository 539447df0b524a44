"""A host's whole life, driven and judged by kubectl: the seed article's flow, word for word."""

import os
import subprocess

import pytest

from billet_wire import Deploy
from contract.bmc_worlds import PASSWORD
from contract.kube_worlds import CRDS, GenuineServer
from server_rig import IMAGE, USER_DATA, Machine, Server, eventually, world

COLUMNS = [
    "NAME", "STATUS", "PROVISIONING STATUS", "CONSUMER", "BMC", "HARDWARE PROFILE", "ONLINE",
    "ERROR", "AGE",
]  # fmt: skip
NAME = "metal3-node01"


async def live(user, machine):
    """From the manifests to the deleted object."""
    gate = machine.hold("inspect")
    await user.register(machine)
    await user.until_state("inspecting")
    await eventually(lambda: machine.jobs("inspect"))
    row = await user.row()
    assert list(row) == COLUMNS
    assert row["PROVISIONING STATUS"] == "inspecting"
    assert (row["STATUS"], row["BMC"], row["ONLINE"]) == ("OK", machine.address, "false")
    gate.set()
    await user.kubectl.run(
        "wait", f"baremetalhost/{NAME}", "--timeout=30s",
        "--for=jsonpath={.status.provisioning.state}=ready",
    )  # fmt: skip
    host = await user.until_off()
    row = await user.row()
    assert (row["STATUS"], row["PROVISIONING STATUS"], row["ONLINE"]) == ("OK", "ready", "false")
    assert (row["HARDWARE PROFILE"], row["CONSUMER"], row["ERROR"]) == ("libvirt", "", "")
    assert host["status"]["hardware"]["ramMebibytes"] == 4096
    assert host["status"]["hardware"]["nics"][0]["mac"] == machine.mac
    assert host["status"]["goodCredentials"]["credentials"]["name"] == f"{NAME}-credentials"
    data = await user.kubectl.json("get", "hardwaredata", NAME)
    assert data["spec"]["hardware"]["cpu"]["count"] == 2
    assert not machine.show()["powered_on"]

    await user.provision()
    host = await user.until_state("provisioned")
    row = await user.row()
    assert (row["STATUS"], row["PROVISIONING STATUS"], row["ONLINE"]) == (
        "OK",
        "provisioned",
        "true",
    )
    assert host["status"]["provisioning"]["image"]["url"] == IMAGE
    await eventually(lambda: machine.booted == [IMAGE])
    assert machine.show()["boots"][-1] == "Hdd"
    (deploy,) = [job for _, _, job in machine.ran if isinstance(job, Deploy)]
    assert USER_DATA.encode() in deploy.config_drive
    assert deploy.image.checksum == f"{IMAGE}.md5sum"

    await user.patch({"image": None})
    await user.until_state("deprovisioning")
    await user.until_state("ready")
    assert machine.disk == "empty"
    assert len(machine.jobs("clean")) == 1
    await user.patch({"online": False})
    await user.until_off()
    await user.kubectl.run("delete", "baremetalhost", NAME, "--timeout=30s")
    assert not machine.show()["powered_on"]
    assert await user.kubectl.run("get", "baremetalhosts") == ""
    assert await user.kubectl.run("get", "hardwaredata") == ""
    assert user.states[NAME] == [
        "registering", "inspecting", "ready", "provisioning", "provisioned", "deprovisioning",
        "ready", "powering off before delete", "deleting",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["ipmi", "redfish"])
async def test_whole_life(user, machine, kind):
    await live(user, machine(kind))
    events = await user.events("Normal")
    for reason in ("Registered", "InspectionComplete", "ImageWritten", "ProvisioningComplete"):
        assert any(event.startswith(f"{reason}:") for event in events), events
    assert await user.events("Warning") == []


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A genuine Kubernetes API server with the published definitions."""
    program = os.environ.get("BILLET_TEST_KUBEAPI")
    if not program:
        pytest.skip("skipped: no cluster")
    server = GenuineServer(program)
    try:
        server.start()
        kubectl = ["kubectl", f"--kubeconfig={server.kubeconfig}"]
        subprocess.run(
            [*kubectl, "apply", "--server-side", "-f", CRDS],
            check=True, timeout=60, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        subprocess.run(
            [*kubectl, "wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"],
            check=True, timeout=60, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        yield server
    finally:
        server.remove()


@pytest.mark.cluster
async def test_whole_life_on_a_genuine_cluster(cluster, simulators, tmp_path):
    server = Server(tmp_path, cluster.kubeconfig)
    try:
        server.start()
        async with world(server) as user:
            await live(user, user.plug_in(Machine(simulators("ipmi"), "ipmi", server)))
    finally:
        status = server.stop()
    assert status == 0, server.text()
    assert "Traceback" not in server.text()
    assert PASSWORD not in server.text()
