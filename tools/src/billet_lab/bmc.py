"""``python -m billet_lab.bmc``: simulated BMCs of a machine in memory, for tests and try-outs.

Standard output gets one line with the port once it listens. Standard input takes one order a
line, and its end is the program's end: a fault setting (``bmc_dead=on``) is answered ``done``,
``show`` with the machine's state as JSON, ``reset`` makes it a new machine with no faults,
``reboot`` restarts it from within, as its operating system would, ``power off`` is a power cut.
"""

import argparse
import asyncio
import contextlib
import json
import os
import ssl
import sys
from collections.abc import Callable
from functools import partial

from aiohttp import web

from billet_lab import ipmi_bmc, redfish_bmc
from billet_lab.control import BootTarget, MachineControl, MemoryMachine
from billet_lab.faults import FaultError, Faults, parse_fault, with_settings


class _Desk:
    """The machine and its faults, under orders."""

    def __init__(self, machine: MemoryMachine) -> None:
        self.machine = machine
        self._faults = Faults()

    def faults(self) -> Faults:
        """All switches as they are now."""
        return self._faults

    async def obey(self, order: str) -> str:
        """Carry out one line; the answer. Raises FaultError."""
        if order == "show":
            target, persistent = self.machine.boot_override
            state = {
                "powered_on": self.machine.powered_on,
                "override": target.value,
                "persistent": persistent,
                "boots": [boot.value for boot in self.machine.boots],
            }
            return json.dumps(state)
        if order == "reboot":
            await self.machine.reset()
        elif order == "power off":
            await self.machine.power_off()
        elif order == "reset":
            self._faults = Faults()
            await self.machine.power_off()
            await self.machine.set_boot(BootTarget.NONE, persistent=False)
            self.machine.boots.clear()
        else:
            self._faults = with_settings(self._faults, dict([parse_fault(order)]))
        return "done"


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m billet_lab.bmc", description=__doc__)
    parser.add_argument("kind", choices=["ipmi", "redfish"])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--username", default="admin")
    parser.add_argument("--firmware", choices=["bios", "uefi"], default="bios")
    parser.add_argument("--certificate", default="", help="PEM with key: serve Redfish over TLS")
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(arguments, os.environ.get("BMC_PASSWORD", "password")))


async def _serve(arguments: argparse.Namespace, password: str) -> None:
    desk = _Desk(MemoryMachine("machine-1", "52:54:00:00:00:01", arguments.firmware))
    run = partial(_ipmi if arguments.kind == "ipmi" else _redfish, desk.machine, arguments)
    server = asyncio.create_task(run(password, desk.faults), name="bmc")
    orders = asyncio.create_task(_read_orders(desk), name="orders")
    done, pending = await asyncio.wait({server, orders}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()


async def _ipmi(
    machine: MachineControl,
    arguments: argparse.Namespace,
    password: str,
    faults: Callable[[], Faults],
) -> None:
    await ipmi_bmc.serve(
        machine,
        host=arguments.host,
        port=arguments.port,
        username=arguments.username,
        password=password,
        faults=faults,
        ready=_say,
    )


async def _redfish(
    machine: MachineControl,
    arguments: argparse.Namespace,
    password: str,
    faults: Callable[[], Faults],
) -> None:
    tls = None
    if arguments.certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(arguments.certificate)
    app = redfish_bmc.create_app(
        [machine], username=arguments.username, password=password, faults=faults
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, arguments.host, arguments.port, ssl_context=tls).start()
        _say(runner.addresses[0][1])
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


async def _read_orders(desk: _Desk) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        try:
            _say(await desk.obey(line.decode().strip()))
        except FaultError as error:
            _say(error)


def _say(words: object) -> None:
    print(words, flush=True)


if __name__ == "__main__":
    main()
