"""Preparing: passed through where nothing is to be done, and honest where something is."""

import pytest

from billet_server.core import effects as ask
from billet_server.core.host import Provisioning as ProvisioningStatus
from billet_server.core.host import Status, parse_host, render_status, status_patch
from billet_server.core.states import TRANSITIONS, State, is_legal, read_state, render_dot
from core_world import IMAGE, World, spec

VOLUMES = {"softwareRAIDVolumes": [{"level": "1", "physicalDisks": [{"deviceName": "/dev/sda"}]}]}
WISHES = [{"raid": VOLUMES}, {"firmware": {"sriovEnabled": True}}]


def test_preparing_lies_between_inspection_and_rest():
    world = World()
    world.run(lambda: world.state is State.READY)
    assert world.states == ["", "registering", "inspecting", "preparing", "ready"]


def test_it_is_passed_through_without_inspection_too():
    world = World(spec=spec(inspection_mode="disabled"))
    world.run(lambda: world.state is State.READY)
    assert world.states == ["", "registering", "preparing", "ready"]


def test_it_is_a_state_like_any_other():
    assert read_state("preparing") is State.PREPARING
    assert read_state("match profile") is State.PREPARING
    assert is_legal(State.READY, State.PREPARING)
    assert not is_legal(State.INSPECTING, State.READY)
    assert not is_legal(State.REGISTERING, State.READY)
    assert State.READY in TRANSITIONS[State.PREPARING]
    assert '"preparing" -> "ready"' in render_dot()


@pytest.mark.parametrize("wish", WISHES)
def test_what_cannot_be_prepared_is_said_and_the_host_is_not_called_ready(wish):
    world = World(spec=spec(online=True, image=IMAGE, **wish))
    world.run()
    assert world.state is State.PREPARING
    assert world.status.problem.id == "preparation-unsupported"
    assert world.status.error_type == "preparation error"
    (field,) = wish
    assert f"spec.{field}" in world.status.error_message
    assert "rootDeviceHints" in world.status.problem.advice
    assert world.status.waiting.actor == "user"
    assert ("Warning", "PreparationError") in world.events
    assert world.status.error_count == 1, "a problem that stands is counted once"
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONED)
    assert world.status.error_count == 0


@pytest.mark.parametrize("wish", WISHES)
def test_a_ready_host_goes_back_when_something_is_asked_of_it(wish):
    world = World()
    world.run()
    world.edit(online=True, image=IMAGE, **wish)
    world.run()
    assert world.state is State.PREPARING
    assert world.status.problem.id == "preparation-unsupported"
    assert not any(isinstance(effect, ask.StartDeploy) for effect in world.performed)
    world.edit()
    world.run()
    assert world.state is State.READY
    assert world.status.problem is None


def test_what_metal3_applied_before_is_no_wish_and_stays_on_record():
    """A taken-over host has its volumes: nothing is to be done, and the record is not lost."""
    raid = VOLUMES | {"hardwareRAIDVolumes": None}
    obj = {"status": {"provisioning": {"state": "available", "ID": "1", "raid": raid}}}
    world = World(
        spec=spec(raid=VOLUMES | {"hardwareRAIDVolumes": []}), status=parse_host(obj).status
    )
    world.run()
    assert world.state is State.READY
    assert world.status.problem is None
    patch = status_patch(obj["status"], render_status(world.status))
    assert "raid" not in patch.get("provisioning", {})


def test_an_empty_wish_is_none():
    firmware = {"sriovEnabled": False}
    world = World(spec=spec(raid={"hardwareRAIDVolumes": []}, firmware=firmware))
    world.run()
    assert world.state is State.READY


def test_a_host_that_is_being_prepared_can_be_deleted():
    status = Status(provisioning=ProvisioningStatus(state="preparing"))
    world = World(spec=spec(raid=VOLUMES), status=status)
    world.run()
    assert world.status.problem is not None
    world.deleting = True
    world.run()
    assert world.gone
    assert world.states[-2:] == ["powering off before delete", "deleting"]
    assert ("Warning", "DeleteIncomplete") not in world.events


def test_nothing_happens_to_a_running_system_whose_spec_gains_a_wish():
    world = World(spec=spec(online=True, image=IMAGE))
    world.run(lambda: world.state is State.PROVISIONED)
    world.performed.clear()
    world.edit(online=True, image=IMAGE, raid=VOLUMES)
    world.run()
    assert world.state is State.PROVISIONED
    assert world.status.problem is None
    assert {type(effect) for effect in world.performed} <= {ask.ReadPower}
