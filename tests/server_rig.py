"""The server as a user runs it, and machines that do over the wire what real ones do.

`Server` is `billet up` in a process of its own, to be killed and started again on the same
ports. `Machine` is what stands behind a simulated BMC: it watches its own power, boots when it
is switched on, asks the boot services, starts a scripted `Agent` that speaks the real link, and
keeps what its disk holds. `World` is a user with kubectl.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import yaml

from billet_agent.settings import link_url, parse_settings, read_cmdline
from billet_agent.trust import HostClock, TrustError, trust_server
from billet_lab.kubectl import Kubectl, KubectlError
from billet_lab.processes import die_with_parent
from billet_wire import (
    CancelJob,
    Clean,
    CleanResult,
    CpuReport,
    Deploy,
    DeployResult,
    DiskReport,
    FirmwareReport,
    Goodbye,
    HandOver,
    Hello,
    Inspect,
    InspectResult,
    Job,
    JobProblem,
    JobReport,
    NicReport,
    Progress,
    Refused,
    RunJob,
    VendorReport,
    decode_server,
    encode,
)
from clusters import new_namespace
from contract.bmc_worlds import PASSWORD, Simulator

BILLET = Path(sys.executable).with_name("billet")
DEADLINE_S = 40.0
IMAGE = "http://172.22.0.2/images/CentOS-7-x86_64-GenericCloud-1901.qcow2"
IMAGE_2 = "http://172.22.0.2/images/CentOS-8.qcow2"
USER_DATA = "#cloud-config\nhostname: user-data-marker-5d1e\n"
_numbers = itertools.count(1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """`billet up`, its files and its life."""

    def __init__(self, folder, kubeconfig=None, *, namespaces=(), address="127.0.0.1", options=()):
        self.folder, self._foreign = folder, kubeconfig
        self._namespaces = tuple(namespaces)
        self.address, self.options = address, options
        self.state, self.log = folder / "state", folder / "server.log"
        self.http_port, self.agent_port, self._api_port = free_port(), free_port(), free_port()
        self.metrics_port = free_port()
        self.ramdisk = folder / "ramdisk"
        self.ramdisk.mkdir()
        (self.ramdisk / "vmlinuz").write_bytes(b"kernel" * 1000)
        (self.ramdisk / "initramfs").write_bytes(b"initramfs" * 5000)
        self.process = None

    @property
    def kubeconfig(self):
        return self._foreign or self.state / "kubeconfig"

    @property
    def url(self):
        return f"http://{self.address}:{self.http_port}"

    def text(self):
        """Everything the server ever said, on both streams."""
        out = self.folder / "server.out"
        return self.log.read_text() + "".join(
            path.read_text() for path in (out, *self.state.glob("agent-logs/*")) if path.is_file()
        )

    def spawn(self):
        """Start the process; it dies with the test's. From the main thread only."""
        api = ["--kubeconfig", self._foreign] if self._foreign else ["--api-port", self._api_port]
        command = [
            *(BILLET, "up", "--state-dir", self.state, *api, "--address", self.address),
            *("--dhcp", "off", "--http-port", self.http_port, "--agent-port", self.agent_port),
            *("--metrics-port", self.metrics_port),
            *("--power-poll", "2", "--retry-base", "0.5", "--agent-lost", "8"),
            *("--bmc-timeout", "1.5", "--hand-over-timeout", "5"),
            *("--ramdisk-dir", self.ramdisk),
            *(word for name in self._namespaces for word in ("--namespace", name)),
            *self.options,
        ]
        with (self.folder / "server.out").open("wb") as out, self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL, stdout=out, stderr=log,
                preexec_fn=die_with_parent(),  # noqa: PLW1509
            )  # fmt: skip

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"billet up ended {self.process.returncode}:\n{self.text()}")
        return "billet: ready" in (self.folder / "server.out").read_text()

    def start(self):
        self.spawn()
        end = time.monotonic() + DEADLINE_S
        while not self.is_ready():
            assert time.monotonic() < end, self.text()
            time.sleep(0.05)

    async def restart(self):
        """Start it while the machines live on."""
        self.spawn()
        async with asyncio.timeout(DEADLINE_S):
            while not self.is_ready():
                await asyncio.sleep(0.05)

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait(10)

    async def crash(self):
        """kill -9, and start it again."""
        self.kill()
        await self.restart()

    def stop(self):
        """SIGTERM; returns the exit status."""
        if self.process is None or self.process.poll() is not None:
            return None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait(10)


