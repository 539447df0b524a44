"""Fixtures of the whole-server tests: a server for each file, one for all scenarios of an API."""

import contextlib

import pytest
import pytest_asyncio

from clusters import find_cluster, own_cluster
from contract.bmc_worlds import Simulator
from scenarios import Stage, chosen, is_scenario
from server_rig import Machine, Server, world


@pytest.fixture(scope="module")
def billet(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("billet"))
    try:
        server.start()
        yield server
    finally:
        status = server.stop()
    assert status == 0, server.text()
    assert "Traceback" not in server.text()


@pytest.fixture(scope="session")
def cluster():
    """The cluster that the environment names."""
    with find_cluster().opened() as found:
        yield found


@pytest.fixture(scope="module")
def own_api():
    """A genuine Kubernetes API server to stop and start at will."""
    with own_cluster().opened() as found:
        yield found


def pytest_collection_modifyitems(items):
    """Scenarios come first, API by API: while they play, their loop must not stand still."""
    apis = ["embedded", "cluster"]
    items.sort(
        key=lambda item: apis.index(item.callspec.params["stage"]) if is_scenario(item) else 2
    )


@pytest_asyncio.fixture(
    scope="session",
    loop_scope="session",
    params=["embedded", pytest.param("cluster", marks=pytest.mark.cluster)],
)
async def stage(request, tmp_path_factory, simulators):
    """The scenarios of all files, at play on one API."""
    found = request.getfixturevalue("cluster") if request.param == "cluster" else None
    made = Stage(tmp_path_factory.mktemp("stage"), found, simulators, chosen(request))
    try:
        await made.open()
        yield made
    finally:
        await made.close()


@pytest.fixture(scope="session")
def simulators():
    """Give out simulated BMCs by kind and number; each is a process, started at first use."""
    made = {}
    with contextlib.ExitStack() as stack:

        def give(kind, number=1):
            if (kind, number) not in made:
                made[kind, number] = Simulator(kind)
                stack.callback(made[kind, number].remove)
            return made[kind, number]

        yield give


@pytest.fixture
async def user(billet):
    """kubectl in a namespace of its own."""
    async with world(billet) as made:
        yield made


@pytest.fixture
def machine(user, simulators):
    """Plug a machine in: by default one behind an IPMI BMC."""

    def plug_in(kind="ipmi", number=1, **more):
        return user.plug_in(Machine(simulators(kind, number), kind, user.server, **more))

    return plug_in
