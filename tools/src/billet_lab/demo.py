"""The demo: a virtual machine with an empty disk, from registered to running the user's image.

Everything is real: kubectl drives the API, the server drives the machine's BMC over IPMI or
Redfish packets, DHCP, iPXE and HTTP boot the ramdisk, the agent writes the qcow2, cloud-init
reads the user's data. The proof is a random token that the booted system's own user data
writes to the serial console.
"""

import asyncio
import contextlib
import importlib.metadata
import re
import secrets
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from billet_lab import demo_manifests as manifests
from billet_lab.accel import AccelChoice
from billet_lab.control import Firmware
from billet_lab.demo_story import Result, Timeline
from billet_lab.kubectl import Kubectl, KubectlError
from billet_lab.lab import Lab
from billet_lab.specs import BmcKind, Disk, MachineInfo, MachineSpec

NAME = "metal3-node01"
MAC = "00:c2:fc:3b:e1:01"
IMAGE = "billet-demo.qcow2"
READY_DEADLINE_S = 900.0
PROVISIONED_DEADLINE_S = 1500.0
TOKEN_DEADLINE_S = 600.0
_FIRST_CALL = re.compile(r"agent called (\d+) s after kernel start")


class DemoError(Exception):
    """The demo did not reach its end; the message says where and why."""


class Options(msgspec.Struct, frozen=True):
    """What the demo runs with. ``directory`` is made anew; the others are inputs."""

    directory: Path
    ramdisk_dir: Path
    image_dir: Path
    firmware: Firmware = "bios"
    bmc: BmcKind = "ipmi"
    accel: AccelChoice = "auto"
    memory_mib: int = 3072