def inventory(mac, ram_mebibytes):
    """What the scripted agent finds on its machine."""
    return InspectResult(
        hostname="node01",
        cpu=CpuReport("x86_64", "QEMU Virtual CPU", 2000.4, ("sse", "avx"), 2),
        ram_mebibytes=ram_mebibytes,
        disks=(DiskReport("/dev/vda", 8 << 30, False, "HDD"),),
        nics=(NicReport("eth0", mac, "virtio", "172.22.0.100", 10000, True),),
        system_vendor=VendorReport("QEMU", "Lab", "1"),
        firmware=FirmwareReport("SeaBIOS", "1.16", "2020-01-01"),
        boot_mode="legacy",
        root_disk="/dev/vda",
    )


class Agent:
    """A scripted agent: the real link, CA pinned; jobs are figures in `Machine`."""

    def __init__(self, machine, kernel_line):
        self.machine, self.kernel_line = machine, kernel_line
        self.settings = parse_settings(read_cmdline(kernel_line))
        self.id = secrets.token_hex(16)
        self.jobs, self.refusals = {}, []
        self.connected = asyncio.Event()
        self._socket, self._tasks, self._over = None, {}, False
        self.is_silent = False
        self.calls = 0  # of servers, one after the other; it stays with one that lets it in

    async def run(self):
        """Serve until the hand-over; the machine then reboots."""
        try:
            while not self._over:
                with contextlib.suppress(aiohttp.ClientError, OSError, TrustError):
                    await self.talk()
                self.calls += 1
                self.connected.clear()
                if not self._over:
                    await asyncio.sleep(0.2)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def talk(self):
        """One connection, to its end."""
        settings = self.settings
        async with aiohttp.ClientSession() as session:
            url = settings.ca_url_of(self.calls)
            trusted, _ = await trust_server(session, url, settings.ca_sha256, HostClock())
            server = settings.servers[self.calls % len(settings.servers)]
            async with session.ws_connect(link_url(server), ssl=trusted) as link:
                jobs = tuple(self.jobs.values())
                hello = Hello(
                    settings.token, self.id, (self.machine.mac,), "legacy", 5.0, "1.0", jobs=jobs
                )
                await link.send_str(encode(hello))
                self._socket = link
                try:
                    async for frame in link:
                        if frame.type is aiohttp.WSMsgType.TEXT:
                            await self._take(decode_server(frame.data))
                finally:
                    self._socket = None

    async def _take(self, message):
        match message:
            case Refused():
                self.refusals.append(message.reason)
            case RunJob(job=job):
                if job.id not in self.jobs:
                    self.machine.ran.append((self.id, job.id, job.params))
                    self.jobs[job.id] = JobReport(job.id, _kind(job), "running")
                    self._tasks[job.id] = asyncio.create_task(self._work(job))
                await self._say(self.jobs[job.id])
            case CancelJob(id=job_id):
                self.machine.cancelled.append(job_id)
                self._tasks[job_id].cancel()
            case _:
                self.connected.set()

    async def _work(self, job):
        kind, machine = _kind(job), self.machine
        try:
            report = await machine.work(job)
        except asyncio.CancelledError:
            if job.id not in machine.cancelled:
                raise
            report = JobReport(job.id, kind, "cancelled")
        self.jobs[job.id] = report
        await self._say(report)
        if kind == "hand-over":
            self._over = True
            if self._socket is not None:
                await self._socket.send_str(encode(Goodbye("reboot")))
                await self._socket.close()

    def fall_silent(self):
        """Leave the network for good, as a machine whose kernel hangs."""
        self._over = self.is_silent = True
        self._socket._response.connection.transport.abort()

    def drop(self, job_id):
        """Forget a job, as if the order had never arrived."""
        self._tasks.pop(job_id).cancel()
        del self.jobs[job_id]

    async def progress(self, job_id, **figures):
        self.jobs[job_id] = JobReport(job_id, "deploy", "running", progress=Progress(**figures))
        await self._say(self.jobs[job_id])

    async def _say(self, report):
        if self._socket is not None:
            with contextlib.suppress(ConnectionError):
                await self._socket.send_str(encode(report))


