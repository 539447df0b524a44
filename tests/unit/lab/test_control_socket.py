import asyncio
import contextlib
import json

import pytest

from billet_lab import control_socket
from billet_lab.control import BootTarget
from billet_lab.control_socket import ControlError, MachineClient, MachineStatus, Power, SetBoot
from billet_lab.faults import FaultError, Faults


def status(**changes):
    return MachineStatus(
        **{
            "name": "m",
            "powered_on": False,
            "boot_target": BootTarget.NONE,
            "boot_persistent": False,
            "qemu_pid": None,
            "boots": (),
            "faults": Faults(),
            **changes,
        }
    )


@contextlib.asynccontextmanager
async def machine(tmp_path, handle):
    server = await control_socket.serve(tmp_path / "s", handle, (FaultError,))
    try:
        yield MachineClient("m", tmp_path / "s")
    finally:
        server.close()


async def test_requests_reach_the_machine_and_its_status_comes_back(tmp_path):
    seen = []

    async def handle(request):
        seen.append(request)
        return status(powered_on=True)

    async with machine(tmp_path, handle) as client:
        assert (await client.power("on")).powered_on
        await client.set_boot(BootTarget.PXE, persistent=True)
        await client.status()
    assert seen[:2] == [Power("on"), SetBoot(BootTarget.PXE, True)]


async def test_refusals_are_told_with_the_machine_s_name(tmp_path):
    async def handle(request):
        raise FaultError("there is no fault 'x'")

    async with machine(tmp_path, handle) as client:
        with pytest.raises(ControlError, match="machine m: there is no fault 'x'"):
            await client.set_faults({"x": True})


async def test_what_is_no_request_is_refused_and_the_next_one_served(tmp_path):
    async def handle(request):
        return status()

    async with machine(tmp_path, handle) as client:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        for line in (b"nonsense\n", b'{"op":"power","action":"explode"}\n', b'{"op":"status"}\n'):
            writer.write(line)
        answers = [json.loads(await reader.readline()) for _ in range(3)]
        writer.close()
        await client.status()
    assert [answer["ok"] for answer in answers] == [False, False, True]


async def test_a_machine_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ControlError, match="machine gone: its process is not there"):
        await MachineClient("gone", tmp_path / "none").status()
