"""The whole engine on in-memory twins, in virtual time: API, one BMC, a scripted agent."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from billet_server import errors
from billet_server.core.bootplan import RamdiskBoot
from billet_server.core.terms import BootDevice, PowerState
from billet_server.engine.controller import Controller
from billet_server.engine.directory import AgentAddress, Directory
from billet_server.gateway import token
from billet_server.memory.agents import FakeAgent, MemoryAgents
from billet_server.memory.bmc import BootChoice, MemoryBmcs, MemoryMachine
from billet_server.memory.clock import ManualClock
from billet_server.memory.kube import MemoryKube
from billet_server.ports import BARE_METAL_HOST, EVENT, Metrics, Object
from billet_wire import CleanResult, Deploy, DeployResult, Hello, Job, JobReport
from core_world import INVENTORY, MAC

NS, NAME = "metal3", "node01"
BMC = "ipmi://172.22.0.1:6230"
KEY = b"k" * 32


class Tokens:
    def mint(self, host_uid: str, mac: str, nonce: str) -> str:
        return token.mint(KEY, host_uid, mac, nonce)

    def read(self, text: str) -> token.Claim | None:
        return token.read(KEY, text)


class Rig:
    """`server` is replaced by a new one on `restart`: what a killed and restarted process has."""

    def __init__(self, metrics: Metrics | None = None) -> None:
        self.metrics = metrics
        self.clock = ManualClock()
        self.api = MemoryKube(clock=self.clock)
        self.bmcs = MemoryBmcs(answer_s=0.01)
        self.machine = self.bmcs.add(MemoryMachine(BMC, "admin", "secret"))
        self.machine.on_boot = self._booted
        self.netboots = True
        self.deployed: list[Deploy] = []
        self.disk = "empty"
        self.agent: FakeAgent | None = None
        self.script: Callable[[Job], list[JobReport]] = self.obey
        self._tasks: set[asyncio.Task[None]] = set()
        self._agent_count = 0
        self._server: asyncio.Task[None] | None = None
        self.build()

    def build(self) -> None:
        address = AgentAddress("172.22.0.1:8443", "ab" * 32, "http://172.22.0.1:8080/ca.pem")
        self.directory = Directory(self.api, self.clock, Tokens(), address)
        self.agents = MemoryAgents(self.directory, now=self.clock.now)
        self.controller = Controller(
            self.api, self.bmcs, self.agents, self.clock, workers=4, metrics=self.metrics
        )
        self.directory.attach(self.controller)

    async def start(self) -> None:
        self._server = asyncio.create_task(self.controller.run())
        await self.clock.settle()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.cancel()
            await asyncio.gather(self._server, return_exceptions=True)
            self._server = None
        self.controller.queue.close()

    async def restart(self) -> None:
        """Kill the server; a living agent reconnects with all it knows."""
        await self.stop()
        agent = self.agent
        self.build()
        await self.start()
        if agent is not None and self.machine.power is PowerState.ON:
            hello = Hello(**{
                name: getattr(agent.hello, name) for name in agent.hello.__struct_fields__
                if name != "jobs"
            }, jobs=tuple(agent.jobs.values()))  # fmt: skip
            await self.clock.advance(1)
            self.agent = await self.agents.connect(hello, script=self.script)

    async def host(self, name: str = NAME) -> Object:
        return await self.api.get(BARE_METAL_HOST, NS, name)

    async def status(self, name: str = NAME) -> Object:
        return (await self.host(name)).get("status") or {}

    async def state(self, name: str = NAME) -> str:
        return (await self.status(name)).get("provisioning", {}).get("state", "")

    async def add_host(self, name: str = NAME, **spec: object) -> None:
        body = {
            "bmc": {"address": BMC, "credentialsName": f"{name}-bmc"},
            "bootMACAddress": MAC,
            "online": False,
        }
        await self.api.create(
            BARE_METAL_HOST,
            {
                "apiVersion": "metal3.io/v1alpha1",
                "kind": "BareMetalHost",
                "metadata": {"name": name, "namespace": NS},
                "spec": body | spec,
            },
        )

    def put_secret(self, password: str = "secret", name: str = NAME) -> None:
        self.api.put_secret(NS, f"{name}-bmc", username="admin", password=password)

    async def edit(self, **spec: object) -> None:
        await self.api.patch(BARE_METAL_HOST, NS, NAME, {"spec": spec})

    async def until(self, condition: Callable, *, limit_s: float = 7200) -> None:
        """Virtual seconds pass until the condition (async) holds."""
        passed = 0.0
        while not await condition():
            if passed > limit_s:
                raise AssertionError(f"never: {await self.status()}")
            await self.clock.advance(1)
            # Config drives are made in a real thread.
            await asyncio.sleep(0.001)
            passed += 1

    async def until_state(self, *states: str, limit_s: float = 7200) -> None:
        async def reached() -> bool:
            return await self.state() in states

        await self.until(reached, limit_s=limit_s)

    async def events(self) -> list[tuple[str, str]]:
        await self.clock.settle()
        listed = await self.api.list(EVENT, NS)
        return [(event["type"], event["reason"]) for event in listed.items]

    async def cut_power(self) -> None:
        self.machine.power = PowerState.OFF
        if self.agent is not None:
            await self.agent.drop()

    def _booted(self, choice: BootChoice | None) -> None:
        if self.agent is not None:
            lost, self.agent = self.agent, None
            lost_task = asyncio.ensure_future(lost.drop())
            self._tasks.add(lost_task)
        if choice is not None and choice.device is BootDevice.NETWORK and self.netboots:
            task = asyncio.ensure_future(self._ramdisk())
            self._tasks.add(task)

    async def _ramdisk(self) -> None:
        await self.clock.sleep(5)
        plan = self.directory.boot_plan(MAC)
        self.directory.boot_seen(MAC, "dhcp")
        self.directory.boot_seen(MAC, "script")
        if not isinstance(plan, RamdiskBoot):
            return
        await self.clock.sleep(20)
        text = next(a for a in plan.arguments if a.startswith("billet.token="))
        self._agent_count += 1
        name = f"agent-{self._agent_count}"
        hello = Hello(text.partition("=")[2], name, (MAC,), "legacy", 9, "0")
        self.agent = await self.agents.connect(hello, script=self._ask_script)

    def _ask_script(self, job: Job) -> list[JobReport]:
        return self.script(job)

    def obey(self, job: Job) -> list[JobReport]:
        kind = job.id.partition("/")[0]
        if kind == "inspect":
            return [JobReport(job.id, kind, "succeeded", inspect=INVENTORY)]
        if kind == "clean":
            self.disk = "wiped"
            return [JobReport(job.id, kind, "succeeded", clean=CleanResult(("/dev/vda",)))]
        if isinstance(job.params, Deploy):
            self.deployed.append(job.params)
            self.disk = job.params.image.url
            result = DeployResult("/dev/vda", "only disk", 1, 2, "md5:0", "legacy", None, {})
            running = JobReport(job.id, kind, "running")
            return [running, JobReport(job.id, kind, "succeeded", deploy=result)]
        agent = self.agent
        assert agent is not None
        self._tasks.add(asyncio.ensure_future(agent.goodbye("reboot")))
        return []


@contextlib.asynccontextmanager
async def running_rig(
    *,
    secret: bool = True,
    host: bool = True,
    prepare: Callable[[Rig], None] = lambda _: None,
    metrics: Metrics | None = None,
) -> AsyncIterator[Rig]:
    rig = Rig(metrics)
    prepare(rig)
    rig.api.put_namespace(NS)
    if secret:
        rig.put_secret()
    if host:
        await rig.add_host()
    await rig.start()
    try:
        yield rig
    finally:
        await rig.stop()
        with contextlib.suppress(errors.BilletError):
            await rig.bmcs.close()