def _kind(job):
    return "hand-over" if isinstance(job.params, HandOver) else type(job.params).__name__.lower()


@dataclass
class Machine:
    """The machine behind a BMC. ``holds`` are gates by job kind (and "post"): set means go."""

    bmc: Simulator
    kind: str
    server: Server
    mac: str = ""
    disk: str = "empty"
    ram_mebibytes: int = 4096
    booted: list = field(default_factory=list)
    scripts: list = field(default_factory=list)
    agents: list = field(default_factory=list)
    ran: list = field(default_factory=list)
    cancelled: list = field(default_factory=list)
    problems: dict = field(default_factory=dict)
    holds: dict = field(default_factory=dict)
    agent_command: tuple = ()

    def __post_init__(self):
        number = next(_numbers)
        self.mac = f"00:c2:fc:3b:{number // 256:02x}:{number % 256:02x}"
        assert self.bmc.order("reset") == "done"

    @property
    def address(self):
        if self.kind == "ipmi":
            return f"ipmi://127.0.0.1:{self.bmc.port}"
        return f"redfish+http://127.0.0.1:{self.bmc.port}/redfish/v1/Systems/machine-1"

    @property
    def agent(self):
        return self.agents[-1]

    def switch(self, setting):
        assert self.bmc.order(setting) == "done"

    def show(self):
        return json.loads(self.bmc.order("show"))

    def hold(self, kind):
        """Let jobs of this kind (or the firmware: "post") wait until the gate is set."""
        return self.holds.setdefault(kind, asyncio.Event())

    def release(self, kind):
        self.holds.pop(kind).set()

    def jobs(self, kind):
        """(agent id, job id) of each job of a kind that an agent started."""
        kinds = {"inspect": Inspect, "clean": Clean, "deploy": Deploy, "hand-over": HandOver}
        return [(agent, job) for agent, job, what in self.ran if isinstance(what, kinds[kind])]

    async def run(self):
        """Live: boot whenever the power comes or the machine restarts, stop when it goes."""
        life, seen = None, 0
        try:
            while True:
                state = self.show()
                boots = len(state["boots"])
                if life is not None and (boots != seen or not state["powered_on"]):
                    life = await _end(life)
                if boots < seen:
                    seen = 0
                if boots > seen and state["powered_on"]:
                    life = asyncio.create_task(self._boot(state["boots"][-1]))
                    seen = boots
                if life is not None and life.done():
                    life.result()
                await asyncio.sleep(0.05)
        finally:
            await _end(life)

    async def _boot(self, target):
        if "post" in self.holds:
            await self.holds["post"].wait()
        line = None
        if target != "Hdd":
            # Firmware that was told nothing tries the network first, as many do.
            line = await self._netboot()
        if line is None:
            self.booted.append(self.disk)
            return
        if self.agent_command:
            await self._run_program(line)
            return
        agent = Agent(self, line)
        self.agents.append(agent)
        await agent.run()
        if agent.is_silent:
            return
        assert self.bmc.order("reboot") == "done"

    async def _netboot(self):
        """iPXE: the first script, the host's own, kernel and ramdisk. None: on to the disk."""
        script = ""
        while "echo" not in script:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                script = await self._script()
            await asyncio.sleep(0.1)
        self.scripts.append(script)
        lines = [line.split() for line in script.splitlines()]
        kernel = [words for words in lines if words[:1] == ["kernel"]]
        return " ".join(kernel[0][2:]) if kernel else None

    async def _script(self):
        async with aiohttp.ClientSession(self.server.url, raise_for_status=True) as http:
            async with http.get("/boot.ipxe") as answer:
                assert "chain --replace --autofree /boot/script?mac=" in await answer.text()
            async with http.get("/boot/script", params={"mac": self.mac}) as answer:
                script = await answer.text()
            for line in script.splitlines():
                words = line.split()
                if words[:1] in (["kernel"], ["initrd"]):
                    path = next(word for word in words if word.startswith("/boot/"))
                    async with http.get(path) as answer:
                        await answer.read()
        return script

    async def _run_program(self, line):
        """The real agent instead of the scripted one; the power cut ends it."""
        cmdline = self.server.folder / f"cmdline-{self.mac.replace(':', '')}"
        cmdline.write_text(line)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "billet_agent", "--no-reboot", "--cmdline", str(cmdline),
            *self.agent_command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, preexec_fn=die_with_parent(),
        )  # fmt: skip
        try:
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def work(self, job: Job) -> JobReport:
        """Do a job as a real agent would, on this machine's one disk."""
        kind = _kind(job)
        if getattr(job.params, "protect_data", False) and self.disk != "empty":
            return JobReport(job.id, kind, "failed", problem=held(self.disk))
        if isinstance(job.params, Deploy):
            self.disk = "half"
            await self.agent.progress(job.id, step="write", percent=50.0, done_bytes=1 << 20)
        if kind in self.holds:
            await self.holds[kind].wait()
        if self.problems.get(kind):
            problem = self.problems[kind].pop(0)
            self.disk = "wiped" if kind == "deploy" else self.disk
            return JobReport(job.id, kind, "failed", problem=problem)
        match job.params:
            case Inspect():
                return JobReport(
                    job.id, kind, "succeeded", inspect=inventory(self.mac, self.ram_mebibytes)
                )
            case Clean():
                self.disk = "empty"
                return JobReport(job.id, kind, "succeeded", clean=CleanResult(("/dev/vda",)))
            case Deploy(image=image):
                self.disk = image.url
                result = DeployResult(
                    "/dev/vda", "the only disk", 1 << 20, 8 << 30, "md5:" + "0" * 32, "legacy",
                    None, {"write": 1.0},
                )  # fmt: skip
                return JobReport(job.id, kind, "succeeded", deploy=result)
        return JobReport(job.id, kind, "succeeded")


