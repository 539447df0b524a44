"""baremetalhost.metal3.io/detached and paused: a host is let alone, and taken up again."""

from datetime import timedelta

import pytest

from billet_server.core import effects as ask
from billet_server.core.detach import Detachment, parse_detachment
from billet_server.core.host import Bmc, copy_status
from billet_server.core.problems import Fault
from billet_server.core.seen import SecretSeen
from billet_server.core.states import State
from billet_server.core.terms import PowerState
from core_world import IMAGE, World, spec
from unit.core.test_reboot import KEY, busy, effects, in_state, settle

DETACHED = "baremetalhost.metal3.io/detached"
PAUSED = "baremetalhost.metal3.io/paused"
FORCE = '{"force": true}'
DELAY = '{"deleteAction": "delay"}'
AT_REST = [State.READY, State.PROVISIONED, State.EXTERNALLY_PROVISIONED]


@pytest.mark.parametrize(
    ("value", "delays", "force", "fine"),
    [
        ("", False, False, True),
        ("true", False, False, True),
        ("by the mover", False, False, True),
        ("[]", False, False, True),
        ("{", False, False, True),
        ("[" * 100_000, False, False, True),
        ("{}", False, False, True),
        ('{"deleteAction": "delete"}', False, False, True),
        (DELAY, True, False, True),
        ('{"deleteaction": "delay", "force": true}', True, True, True),
        (FORCE, False, True, True),
        ('{"deleteAction": "keep"}', False, False, False),
        ('{"deleteAction": ["delay"]}', False, False, False),
        ('{"deleteAction": "delay", "force": 1}', True, False, False),
    ],
)
def test_values_are_read_as_metal3_does(value, delays, force, fine):
    found = parse_detachment(value)
    assert found == Detachment(delays, force, found.fault)
    assert (not found.fault) is fine


@pytest.mark.parametrize("state", AT_REST)
@pytest.mark.parametrize("value", ["", "yes", FORCE, DELAY])
def test_a_host_at_rest_is_let_alone(state, value):
    world = in_state(state)
    world.annotate(DETACHED, value)
    world.secret = SecretSeen("", Fault("bmc-secret-missing", "gone"))
    settle(world, 900)
    assert world.performed in ([], [ask.ForgetAgent()]), "not one call to the BMC"
    assert world.status.operational_status == "detached"
    assert world.status.provisioning.state == state.value
    assert world.status.boot is None
    assert (world.status.waiting.cause, world.status.waiting.actor) == ("detached", "user")
    assert world.decide().requeue_s is None, "nothing to come back for"
    assert world.events == [("Normal", "Detached")]


@pytest.mark.parametrize("online", [True, False])
def test_power_is_not_enforced_until_it_is_attached_again(online):
    world = in_state(State.PROVISIONED)
    world.annotate(DETACHED)
    world.annotate(KEY)
    world.edit(online=online, image=IMAGE)
    world.power = PowerState.OFF if online else PowerState.ON
    settle(world, 900)
    assert effects(world) == []
    world.annotate(DETACHED, None)
    world.annotate(KEY, None)
    settle(world)
    assert world.power is (PowerState.ON if online else PowerState.OFF)
    assert world.status.operational_status == "OK"


@pytest.mark.parametrize("state", AT_REST)
def test_attached_again_the_credentials_are_tried_and_a_running_machine_runs_on(state):
    world = in_state(state)
    image = world.status.provisioning.image
    world.annotate(DETACHED)
    settle(world)
    world.annotate(DETACHED, None)
    settle(world)
    kinds = [type(effect) for effect in effects(world)]
    assert kinds == [ask.CheckBmc]
    assert (world.state, world.power) == (state, PowerState.ON)
    assert world.status.provisioning.image == image
    assert world.status.operational_status == "OK"
    words = "Detached", "Attached", "BMCAccessValidated"
    assert world.events == [("Normal", word) for word in words]


def test_attached_again_with_credentials_that_no_longer_work():
    world = in_state(State.PROVISIONED)
    world.annotate(DETACHED)
    settle(world)
    world.bmc_fault = Fault("bmc-auth", "refused")
    world.annotate(DETACHED, None)
    settle(world)
    assert world.state is State.PROVISIONED
    assert world.status.operational_status == "error"
    assert world.status.error_type == "registration error"
    assert not any(isinstance(each, ask.PowerOff | ask.PowerOn) for each in world.performed)
    world.bmc_fault = None
    settle(world, 900)
    assert world.status.operational_status == "OK"


