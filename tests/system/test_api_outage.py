"""A genuine cluster that goes away and comes back, forgets its history, and lets anything in."""

import asyncio
import json

import pytest

from contract.bmc_worlds import PASSWORD
from server_rig import IMAGE, Machine, Server, eventually, world

pytestmark = [pytest.mark.cluster, pytest.mark.own_api]


@pytest.fixture
async def tenant(own_api, tmp_path):
    """A user of the genuine cluster, whose server is an ordinary controller there."""
    server = Server(tmp_path, own_api.kubeconfig)
    try:
        server.start()
        async with world(server) as user:
            yield user
    finally:
        status = server.stop()
    assert status == 0, server.text()
    assert "Traceback" not in server.text()
    assert PASSWORD not in server.text()


@pytest.fixture
def machine(tenant, simulators):
    def plug_in(kind="ipmi", number=1):
        return tenant.plug_in(Machine(simulators(kind, number), kind, tenant.server))

    return plug_in


async def test_api_stopped_and_started_again(tenant, machine, own_api):
    """Machines work on while the cluster is away; the server goes on when it is back.

    A stopped API server also forgets what it could tell watchers, so each watch then gets 410.
    """
    names = [f"node-{number}" for number in range(4)]
    inspecting, provisioning, cleaning, resting = boxes = [
        machine("redfish"), machine("redfish", 2), machine(), machine("ipmi", 2),
    ]  # fmt: skip
    inspecting.hold("inspect")
    for box, name in zip(boxes, names, strict=True):
        await tenant.register(box, name)
    for name in names[1:]:
        await tenant.until_state("ready", name)
    await tenant.provision(names[2])
    await tenant.until_state("provisioned", names[2])
    deploy, clean = provisioning.hold("deploy"), cleaning.hold("clean")
    await tenant.provision(names[1])
    await tenant.patch({"image": None}, names[2])
    await tenant.until_off(names[3])
    for box, kind in ((inspecting, "inspect"), (provisioning, "deploy"), (cleaning, "clean")):
        await eventually(lambda box=box, kind=kind: box.jobs(kind))

    await asyncio.to_thread(own_api.stop)
    inspecting.release("inspect")
    deploy.set()
    clean.set()
    await eventually(lambda: provisioning.disk == IMAGE and cleaning.disk == "empty")
    resting.switch("bmc_dead=on")
    await asyncio.sleep(5)
    resting.switch("bmc_dead=off")
    await asyncio.to_thread(own_api.start)

    await tenant.until_state("ready", names[0])
    await tenant.until_state("provisioned", names[1])
    await tenant.until_state("ready", names[2])
    assert [len(box.jobs("inspect")) for box in boxes] == [1, 1, 1, 1]
    assert [len(box.jobs("deploy")) for box in boxes] == [0, 1, 1, 0]
    assert len(cleaning.jobs("clean")) == 1
    await eventually(lambda: provisioning.booted == [IMAGE])
    await tenant.patch({"online": True}, names[3])  # what is edited now is seen
    await eventually(lambda: resting.show()["powered_on"])
    await tenant.until(lambda host: not host["status"]["errorType"], names[3])


async def test_edits_during_the_outage_of_the_server(tenant, machine):
    """What was made, changed and deleted while nobody watched is found by the first list."""
    box, other = machine(), machine("ipmi", 2)
    await tenant.register(box)
    await tenant.until_state("ready")
    tenant.server.kill()
    await tenant.provision()
    await tenant.register(other, "metal3-node02")
    await tenant.server.restart()
    await tenant.until_state("provisioned")
    await tenant.until_state("ready", "metal3-node02")
    tenant.server.kill()
    await tenant.kubectl.run("delete", "baremetalhost", "metal3-node02", "--wait=false")
    await tenant.server.restart()
    await tenant.until_gone("metal3-node02")
    assert box.booted == [IMAGE]


async def test_connections_that_the_api_keeps_dropping(tenant, machine, own_api):
    """Watches end every few seconds and versions expire at once: nothing is lost by that."""
    await asyncio.to_thread(own_api.stop)
    await asyncio.to_thread(
        own_api.start, "--etcd-compaction-interval=2s", "--min-request-timeout=3"
    )
    try:
        box = machine("redfish")
        await tenant.register(box)
        await tenant.until_state("ready")
        await asyncio.sleep(8)
        await tenant.provision()
        await tenant.until_state("provisioned")
        assert len(box.jobs("inspect")) == len(box.jobs("deploy")) == 1
    finally:
        await asyncio.to_thread(own_api.stop)
        await asyncio.to_thread(own_api.start)


async def test_what_a_cluster_lets_in(tenant, machine):
    """Without our admission checks, bad fields become problems on the object."""
    box = machine()
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


async def test_server_without_the_definitions_says_what_to_apply(own_api, tmp_path):
    """On a cluster without our definitions the server ends with the command that adds them."""
    crds = ("baremetalhosts.metal3.io", "hardwaredata.metal3.io")
    await asyncio.to_thread(own_api.kubectl, "delete", "crd", *crds)
    server = Server(tmp_path, own_api.kubeconfig)
    try:
        server.spawn()
        await asyncio.to_thread(server.process.wait, 30)
        assert server.process.returncode == 2
        assert "kubectl apply --server-side -f crds/" in server.text()
    finally:
        server.stop()
        await asyncio.to_thread(own_api.install)
    listed = json.loads(await asyncio.to_thread(own_api.kubectl, "get", "crds", "-o", "json"))
    assert {crd["metadata"]["name"] for crd in listed["items"]} >= set(crds)
