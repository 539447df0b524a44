"""A world for `machine.step`: one machine, its BMC and agent as plain data, virtual time."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

import msgspec
from hypothesis import strategies as st

from billet_server.core import effects as ask
from billet_server.core.agents import AgentView
from billet_server.core.annotations import STATUS
from billet_server.core.booting import NETBOOT_PURPOSES
from billet_server.core.capacity import Seats
from billet_server.core.host import FINALIZER, Host, Image, Spec, Status, copy_status
from billet_server.core.host import Bmc as BmcSpec
from billet_server.core.machine import step
from billet_server.core.problems import Fault
from billet_server.core.seen import BootSeen, PowerSeen, Rules, SecretSeen, Seen
from billet_server.core.states import State, is_legal, read_state
from billet_server.core.terms import HostKey, PowerState
from billet_server.core.turn import EventNote, Step
from billet_wire import (
    Clean,
    CleanResult,
    CpuReport,
    DeployResult,
    DiskReport,
    FirmwareReport,
    HandOverResult,
    InspectResult,
    Job,
    JobProblem,
    JobReport,
    NicReport,
    VendorReport,
    reports_that_hold,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
IMAGE = Image(url="http://172.22.0.1/images/a.qcow2", checksum="http://172.22.0.1/a.md5sum")
MAC = "00:c2:fc:3b:e1:01"

INVENTORY = InspectResult(
    hostname="node01",
    cpu=CpuReport("x86_64", "QEMU", 2000.4, ("sse", "avx"), 2),
    ram_mebibytes=4096,
    disks=(DiskReport("/dev/vda", 8 << 30, False, "HDD"),),
    nics=(NicReport("eth0", MAC, "virtio", "172.22.0.100", 10000, True),),
    system_vendor=VendorReport("QEMU", "Lab", "1"),
    firmware=FirmwareReport("SeaBIOS", "1", "2020"),
    boot_mode="legacy",
    root_disk="/dev/vda",
)


def spec(**changes) -> Spec:
    values = {
        "bmc": BmcSpec("ipmi://172.22.0.1:6230", "node01-bmc"),
        "boot_mac_address": MAC,
        "online": False,
    }
    return Spec(**(values | changes))


REBOOTS = ("", '{"mode": "hard"}', '{"force": true}', '{"mode": "hard", "force": true}', "{", "[]")
DETACHMENTS = ("", "yes", '{"force": true}', '{"deleteAction": "delay"}', '{"deleteAction": 1}')


def annotation_edits() -> st.SearchStrategy[tuple[str, str | None]]:
    """What people and controllers do to annotations: a key and its new value, None takes it off."""
    reboots = st.tuples(
        st.sampled_from(("reboot.metal3.io", "reboot.metal3.io/a", "reboot.metal3.io/b")),
        st.none() | st.sampled_from(REBOOTS) | st.text(max_size=8),
    )
    detached = st.tuples(
        st.just("baremetalhost.metal3.io/detached"),
        st.none() | st.sampled_from(DETACHMENTS) | st.text(max_size=8),
    )
    paused = st.tuples(st.just("baremetalhost.metal3.io/paused"), st.sampled_from((None, "")))
    return reboots | detached | paused


@dataclass
class World:
    """What is true outside. Faults are switches; `run` brings the host on until it rests."""

    spec: Spec = field(default_factory=spec)
    status: Status = field(default_factory=Status)
    finalizers: tuple[str, ...] = ()
    deleting: bool = False
    gone: bool = False
    generation: int = 1
    secret: SecretSeen = SecretSeen("1")
    rules: Rules = Rules()
    now: datetime = START
    started_at: datetime = START
    power: PowerState = PowerState.OFF
    power_seen: PowerSeen | None = None
    disk: str = "empty"
    agent: AgentView | None = None
    boot: BootSeen = BootSeen()
    outcome: ask.Outcome | None = None
    bmc_fault: Fault | None = None
    refused: type | None = None
    job_fault: JobProblem | None = None
    netboots: bool = True
    job_steps: int = 2
    deploy_fault: Fault | None = None
    deaf: bool = False
    refusals: int = 0
    refusal: Fault | None = None
    mac_conflict: str = ""
    bmc_conflict: str = ""
    data_version: str = ""
    seats: Seats = Seats()
    annotations: dict[str, str] = field(default_factory=dict)
    performed: list[ask.Effect] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)
    notes: list[EventNote] = field(default_factory=list)
    hand_over: HandOverResult | None = None
    random: Random = field(default_factory=lambda: Random(1))
    _booting: str = ""
    _left: dict[str, int] = field(default_factory=dict)
    _images: dict[str, str] = field(default_factory=dict)

    @property
    def host(self) -> Host:
        return Host(
            HostKey("metal3", "node01"),
            "uid-1",
            self.generation,
            "1",
            self.spec,
            copy_status(self.status),
            self.finalizers,
            self.annotations,
            self.deleting,
        )

    @property
    def state(self) -> State:
        return read_state(self.status.provisioning.state)

    def edit(self, **changes) -> None:
        self.spec = spec(**changes)
        self.generation += 1

    def annotate(self, key: str, value: str | None = "") -> None:
        if value is None:
            self.annotations.pop(key, None)
        else:
            self.annotations[key] = value

    def decide(self) -> Step:
        seen = Seen(
            f"{self.random.getrandbits(128):032x}",
            self.started_at,
            self.secret,
            self.power_seen,
            self.agent,
            self.boot,
            self.mac_conflict,
            self.outcome,
            self.bmc_conflict,
            self.data_version,
            self.seats,
        )
        before = copy_status(self.status)
        decision = step(self.host, seen, self.now, self.rules)
        assert self.status == before, "step changed its input"
        old, new = self.state, read_state(decision.status.provisioning.state)
        restored = STATUS in self.annotations and old is State.NONE
        assert is_legal(old, new) or restored, f"{old} -> {new}"
        return decision

    def once(self, *, lose_outcome: bool = False) -> Step:
        """One pass: decide, write, perform."""
        decision = self.decide()
        self.status = decision.status
        self.outcome = None
        if not self.states or self.states[-1] != self.status.provisioning.state:
            self.states.append(self.status.provisioning.state)
        self.events += [(note.type, note.reason) for note in decision.events]
        self.notes += decision.events
        if decision.effect is not None:
            outcome = self.perform(decision.effect)._replace(basis=decision.basis)
            self.outcome = None if lose_outcome else outcome
            if outcome.power is not None and not lose_outcome:
                self.power_seen = PowerSeen(outcome.power, self.now)
        return decision

    def run(self, until=None, *, seconds: float = 3600, passes: int = 2000) -> None:
        """Passes and time until ``until()`` holds; fails when it never does."""
        end = self.now + timedelta(seconds=seconds)
        for _ in range(passes):
            self.gone = self.gone or (self.deleting and not self.finalizers)
            if self.gone or (until is not None and until()):
                return
            decision = self.once()
            if decision.effect is not None:
                continue
            if self.live():
                continue
            if until is None and self.rests(decision):
                return
            wait = decision.requeue_s
            if wait is None:
                if until is None or until():
                    return
                raise AssertionError(f"nothing will happen any more in {self.describe()}")
            self.now += timedelta(seconds=max(wait, 0.5))
            if self.now > end:
                if until is None:
                    return
                raise AssertionError(f"time is over in {self.describe()}")
        raise AssertionError(f"too many passes in {self.describe()}")

    def rests(self, decision: Step) -> bool:
        stable = {State.READY, State.PROVISIONED, State.EXTERNALLY_PROVISIONED, State.UNMANAGED}
        return (
            self.state in stable
            and (decision.requeue_s is None or decision.requeue_s > 1)
            and self.status.problem is None
        )

    def describe(self) -> str:
        return f"{self.state.value!r} problem={self.status.problem} waiting={self.status.waiting}"

    def perform(self, effect: ask.Effect) -> ask.Outcome:
        self.performed.append(effect)
        self.now += timedelta(seconds=1)
        match effect:
            case ask.AddFinalizer():
                self.finalizers = (*self.finalizers, FINALIZER)
            case ask.RemoveFinalizer():
                self.finalizers, self.gone = (), True
            case ask.RemoveAnnotations():
                for key, value in effect.values:
                    if self.annotations.get(key) == value:
                        del self.annotations[key]
            case ask.SetArchitecture():
                self.spec = msgspec.structs.replace(self.spec, architecture=effect.architecture)
                self.generation += 1
            case ask.PutHardwareData() if self.refusals > 0:
                self.refusals -= 1
                return ask.Outcome(effect, self.refusal)
            case ask.PutHardwareData():
                pass
            case ask.ForgetAgent():
                self.agent = None
            case ask.CancelJob():
                if not self.deaf and self.agent is not None:
                    self._report(effect.job_id, "cancelled")
            case ask.StartInspect() | ask.StartClean() | ask.StartDeploy() | ask.StartHandOver():
                return self._start(effect)
            case _:
                return self._bmc(effect)
        return ask.Outcome(effect)

    def live(self) -> bool:
        """The machine's own life goes on by one event; False when nothing happens."""
        if self._booting == "network" and self.netboots:
            boot = self.status.boot
            self.now += timedelta(seconds=20)
            if boot is not None and boot.purpose in NETBOOT_PURPOSES:
                self.boot = BootSeen(self.now, self.now, self.now, self.now)
                self._left.clear()  # a fresh ramdisk knows no job, and is not slow for an old one
                self.agent = AgentView(
                    "uid-1",
                    boot.nonce,
                    f"agent-{self.random.random()}",
                    True,
                    self.now,
                    self.now,
                    "legacy",
                    10.0,
                    "0",
                    {},
                )
            self._booting = ""
            return True
        if self.agent is not None and self.agent.connected:
            for report in self.agent.jobs.values():
                if report.state == "running":
                    self.now += timedelta(seconds=5)
                    self._left[report.id] = self._left.get(report.id, self.job_steps) - 1
                    if self._left[report.id] <= 0:
                        self._finish(report)
                    return True
        return False

    def lose_agent(self, *, power: PowerState | None = None) -> None:
        if self.agent is not None:
            self.agent = self.agent._replace(connected=False, last_seen=self.now)
        if power is not None:
            self.power = power

    def restart_server(self) -> None:
        """Everything volatile is lost; a living agent reconnects by itself."""
        self.outcome, self.power_seen, self.boot = None, None, BootSeen()
        self.started_at = self.now

    def _bmc(self, effect: ask.Effect) -> ask.Outcome:
        if self.bmc_fault is not None:
            return ask.Outcome(effect, self.bmc_fault)
        if self.refused is not None and isinstance(effect, self.refused):
            return ask.Outcome(effect, Fault("bmc-rejected", "metal3/node01: node busy"))
        match effect:
            case ask.PowerOn():
                self.power = PowerState.ON
            case ask.PowerOff():
                self.power, self._booting = PowerState.OFF, ""
                self.lose_agent()
            case ask.PowerCycle():
                self.lose_agent()
                self.power, self._booting = PowerState.ON, "disk"
            case ask.NetworkBoot():
                self.lose_agent()
                self.power, self._booting = PowerState.ON, "network"
            case ask.RestartFromDisk():
                self.lose_agent()
                self.power, self._booting = PowerState.ON, "disk"
        return ask.Outcome(effect, None, self.power)

    def _start(self, effect) -> ask.Outcome:
        if self.agent is None or not self.agent.connected:
            return ask.Outcome(effect, Fault("agent-gone", "no agent"))
        if isinstance(effect, ask.StartDeploy) and self.deploy_fault is not None:
            return ask.Outcome(effect, self.deploy_fault)
        if self.deaf:
            return ask.Outcome(effect)
        if isinstance(effect, ask.StartHandOver):
            if self.hand_over is not None:
                self._report(effect.job_id, "succeeded", hand_over=self.hand_over)
            self.agent = self.agent._replace(connected=False, goodbye="reboot", last_seen=self.now)
        elif effect.job_id not in self.agent.jobs:
            if isinstance(effect, ask.StartDeploy | ask.StartClean):
                held = reports_that_hold(self.agent.jobs, Job(effect.job_id, Clean()))
                self.agent = self.agent._replace(jobs=held)
            if isinstance(effect, ask.StartDeploy):
                self._images[effect.job_id] = effect.image.url
                self.disk = f"part of {effect.image.url}"
            self._report(effect.job_id, "running")
        return ask.Outcome(effect)

    def _report(self, job_id: str, state: str, **facts) -> None:
        kind = job_id.split("/")[0]
        report = JobReport(job_id, kind, state, **facts)
        jobs = {**self.agent.jobs, job_id: report}
        self.agent = self.agent._replace(jobs=jobs, reported_at=self.now)

    def _finish(self, report: JobReport) -> None:
        if self.job_fault is not None and report.kind != "inspect":
            self.disk = "wiped"
            self._report(report.id, "failed", problem=self.job_fault)
        elif report.kind == "inspect":
            self._report(report.id, "succeeded", inspect=INVENTORY)
        elif report.kind == "clean":
            self.disk = "wiped"
            self._report(report.id, "succeeded", clean=CleanResult(("/dev/vda",)))
        else:
            self.disk = self._images[report.id]
            result = DeployResult("/dev/vda", "only disk", 1, 2, "md5:0", "legacy", None, {})
            self._report(report.id, "succeeded", deploy=result)