def test_a_bmc_address_changed_meanwhile_is_the_one_that_is_tried():
    world = in_state(State.PROVISIONED)
    world.annotate(DETACHED)
    settle(world)
    world.edit(online=True, image=IMAGE, bmc=Bmc("ipmi://10.0.0.9", "node01-bmc"))
    settle(world)
    world.annotate(DETACHED, None)
    settle(world)
    assert effects(world) == [ask.CheckBmc("1", "ipmi://10.0.0.9")]


@pytest.mark.parametrize("state", AT_REST)
@pytest.mark.parametrize("value", ["", '{"deleteAction": "delete"}', '{"deleteAction": "keep"}'])
def test_deleting_a_detached_host_does_not_touch_the_machine(state, value):
    world = in_state(state)
    world.annotate(DETACHED, value)
    settle(world)
    world.performed.clear()
    world.deleting = True
    world.run()
    assert world.gone
    assert effects(world) == [ask.RemoveFinalizer()]
    assert world.power is PowerState.ON


def test_annotated_and_deleted_in_one_edit_does_not_touch_the_machine():
    world = in_state(State.PROVISIONED)
    world.annotate(DETACHED)
    world.deleting = True
    world.run()
    assert world.gone
    assert effects(world) == [ask.RemoveFinalizer()]


def test_a_delayed_deletion_waits_for_the_host_to_be_attached():
    world = in_state(State.PROVISIONED)
    world.annotate(DETACHED, DELAY)
    settle(world)
    world.deleting = True
    settle(world, 3600)
    assert not world.gone
    assert effects(world) == []
    assert world.status.waiting.cause == "detached"
    assert "object goes when" in world.status.waiting.message
    world.annotate(DETACHED, None)
    world.run()
    assert world.gone
    assert world.disk == "wiped"
    assert world.power is PowerState.OFF


def test_unknown_delete_actions_are_told_once():
    world = in_state(State.PROVISIONED)
    world.annotate(DETACHED, '{"deleteAction": "keep"}')
    settle(world, 900)
    assert world.events.count(("Warning", "InvalidAnnotationValue")) == 1
    assert "taken as delete" in world.status.waiting.message


@pytest.mark.parametrize("state", [State.INSPECTING, State.PROVISIONING])
def test_in_the_middle_of_an_operation_it_is_put_off_and_said_so(state):
    world = busy(state, "job")
    world.annotate(DETACHED)
    world.run(lambda: world.status.operational_status == "detached")
    assert world.state is not state
    assert world.events.count(("Normal", "DetachDelayed")) == 1
    if state is State.PROVISIONING:
        assert world.disk == IMAGE.url


@pytest.mark.parametrize("state", [State.INSPECTING, State.PROVISIONING])
@pytest.mark.parametrize("deaf", [True, False])
def test_force_ends_what_is_under_way(state, deaf):
    world = busy(state, "job")
    jobs = {each.id for each in world.agent.jobs.values() if each.state == "running"}
    world.performed.clear()
    world.deaf = deaf
    world.annotate(DETACHED, FORCE)
    world.run(lambda: world.status.operational_status == "detached", seconds=400)
    settle(world)
    assert {each.job_id for each in world.performed if isinstance(each, ask.CancelJob)} == jobs
    assert isinstance(world.performed[-1], ask.ForgetAgent)
    assert world.agent is None
    assert world.state is state
    assert world.status.problem is None
    assert len(effects(world)) == sum(isinstance(each, ask.CancelJob) for each in world.performed)
    world.deaf = False
    world.annotate(DETACHED, None)
    world.run(lambda: world.state is State.PROVISIONED)
    assert world.disk == IMAGE.url


@pytest.mark.parametrize("state", [State.INSPECTING, State.PROVISIONING])
def test_deleting_what_was_detached_by_force(state):
    world = busy(state, "job")
    world.annotate(DETACHED, FORCE)
    world.run(lambda: world.status.operational_status == "detached")
    world.performed.clear()
    world.deleting = True
    world.run()
    assert world.gone
    assert effects(world) == [ask.RemoveFinalizer()]


def test_force_while_the_machine_leaves_for_its_disk_writes_it_only_once():
    world = busy(State.PROVISIONING, "job")
    world.run(lambda: world.status.boot is not None and world.status.boot.purpose == "hand-over")
    world.annotate(DETACHED, FORCE)
    settle(world)
    assert world.status.operational_status == "detached"
    world.performed.clear()
    world.annotate(DETACHED, None)
    world.run(lambda: world.state is State.PROVISIONED)
    assert not any(isinstance(each, ask.StartDeploy) for each in world.performed)


def test_deprovisioning_is_not_left_half_done_even_by_force():
    world = in_state(State.PROVISIONED)
    world.edit(online=True)
    world.run(lambda: world.state is State.DEPROVISIONING)
    world.annotate(DETACHED, FORCE)
    world.run(lambda: world.status.operational_status == "detached")
    assert (world.state, world.disk) == (State.READY, "wiped")


