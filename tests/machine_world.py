"""Machines and hosts as plain objects, and controllers of them without any BMC."""

import asyncio
import random

from billet_server import errors
from billet_server.core.terms import HostKey
from billet_server.engine.controller import Controller
from billet_server.engine.machines import MachineController
from billet_server.memory.agents import MemoryAgents
from billet_server.memory.bmc import MemoryBmcs
from billet_server.ports import BARE_METAL_HOST, EVENT, MACHINE

NS = "metal3"
URL = "http://172.22.0.2/images/CentOS-7-x86_64-GenericCloud-1901.qcow2"
IMAGE = {"url": URL, "checksum": f"{URL}.md5sum"}
OURS = {"apiVersion": "cluster.k8s.io/v1alpha1", "kind": "Machine", "namespace": NS}
HARDWARE = {
    "hostname": "localhost.localdomain",
    "nics": [
        {"name": "eth0", "ip": "192.168.122.79"}, {"name": "eth1", "ip": "172.22.0.39"},
        {"name": "eth2"},
    ],
}  # fmt: skip


def machine_object(name="m1", **value):
    """A Machine as the article types it; ``value`` changes its providerSpec, None removes."""
    provider = {
        "apiVersion": "baremetal.cluster.k8s.io/v1alpha1",
        "kind": "BareMetalMachineProviderSpec",
        "image": IMAGE,
        "userData": {"name": "data", "namespace": NS},
    } | value
    provider = {key: each for key, each in provider.items() if each is not None}
    return {
        "apiVersion": "cluster.k8s.io/v1alpha1",
        "kind": "Machine",
        "metadata": {"name": name, "namespace": NS, "generateName": "baremetal-machine-"},
        "spec": {"providerSpec": {"value": provider}},
    }


def host_object(name="h1", state="ready", *, labels=None, annotations=None, status=None, **spec):
    return {
        "apiVersion": "metal3.io/v1alpha1",
        "kind": "BareMetalHost",
        "metadata": {
            "name": name, "namespace": NS, "uid": f"uid-{name}", "resourceVersion": "1",
            "labels": labels or {}, "annotations": annotations or {},
        },
        "spec": {"online": False} | spec,
        "status": {"provisioning": {"state": state, "ID": ""}} | (status or {}),
    }  # fmt: skip


class Server:
    """The Machine controller of one replica, with the host informer but no host controller."""

    def __init__(self, api, clock, seed=0):
        bmcs = MemoryBmcs()
        self.hosts = Controller(api, bmcs, MemoryAgents(None, now=clock.now), clock)
        chance = random.Random(seed)
        self.machines = MachineController(
            api, self.hosts, clock, entropy=lambda: chance.getrandbits(32), workers=4
        )
        self.tasks = []

    def start(self):
        parts = (self.hosts.follow, self.machines.follow, self.machines.work)
        parts += (self.hosts.recorder.run,)
        self.tasks = [asyncio.create_task(part()) for part in parts]

    async def kill(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.machines.queue.close()


class World:
    """An API with a person at it."""

    def __init__(self, api, clock):
        self.api, self.clock = api, clock

    async def add_host(self, name="h1", state="ready", **more):
        made = host_object(name, state, **more)
        status = made.pop("status")
        for field in ("uid", "resourceVersion"):
            del made["metadata"][field]
        await self.api.create(BARE_METAL_HOST, made)
        await self.set_state(name, state, **status)

    async def set_state(self, name, state, **status):
        body = {"status": status | {"provisioning": {"state": state, "ID": ""}}}
        await self.api.patch(BARE_METAL_HOST, NS, name, body, subresource="status")

    async def host(self, name="h1"):
        return await self.api.get(BARE_METAL_HOST, NS, name)

    async def machine(self, name="m1"):
        return await self.api.get(MACHINE, NS, name)

    async def exists(self, name="m1"):
        try:
            await self.machine(name)
        except errors.NotFound:
            return False
        return True

    async def events(self):
        listed = await self.api.list(EVENT, NS)
        return [each["reason"] for each in listed.items]

    async def condition(self, name="m1", kind="HostClaimed"):
        told = (await self.machine(name)).get("status", {}).get("conditions", [])
        return next((each for each in told if each["type"] == kind), {})


def key(name):
    return HostKey(NS, name)
