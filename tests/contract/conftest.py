"""Fixtures of the contract suites: each port's twin and its real counterparts."""

import contextlib

import pytest

from billet_server import errors
from billet_server.ports import BARE_METAL_HOST, CONFIG_MAP, MACHINE, NAMESPACE
from clusters import find_cluster, new_namespace, own_cluster
from contract.kube_worlds import EmbeddedWorld, GenuineWorld, MemoryWorld
from contract.wire import HTTP_WORLDS, Wire


@pytest.fixture(scope="session")
def cluster():
    """The cluster that the environment names, with Billet's definitions."""
    with find_cluster().opened() as found:
        yield found


@pytest.fixture(scope="module")
def own_api():
    """A genuine Kubernetes API server to change at will."""
    with own_cluster().opened() as found:
        yield found


@pytest.fixture(params=["memory", *HTTP_WORLDS])
async def world(request, tmp_path):
    if request.param == "memory":
        made = MemoryWorld()
    elif request.param == "embedded":
        made = EmbeddedWorld(tmp_path)
        await made.open()
    else:
        made = GenuineWorld(request.getfixturevalue("cluster"))
    yield made
    await made.close()


@pytest.fixture
def api(world):
    return world.api


@pytest.fixture
async def wire(world, namespace):
    """An HTTP client for the world's API."""
    made = Wire(world.kubeconfig, namespace)
    yield made
    await made.close()


@pytest.fixture
async def namespace(world):
    """A namespace; it goes with all that the test left in it, also what has finalizers."""
    name = new_namespace()
    await world.api.create(NAMESPACE, {"metadata": {"name": name}})
    yield name
    if world.name == "genuine":
        await empty(world.api, name)


async def empty(api, prefix):
    """Delete the namespaces of a test."""
    for found in (await api.list(NAMESPACE)).items:
        if not (name := found["metadata"]["name"]).startswith(prefix):
            continue
        for kind in (BARE_METAL_HOST, MACHINE, CONFIG_MAP):
            for obj in (await api.list(kind, name)).items:
                if obj["metadata"].get("finalizers"):
                    patch = {"metadata": {"finalizers": None}}
                    await api.patch(kind, name, obj["metadata"]["name"], patch)
        with contextlib.suppress(errors.NotFound):
            await api.delete(NAMESPACE, "", name)