def test_a_host_being_let_go_is_not_stopped_by_it():
    world = in_state(State.READY)
    world.deleting = True
    world.run(lambda: world.state is State.POWERING_OFF)
    world.annotate(DETACHED, DELAY)
    world.run()
    assert world.gone
    assert world.power is PowerState.OFF


def test_a_problem_goes_with_the_detachment():
    world = in_state(State.PROVISIONED)
    world.bmc_fault = Fault("bmc-unreachable", "no answer")
    world.power_seen = None
    world.run(lambda: world.status.error_count == 2)
    world.annotate(DETACHED)
    settle(world)
    assert world.status.problem is None
    assert (world.status.error_count, world.status.error_type) == (0, "")
    assert world.status.operational_status == "detached"


@pytest.mark.parametrize("moment", ["first", "booting", "job"])
def test_a_paused_host_is_frozen_and_goes_on(moment):
    world = busy(State.PROVISIONING, moment)
    world.annotate(PAUSED, "metal3.io/capm3")
    frozen, performed = copy_status(world.status), list(world.performed)
    for _ in range(20):
        decision = world.once()
        assert decision.effect is None
        assert decision.events == ()
        assert decision.requeue_s is None
        world.live()
        world.now += timedelta(seconds=5)
    assert world.status == frozen
    assert world.performed == performed
    world.annotate(PAUSED, None)
    world.run(lambda: world.state is State.PROVISIONED)
    deploys = [each for each in world.performed if isinstance(each, ask.StartDeploy)]
    assert len({each.job_id for each in deploys}) == 1


def test_deleting_a_paused_host_waits():
    world = in_state(State.PROVISIONED)
    world.annotate(PAUSED)
    world.deleting = True
    for _ in range(5):
        assert world.once().effect is None
    assert not world.gone
    world.annotate(PAUSED, None)
    world.run()
    assert world.gone


def test_paused_wins_over_detached():
    world = in_state(State.PROVISIONED)
    world.annotate(PAUSED)
    world.annotate(DETACHED)
    world.once()
    assert world.status.operational_status == "OK"


def test_power_that_may_not_be_off_is_left_on_at_deletion_and_said_to_be_when_unwanted():
    world = in_state(State.PROVISIONED, disable_power_off=True)
    world.edit(online=False, image=IMAGE, disable_power_off=True)
    settle(world)
    assert world.power is PowerState.ON
    assert "disablePowerOff" in world.status.waiting.message
    world.deleting = True
    world.run()
    assert world.gone
    assert world.power is PowerState.ON
    assert not any(isinstance(each, ask.PowerOff) for each in world.performed)


@pytest.mark.parametrize("online", [True, False])
def test_a_hand_on_the_power_button_is_put_right_without_a_flood_of_events(online):
    world = in_state(State.PROVISIONED)
    world.edit(online=online, image=IMAGE)
    settle(world)
    world.events.clear()
    world.power = PowerState.OFF if online else PowerState.ON
    world.bmc_fault = None
    settle(world, 120)
    assert world.power is (PowerState.ON if online else PowerState.OFF)
    assert len(world.events) == 1
    world.power = PowerState.OFF if online else PowerState.ON
    while not isinstance(world.decide().effect, ask.PowerOn | ask.PowerOff):
        if world.once().effect is None:
            world.now += timedelta(seconds=5)
    world.bmc_fault = Fault("bmc-rejected", "no")
    settle(world, 1200)
    world.bmc_fault = None
    settle(world, 900)
    assert world.power is (PowerState.ON if online else PowerState.OFF)
    normal = [reason for kind, reason in world.events if kind == "Normal"]
    assert len(normal) == 2, "one for each time it was put right, however many tries that took"


def test_hosts_on_the_way_are_not_switched_off_by_online():
    world = World(spec=spec(online=False))
    world.job_steps = 500
    world.run(lambda: world.agent is not None)
    for _ in range(30):
        world.once()
        world.live()
    assert world.power is PowerState.ON


def test_a_host_whose_preparation_is_refused_can_be_detached_by_force_and_deleted():
    world = in_state(State.READY)
    world.edit(online=True, raid={"softwareRAIDVolumes": [{"level": "1"}]})
    world.run(lambda: world.state is State.PREPARING and world.status.problem is not None)
    world.annotate(DETACHED)
    settle(world)
    assert world.status.operational_status == "error"
    world.annotate(DETACHED, FORCE)
    settle(world)
    assert (world.state, world.status.operational_status) == (State.PREPARING, "detached")
    world.performed.clear()
    world.deleting = True
    world.run()
    assert effects(world) == [ask.RemoveFinalizer()]
