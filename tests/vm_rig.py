"""One lab machine, `billet up`, an image server and kubectl: what a story on a machine needs."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

from billet_lab import console as serial
from billet_lab import demo_manifests as manifests
from billet_lab import leaks
from billet_lab.demo_story import View, read_view
from billet_lab.lab import Lab
from billet_lab.server_process import ServerProcess
from billet_lab.specs import Disk, MachineInfo, MachineSpec

TOP = Path(__file__).resolve().parents[1]
RAMDISK = TOP / "build/ramdisk"
IMAGES = TOP / "build/image"
IMAGE = "billet-demo.qcow2"
SUMS = "images.md5sum"
NAME = "node01"
MIB = 1 << 20
BOOTED_FROM_DISK = "Welcome to GRUB!"

Host = dict[str, Any]


class Rig:
    def __init__(self, lab: Lab, server: ServerProcess) -> None:
        self.lab, self.server = lab, server
        self.kubectl = server.kubectl
        self.machine: MachineInfo = lab.machines[0]
        self.console = Path(self.machine.console_path)
        self.disk = Path(self.machine.disk_paths[0])
        self.told = View()

    def url(self, place: str) -> str:
        return f"http://{self.lab.host_address}/{place}"

    async def register(self, *, online: bool) -> None:
        await self.kubectl.run("create", "namespace", manifests.NAMESPACE)
        text = manifests.render_host(self.machine)
        await self.kubectl.run("apply", "-f", "-", stdin=text)
        await self.patch(online=online)

    async def patch(self, **spec: Any) -> None:
        body = json.dumps({"spec": spec})
        await self.kubectl.run("patch", "baremetalhost", NAME, "--type=merge", "-p", body)

    async def image(self, place: str, checksum: str, **fields: Any) -> None:
        """Replace the image: fields that are not given go."""
        wanted = {"url": self.url(place), "checksum": checksum, "format": None} | fields
        await self.patch(image=wanted, online=True)

    async def user_data(self, text: str) -> None:
        secret = manifests.render_user_data(NAME, text)
        await self.kubectl.run("apply", "-f", "-", stdin=secret)
        name = {"name": f"{NAME}-user-data", "namespace": manifests.NAMESPACE}
        await self.patch(userData=name)

    async def until(self, done: Callable[[Host, View], bool], what: str, deadline_s: float) -> Host:
        """Watch the host until ``done``; a watch that a dead server ended is begun anew."""
        try:
            async with asyncio.timeout(deadline_s):
                while True:
                    async for host in self.kubectl.watch("baremetalhost", NAME):
                        self.told = read_view(host)
                        if done(host, self.told):
                            return host
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise AssertionError(
                f"not {what} within {deadline_s:.0f} s: {self.told}\n"
                f"server: {self.server.log_tail(15)}\nconsole: {serial.tail(self.console)}"
            ) from None

    async def until_state(self, state: str, deadline_s: float) -> Host:
        return await self.until(lambda _, view: view.state == state, state, deadline_s)

    async def until_step(self, step: str, percent: float, deadline_s: float) -> View:
        """Until this step was seen that far."""
        await self.until(
            lambda _, view: view.step == step and (view.percent or 0) >= percent,
            f"at {percent} % of {step}",
            deadline_s,
        )
        return self.told

    async def events(self, reason: str = "") -> list[dict[str, Any]]:
        items = (await self.kubectl.json("get", "events"))["items"]
        return [item for item in items if reason in ("", item["reason"])]

    def disk_is_empty(self) -> bool:
        """Whether the first and the last MiB of the disk hold nothing but zeros."""
        with self.disk.open("rb") as file:
            head = file.read(MIB)
            file.seek(-MIB, 2)
            return not any(head) and not any(file.read())

    def disk_boots(self) -> bool:
        """Whether the disk has a boot sector."""
        with self.disk.open("rb") as file:
            return file.read(512)[510:] == b"\x55\xaa"

    def server_log(self) -> str:
        return self.server.log_path.read_text(errors="replace")

    def agent_log(self) -> str:
        logs = self.server.state_dir / "agent-logs"
        return "".join(path.read_text(errors="replace") for path in sorted(logs.rglob("*.log")))

    async def restart_server(self) -> None:
        await self.server.kill()
        await self.server.start()


def left_behind(before: leaks.Snapshot, *marks: object) -> list[str]:
    """What of a test is still there, by its own paths and names: others may run meanwhile."""
    found = leaks.difference(before, leaks.snapshot())
    words = [str(mark).removeprefix("billet-") for mark in marks]
    return [line for line in found if any(word in line for word in words)]


@contextlib.asynccontextmanager
async def rig(
    directory: Path,
    images: Path = IMAGES,
    *,
    disk_bytes: int = 8 << 30,
    memory_mib: int = 3072,
    firmware: Literal["bios", "uefi"] = "bios",
) -> AsyncIterator[Rig]:
    """A machine with IPMI, everything running, nothing registered."""
    disks = (Disk(size_bytes=disk_bytes),)
    spec = MachineSpec(name=NAME, disks=disks, memory_mib=memory_mib, firmware=firmware)
    async with Lab(directory / "lab", [spec], accel_choice="tcg") as lab:
        server_argv = [sys.executable, str(TOP / "tests/vm_images.py"), str(images)]
        await lab.run_in([*server_argv, lab.host_address, "80"])
        async with ServerProcess(
            lab,
            directory,
            RAMDISK,
            namespace=manifests.NAMESPACE,
            arguments=("--power-poll", "10", "--agent-call-timeout", "180"),
        ) as server:
            await server.start()
            yield Rig(lab, server)
