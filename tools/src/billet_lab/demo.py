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
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from billet_lab import console as serial
from billet_lab import demo_manifests as manifests
from billet_lab import processes, teardown
from billet_lab.accel import AccelChoice
from billet_lab.control import Firmware
from billet_lab.demo_story import Ledger, Result, Timeline, fit_table, read_view
from billet_lab.kubectl import Kubectl, KubectlError
from billet_lab.lab import Lab, LabError
from billet_lab.server_process import ServerError, ServerProcess
from billet_lab.specs import BmcKind, Disk, MachineInfo, MachineSpec

NAME = "metal3-node01"
MAC = "00:c2:fc:3b:e1:01"
IMAGE = "billet-demo.qcow2"
READY_DEADLINE_S = 900.0
PROVISIONED_DEADLINE_S = 1500.0
TOKEN_DEADLINE_S = 900.0
_FIRST_CALL = re.compile(r"agent called (\d+) s after kernel start")


class DemoError(Exception):
    """The demo did not reach its end; the message says where, why and what to look at."""


class Options(msgspec.Struct, frozen=True):
    """What the demo runs with. ``directory`` gets all that it writes; the others are inputs."""

    directory: Path
    ramdisk_dir: Path
    image_dir: Path
    firmware: Firmware = "bios"
    bmc: BmcKind = "ipmi"
    accel: AccelChoice = "auto"
    memory_mib: int = 3072


