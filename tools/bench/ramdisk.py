"""What the ramdisk costs a machine: `make bench-ramdisk`.

Size, memory, and seconds from the kernel's start to the agent's first call and to the moment when
it is admitted and can be given work, on an emulated processor, next to a kernel with an empty
init in the same run. The machine is a QEMU of its own whose only neighbour is this process.
"""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web
from empty_boot import empty_init_s
from rich.console import Console
from rich.table import Table

from billet_lab.processes import die_with_parent
from billet_lab.qemu_args import QEMU, accel_args
from billet_server import pki
from billet_server.core.terms import HostKey
from billet_server.gateway.server import Gateway
from billet_server.ports import Admission
from billet_wire import Hello, Inspect, Job

BUILD = Path("build/bench")
MIB = 1 << 20
GOALS = {"size_mib": 64.0, "min_ram_mib": 512, "first_call_s": 25.0}
MEMORIES_MIB = (192, 224, 256, 288, 320, 384, 448, 512, 768)
"""The machines that are tried, by halving: about four of them are started."""

DEADLINE_S = 150.0
_HOST = "10.0.2.2"  # how QEMU's user network calls this machine's loopback
_INSPECT = Job("bench.inspect", Inspect())


class Call(NamedTuple):
    """Seconds since the kernel started."""

    first_s: float
    ready_s: float


class Directory:
    """Admits whoever calls, and notes when."""

    def __init__(self) -> None:
        self.hello: Hello | None = None
        self.hello_at = 0.0
        self.changed = asyncio.Event()

    async def admit(self, hello: Hello, peer: str) -> Admission:
        """See `ports.AgentDirectory.admit`."""
        del peer
        self.hello, self.hello_at = hello, time.monotonic()
        return Admission(True, HostKey("bench", "machine"), "uid", "nonce")

    def agent_changed(self, host_uid: str) -> None:
        """See `ports.AgentDirectory.agent_changed`."""
        del host_uid
        self.changed.set()


class Server:
    """The real gateway, and the place where agents fetch its CA: their first call."""

    def __init__(self, folder: Path) -> None:
        authority = pki.ensure_authority(folder)
        self._tls = pki.ensure_leaf(authority, folder, "gateway", [_HOST]).server_context()
        self._pem, self.digest = authority.cert_pem, authority.fingerprint
        self.directory = Directory()
        self.gateway = Gateway(self.directory, authority.cert_pem)
        self.first_at = 0.0
        self.ports = (0, 0)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen on the loopback."""
        app = web.Application()
        app.router.add_get("/ca.pem", self._ca)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = await self.gateway.start("127.0.0.1", 0, self._tls)
        self.ports = (runner.addresses[0][1], port)
        try:
            yield
        finally:
            await self.gateway.stop()
            await runner.cleanup()

    async def _ca(self, request: web.Request) -> web.StreamResponse:
        del request
        self.first_at = self.first_at or time.monotonic()
        return web.Response(body=self._pem)

    async def report(self) -> Call:
        """Wait for the agent and for its inventory, so that it surely has what it needs."""
        directory = self.directory
        while (view := self.gateway.view("uid")) is None or not view.connected:
            directory.changed.clear()
            await directory.changed.wait()
        ready_at = time.monotonic()
        await self.gateway.run_job("uid", _INSPECT)
        while True:
            directory.changed.clear()
            view = self.gateway.view("uid")
            told = view.jobs.get(_INSPECT.id) if view is not None else None
            if told is not None and told.state == "succeeded":
                break
            if told is not None and told.state == "failed":
                raise SystemExit(f"the inventory failed: {told.problem}")
            await directory.changed.wait()
        assert directory.hello is not None
        start = directory.hello_at - directory.hello.uptime_s
        return Call(round(self.first_at - start, 1), round(ready_at - start, 1))


async def boot(ramdisk: Path, memory_mib: int) -> Call | None:
    """Start a machine; None when it does not report in `DEADLINE_S`, or ends before."""
    with tempfile.TemporaryDirectory(prefix="billet-bench-") as name:
        server = Server(Path(name))
        async with server.running():
            argv = _argv(ramdisk, memory_mib, server, Path(name, "serial"))
            process = await asyncio.create_subprocess_exec(*argv, preexec_fn=die_with_parent())
            report = asyncio.create_task(server.report())
            ended = asyncio.create_task(process.wait())
            try:
                await asyncio.wait(
                    {report, ended}, timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED
                )
                return report.result() if report.done() else None
            finally:
                report.cancel()
                if process.returncode is None:
                    process.kill()
                await ended


def _argv(ramdisk: Path, memory_mib: int, server: Server, serial: Path) -> list[str]:
    http_port, port = server.ports
    words = (
        f"console=ttyS0 panic=-1 billet.server={_HOST}:{port} billet.ca=sha256:{server.digest} "
        f"billet.ca-url=http://{_HOST}:{http_port}/ca.pem billet.token=bench "
        "BOOTIF=01-52-54-00-12-34-56"
    )
    return [
        *(QEMU, "-machine", "q35,hpet=off,graphics=off", *accel_args("tcg")),
        *("-m", str(memory_mib), "-smp", "2", "-nodefaults", "-display", "none", "-no-reboot"),
        *("-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,romfile="),
        *("-kernel", str(ramdisk / "vmlinuz"), "-initrd", str(ramdisk / "initramfs")),
        *("-append", words, "-serial", f"file:{serial}"),
    ]


async def least_memory_mib(ramdisk: Path) -> int:
    """Return the smallest of `MEMORIES_MIB` that reports; 0 when none does."""
    low, high = 0, len(MEMORIES_MIB)
    while low < high:
        middle = (low + high) // 2
        if await boot(ramdisk, MEMORIES_MIB[middle]) is None:
            low = middle + 1
        else:
            high = middle
    return MEMORIES_MIB[low] if low < len(MEMORIES_MIB) else 0


async def measure(ramdisk: Path) -> dict[str, Any]:
    """Return all figures."""
    manifest = json.loads((ramdisk / "manifest.json").read_text())
    empty = min(empty_init_s(ramdisk / "vmlinuz") for _ in range(2))
    calls = [call for _ in range(2) if (call := await boot(ramdisk, 512)) is not None]
    if not calls:
        raise SystemExit("no machine of 512 MiB reported")
    best = min(calls)
    size = manifest["vmlinuz_bytes"] + manifest["initramfs_bytes"]
    return {
        "size_mib": round(size / MIB, 1),
        "unpacked_mib": round(manifest["unpacked_bytes"] / MIB, 1),
        "min_ram_mib": await least_memory_mib(ramdisk),
        "first_call_s": best.first_s,
        "ready_s": best.ready_s,
        "empty_init_s": round(empty, 1),
        "goals": GOALS,
    }


def main() -> None:
    """Measure, print, write build/bench/ramdisk.json."""
    ramdisk = Path(sys.argv[1] if len(sys.argv) > 1 else "build/ramdisk")
    console = Console()
    with console.status("booting machines"):
        found = asyncio.run(measure(ramdisk))
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "ramdisk.json").write_text(json.dumps(found, indent=2) + "\n")
    table = Table(title=f"the ramdisk, emulated, 2 of {os.cpu_count()} processors, 512 MiB")
    for name in ("what", "figure", "goal", "to an empty init"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for key, value in found.items():
        if key != "goals":
            goal = f"<= {GOALS[key]:g}" if key in GOALS else ""
            ratio = f"{value / found['empty_init_s']:.1f}" if key.endswith("_s") else ""
            table.add_row(key, str(value), goal, ratio)
    console.print(table)


if __name__ == "__main__":
    main()
