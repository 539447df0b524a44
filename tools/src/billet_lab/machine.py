"""One machine's process: its `vm.Vm`, its BMC simulator and its control socket.

``python -m billet_lab.machine JOB.json``, run inside the lab's namespace by `lab.Lab`. It says
``ready`` on standard output once BMC and control socket answer, and ends on SIGTERM or with the
process that started it.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from billet_lab import control_socket
from billet_lab.control_socket import MachineStatus, Power, Request, SetBoot, SetFaults
from billet_lab.faults import FaultError, Faults, with_settings
from billet_lab.net import NetError
from billet_lab.qmp import QmpError
from billet_lab.specs import MachineJob
from billet_lab.vm import Vm

READY = b"ready\n"


def control_path(run_dir: str) -> Path:
    """Where the machine's control socket is."""
    return Path(run_dir) / "control.sock"


class Machine:
    """Answers control requests about one `Vm`."""

    def __init__(self, job: MachineJob) -> None:
        self._job = job
        self.faults = job.faults
        self.vm = Vm(job, lambda: self.faults)

    async def handle(self, request: Request) -> MachineStatus:
        """Do what a request asks for and tell the status after it."""
        match request:
            case Power(action):
                await self._power(action)
            case SetBoot(target, persistent):
                await self.vm.set_boot(target, persistent=persistent)
            case SetFaults(settings):
                await self._set_faults(settings)
            case _:
                pass
        return self.status()

    def status(self) -> MachineStatus:
        """What the machine is doing now."""
        target, persistent = self.vm.boot_override
        return MachineStatus(
            name=self.vm.name,
            powered_on=self.vm.powered_on,
            boot_target=target,
            boot_persistent=persistent,
            qemu_pid=self.vm.qemu_pid,
            boots=tuple(self.vm.boots),
            faults=self.faults,
        )

    async def _power(self, action: control_socket.PowerAction) -> None:
        match action:
            case "on":
                await self.vm.power_on()
            case "off" | "cut":
                await self.vm.power_off()
            case "soft":
                await self.vm.soft_off()
            case "reset":
                await self.vm.reset()

    async def _set_faults(self, settings: dict[str, bool | float]) -> None:
        before, self.faults = self.faults, with_settings(self.faults, settings)
        try:
            if link_of(before) != link_of(self.faults):
                await self.vm.apply_link()
            if before.disk_write_mib_s != self.faults.disk_write_mib_s:
                await self.vm.apply_disks()
            if before.link_loss_percent != self.faults.link_loss_percent:
                await self.vm.apply_loss()
        except (QmpError, NetError):
            self.faults = before
            raise


def link_of(faults: Faults) -> tuple[bool, float]:
    """What `Vm.apply_link` applies."""
    return faults.link_down, faults.link_delay_ms


@contextlib.asynccontextmanager
async def bmc_served(job: MachineJob, machine: Machine) -> AsyncIterator[asyncio.Future[None]]:
    """The machine's BMC, listening; the future ends when the simulator does."""
    spec = job.machine
    if spec.bmc == "ipmi":
        from billet_lab import ipmi_bmc

        listening = asyncio.Event()
        serving = asyncio.ensure_future(
            ipmi_bmc.serve(
                machine.vm,
                host=job.bmc_host,
                port=job.bmc_port,
                username=spec.username,
                password=spec.password,
                faults=lambda: machine.faults,
                ready=lambda _port: listening.set(),
            )
        )
        try:
            heard = asyncio.ensure_future(listening.wait())
            ends: set[asyncio.Future[Any]] = {heard, serving}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            heard.cancel()
            yield serving
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        return
    from aiohttp import web

    from billet_lab import redfish_bmc

    app = redfish_bmc.create_app(
        [machine.vm], username=spec.username, password=spec.password, faults=lambda: machine.faults
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, job.bmc_host, job.bmc_port).start()
        yield asyncio.get_running_loop().create_future()
    finally:
        await runner.cleanup()


async def run(job: MachineJob) -> None:
    """Serve until SIGTERM, SIGINT or the BMC simulator's end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    machine = Machine(job)
    refused = (FaultError, NetError, QmpError, OSError)
    server = await control_socket.serve(control_path(job.run_dir), machine.handle, refused)
    try:
        if job.faults.link_loss_percent:
            await machine.vm.apply_loss()
        async with bmc_served(job, machine) as serving:
            stopped = asyncio.ensure_future(stop.wait())
            if not serving.done():
                os.write(sys.stdout.fileno(), READY)
            ends: set[asyncio.Future[Any]] = {stopped, serving}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if serving.done() and not serving.cancelled():
                serving.result()
    finally:
        server.close()
        await machine.vm.close()


def main(argv: list[str]) -> int:
    """Read the job and serve it."""
    if len(argv) != 2:
        print("usage: python -m billet_lab.machine JOB.json", file=sys.stderr)
        return 2
    job = msgspec.json.decode(Path(argv[1]).read_bytes(), type=MachineJob)
    # PR_SET_PDEATHSIG again: `ip netns exec` may have changed credentials, which clears it.
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
    if os.getppid() != job.parent_pid:
        return 1
    try:
        asyncio.run(run(job))
    except OSError as error:
        print(f"machine {job.machine.name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
