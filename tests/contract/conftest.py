"""Fixtures of the contract suites: each port's twin and its real counterparts."""

import os
import uuid

import pytest

from billet_server.ports import NAMESPACE
from contract.kube_worlds import EmbeddedWorld, GenuineServer, GenuineWorld, MemoryWorld


@pytest.fixture(scope="session")
def genuine_server():
    program = os.environ.get("BILLET_TEST_KUBEAPI")
    if not program:
        pytest.skip("skipped: no cluster")
    server = GenuineServer(program)
    yield server
    server.remove()


@pytest.fixture(params=["memory", "embedded", pytest.param("genuine", marks=pytest.mark.cluster)])
async def world(request, tmp_path):
    if request.param == "memory":
        made = MemoryWorld()
    elif request.param == "embedded":
        made = EmbeddedWorld(tmp_path)
        await made.open()
    else:
        server = request.getfixturevalue("genuine_server")
        await server.prepare()
        made = GenuineWorld(server)
    yield made
    await made.close()


@pytest.fixture
def api(world):
    return world.api


@pytest.fixture
async def namespace(world):
    name = f"t-{uuid.uuid4().hex[:10]}"
    await world.api.create(NAMESPACE, {"metadata": {"name": name}})
    return name
