"""Whatever people, machines and servers do at any pass: each pass is sane, and the goal is reached.

The world may edit, delete, restart, lie, hang and set its clock; afterwards it is whole again.
"""

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from billet_server.core.annotations import PAUSED
from billet_server.core.host import Bmc, Image, copy_status
from billet_server.core.problems import Fault
from billet_server.core.seen import SecretSeen
from billet_server.core.states import State
from billet_server.core.terms import PowerState
from billet_server.core.turn import Step
from billet_wire import JobProblem, RootDeviceHints
from core_world import IMAGE, World, annotation_edits, spec

OTHER = Image(url="http://x/b.qcow2", checksum="0" * 32)
THIRD = Image(url="http://x/c.qcow2", checksum="0" * 32)
FOURTH = Image(url="http://x/d.qcow2", checksum="0" * 32)
EDITS = (
    {},
    {"online": True},
    {"online": True, "image": IMAGE},
    {"online": False, "image": IMAGE},
    {"online": True, "image": OTHER},
    {"online": True, "image": Image(url="file:///etc/passwd")},
    {"online": True, "image": IMAGE, "automated_cleaning_mode": "disabled"},
    {"online": True, "image": IMAGE, "root_device_hints": RootDeviceHints(model="X")},
    {"externally_provisioned": True, "online": True},
    {"boot_mac_address": ""},
    {"online": True, "image": IMAGE, "boot_mac_address": "00:c2:fc:3b:e1:77"},
    {"bmc": Bmc()},
    {"bmc": Bmc("ipmi://10.0.0.9", "other")},
    {"online": False, "disable_power_off": True},
    {"inspection_mode": "disabled", "online": True, "image": IMAGE},
)
DEEDS = (
    *("nothing",) * 4,
    *("restart", "lose-outcome", "agent-lost", "power-cut", "power-unknown"),
    *("bmc-fault", "bmc-unsupported", "job-fault", "deploy-fault", "deaf", "no-netboot"),
    *("secret-gone", "secret-new", "data-new", "mac-conflict", "bmc-conflict"),
    *("clock-forth", "clock-back", "delete", "heal"),
)


def heal(world: World) -> None:
    world.bmc_fault = world.job_fault = world.deploy_fault = None
    world.deaf, world.netboots = False, True
    world.mac_conflict = world.bmc_conflict = ""
    if world.secret.fault is not None:
        world.secret = SecretSeen(f"{world.secret.version}+")
    if world.power is PowerState.UNKNOWN:
        world.power = PowerState.OFF


def do(world: World, deed: str) -> None:
    match deed:
        case "restart":
            world.restart_server()
        case "agent-lost":
            world.lose_agent()
        case "power-cut":
            world.lose_agent(power=PowerState.OFF)
        case "power-unknown":
            world.power = PowerState.UNKNOWN
        case "bmc-fault":
            world.bmc_fault = Fault("bmc-unreachable", "no answer")
        case "bmc-unsupported":
            world.bmc_fault = Fault("bmc-unsupported", "cannot")
        case "job-fault":
            world.job_fault = JobProblem("disk-write", "I/O error")
        case "deploy-fault":
            world.deploy_fault = Fault("user-data-missing", "no Secret")
        case "deaf":
            world.deaf = True
        case "no-netboot":
            world.netboots = False
        case "secret-gone":
            world.secret = SecretSeen("", Fault("bmc-secret-missing", "no Secret"))
        case "secret-new":
            world.secret = SecretSeen(f"{world.secret.version}'")
        case "data-new":
            world.data_version += "'"
        case "mac-conflict":
            world.mac_conflict = "metal3/elder"
        case "bmc-conflict":
            world.bmc_conflict = "metal3/elder"
        case "clock-forth" | "clock-back":
            world.now += timedelta(hours=7 if deed == "clock-forth" else -7)
            world.started_at = world.now
        case "delete":
            world.deleting = True
        case "heal":
            heal(world)


def check(world: World, decision: Step) -> None:
    """A pass without effect says what it waits for, unless the host is at rest."""
    stable = {State.READY, State.PROVISIONED, State.EXTERNALLY_PROVISIONED}
    if decision.effect is not None or world.gone or (world.deleting and not world.finalizers):
        return
    waits = decision.status.waiting is not None and decision.status.waiting.cause
    again = decision.requeue_s is not None
    assert waits or again, world.describe()
    if world.state not in stable and decision.requeue_s != 0:
        assert waits, world.describe()
    if waits and decision.status.waiting.actor != "user":
        assert again or decision.status.waiting.cause == "change", world.describe()


def reach(world: World, image: Image) -> None:
    """Until the host is provisioned with the image, or gone."""
    world.run(
        lambda: (
            world.gone
            or (world.state is State.PROVISIONED and world.status.provisioning.image == image)
        ),
        seconds=10**6,
        passes=4000,
    )


def idle_passes_write_nothing(world: World) -> None:
    for _ in range(12):
        before = copy_status(world.status)
        decision = world.once()
        assert world.status == before, "an idle host is written"
        assert not decision.events
        if decision.effect is None:
            assert decision.requeue_s is None or decision.requeue_s > 1
            world.now += timedelta(seconds=decision.requeue_s or 60)


moves = st.lists(
    st.tuples(
        st.sampled_from(DEEDS),
        st.one_of(st.none(), st.sampled_from(EDITS)),
        st.one_of(st.none(), st.none(), annotation_edits()),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(moves, st.booleans())
def test_the_goal_is_reached(moves, delete):
    world = World(spec=spec(online=True, image=IMAGE))
    for deed, edit, annotation in moves:
        if edit is not None:
            world.edit(**edit)
        if annotation is not None:
            world.annotate(*annotation)
        do(world, deed)
        unchanged = copy_status(world.status)
        decision = world.once(lose_outcome=deed == "lose-outcome")
        if PAUSED not in world.annotations:
            check(world, decision)
        if world.gone:
            return
        if decision.effect is None and not world.live():
            if decision.requeue_s == 0:
                assert world.status != unchanged, "a hot loop"
            world.now += timedelta(seconds=min(decision.requeue_s or 5.0, 400.0))
    heal(world)
    world.annotations.clear()
    world.deleting = world.deleting or delete
    was_external = world.state is State.EXTERNALLY_PROVISIONED
    told = ("Normal", "NoLongerExternal") in world.events
    if told or was_external or world.spec.externally_provisioned:
        # What was there may count as the image of the spec: yet another one is written.
        world.edit(online=True, image=THIRD)
        reach(world, THIRD)
        world.edit(online=True, image=FOURTH)
        reach(world, FOURTH)
    world.edit(online=True, image=IMAGE)
    goal = f"{IMAGE.url} on the disk"
    reach(world, IMAGE)
    if not world.gone:
        world.run()
    if world.gone:
        return
    assert world.disk == IMAGE.url, goal
    assert world.power is PowerState.ON
    assert world.status.operational_status == "OK"
    idle_passes_write_nothing(world)