class Demo:
    """One run. `run` returns the result and writes it whatever happens."""

    def __init__(self, options: Options, console: Console) -> None:
        self._options, self._console = options, console
        self.timeline = Timeline(console)
        self.result = Result(firmware=options.firmware, bmc=options.bmc)
        self._token = f"billet-token-{secrets.token_hex(8)}"

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Result]:
        """Run to the proof, then yield while everything is still up. Raises DemoError."""
        options = self._options
        for path in (options.ramdisk_dir / "vmlinuz", options.image_dir / IMAGE):
            if not path.is_file():
                raise DemoError(f"{path} is missing; `make demo` builds it")
        _clear(options.directory)
        try:
            async with contextlib.AsyncExitStack() as stack:
                await self._story(stack)
                self._write()
                yield self.result
        except Exception as error:
            self.result.error = str(error)
            raise
        finally:
            self._write()

    async def _story(self, stack: contextlib.AsyncExitStack) -> None:
        options = self._options
        spec = MachineSpec(
            name=NAME,
            mac=MAC,
            firmware=options.firmware,
            bmc=options.bmc,
            memory_mib=options.memory_mib,
            disks=(Disk(size_bytes=8 << 30),),
        )
        began = time.monotonic()
        kernels = (options.ramdisk_dir / "vmlinuz",)
        lab = await stack.enter_async_context(
            Lab(options.directory / "lab", [spec], accel_choice=options.accel, kernels=kernels)
        )
        self.result.accel = lab.accel
        machine = lab.machines[0]
        self.timeline.say(
            f"lab: {options.firmware} machine with a BMC at {machine.bmc_address},"
            f" {lab.accel} ({lab.accel_reason})"
        )
        server, kubectl = await self._start(lab)
        await self._versions(kubectl)
        self.timeline.spend("start", began)
        self.result.server_rss_mib["idle"] = _rss_mib(server.pid)
        await self._to_ready(kubectl, machine)
        await self._to_provisioned(kubectl, machine, lab)
        self.result.server_rss_mib["peak"] = _rss_mib(server.pid, "VmHWM")
        await self._proof(machine)
        await self._events(kubectl)
        self.result.seconds = self.timeline.seconds | {"total": round(self.timeline.elapsed_s, 1)}
        self.result.steps = self.timeline.steps
        self._how_to_look(machine, lab)

    async def _start(self, lab: Lab) -> tuple[asyncio.subprocess.Process, Kubectl]:
        options = self._options
        images = [sys.executable, "-m", "billet_lab.image_server", str(options.image_dir)]
        await lab.run_in([*images, lab.host_address, "80"])
        log = (options.directory / "server.log").open("wb")
        state = options.directory / "state"
        with _listening_socket() as listener, log:
            server = await lab.run_in(
                [
                    *(str(Path(sys.executable).with_name("billet")), "up"),
                    *("--state-dir", str(state), "--interface", "br0"),
                    *("--api-fd", str(listener.fileno())),
                    *("--ramdisk-dir", str(options.ramdisk_dir), "--power-poll", "10"),
                    *("--kernel-argument", "console=tty0"),
                    *("--kernel-argument", "console=ttyS0"),
                ],
                pass_fds=[listener.fileno()],
                stdout=log,
                stderr=log,
            )
        kubectl = Kubectl(state / "kubeconfig", manifests.NAMESPACE)
        await self._wait_for_api(server, state / "kubeconfig", kubectl)
        return server, kubectl

    async def _wait_for_api(
        self, server: asyncio.subprocess.Process, kubeconfig: Path, kubectl: Kubectl
    ) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if server.returncode is not None:
                raise DemoError(f"billet up ended with {server.returncode}:\n{self._log_tail()}")
            if kubeconfig.exists():
                with contextlib.suppress(KubectlError):
                    await kubectl.run("get", "baremetalhosts", deadline_s=10)
                    return
            await asyncio.sleep(0.2)
        raise DemoError(f"the API did not come up within 60 s:\n{self._log_tail()}")

    async def _to_ready(self, kubectl: Kubectl, machine: MachineInfo) -> None:
        self.timeline.say("kubectl create namespace metal3; kubectl apply -f host.yaml")
        await kubectl.run("create", "namespace", manifests.NAMESPACE)
        text = manifests.render_host(machine)
        (self._options.directory / "host.yaml").write_text(text)
        await kubectl.run("apply", "-f", "-", stdin=text)

        def rests(host: dict[str, Any]) -> bool:
            return _state(host) == "ready" and host["status"].get("poweredOn") is False

        await self._follow(kubectl, rests, READY_DEADLINE_S, "ready and powered off")

    async def _to_provisioned(self, kubectl: Kubectl, machine: MachineInfo, lab: Lab) -> None:
        base = f"http://{lab.host_address}/images"
        self.timeline.say(f"kubectl apply -f user-data.yaml; kubectl patch: image {base}/{IMAGE}")
        user_data = (
            "#cloud-config\n"
            "runcmd:\n"
            f'- [sh, -c, "echo {self._token} | tee /run/billet-token > /dev/ttyS0"]\n'
        )
        text = manifests.render_user_data(machine.name, user_data)
        (self._options.directory / "user-data.yaml").write_text(text)
        await kubectl.run("apply", "-f", "-", stdin=text)
        patch = manifests.render_image_patch(
            machine.name, f"{base}/{IMAGE}", f"{base}/images.md5sum"
        )
        body = msgspec.json.encode(patch).decode()
        await kubectl.run("patch", "baremetalhost", machine.name, "--type=merge", "-p", body)
        await self._follow(
            kubectl,
            lambda host: _state(host) == "provisioned",
            PROVISIONED_DEADLINE_S,
            "provisioned",
        )
        self.result.state = "provisioned"

    async def _proof(self, machine: MachineInfo) -> None:
        began = time.monotonic()
        self.timeline.say("waiting for the booted system's own proof on its serial console")
        console = Path(machine.console_path)
        while time.monotonic() - began < TOKEN_DEADLINE_S:
            if self._token.encode() in console.read_bytes():
                self.timeline.spend("first boot", began)
                self.timeline.say(f"[green]the user's data was read: {self._token}[/green]")
                self.result.userdata_token_seen = True
                return
            await asyncio.sleep(0.5)
        tail = console.read_bytes()[-2000:].decode(errors="replace")
        raise DemoError(
            f"no token on the console within {TOKEN_DEADLINE_S:.0f} s; it ends:\n{tail}"
        )

    async def _follow(self, kubectl: Kubectl, done: Any, deadline_s: float, goal: str) -> None:
        try:
            async with asyncio.timeout(deadline_s):
                async for host in kubectl.watch("baremetalhost", NAME):
                    if self.timeline.see(host):
                        await self._table(kubectl)
                    if done(host):
                        return
        except TimeoutError as error:
            described = await kubectl.run("describe", "baremetalhost", NAME)
            text = f"not {goal} within {deadline_s:.0f} s:\n{described}\n{self._log_tail()}"
            raise DemoError(text) from error
        raise DemoError(f"kubectl's watch ended before the host was {goal}:\n{self._log_tail()}")

    async def _table(self, kubectl: Kubectl) -> None:
        self._console.print("$ kubectl get baremetalhost -n metal3", style="dim")
        table = await kubectl.run("get", "baremetalhost")
        self._console.print(table.rstrip(), highlight=False, soft_wrap=True)

    async def _versions(self, kubectl: Kubectl) -> None:
        version = await kubectl.json("version")
        self.result.versions = {
            "billet": importlib.metadata.version("billet-lab"),
            "kubectl": version["clientVersion"]["gitVersion"],
            "api": version["serverVersion"]["gitVersion"],
            "python": sys.version.split()[0],
        }
        self.result.image_bytes = (self._options.image_dir / IMAGE).stat().st_size
        files = [self._options.ramdisk_dir / name for name in ("vmlinuz", "initramfs")]
        self.result.ramdisk_bytes = sum(file.stat().st_size for file in files)

    async def _events(self, kubectl: Kubectl) -> None:
        self._console.print("$ kubectl get events -n metal3", style="dim")
        events = await kubectl.run("get", "events")
        self._console.print(events.rstrip(), highlight=False, soft_wrap=True)
        self.result.agent_first_call_s = [float(found) for found in _FIRST_CALL.findall(events)]

    def _how_to_look(self, machine: MachineInfo, lab: Lab) -> None:
        home = self._options.directory
        lines = (
            f"kubectl --kubeconfig {home / 'state' / 'kubeconfig'} get baremetalhost -A",
            f"billet status --kubeconfig {home / 'state' / 'kubeconfig'}",
            f"tail -f {machine.console_path}      # the machine's serial console",
            f"tail -f {home / 'server.log'}",
            f"ip netns exec {lab.namespace} ping 172.22.0.1",
        )
        self._console.print("\nLook around:")
        for line in lines:
            self._console.print(f"  {line}", highlight=False, soft_wrap=True)

    def _log_tail(self) -> str:
        log = self._options.directory / "server.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return "\n".join(["the server's log ends:", *lines[-15:]])

    def _write(self) -> None:
        path = self._options.directory / "result.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self.result), indent=2) + b"\n")


def _clear(directory: Path) -> None:
    """Remove what an earlier run left, except a lab that a crash left (`billet lab down`)."""
    for name in ("state", "server.log", "result.json"):
        path = directory / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    directory.mkdir(parents=True, exist_ok=True)


def _listening_socket() -> socket.socket:
    """Return a listener on loopback: port 6443, or any where that is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", 6443))
    except OSError:
        listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener


def _state(host: dict[str, Any]) -> str:
    status = host.get("status") or {}
    return str((status.get("provisioning") or {}).get("state", ""))


def _rss_mib(pid: int, field: str = "VmRSS") -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0
