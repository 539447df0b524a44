"""The Machine controller on the API's twin, in virtual time."""

import contextlib

import pytest

from billet_server.memory.clock import ManualClock
from billet_server.memory.kube import MemoryKube
from billet_server.ports import BARE_METAL_HOST, MACHINE
from machine_world import HARDWARE, IMAGE, NS, OURS, Server, World, machine_object


@pytest.fixture
async def world():
    clock = ManualClock()
    api = MemoryKube(clock=clock)
    api.put_namespace(NS)
    made = World(api, clock)
    made.server = Server(api, clock)
    yield made
    await made.server.kill()


async def begin(world):
    world.server.start()
    await world.clock.settle()


async def test_the_articles_machine_claims_the_host_and_shows_it(world):
    await world.add_host(status={"hardware": HARDWARE})
    await begin(world)
    await world.api.create(MACHINE, machine_object())
    await world.clock.advance(2)
    spec = (await world.host())["spec"]
    assert spec["image"] == IMAGE
    assert spec["userData"] == {"name": "data"}
    assert spec["online"] is True
    assert spec["consumerRef"] == OURS | {"name": "m1"}
    machine = await world.machine()
    assert machine["metadata"]["annotations"] == {"metal3.io/BareMetalHost": f"{NS}/h1"}
    assert machine["metadata"]["finalizers"] == ["machine.cluster.k8s.io"]
    assert machine["status"]["addresses"] == [
        {"type": "InternalIP", "address": "192.168.122.79"},
        {"type": "InternalIP", "address": "172.22.0.39"},
        {"type": "Hostname", "address": "localhost.localdomain"},
        {"type": "InternalDNS", "address": "localhost.localdomain"},
    ]
    assert machine["status"]["phase"] == "Provisioning"
    await world.set_state("h1", "provisioned")
    await world.clock.advance(2)
    machine = await world.machine()
    assert machine["status"]["phase"] == "Provisioned"
    assert (await world.condition(kind="Provisioned"))["status"] == "True"
    assert {"HostClaimed", "MachineProvisioned"} <= set(await world.events())


async def test_deleting_gives_the_host_back_when_it_is_clean(world):
    await world.add_host()
    await begin(world)
    await world.api.create(MACHINE, machine_object())
    await world.clock.advance(2)
    await world.set_state("h1", "provisioned")
    await world.api.delete(MACHINE, NS, "m1")
    await world.clock.advance(2)
    spec = (await world.host())["spec"]
    assert "image" not in spec
    assert "userData" not in spec
    assert spec["online"] is False
    assert spec["consumerRef"]["name"] == "m1", "kept until the disk is clean"
    assert (await world.machine())["status"]["phase"] == "Deleting"
    await world.set_state("h1", "deprovisioning")
    await world.clock.advance(2)
    assert await world.exists()
    await world.set_state("h1", "available")
    await world.clock.advance(2)
    assert not await world.exists()
    assert "consumerRef" not in (await world.host())["spec"]


async def test_a_machine_that_found_no_host_goes_at_once(world):
    await begin(world)
    await world.api.create(MACHINE, machine_object())
    await world.clock.advance(2)
    told = await world.condition()
    assert told["reason"] == "NoHostFits"
    assert told["message"] == f"there is no BareMetalHost in namespace {NS}"
    await world.api.delete(MACHINE, NS, "m1")
    await world.clock.advance(2)
    assert not await world.exists()


async def test_a_waiting_machine_is_called_when_a_host_becomes_ready(world):
    await world.add_host(state="inspecting")
    await world.add_host("h2", consumerRef={"kind": "Metal3Machine", "name": "x"})
    await begin(world)
    for name in ("m1", "m2"):
        await world.api.create(MACHINE, machine_object(name))
        await world.clock.advance(1)
    told = (await world.condition())["message"]
    assert told == (
        f"none of 2 hosts in namespace {NS} fits: 1 taken: h2 (by Metal3Machine {NS}/x);"
        " 1 not ready: h1 (inspecting)"
    )
    await world.set_state("h1", "ready")
    await world.clock.settle()
    assert (await world.host())["spec"]["consumerRef"]["name"] == "m1", "it waited longer"
    assert (await world.condition("m2"))["reason"] == "NoHostFits"
    await world.clock.advance(61)
    assert "2 taken" in (await world.condition("m2"))["message"]