class Demo:
    """One run. The result is written whatever happens."""

    def __init__(self, options: Options, console: Console) -> None:
        self._options, self._console = options, console
        self.ledger = Ledger()
        self.timeline = Timeline(console, self.ledger)
        self.result = Result(firmware=options.firmware, bmc=options.bmc)
        self._token = f"billet-token-{secrets.token_hex(8)}"
        self._host: dict[str, Any] = {}
        self._server: ServerProcess | None = None

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Result]:
        """Run to the proof, then yield while everything is still up. Raises DemoError."""
        options = self._options
        for path in (options.ramdisk_dir / "vmlinuz", options.image_dir / IMAGE):
            if not path.is_file():
                raise DemoError(f"{path} is missing; `make demo` builds it")
        await _clear(options.directory)
        try:
            async with contextlib.AsyncExitStack() as stack:
                with self.timeline:
                    await self._story(stack)
                self._write()
                yield self.result
        except asyncio.CancelledError:
            self.result.error = self.result.error or self._unfinished("interrupted")
            raise
        except (LabError, ServerError, KubectlError) as error:
            self.result.error = str(error)
            raise DemoError(f"{error}\n{self._where()}".strip()) from error
        except BaseException as error:
            self.result.error = str(error)
            raise
        finally:
            self._write()

    async def _story(self, stack: contextlib.AsyncExitStack) -> None:
        self.ledger.enter("start")
        options = self._options
        spec = MachineSpec(
            name=NAME,
            mac=MAC,
            firmware=options.firmware,
            bmc=options.bmc,
            memory_mib=options.memory_mib,
            disks=(Disk(size_bytes=8 << 30),),
        )
        kernels = (options.ramdisk_dir / "vmlinuz",)
        lab = await stack.enter_async_context(
            Lab(options.directory / "lab", [spec], accel_choice=options.accel, kernels=kernels)
        )
        self.result.accel = lab.accel
        machine = lab.machines[0]
        self.timeline.say(
            f"lab: {options.firmware} machine with a BMC at {machine.bmc_address},"
            f" {lab.accel} ({lab.accel_reason.partition(': ')[0]})"
        )
        images = [sys.executable, "-m", "billet_lab.image_server", str(options.image_dir)]
        await lab.run_in([*images, lab.host_address, "80"])
        server = await stack.enter_async_context(
            ServerProcess(
                lab,
                options.directory,
                options.ramdisk_dir,
                namespace=manifests.NAMESPACE,
                arguments=("--power-poll", "10", "--agent-call-timeout", "180"),
            )
        )
        self._server = server
        await server.start()
        await self._versions(server.kubectl)
        self.result.server_rss_mib["idle"] = _rss_mib(server.process.pid)
        await self._to_ready(server.kubectl, machine)
        await self._to_provisioned(server.kubectl, machine, lab)
        self.result.server_rss_mib["peak"] = _rss_mib(server.process.pid, "VmHWM")
        await self._proof(machine)
        self.ledger.end()
        await self._events(server.kubectl)
        self._console.print("\nTime per step:")
        self._console.print(self.ledger.table())
        self._how_to_look(machine, lab)

    async def _to_ready(self, kubectl: Kubectl, machine: MachineInfo) -> None:
        self.timeline.say("kubectl create namespace metal3; kubectl apply -f host.yaml")
        await kubectl.run("create", "namespace", manifests.NAMESPACE)
        text = manifests.render_host(machine)
        (self._options.directory / "host.yaml").write_text(text)
        await kubectl.run("apply", "-f", "-", stdin=text)

        def rests(host: dict[str, Any]) -> bool:
            status = host.get("status") or {}
            return read_view(host).state == "ready" and status.get("poweredOn") is False

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
            lambda host: read_view(host).state == "provisioned",
            PROVISIONED_DEADLINE_S,
            "provisioned",
        )

    async def _proof(self, machine: MachineInfo) -> None:
        self.ledger.enter("first boot")
        self.timeline.restart()
        self.timeline.say("waiting for the booted system's own proof on its serial console")
        path, end = Path(machine.console_path), time.monotonic() + TOKEN_DEADLINE_S
        while time.monotonic() < end:
            if self._token.encode() in path.read_bytes():
                self.timeline.say(f"[green]the user's data was read: {self._token}[/green]")
                self.result.userdata_token_seen = True
                return
            self.timeline.breathe(serial.tail(path, lines=1).strip(), label="first boot")
            await asyncio.sleep(0.5)
        raise DemoError(
            f"{NAME} is provisioned, but within {TOKEN_DEADLINE_S:.0f} s the booted system did"
            f" not write its token to its console. The console's last line:"
            f" {serial.tail(path, lines=1) or '(empty)'}\n{self._where()}"
        )

    async def _follow(
        self,
        kubectl: Kubectl,
        done: Callable[[dict[str, Any]], bool],
        deadline_s: float,
        goal: str,
    ) -> None:
        try:
            async with asyncio.timeout(deadline_s):
                async for host in kubectl.watch("baremetalhost", NAME):
                    self._host = host
                    self.result.state = read_view(host).state
                    if self.timeline.see(host):
                        await self._table(kubectl)
                    if done(host):
                        return
        except TimeoutError:
            text = self._unfinished(f"not {goal} within {deadline_s:.0f} s")
        else:
            text = self._unfinished(f"{self._why_it_ended()} before it was {goal}")
        raise DemoError(f"{text}\n{self._where()}")

    def _why_it_ended(self) -> str:
        code = self._server.process.returncode if self._server is not None else None
        return "kubectl's watch ended" if code is None else f"`billet up` ended with code {code}"

    def _unfinished(self, why: str) -> str:
        """Return one sentence: what ended, in which state, at which step, with which error."""
        view = read_view(self._host)
        doing = f"{view.step}: {view.message or view.figures}" if view.step else view.waiting
        text = f"{NAME}: {why}; it is {view.state or 'not registered yet'}"
        text += f" ({doing})" if doing else ""
        return f"{text}. {view.error}" if view.error else text

    def _where(self) -> str:
        """Return where the logs are that there are."""
        home = self._options.directory
        logs = {
            "server": home / "server.log",
            "agent": home / "state" / "agent-logs",
            "the machine's serial console": home / "lab" / NAME / "console.log",
        }
        found = [f"{path} ({what})" for what, path in logs.items() if path.exists()]
        return f"Logs: {', '.join(found)}" if found else ""

    async def _table(self, kubectl: Kubectl) -> None:
        self._console.print("$ kubectl get baremetalhost -n metal3", style="dim")
        table = await kubectl.run("get", "baremetalhost")
        table = fit_table(table, self._console.width)
        self._console.print(table.rstrip(), highlight=False, markup=False, soft_wrap=True)

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
        self._console.print("$ kubectl get events -n metal3 --sort-by=.lastTimestamp", style="dim")
        events = await kubectl.run("get", "events", "--sort-by=.lastTimestamp")
        self._console.print(events.rstrip(), highlight=False, markup=False, soft_wrap=True)
        found = (await kubectl.json("get", "events", "--sort-by=.lastTimestamp"))["items"]
        self.result.agent_first_call_s = first_calls(found)

    def _how_to_look(self, machine: MachineInfo, lab: Lab) -> None:
        home = self._options.directory
        lines = (
            f"kubectl --kubeconfig {home / 'state' / 'kubeconfig'} get baremetalhost -A",
            f"billet status --kubeconfig {home / 'state' / 'kubeconfig'}",
            f"tail -f {machine.console_path}      # the machine's serial console",
            f"tail -f {home / 'server.log'}",
            f"ip netns exec {lab.namespace} bash      # inside the machine's network",
        )
        self._console.print("\nLook around:")
        for line in lines:
            self._console.print(f"  {line}", highlight=False, soft_wrap=True)

    def _write(self) -> None:
        self.ledger.end()
        self.result.seconds = self.ledger.seconds()
        self.result.steps = self.ledger.step_seconds()
        path = self._options.directory / "result.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self.result), indent=2) + b"\n")


def first_calls(events: list[dict[str, Any]]) -> list[float]:
    """Return the seconds from kernel start to the agent's call, one for each boot.

    Two boots that took the same time are one Event with a count of two.
    """
    return [
        float(match[1])
        for event in events
        if (match := _FIRST_CALL.search(event["message"]))
        for _ in range(event.get("count") or 1)
    ]


async def _clear(directory: Path) -> None:
    """Remove what an earlier run left, also one that was killed. Raises DemoError if one runs."""
    lab = directory / "lab"
    if teardown.state_path(lab).exists():
        state = teardown.read_state(lab)
        if any(processes.identity(process[0]) == process for process in state.processes[:1]):
            raise DemoError(
                f"another demo is up in {directory}; end it (Ctrl-C there, or"
                f" `billet lab down --dir {lab}`), or choose another --dir"
            )
        troubles = await teardown.take_down(state)
        if troubles:
            raise DemoError(f"an earlier demo cannot be cleaned up: {'; '.join(troubles)}")
    for name in ("state", "server.log", "result.json"):
        path = directory / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    directory.mkdir(parents=True, exist_ok=True)


def _rss_mib(pid: int, field: str = "VmRSS") -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0  # it has ended; whoever waits for it says so
    for line in lines:
        if line.startswith(f"{field}:"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0
