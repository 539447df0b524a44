"""``python -m billet_lab.bmc``: simulated BMCs of a machine in memory, for tests and try-outs.

Its standard input takes fault settings (``bmc_dead=on``), one a line; an empty input ends it.
Standard output gets one line with the port once it listens, then one for each setting done.
"""

import argparse
import asyncio
import contextlib
import os
import ssl
import sys
from functools import partial

from aiohttp import web

from billet_lab import ipmi_bmc, redfish_bmc
from billet_lab.control import MachineControl, MemoryMachine
from billet_lab.faults import FaultError, Faults, parse_fault, with_settings


class _Switches:
    """The faults that are on."""

    def __init__(self) -> None:
        self._faults = Faults()

    def now(self) -> Faults:
        """All switches."""
        return self._faults

    def set(self, text: str) -> None:
        """Turn one. Raises FaultError."""
        self._faults = with_settings(self._faults, dict([parse_fault(text)]))


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
    machine = MemoryMachine("machine-1", "52:54:00:00:00:01", arguments.firmware)
    faults = _Switches()
    run = partial(_ipmi if arguments.kind == "ipmi" else _redfish, machine, arguments)
    server = asyncio.create_task(run(password, faults), name="bmc")
    switches = asyncio.create_task(_read_switches(faults), name="switches")
    done, pending = await asyncio.wait({server, switches}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()


async def _ipmi(
    machine: MachineControl, arguments: argparse.Namespace, password: str, faults: _Switches
) -> None:
    await ipmi_bmc.serve(
        machine,
        host=arguments.host,
        port=arguments.port,
        username=arguments.username,
        password=password,
        faults=faults.now,
        ready=_say,
    )


async def _redfish(
    machine: MachineControl, arguments: argparse.Namespace, password: str, faults: _Switches
) -> None:
    tls = None
    if arguments.certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(arguments.certificate)
    app = redfish_bmc.create_app(
        [machine], username=arguments.username, password=password, faults=faults.now
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, arguments.host, arguments.port, ssl_context=tls).start()
        _say(runner.addresses[0][1])
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


async def _read_switches(faults: _Switches) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        try:
            faults.set(line.decode())
        except FaultError as error:
            _say(error)
        else:
            _say("done")


def _say(words: object) -> None:
    print(words, flush=True)


if __name__ == "__main__":
    main()
