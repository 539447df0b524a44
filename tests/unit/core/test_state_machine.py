"""A host's whole life as a state machine of hypothesis: people, machines and servers do anything.

Looked for at each pass: an illegal transition, a pass after which nobody will ever come back, a
wait without cause, actor or end, a disk started that holds no proved image. At the end all
faults stop: the host then rests or names the person it waits for, and an edit gets it anywhere.

The same lives are led in each run; with BILLET_TEST_LIVES=5000 in the environment it is so many
other ones, for those who look for trouble.
"""

import os
from datetime import timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from billet_server.core import effects as ask
from billet_server.core.annotations import RETRY
from billet_server.core.booting import IDLE
from billet_server.core.host import FAST_TRACK, Bmc, Image, copy_status
from billet_server.core.problems import CATALOGUE, Fault
from billet_server.core.seen import Rules, SecretSeen, Stranger
from billet_server.core.states import State
from billet_server.core.terms import BootMode, PowerState
from billet_server.core.turn import Step
from billet_wire import JobProblem, RootDeviceHints
from core_world import IMAGE, MAC, World, annotation_edits, spec

LEAST_STEPS = 10_000
LEAST_PROBLEMS = 20
LONGEST_WAIT = timedelta(hours=1)
LEAST_WAITS_IN_RAMDISK = 500
AGAIN = 0.2
"""So many of the lives have another deployment after the end."""

AT_REST = {State.READY, State.PROVISIONED, State.EXTERNALLY_PROVISIONED}
STAGES = (
    State.NONE,
    State.UNMANAGED,
    State.INSPECTING,
    State.READY,
    State.PROVISIONING,
    State.PROVISIONED,
    State.DEPROVISIONING,
)
IMAGES = (
    None,
    IMAGE,
    Image(""),
    Image(IMAGE.url, "0" * 32),
    Image("http://x/b.raw", "1" * 64, "sha256", "raw"),
    Image("http://x/b.raw"),
    Image("file:///etc/passwd", "0" * 32),
)
BMC = spec().bmc
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "online": st.booleans(),
        "image": st.sampled_from(IMAGES),
        "bmc": st.sampled_from((BMC, Bmc("ipmi://10.0.0.9", "other"), Bmc(), Bmc("gopher://x"))),
        "boot_mac_address": st.sampled_from((MAC, MAC.upper(), "", "zz", "00:c2:fc:3b:e1:77")),
        "boot_mode": st.sampled_from((None, BootMode.UEFI, BootMode.LEGACY)),
        "externally_provisioned": st.booleans(),
        "automated_cleaning_mode": st.sampled_from(("metadata", "disabled")),
        "root_device_hints": st.sampled_from((None, RootDeviceHints(model="X"))),
        "hardware_profile": st.sampled_from(("", "libvirt", "unknown")),
        "inspection_mode": st.sampled_from((None, "disabled", "agent")),
        "disable_power_off": st.booleans(),
        "raid": st.sampled_from((None, {"softwareRAIDVolumes": [{"level": "1"}]})),
    },
)
BMC_PROBLEMS = sorted(name for name in CATALOGUE if name.startswith(("bmc-", "power-", "int")))
JOB_PROBLEMS = sorted(name for name in CATALOGUE if name.startswith(("image-", "disk-", "root-")))
RETRIES = st.tuples(st.just(RETRY), st.sampled_from(("", "now", "again")))


class Tally:
    """Passes in all examples of a run."""

    steps = 0
    in_ramdisk = 0
    states: set[str] = set()
    problems: set[str] = set()


