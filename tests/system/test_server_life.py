"""A host's whole life, driven and judged by kubectl: the seed article's flow, word for word."""

import asyncio
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
        "registering", "inspecting", "preparing", "ready", "provisioning", "provisioned",
        "deprovisioning", "ready", "powering off before delete", "deleting",
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


@pytest.fixture
async def tenant(cluster, simulators, tmp_path):
    """A user of the genuine cluster, whose server is an ordinary controller there."""
    server = Server(tmp_path, cluster.kubeconfig)
    try:
        server.start()
        async with world(server) as user:
            yield user
    finally:
        status = server.stop()
    assert status == 0, server.text()
    assert "Traceback" not in server.text()
    assert PASSWORD not in server.text()


@pytest.mark.cluster
async def test_whole_life_on_a_genuine_cluster(tenant, simulators):
    await live(tenant, tenant.plug_in(Machine(simulators("ipmi"), "ipmi", tenant.server)))


@pytest.mark.cluster
async def test_what_a_cluster_lets_in(tenant, simulators):
    """Without our admission checks, bad fields become problems on the object."""
    box = tenant.plug_in(Machine(simulators("ipmi"), "ipmi", tenant.server))
    credentials, host = tenant.manifests(box)
    host["spec"]["bmc"]["address"] = "ipmy://127.0.0.1:6230"
    await tenant.apply(credentials, host)
    found = await tenant.until_problem("bmc-address")
    assert "unknown BMC scheme ipmy://" in found["status"]["errorMessage"]
    await tenant.until_event("bmc-address")
    await tenant.patch({"bmc": {"address": box.address}})
    await tenant.until_state("ready")
    await tenant.patch({"online": True, "image": {"url": "file:///etc/passwd", "checksum": "0"}})
    found = await tenant.until_problem("image-unsupported")
    assert "file:///etc/passwd" in found["status"]["errorMessage"]
    await tenant.patch({"image": {"url": IMAGE, "checksum": None}})
    await tenant.until_problem("image-missing-checksum")
    assert box.jobs("deploy") == []
    await tenant.patch({"image": {"url": IMAGE, "checksum": f"{IMAGE}.md5sum"}})
    await tenant.until_state("provisioned")
    await eventually(lambda: box.booted == [IMAGE])


@pytest.mark.cluster
async def test_api_stopped_and_started_again(tenant, simulators, cluster):
    """The machine works on while the cluster is away; the server goes on when it is back."""
    box = tenant.plug_in(Machine(simulators("redfish"), "redfish", tenant.server))
    await tenant.register(box)
    await tenant.until_state("ready")
    gate = box.hold("deploy")
    await tenant.provision()
    await eventually(lambda: box.jobs("deploy"))
    await asyncio.to_thread(cluster.stop)
    gate.set()
    await eventually(lambda: box.disk == IMAGE)
    await asyncio.to_thread(cluster.start)
    await tenant.until_state("provisioned")
    assert len(box.jobs("deploy")) == 1
    await eventually(lambda: box.booted == [IMAGE])


async def test_server_stopped_and_started_again(user, machine, billet):
    """SIGTERM in the middle: it ends at once and well, and the next one goes on."""
    box = machine()
    gate = box.hold("inspect")
    await user.register(box)
    await eventually(lambda: box.jobs("inspect"))
    assert await asyncio.to_thread(billet.stop) == 0
    gate.set()
    await billet.restart()
    await user.until_state("ready")
    assert len(box.jobs("inspect")) == 1


async def test_inspected_by_the_real_agent(user, machine, tmp_path):
    """`billet-agent` as a program, its settings read from the kernel line of the boot script."""
    box = machine("redfish")
    box.agent_command = ("--sysroot", str(tmp_path))
    for name, text in {
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Gold 6130\n",
        "proc/meminfo": "MemTotal:  16000000 kB\nMemAvailable:  8000000 kB\n",
        "sys/class/dmi/id/sys_vendor": "Dell Inc.\n",
        "sys/class/dmi/id/product_name": "PowerEdge R640\n",
        "sys/block/vda/size": "16777216\n",
        "sys/block/vda/queue/rotational": "1\n",
        "sys/class/net/eno1/address": f"{box.mac}\n",
        "sys/class/net/eno1/device/vendor": "0x14e4\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    await user.register(box)
    host = await user.until_state("ready")
    hardware = host["status"]["hardware"]
    assert hardware["systemVendor"]["productName"] == "PowerEdge R640"
    assert hardware["cpu"]["model"] == "Intel(R) Xeon(R) Gold 6130"
    assert hardware["storage"][0]["sizeBytes"] == 8 << 30
    assert [nic["mac"] for nic in hardware["nics"]] == [box.mac]
    await user.until_off()