async def test_a_called_machine_that_is_deleted_passes_its_host_on(world):
    await world.add_host(state="inspecting")
    await begin(world)
    for name in ("m1", "m2"):
        await world.api.create(MACHINE, machine_object(name))
        await world.clock.advance(1)
    await world.set_state("h1", "ready")
    await world.api.delete(MACHINE, NS, "m1")
    await world.clock.advance(3)
    if await world.exists("m1"):
        await world.set_state("h1", "ready")
        await world.clock.advance(3)
    assert not await world.exists("m1")
    assert (await world.host())["spec"]["consumerRef"]["name"] == "m2"


async def test_a_host_that_goes_is_replaced(world):
    await world.add_host()
    await begin(world)
    await world.api.create(MACHINE, machine_object())
    await world.clock.advance(2)
    await world.add_host("h2")
    await world.api.delete(BARE_METAL_HOST, NS, "h1")
    await world.clock.advance(2)
    annotations = (await world.machine())["metadata"]["annotations"]
    assert annotations == {"metal3.io/BareMetalHost": f"{NS}/h2"}
    assert "HostGone" in await world.events()


async def test_a_host_that_another_took_is_left_alone(world):
    await world.add_host()
    await begin(world)
    await world.api.create(MACHINE, machine_object())
    await world.clock.advance(2)
    other = {"apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "Metal3Machine",
             "namespace": NS, "name": "theirs"}  # fmt: skip
    taken = await world.api.patch(BARE_METAL_HOST, NS, "h1", {"spec": {"consumerRef": other}})
    await world.api.delete(MACHINE, NS, "m1")
    await world.clock.advance(5)
    assert not await world.exists()
    assert (await world.host())["metadata"]["resourceVersion"] == (
        taken["metadata"]["resourceVersion"]
    )


async def test_a_cleared_consumer_is_written_again(world):
    await world.add_host()
    await begin(world)
    await world.api.create(MACHINE, machine_object())
    await world.clock.advance(2)
    await world.api.patch(BARE_METAL_HOST, NS, "h1", {"spec": {"consumerRef": None}})
    await world.clock.advance(2)
    assert (await world.host())["spec"]["consumerRef"] == OURS | {"name": "m1"}
    assert "ConsumerRestored" in await world.events()


async def test_an_invalid_machine_says_why_and_goes_on_when_corrected(world):
    await world.add_host()
    await begin(world)
    await world.api.create(MACHINE, machine_object(image={"url": IMAGE["url"]}))
    await world.clock.advance(2)
    status = (await world.machine())["status"]
    assert status["errorReason"] == "InvalidConfiguration"
    assert status["errorMessage"] == "spec.providerSpec.value.image.checksum: is missing or empty"
    assert status["phase"] == "Failed"
    assert "InvalidConfiguration" in await world.events()
    fix = {"spec": machine_object()["spec"]}
    await world.api.patch(MACHINE, NS, "m1", fix)
    await world.clock.advance(2)
    assert "errorReason" not in (await world.machine())["status"]
    assert (await world.host())["spec"]["consumerRef"]["name"] == "m1"


async def test_three_replicas_that_all_believe_they_lead_claim_each_host_once(world):
    """Without any Lease: what keeps two winners apart is the version that guards each write."""
    for number in range(15):
        await world.add_host(f"h{number}")
    for number in range(20):
        await world.api.create(MACHINE, machine_object(f"m{number}"))
    servers = [world.server, *(Server(world.api, world.clock, seed) for seed in (1, 2))]
    for server in servers:
        server.start()
    await world.clock.advance(0.3)
    await servers[1].kill()
    await world.clock.advance(30)
    await servers[2].kill()
    hosts = (await world.api.list(BARE_METAL_HOST, NS)).items
    consumers = {host["spec"]["consumerRef"]["name"] for host in hosts}
    assert len(consumers) == 15
    for each in (await world.api.list(MACHINE, NS)).items:
        name = each["metadata"]["name"]
        annotation = each["metadata"].get("annotations", {}).get("metal3.io/BareMetalHost")
        if name in consumers:
            (own,) = [h for h in hosts if h["spec"]["consumerRef"]["name"] == name]
            assert annotation == f"{NS}/{own['metadata']['name']}"
        else:
            assert annotation is None
            assert (await world.condition(name))["reason"] == "NoHostFits"


async def test_an_api_without_machines_stops_nothing(world):
    del world.api._stores[MACHINE]
    await world.add_host()
    await begin(world)
    await world.clock.advance(100)
    assert world.server.hosts.hosts.healthy
    assert not world.server.machines.machines.synced.is_set()
    with contextlib.suppress(IndexError):
        assert not [task for task in world.server.tasks if task.done()]