class Life(RuleBasedStateMachine):
    """One host."""

    world: World
    away = None
    """The agent while it cannot reach the server."""

    @initialize(
        wanted=SPECS,
        retries=st.sampled_from((0, 1, 10)),
        fast_track_s=st.sampled_from((0.0, 90.0, 3600.0)),
        begin=st.sampled_from(STAGES),
        seed=st.integers(0, 2**32),
    )
    def appears(self, wanted, retries, fast_track_s, begin, seed):
        rules = Rules(
            max_retries=retries, max_provisioning_retries=retries, fast_track_s=fast_track_s
        )
        self.world = World(spec=spec(online=True, image=IMAGE), rules=rules)
        self.world.random.seed(seed)
        if begin in (State.NONE, State.UNMANAGED):
            bmc = {"bmc": Bmc()} if begin is State.UNMANAGED else {}
            self.world.spec = spec(**wanted | bmc)
            return
        later = State.DEPROVISIONING
        self.come_to(lambda _: self.world.state is (State.PROVISIONED if begin is later else begin))
        if begin is later:
            self.world.edit(online=True)
            self.come_to(lambda _: self.world.state is later)

    # time and passes

    def one_pass(self, *, lose_outcome: bool = False) -> Step:
        world = self.world
        before = copy_status(world.status)
        decision = world.once(lose_outcome=lose_outcome)
        Tally.steps += 1
        Tally.states.add(world.state.value)
        if world.status.problem is not None:
            Tally.problems.add(world.status.problem.id)
        self.check(decision, changed=world.status != before)
        return decision

    def check(self, decision: Step, *, changed: bool) -> None:
        world, effect, waiting = self.world, decision.effect, decision.status.waiting
        if isinstance(effect, ask.RestartFromDisk | ask.StartHandOver):
            held = decision.status.provisioning.image
            assert held is not None
            assert world.disk == held.url, "an image was started that was not proved"
        paused = "baremetalhost.metal3.io/paused" in world.annotations
        if waiting is not None and waiting.cause == FAST_TRACK and not paused:
            assert world.spec.online
            assert decision.status.boot.purpose == IDLE
            assert not isinstance(effect, ask.PowerOff | ask.PowerCycle | ask.NetworkBoot)
            Tally.in_ramdisk += 1
            assert waiting.until > world.now - timedelta(seconds=2), "waits beyond its while"
        if waiting is not None:
            assert waiting.cause
            assert waiting.message
            assert waiting.since is not None
            assert waiting.actor in {"billet", "bmc", "machine", "agent", "user"}
        gone = world.gone or (world.deleting and not world.finalizers)
        if effect is not None or gone or paused:
            return
        if decision.requeue_s == 0:
            assert changed or RETRY in world.annotations, f"a hot loop: {world.describe()}"
            return
        if world.state not in AT_REST or decision.status.problem is not None:
            assert waiting is not None, f"waits for nothing: {world.describe()}"
        if waiting is None:
            assert decision.requeue_s is not None, f"left alone: {world.describe()}"
        elif waiting.actor != "user":
            assert decision.requeue_s is not None, f"left alone: {world.describe()}"
            if waiting.cause != "capacity":
                assert waiting.until is not None, f"a wait without end: {world.describe()}"
                late = world.now - waiting.until
                assert late < timedelta(seconds=2), f"a wait beyond its end: {world.describe()}"
                assert -late < LONGEST_WAIT, f"a wait for a moment far away: {world.describe()}"

    @property
    def over(self) -> bool:
        world = self.world
        return world.gone or (world.deleting and not world.finalizers)

    def go_on(self, decision: Step, most_s: float) -> None:
        if decision.effect is None and not self.world.live():
            pause_s = decision.requeue_s if decision.requeue_s is not None else most_s
            self.world.now += timedelta(seconds=min(max(pause_s, 0.5), most_s))

    @invariant()
    def life_goes_on(self):
        """A few passes after each deed; how many, and how long between them, by the seed."""
        if not hasattr(self, "world"):
            return
        most_s = self.world.random.choice((1.0, 30.0, 1000.0))
        for _ in range(self.world.random.choice((0, 1, 2, 3, 5, 8, 30))):
            if self.over:
                return
            self.go_on(self.one_pass(), most_s)

    @rule()
    def time_passes(self):
        for _ in range(40):
            if not self.over:
                self.go_on(self.one_pass(), 1000.0)

    @precondition(lambda self: not self.over)
    @rule()
    def crash_after_doing(self):
        """The effect is performed and its outcome lost with the process."""
        self.one_pass(lose_outcome=True)
        self.world.restart_server()

    @rule(away=st.booleans())
    def server_restarts(self, away):
        world = self.world
        world.restart_server()
        if away and world.agent is not None and world.agent.connected:
            self.away, world.agent = world.agent, None

    @precondition(lambda self: self.away is not None)
    @rule()
    def agent_reconnects(self):
        boot, agent = self.world.status.boot, self.away
        self.away = None
        if boot is not None and boot.nonce == agent.nonce and self.world.power is PowerState.ON:
            self.world.agent = agent._replace(connected_at=self.world.now)

    @rule(hours=st.sampled_from((-9000, -7, -1, 1, 7, 9000)), noticed=st.booleans())
    def clock_is_set(self, hours, noticed):
        self.world.now += timedelta(hours=hours)
        if noticed or hours < 0:
            self.world.started_at = self.world.now

    # people

    @rule(wanted=SPECS)
    def edit(self, wanted):
        self.world.edit(**wanted)

    @rule(image=st.sampled_from((IMAGE, None, IMAGES[3])))
    def all_is_well_and_an_image_wanted_or_none(self, image):
        self.faults_stop()
        self.world.edit(online=True, image=image)

    @rule(image=st.sampled_from((IMAGE, None, IMAGES[3])))
    def all_is_well_but_the_network(self, image):
        self.faults_stop()
        self.world.edit(online=True, image=image)
        self.world.netboots = False

    @rule(change=annotation_edits() | RETRIES)
    def annotate(self, change):
        key, value = change
        if value is None:
            self.world.annotations.pop(key, None)
        else:
            self.world.annotations[key] = value

    @rule(fault=st.sampled_from((None, "bmc-secret-missing", "bmc-secret-malformed")))
    def secret_changes(self, fault):
        version = f"{self.world.secret.version}'"
        self.world.secret = SecretSeen(version, Fault(fault, "no") if fault else None)

    @rule()
    def data_changes(self):
        self.world.data_version += "'"

    @rule(mac=st.booleans(), bmc=st.booleans())
    def another_host_claims_it(self, mac, bmc):
        self.world.mac_conflict = "metal3/elder" if mac else ""
        self.world.bmc_conflict = "metal3/elder" if bmc else ""

    @rule(field=st.sampled_from(("boot", "problem", "progress", "waiting", "conditions")))
    def somebody_wipes_a_part_of_the_status(self, field):
        setattr(self.world.status, field, None)

    @rule(chance=st.integers(1, 12))
    def deletion(self, chance):
        self.world.deleting = self.world.deleting or chance == 12

    # machines

    @rule(problem=st.sampled_from((None, *BMC_PROBLEMS)))
    def bmc_fails(self, problem):
        self.world.bmc_fault = Fault(problem, "metal3/node01: no") if problem else None

    @rule(kind=st.sampled_from((None, ask.NetworkBoot, ask.PowerOn, ask.PowerOff, ask.SetDiskBoot)))
    def bmc_refuses(self, kind):
        self.world.refused = kind

    @rule(problem=st.sampled_from((None, *JOB_PROBLEMS)))
    def jobs_fail(self, problem):
        self.world.job_fault = JobProblem(problem, "no") if problem else None

    @rule(fault=st.sampled_from((None, Fault("user-data-missing", "metal3/node01: no Secret"))))
    def user_data(self, fault):
        self.world.deploy_fault = fault

    @rule(deaf=st.booleans(), netboots=st.booleans(), steps=st.sampled_from((1, 2, 400)))
    def machine_is_odd(self, deaf, netboots, steps):
        self.world.deaf, self.world.netboots, self.world.job_steps = deaf, netboots, steps

    @rule(power=st.sampled_from((None, *PowerState)))
    def agent_is_lost(self, power):
        self.world.lose_agent(power=power)

    @rule(rival=st.booleans())
    def another_agent_calls(self, rival):
        world = self.world
        if rival:
            world.boot = world.boot._replace(rival_at=world.now)
        else:
            world.boot = world.boot._replace(stranger=Stranger(world.now, "a stranger"))

    # the end

    def faults_stop(self) -> None:
        world = self.world
        world.bmc_fault = world.refused = world.job_fault = world.deploy_fault = None
        world.deaf, world.netboots, world.job_steps = False, True, 2
        world.mac_conflict = world.bmc_conflict = ""
        world.boot = world.boot._replace(rival_at=None, stranger=None)
        world.annotations.clear()
        if world.secret.fault is not None:
            world.secret = SecretSeen(f"{world.secret.version}+")
        if world.power is PowerState.UNKNOWN:
            world.power = PowerState.OFF

    def come_to(self, settled) -> None:
        world, end = self.world, self.world.now + timedelta(days=3)
        for _ in range(3000):
            if self.over:
                return
            decision = self.one_pass()
            if settled(decision):
                return
            self.go_on(decision, 10**6)
            assert world.now < end, f"never settles: {world.describe()}"
        raise AssertionError(f"never settles: {world.describe()}")

    def rests(self, decision: Step) -> bool:
        waiting = decision.status.waiting
        if decision.effect is not None:
            return False
        if waiting is not None and waiting.actor == "user":
            return True
        return self.world.state in AT_REST and decision.status.problem is None and not waiting

    def waits_for_a_person(self) -> bool:
        waiting = self.world.status.waiting
        return waiting is not None and waiting.actor == "user"

    def runs_the_image(self, _: Step | None) -> bool:
        held = self.world.status.provisioning.image
        # As in Metal3 another checksum alone is no other image.
        same = held is not None and held.url == IMAGE.url
        return same and self.world.state is State.PROVISIONED

    def runs_it_again_with_one_boot_more(self) -> None:
        """Without trouble there is one network boot for cleaning and writing together."""
        boots = self.network_boots()
        self.world.edit(online=True)
        self.come_to(lambda _: self.world.state is State.READY)
        self.world.edit(online=True, image=IMAGE)
        self.come_to(self.runs_the_image)
        self.come_to(self.rests)
        assert self.network_boots() == boots + 1

    def network_boots(self) -> int:
        return sum(isinstance(effect, ask.NetworkBoot) for effect in self.world.performed)

    def teardown(self):
        if not hasattr(self, "world") or self.over:
            return
        self.faults_stop()
        self.come_to(self.rests)
        if self.over:
            return
        self.world.edit(online=True, image=IMAGE)
        self.come_to(lambda decision: self.runs_the_image(decision) or self.waits_for_a_person())
        if not self.runs_the_image(None):
            # A job had failed behind the problem that the first edit cured; now it is named.
            self.world.edit(online=True, image=IMAGE)
            self.come_to(self.runs_the_image)
        self.come_to(self.rests)
        if self.over:
            return
        for _ in range(20):  # what changed behind the server's back is seen within two minutes
            self.go_on(self.one_pass(), 30.0)
        self.come_to(self.rests)
        assert self.world.status.operational_status == "OK", self.world.describe()
        assert self.world.status.failures is None
        assert not self.world.status.provisioning_fail_count
        adopted = ("Normal", "NoLongerExternal") in self.world.events
        assert self.world.disk == IMAGE.url or adopted
        if self.world.random.random() < AGAIN:
            self.runs_it_again_with_one_boot_more()
        assert self.world.power is PowerState.ON


def test_a_life_in_which_anything_happens():
    Tally.steps = Tally.in_ramdisk = 0
    Tally.states.clear()
    Tally.problems.clear()
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=int(os.environ.get("BILLET_TEST_LIVES", "400")),
            derandomize="BILLET_TEST_LIVES" not in os.environ,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert Tally.steps >= LEAST_STEPS
    assert Tally.in_ramdisk >= LEAST_WAITS_IN_RAMDISK
    assert Tally.states == set(State)
    assert len(Tally.problems) >= LEAST_PROBLEMS