async def _end(task):
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def secret(name, **values):
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": name}, "data": data}  # fmt: skip


def problem(name, message, *, advice="correct it"):
    return JobProblem(name, message, evidence="raw answer", advice=advice)


def held(disk):
    """Refuse to wipe a disk, as an agent does that was told to protect its data."""
    return problem("data-protected", f"this would be lost: /dev/vda1: {disk}")


class World:
    """One user, one namespace, kubectl; the machines live in the background."""

    def __init__(self, server, namespace, group):
        self.server, self.namespace, self._group = server, namespace, group
        self.kubectl = Kubectl(server.kubeconfig, namespace)
        self.states: dict[str, list[str]] = {}
        self.latest: dict[str, dict] = {}
        self._generations: dict[str, int] = {}
        self._news = asyncio.Condition()
        self.tasks: list[asyncio.Task] = []

    def plug_in(self, machine):
        self.tasks.append(self._group.create_task(machine.run(), name=f"machine-{machine.mac}"))
        return machine

    @staticmethod
    def render(objects):
        return yaml.safe_dump_all(objects)

    async def apply(self, *objects):
        return await self.kubectl.run("apply", "-f", "-", stdin=self.render(objects))

    def manifests(self, machine, name="metal3-node01", *, password=PASSWORD, **spec):
        """Return the seed article's Secret and BareMetalHost."""
        credentials = f"{name}-credentials"
        host = {
            "apiVersion": "metal3.io/v1alpha1",
            "kind": "BareMetalHost",
            "metadata": {"name": name},
            "spec": {
                "bmc": {"address": machine.address, "credentialsName": credentials},
                "bootMACAddress": machine.mac,
                "description": "",
                "hardwareProfile": "libvirt",
                "online": False,
            } | spec,
        }  # fmt: skip
        return secret(credentials, username="admin", password=password), host

    async def register(self, machine, name="metal3-node01", **more):
        await self.apply(*self.manifests(machine, name, **more))

    async def patch(self, spec, name="metal3-node01"):
        body = json.dumps({"spec": spec})
        edited = await self.kubectl.json("patch", "baremetalhost", name, "--type=merge", "-p", body)
        self._generations[name] = edited["metadata"]["generation"]

    async def provision(self, name="metal3-node01", *, image=IMAGE, **more):
        """Do what the seed's Machine brought about: userData Secret, image, checksum, online."""
        await self.apply(secret(f"{name}-user-data", userData=USER_DATA))
        await self.patch(
            {
                "online": True,
                "image": {"url": image, "checksum": f"{image}.md5sum"},
                "userData": {"name": f"{name}-user-data", "namespace": self.namespace},
                **more,
            },
            name,
        )

    async def patch_status(self, status, name="metal3-node01"):
        """Write status as another controller would."""
        patch = ("patch", "--subresource=status", "--type=merge", "-p")
        await self.kubectl.run(*patch, json.dumps({"status": status}), f"baremetalhost/{name}")

    def forget(self, name):
        """Begin anew with what was seen of a host: another of its name is made."""
        self.states.pop(name)
        self.latest.pop(name)
        self._generations.pop(name, None)

    @staticmethod
    async def rest(seconds):
        """Give the server time to do what it must not do; it reads the power every 2 s."""
        await asyncio.sleep(seconds)

    async def annotate(self, *words, name="metal3-node01"):
        """`kubectl annotate`: KEY=VALUE sets, KEY- removes."""
        await self.kubectl.run("annotate", "--overwrite", "baremetalhost", name, *words)

    async def host(self, name="metal3-node01"):
        return await self.kubectl.json("get", "baremetalhost", name)

    async def follow(self, version):
        """Keep up with the hosts from a resource version on, also past an API that went away."""
        path = f"/apis/metal3.io/v1alpha1/namespaces/{self.namespace}/baremetalhosts"
        while True:
            with contextlib.suppress(KubectlError):
                version = version or await self._list(path)
                version = await self._watch(path, version)
            await asyncio.sleep(0.1)

    async def _list(self, path):
        """Take the hosts as they are; return the version to go on from."""
        listed = json.loads(await self.kubectl.run("get", "--raw", path))
        for host in listed["items"]:
            await self._note(host)
        return listed["metadata"]["resourceVersion"]

    async def _watch(self, path, version):
        """Take every change until the API ends the watch; return the version to go on from."""
        async with contextlib.aclosing(self.kubectl.watch_since(path, version)) as events:
            async for event in events:
                if event["type"] == "ERROR":
                    assert event["object"]["code"] == 410, event
                    return ""
                version = event["object"]["metadata"]["resourceVersion"]
                await self._note(event["object"])
        return version

    async def _note(self, host):
        assert host["kind"] == "BareMetalHost", host
        name = host["metadata"]["name"]
        self.latest[name] = host
        states = self.states.setdefault(name, [])
        if state_of(host) and states[-1:] != [state_of(host)]:
            states.append(state_of(host))
        async with self._news:
            self._news.notify_all()

    async def until(self, ready, name="metal3-node01", *, deadline_s=DEADLINE_S):
        """Wait until ``ready(host)``, in a version not older than this user's last edit."""

        def is_so():
            host = self.latest.get(name)
            fresh = host and host["metadata"]["generation"] >= self._generations.get(name, 0)
            return fresh and "status" in host and ready(host)

        try:
            async with asyncio.timeout(deadline_s), self._news:
                await self._news.wait_for(is_so)
        except TimeoutError:
            raise AssertionError(
                f"{name} did not get there; states {self.states.get(name)}; it is\n"
                f"{yaml.safe_dump(self.latest.get(name))}\n"
                + "\n".join(self.server.text().splitlines()[-40:])
            ) from None
        return self.latest[name]

    async def until_state(self, state, name="metal3-node01", **more):
        """Wait for the state without an error on it."""
        return await self.until(
            lambda host: state_of(host) == state and not host["status"]["errorType"], name, **more
        )

    async def until_problem(self, problem_id, name="metal3-node01", **more):
        """Wait for the problem; it must be told on the object as the design says."""
        host = await self.until(
            lambda host: host["status"].get("problem", {}).get("id") == problem_id,
            name,
            **more,
        )
        status = host["status"]
        assert status["operationalStatus"] == "error"
        assert status["errorType"]
        assert status["errorCount"] >= 1
        assert problem_id in status["errorMessage"]
        assert name in status["errorMessage"]
        assert status["problem"]["advice"] in status["errorMessage"]
        return host

    async def until_off(self, name="metal3-node01"):
        return await self.until(lambda host: host["status"].get("poweredOn") is False, name)

    async def until_gone(self, name="metal3-node01", *, deadline_s=DEADLINE_S):
        async with asyncio.timeout(deadline_s):
            while (await self.kubectl.run("get", "baremetalhosts", "-o", "name")).find(name) >= 0:
                await asyncio.sleep(0.2)

    async def events(self, kind=None):
        """Return the Events' texts "reason: message", as ``kubectl get events`` knows them."""
        found = (await self.kubectl.json("get", "events"))["items"]
        return [
            f"{event['reason']}: {event['message']}"
            for event in found
            if kind is None or event["type"] == kind
        ]

    async def until_event(self, words):
        """Wait for a Warning that holds these words: it is written just after the status."""
        async with asyncio.timeout(DEADLINE_S):
            while not any(words in event for event in await self.events("Warning")):
                await asyncio.sleep(0.2)

    async def row(self, name="metal3-node01"):
        """Return ``kubectl get baremetalhost`` as {column: value}."""
        table = await self.kubectl.run("get", "baremetalhost", name)
        header, row = table.splitlines()
        columns = [word for word in header.split("  ") if word.strip()]
        starts = [header.index(word.strip()) for word in columns]
        cells = [row[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
        return dict(zip([word.strip() for word in columns], cells, strict=True))

    async def clear(self):
        """Take every object away without the machines' help."""
        with contextlib.suppress(KubectlError):
            kinds = "baremetalhosts,hardwaredata,machines"
            names = (await self.kubectl.run("get", kinds, "-o", "name")).split()
            if names:
                await self.kubectl.run("delete", *names, "--wait=false")
                for name in names:
                    with contextlib.suppress(KubectlError):
                        patch = '{"metadata":{"finalizers":[]}}'
                        await self.kubectl.run("patch", name, "--type=merge", "-p", patch)


async def eventually(condition, deadline_s=DEADLINE_S):
    """Wait until ``condition()``: for what happens on a machine, which tells nobody."""
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.05)


def state_of(host):
    return str((host.get("status") or {}).get("provisioning", {}).get("state", ""))


@contextlib.asynccontextmanager
async def world(server, namespace=""):
    """Return a user with a namespace of its own, which goes with the user."""
    namespace = namespace or new_namespace()
    async with asyncio.TaskGroup() as group:
        made = World(server, namespace, group)
        version = (await made.kubectl.json("create", "namespace", namespace))["metadata"][
            "resourceVersion"
        ]
        made.tasks.append(group.create_task(made.follow(version), name="follow"))
        try:
            yield made
        finally:
            await made.clear()
            with contextlib.suppress(KubectlError):
                await made.kubectl.run("delete", "namespace", namespace, "--wait=false")
            for task in made.tasks:
                task.cancel()
