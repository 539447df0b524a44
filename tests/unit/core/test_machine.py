"""The host state machine in a world of plain data."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billet_server.core import effects as ask
from billet_server.core.host import Bmc, Image
from billet_server.core.problems import Fault
from billet_server.core.seen import SecretSeen
from billet_server.core.states import State
from billet_server.core.terms import PowerState
from billet_wire import JobProblem
from core_world import IMAGE, World, spec


def ready(**changes) -> World:
    world = World(spec=spec(**changes))
    world.run(lambda: world.state is State.READY)
    world.run()
    return world


def provisioned() -> World:
    world = ready()
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONED)
    return world


def count(world: World, kind) -> int:
    return sum(isinstance(effect, kind) for effect in world.performed)


def kinds(world: World) -> set[str]:
    return {report.kind for report in world.agent.jobs.values()} if world.agent else set()


def test_registers_inspects_and_rests_powered_off():
    world = ready()
    world.run()
    assert world.states == ["", "registering", "inspecting", "preparing", "ready"]
    assert world.power is PowerState.OFF
    assert world.status.powered_on is False
    assert world.status.hardware["cpu"]["flags"] == ["avx", "sse"]
    assert world.status.hardware_profile == "unknown"
    assert world.status.good_credentials == world.status.tried_credentials
    assert world.status.operational_status == "OK"
    assert world.status.boot is None
    history = world.status.operation_history
    assert history.register.end is not None
    assert history.inspect.end is not None


def test_provisions_only_on_proof_and_then_deprovisions():
    world = provisioned()
    assert world.disk == IMAGE.url
    assert world.status.provisioning.image == IMAGE
    assert world.status.boot is None
    order = [type(effect).__name__ for effect in world.performed]
    assert order.index("StartDeploy") < order.index("SetDiskBoot") < order.index("StartHandOver")
    world.edit(online=False)
    world.run(lambda: world.state is State.READY)
    assert world.disk == "wiped"
    assert world.status.provisioning.image is None
    world.run()
    assert world.power is PowerState.OFF


def test_changed_image_is_provisioned_again():
    world = provisioned()
    first = world.status.provisioning.id
    world.edit(online=True, image=Image(url="http://x/b.qcow2", checksum="0" * 32))
    world.run(lambda: world.disk == "http://x/b.qcow2" and world.state is State.PROVISIONED)
    assert world.status.provisioning.id != first


def test_empty_image_object_is_no_image():
    world = provisioned()
    world.edit(online=True, image=Image(url="", checksum=""))
    world.run(lambda: world.state is State.READY)


def test_online_false_holds_provisioning_and_says_so():
    world = ready()
    world.edit(online=False, image=IMAGE)
    world.run()
    assert world.state is State.READY
    assert "online" in world.status.waiting.message


@pytest.mark.parametrize("online", [True, False])
def test_power_follows_online(online):
    world = provisioned()
    world.edit(online=online, image=IMAGE)
    world.run()
    assert world.power is (PowerState.ON if online else PowerState.OFF)
    assert world.status.powered_on is online
    assert (ask.PowerOff(soft=True) in world.performed) is not online


def test_deleting_cleans_powers_off_and_goes():
    world = provisioned()
    world.deleting = True
    world.run()
    assert world.gone
    assert world.disk == "wiped"
    assert world.power is PowerState.OFF


def test_deleting_a_host_whose_bmc_is_dead_gives_up_and_says_so():
    world = ready()
    world.bmc_fault = Fault("bmc-unreachable", "no answer")
    world.deleting = True
    world.run(seconds=86400)
    assert world.gone
    assert ("Warning", "DeleteIncomplete") in world.events


def test_deleting_without_a_secret_does_not_hang():
    world = provisioned()
    world.secret = SecretSeen("", Fault("bmc-secret-missing", "no Secret"))
    world.deleting = True
    world.run()
    assert world.gone


def test_wrong_password_then_corrected():
    world = World()
    world.bmc_fault = Fault("bmc-auth", "metal3/node01: user admin refused")
    world.run(lambda: world.status.error_count >= 3, seconds=10**6)
    assert world.status.operational_status == "error"
    assert world.status.error_type == "registration error"
    assert "refused" in world.status.error_message
    assert world.status.problem.next_retry_at is not None
    assert world.status.good_credentials is None
    assert world.status.tried_credentials is not None
    world.bmc_fault, world.secret = None, SecretSeen("2")
    before = world.now
    world.run(lambda: world.state is State.INSPECTING)
    assert (world.now - before) < timedelta(seconds=5), "a corrected Secret is tried at once"
    assert world.status.error_message == ""
    assert world.status.good_credentials.credentials_version == "2"


def test_changed_secret_is_checked_again_without_leaving_the_state():
    world = provisioned()
    world.secret = SecretSeen("2")
    world.run()
    assert world.state is State.PROVISIONED
    assert world.status.good_credentials.credentials_version == "2"
    world.bmc_fault, world.secret = Fault("bmc-auth", "refused"), SecretSeen("3")
    world.run(lambda: world.status.error_type == "registration error")
    assert world.status.good_credentials.credentials_version == "2"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"boot_mac_address": ""}, "boot-mac-missing"),
        ({"boot_mac_address": "zz:zz"}, "boot-mac-invalid"),
    ],
)
def test_bad_macs_stand_until_edited(change, problem):
    world = World(spec=spec(**change))
    world.run()
    assert world.status.problem.id == problem
    assert world.status.error_count == 1
    assert world.status.waiting.actor == "user"
    world.edit()
    world.run()
    assert world.state is State.READY


def test_mac_conflict_stands_and_heals():
    world = World(mac_conflict="metal3/node00")
    world.run()
    assert world.status.problem.id == "boot-mac-conflict"
    assert "metal3/node00" in world.status.error_message
    world.mac_conflict = ""
    world.run()
    assert world.state is State.READY


def test_machine_that_never_asks_is_named_and_tried_again():
    world = World(netboots=False)
    world.run(lambda: world.status.problem is not None)
    assert world.status.problem.id == "boot-no-request"
    assert world.status.error_type == "inspection error"
    world.netboots = True
    world.run()
    assert world.state is State.READY
    assert world.status.error_count == 0


def test_power_lost_before_the_first_call_is_named_within_a_minute():
    world = World(netboots=False)
    world.run(lambda: world.status.boot is not None and world.status.boot.started_at is not None)
    world.lose_agent(power=PowerState.OFF)
    before = world.now
    world.run(lambda: world.status.problem is not None)
    assert world.status.problem.id == "boot-power-off"
    assert world.status.powered_on is False
    assert world.now - before < timedelta(seconds=60)
    world.netboots = True
    world.run()
    assert world.state is State.READY


@pytest.mark.parametrize(("problem", "heals"), [("image-checksum", True), ("image-format", False)])
def test_agent_problem_reaches_the_object(problem, heals):
    world = ready()
    world.job_fault = JobProblem(problem, "got md5 1, expected 2", "", "fix it")
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.status.problem is not None)
    assert world.status.error_type == "provisioning error"
    assert "got md5 1" in world.status.error_message
    assert (world.status.problem.next_retry_at is not None) is heals
    assert world.disk != IMAGE.url
    world.job_fault = None
    if not heals:
        world.edit(online=True, image=Image(url=IMAGE.url, checksum="0" * 32))
    world.run(lambda: world.state is State.PROVISIONED)
    assert count(world, ask.NetworkBoot) == 2, "the waiting agent is used for the retry"


def test_power_cut_during_the_write_boots_the_ramdisk_again():
    world = ready()
    world.edit(online=True, image=IMAGE)
    world.run(lambda: "deploy" in kinds(world))
    world.lose_agent(power=PowerState.OFF)
    world.run(lambda: world.status.problem is not None)
    assert world.status.problem.id == "agent-lost"
    assert "power is off" in world.status.error_message
    world.run(lambda: world.state is State.PROVISIONED)
    assert world.disk == IMAGE.url


def test_image_removed_while_writing_stops_the_job():
    world = ready()
    world.edit(online=True, image=IMAGE)
    world.run(lambda: "deploy" in kinds(world))
    world.edit(online=False)
    world.run(lambda: world.state is State.READY)
    assert count(world, ask.CancelJob) == 1
    assert world.disk == "wiped"


def test_missing_bmc_address_is_unmanaged():
    world = World(spec=spec(bmc=Bmc()))
    world.run()
    assert world.state is State.UNMANAGED
    assert world.status.operational_status == "discovered"
    world.edit()
    world.run()
    assert world.state is State.READY


def test_paused_does_nothing():
    world = World(annotations={"baremetalhost.metal3.io/paused": ""})
    decision = world.decide()
    assert decision.effect is None
    assert decision.status == world.status


# What may go wrong at any pass; afterwards the world is whole again and the goal is reached.
FAULTS = ("none", "restart", "lose-outcome", "agent-lost", "power-cut", "bmc-fault", "job-fault")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(FAULTS), max_size=40), st.booleans())
def test_whatever_fails_the_goal_is_reached(faults, delete):
    world = World(spec=spec(online=True, image=IMAGE))
    for fault in faults:
        world.bmc_fault = Fault("bmc-unreachable", "no answer") if fault == "bmc-fault" else None
        broken = JobProblem("disk-write", "I/O error") if fault == "job-fault" else None
        world.job_fault = broken
        if fault == "restart":
            world.restart_server()
        elif fault == "agent-lost":
            world.lose_agent()
        elif fault == "power-cut":
            world.lose_agent(power=PowerState.OFF)
        decision = world.once(lose_outcome=fault == "lose-outcome")
        waits = decision.status.waiting is not None or decision.requeue_s is not None
        assert decision.effect is not None or waits or world.state is State.PROVISIONED
        if decision.effect is None and not world.live():
            world.now += timedelta(seconds=min(decision.requeue_s or 5.0, 60.0))
    world.bmc_fault = world.job_fault = None
    world.deleting = delete
    world.run(lambda: world.gone or world.state is State.PROVISIONED, seconds=10**6)
    assert world.gone or world.disk == IMAGE.url
