"""The status annotation: a moved host goes on where it was, and its machine never notices."""

import json
from datetime import timedelta

import pytest

from billet_server.core import effects as ask
from billet_server.core.annotations import PAUSED, STATUS
from billet_server.core.host import render_status
from billet_server.core.seen import SecretSeen
from billet_server.core.states import State
from billet_server.core.terms import PowerState
from core_world import IMAGE, World, spec

LIVE = {"online": True, "image": IMAGE}


def world_with(goal: State = State.PROVISIONED, **changes) -> World:
    world = World(spec=spec(**changes))
    world.run(lambda: world.state is goal)
    world.run()
    return world


def moved(old: World, **facts) -> World:
    """The same machine as an object without status in another cluster."""
    status = json.dumps(render_status(old.status), default=str)
    new = World(
        spec=old.spec,
        annotations={STATUS: status},
        power=old.power,
        disk=old.disk,
        secret=SecretSeen("elsewhere-7"),
        now=old.now + timedelta(minutes=5),
        started_at=old.now + timedelta(minutes=5),
    )
    for name, value in facts.items():
        setattr(new, name, value)
    return new


def touched(world: World) -> set[str]:
    """What was done to the machine beyond reading its power."""
    harmless = (
        ask.AddFinalizer | ask.RemoveAnnotations | ask.CheckBmc | ask.ReadPower | ask.ForgetAgent
    )
    return {type(effect).__name__ for effect in world.performed if not isinstance(effect, harmless)}


def test_a_provisioned_host_is_neither_restarted_nor_inspected():
    old = world_with(**LIVE)
    world = moved(old)
    world.run()
    assert world.states == ["provisioned"]
    assert touched(world) == set()
    assert STATUS not in world.annotations
    assert world.status.provisioning == old.status.provisioning
    assert world.status.hardware == old.status.hardware
    assert world.status.operation_history == old.status.operation_history
    assert world.status.good_credentials.credentials_version == "elsewhere-7"
    assert world.status.operational_status == "OK"
    assert ("Normal", "RemoveAnnotation") in world.events
    assert not any(kind == "Warning" for kind, _ in world.events)


def test_the_status_is_written_before_anything_else_and_with_the_annotation_still_there():
    world = moved(world_with(**LIVE))
    decision = world.once()
    assert decision.status.provisioning.state == "provisioned"
    assert isinstance(decision.effect, ask.RemoveAnnotations)
    assert world.finalizers == ()
    assert world.status.last_updated is not None


@pytest.mark.parametrize(
    ("goal", "changes"),
    [
        (State.READY, {}),
        (State.READY, {"online": True}),
        (State.EXTERNALLY_PROVISIONED, {"externally_provisioned": True, "online": True}),
    ],
)
def test_hosts_at_rest_stay_there(goal, changes):
    old = world_with(goal, **changes)
    world = moved(old)
    world.run()
    assert world.states == [goal.value]
    assert touched(world) == set()
    assert world.power is old.power


def test_a_host_moved_while_its_image_was_written_starts_the_write_anew():
    old = World(spec=spec(**LIVE))
    old.run(lambda: old.agent is not None and any("deploy" in job for job in old.agent.jobs))
    world = moved(old, power=PowerState.ON)
    world.once()
    assert world.status.boot is None, "its token is not one of this server's"
    world.run(lambda: world.state is State.PROVISIONED)
    assert world.disk == IMAGE.url
    assert world.states == ["provisioning", "provisioned"]


def test_a_host_moved_while_it_left_for_its_disk_is_proved_and_not_booted_again():
    old = World(spec=spec(**LIVE))
    old.run(lambda: old.status.boot is not None and old.status.boot.handed_over_at is not None)
    world = moved(old, power=PowerState.ON)
    world.run(lambda: world.state is State.PROVISIONED)
    assert touched(world) == set()


def test_a_paused_host_is_restored_when_it_goes_on():
    world = moved(world_with(**LIVE))
    world.annotations[PAUSED] = "metal3.io/capm3"
    decision = world.once()
    assert decision.effect is None
    assert decision.status.last_updated is None
    del world.annotations[PAUSED]
    world.run()
    assert world.states[-1] == "provisioned"
    assert touched(world) == set()


def test_on_a_host_with_a_status_the_annotation_is_old_news():
    world = world_with(**LIVE)
    before = world.status.provisioning
    world.annotations[STATUS] = json.dumps({"provisioning": {"state": "ready"}})
    world.run()
    assert STATUS not in world.annotations
    assert world.status.provisioning == before
    assert ("Normal", "RemoveAnnotation") in world.events


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ('["provisioned"]', "JSON list"),
        ('{"provisioning": {"state": "half done"}}', "half done"),
        ('{"provisioning": "provisioned"}', "status.provisioning"),
        ('{"operationalStatus": "fine"}', "fine"),
        ("[" * 100_000, "is not JSON"),
    ],
    ids=range(7),
)
def test_what_cannot_be_read_is_named_kept_and_stops_everything(text, said):
    world = World(spec=spec(**LIVE), annotations={STATUS: text}, power=PowerState.ON)
    world.run()
    for _ in range(3):
        world.once()
    assert world.annotations == {STATUS: text}
    assert world.performed == []
    assert world.status.problem.id == "status-annotation"
    assert said in world.status.error_message
    assert STATUS in world.status.error_message
    assert world.status.error_count == 1
    assert world.status.waiting.actor == "user"
    assert len(world.events) == 1


def test_a_corrected_annotation_is_taken_although_the_problem_was_written():
    old = world_with(**LIVE)
    world = moved(old)
    good, world.annotations[STATUS] = world.annotations[STATUS], "{"
    world.run()
    assert world.status.last_updated is not None
    world.annotations[STATUS] = good
    world.run()
    assert world.states[-1] == "provisioned"
    assert world.status.problem is None
    assert touched(world) == set()


def test_a_removed_annotation_makes_the_host_new():
    world = World(annotations={STATUS: "{"})
    world.run()
    world.annotations.clear()
    world.run()
    assert world.state is State.READY
    assert world.status.problem is None


def test_a_broken_annotation_does_not_keep_an_object():
    world = World(annotations={STATUS: "{"}, finalizers=("baremetalhost.metal3.io",), deleting=True)
    world.run()
    assert world.gone


def test_a_host_deleted_at_once_after_its_move_is_still_cleaned():
    world = moved(world_with(**LIVE))
    world.finalizers, world.deleting = ("baremetalhost.metal3.io",), True
    world.run()
    assert world.gone
    assert world.disk == "wiped"
    assert world.states[:2] == ["provisioned", "deprovisioning"]


def test_a_failed_host_tries_again_at_once_where_it_came_to():
    old = World(spec=spec(**LIVE), netboots=False)
    old.run(lambda: old.status.error_count >= 3, seconds=10**6)
    world = moved(old)
    world.once()
    count = world.status.error_count
    assert count == old.status.error_count, "what was counted is not forgotten"
    began = world.now
    world.run(lambda: any(isinstance(effect, ask.NetworkBoot) for effect in world.performed))
    assert world.now - began < timedelta(seconds=10)
