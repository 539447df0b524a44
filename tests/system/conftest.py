"""Fixtures of the whole-server tests: one server for each file, a pool of simulated BMCs."""

import contextlib

import pytest

from contract.bmc_worlds import Simulator
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
