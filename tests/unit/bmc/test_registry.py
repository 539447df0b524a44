"""Who shares a lane: all behind one BMC's address, whatever path, user or spelling."""

import asyncio
import contextlib

import pytest

from billet_server.bmc.pacing import Pace
from billet_server.bmc.registry import BmcRegistry
from billet_server.core.terms import Credentials, Secret
from billet_server.errors import BmcError
from billet_server.ports import BmcTarget

ANSWER_S = 0.05


class Chassis:
    """Answers every request with 404 after a moment, and knows how many it had at once."""

    def __init__(self):
        self.now = self.most = self.asked = 0
        self.users = set()
        self._server = None

    @contextlib.asynccontextmanager
    async def serving(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield self._server.sockets[0].getsockname()[1]
        finally:
            self._server.close()

    async def _serve(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = [line for line in head.lower().split(b"\r\n") if b"content-length" in line]
                if length:
                    await reader.readexactly(int(length[0].split(b":")[1]))
                self.now += 1
                self.asked += 1
                self.most = max(self.most, self.now)
                await asyncio.sleep(ANSWER_S)
                self.now -= 1
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
        writer.close()


async def ask(registry, address, user="admin"):
    bmc = registry.open(BmcTarget(address, Credentials(user, Secret("password"))))
    with pytest.raises(BmcError):
        await bmc.power_state()


@contextlib.asynccontextmanager
async def registry():
    made = BmcRegistry(pace=Pace(answer_s=2, read_s=5, command_s=10))
    try:
        yield made
    finally:
        await made.close()


@pytest.mark.parametrize(
    "blades",
    [
        [(str(n), "admin") for n in range(6)],
        [("1", f"user{n}") for n in range(6)],
        [(str(n), f"user{n}") for n in range(6)],
    ],
    ids=["paths", "users", "both"],
)
async def test_the_blades_of_one_chassis_are_asked_one_at_a_time(blades):
    chassis = Chassis()
    async with chassis.serving() as port, registry() as bmcs:
        url = f"redfish+http://127.0.0.1:{port}/redfish/v1/Systems"
        await asyncio.gather(*(ask(bmcs, f"{url}/{system}", user) for system, user in blades))
    assert chassis.most == 1
    assert chassis.asked >= len(blades)


async def test_one_chassis_does_not_wait_for_another():
    one, other = Chassis(), Chassis()
    overlaps = []

    async def watch():
        while True:
            overlaps.append(one.now and other.now)
            await asyncio.sleep(ANSWER_S / 10)

    async with one.serving() as first, other.serving() as second, registry() as bmcs:
        watching = asyncio.create_task(watch())
        await asyncio.gather(
            *(ask(bmcs, f"redfish+http://127.0.0.1:{first}/redfish/v1/Systems/{n}") for n in "12"),
            *(ask(bmcs, f"redfish+http://127.0.0.1:{second}/redfish/v1/Systems/{n}") for n in "12"),
        )
        watching.cancel()
    assert one.most == other.most == 1
    assert any(overlaps)


async def test_the_same_target_is_one_driver_and_another_spelling_the_same_lane():
    async with registry() as bmcs:
        mine = Credentials("admin", Secret("password"))
        one = bmcs.open(BmcTarget("redfish://chassis.example/redfish/v1/Systems/1", mine))
        assert bmcs.open(BmcTarget("redfish://chassis.example/redfish/v1/Systems/1", mine)) is one
        for spelling in (
            "redfish+https://chassis.example:443/redfish/v1/Systems/2",
            "redfish://CHASSIS.example/redfish/v1/Systems/3",
            "redfish://chassis.example./redfish/v1/Systems/4",
        ):
            assert bmcs.open(BmcTarget(spelling, mine))._lane is one._lane, spelling
        ipmi = bmcs.open(BmcTarget("ipmi://chassis.example", mine))
        assert bmcs.open(BmcTarget("chassis.example:623", mine))._lane is ipmi._lane
        assert ipmi._lane is not one._lane
        one = bmcs.open(BmcTarget("ipmi://[fd00::7]", mine))
        assert bmcs.open(BmcTarget("ipmi://[FD00:0::7]:623", mine))._lane is one._lane
