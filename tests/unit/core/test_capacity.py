"""Places: who has one by its status, what a step does without one."""

import pytest

from billet_server.core import effects as ask
from billet_server.core.capacity import (
    Claim,
    Operation,
    Seat,
    Seats,
    claim_of_object,
    describe_wait,
    look_again_s,
)
from billet_server.core.host import render_status
from billet_server.core.problems import Fault
from billet_server.core.states import State
from core_world import IMAGE, World, spec

FULL = Seat(granted=False, position=3, limit=2)
NONE_FREE = Seats(FULL, FULL, FULL)


def obj(state, cause="", *, image="", online=True, paused=False, operational="OK"):
    notes = {"baremetalhost.metal3.io/paused": ""} if paused else {}
    return {
        "metadata": {"annotations": notes},
        "spec": {"online": online, "image": {"url": image}},
        "status": {
            "operationalStatus": operational,
            "provisioning": {"state": state},
            "waiting": {"cause": cause, "since": "2026-01-01T00:00:00Z"},
        },
    }


HELD = [Claim(operation, held=True) for operation in Operation]
WAITS = [Claim(each, held=False, since="2026-01-01T00:00:00Z") for each in Operation]


@pytest.mark.parametrize(
    ("host", "claim"),
    [
        (obj("inspecting"), HELD[0]),
        (obj("inspecting", "firmware"), HELD[0]),
        (obj("provisioning", "agent-job"), HELD[1]),
        (obj("deprovisioning", "bmc"), HELD[2]),
        (obj("provisioning", "retry"), None),
        (obj("provisioning", "change"), None),
        (obj("provisioning", "capacity"), WAITS[1]),
        (obj("registering", "capacity"), WAITS[0]),
        (obj("ready", "capacity", image="http://a"), WAITS[1]),
        (obj("available", "capacity", image="http://a"), WAITS[1]),
        (obj("ready", "capacity"), WAITS[0]),
        (obj("ready", "capacity", image="http://a", online=False), WAITS[0]),
        (obj("provisioned", "capacity"), WAITS[2]),
        (obj("ready"), None),
        (obj("provisioned", "bmc"), None),
        (obj("provisioning", "agent-job", paused=True), None),
        (obj("ready", "capacity", paused=True), None),
        (obj("provisioning", operational="detached"), None),
        ({}, None),
        ({"status": "x", "metadata": None, "spec": []}, None),
        ({"status": {"provisioning": {"state": 7}, "waiting": 3}}, None),
    ],
)
def test_the_claim_is_in_the_object(host, claim):
    assert claim_of_object(host) == claim


def as_object(world):
    return {
        "metadata": {"annotations": world.annotations},
        "spec": {
            "online": world.spec.online,
            "image": {"url": world.spec.image.url} if world.spec.image else {},
        },
        "status": render_status(world.status),
    }


def claim_of(world):
    return claim_of_object(as_object(world))


def waiting(world):
    return world.status.waiting.cause if world.status.waiting else ""


def queued(world, state):
    """The host waits for a place in this state, without a problem, and says so once."""
    assert world.state is state
    assert waiting(world) == "capacity"
    assert world.status.operational_status == "delayed"
    assert world.status.waiting.message.endswith("number 3 in the queue")
    assert world.status.waiting.actor == "billet"
    since = world.status.waiting.since
    before = world.events.count(("Normal", "Delayed"))
    assert before >= 1
    performed = len(world.performed)
    for _ in range(3):
        decision = world.once()
        assert decision.requeue_s is not None
    assert world.status.waiting.since == since
    assert world.events.count(("Normal", "Delayed")) == before
    assert not any(
        isinstance(effect, ask.NetworkBoot | ask.StartDeploy | ask.StartInspect | ask.StartClean)
        for effect in world.performed[performed:]
    )


def to_ready(world):
    world.run(lambda: world.state is State.READY)


def provisioned():
    world = World()
    to_ready(world)
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONED)
    return world


def test_a_new_host_is_registered_and_then_waits_to_be_inspected():
    world = World(seats=NONE_FREE)
    world.run(lambda: waiting(world) == "capacity")
    queued(world, State.REGISTERING)
    assert claim_of(world).operation is Operation.INSPECT
    assert world.events.count(("Normal", "Registered")) == 1
    assert world.status.good_credentials is not None
    world.seats = Seats()
    to_ready(world)
    assert world.status.operational_status == "OK"
    assert world.events.count(("Normal", "Registered")) == 1


def test_a_ready_host_waits_to_be_provisioned_and_may_think_better_of_it():
    world = World()
    to_ready(world)
    world.seats = NONE_FREE
    world.edit(online=True, image=IMAGE)
    world.once()
    queued(world, State.READY)
    assert claim_of(world).operation is Operation.PROVISION
    world.edit()
    world.once()
    assert waiting(world) != "capacity"
    assert world.status.operational_status == "OK"
    assert world.state is State.READY


def test_a_provisioned_host_runs_on_while_it_waits_to_be_cleaned():
    world = provisioned()
    world.seats = NONE_FREE
    world.edit(online=True)
    world.once()
    queued(world, State.PROVISIONED)
    assert claim_of(world).operation is Operation.CLEAN
    world.edit(online=False)
    world.run(lambda: world.status.powered_on is False)
    assert waiting(world) == "capacity"
    world.seats = Seats()
    to_ready(world)


def test_cleaning_that_is_disabled_needs_no_place():
    world = provisioned()
    world.seats = NONE_FREE
    world.edit(online=True, automated_cleaning_mode="disabled")
    to_ready(world)
    assert ("Normal", "Delayed") not in world.events


def test_deleting_waits_for_nobody():
    world = provisioned()
    world.seats = NONE_FREE
    world.deleting = True
    world.run(lambda: world.gone)
    assert ("Normal", "Delayed") not in world.events
    assert any(isinstance(effect, ask.StartClean) for effect in world.performed)


def test_what_is_under_way_goes_on_though_places_are_short():
    world = World()
    to_ready(world)
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONING)
    world.seats = NONE_FREE
    world.restart_server()
    world.run(lambda: world.state is State.PROVISIONED)
    assert ("Normal", "Delayed") not in world.events


def test_a_failed_host_gives_its_place_back_and_queues_again_for_the_retry():
    world = World()
    world.bmc_fault = None
    world.run(lambda: world.state is State.INSPECTING)
    assert claim_of(world) == Claim(Operation.INSPECT, held=True)
    world.bmc_fault = Fault("bmc-unreachable", "no answer")
    world.run(lambda: waiting(world) == "retry")
    assert claim_of(world) is None
    world.bmc_fault, world.seats = None, NONE_FREE
    world.run(lambda: waiting(world) == "capacity")
    queued(world, State.INSPECTING)
    assert world.status.problem is not None
    world.seats = Seats()
    world.once()
    assert world.status.operational_status == "error"
    to_ready(world)
    assert world.status.operational_status == "OK"


def test_an_aborted_provisioning_waits_for_a_place_to_clean_in():
    world = World()
    to_ready(world)
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONING and len(world.performed) > 5)
    world.seats = NONE_FREE
    world.edit(online=True)
    world.run(lambda: waiting(world) == "capacity")
    assert world.state is State.DEPROVISIONING
    assert claim_of(world).operation is Operation.CLEAN
    world.seats = Seats()
    to_ready(world)


def test_a_problem_is_said_before_the_queue():
    world = provisioned()
    world.seats = NONE_FREE
    world.bmc_fault = Fault("bmc-unreachable", "no answer")
    world.edit(online=True)
    world.run(lambda: world.status.problem is not None)
    assert waiting(world) == "retry"
    assert claim_of(world) is None
    world.bmc_fault = None
    world.run(lambda: waiting(world) == "capacity" and world.status.problem is None)


@pytest.mark.parametrize(
    ("position", "words"),
    [
        (1, "number 1 in"),
        (10, "number 10 in"),
        (11, "among the first 20 in"),
        (21, "among the first 50 in"),
        (51, "among the first 100 in"),
        (101, "among the first 200 in"),
        (9_000, "among the first 10,000 in"),
    ],
)
def test_far_positions_are_coarse(position, words):
    text = describe_wait(Operation.CLEAN, Seat(False, position, 20))
    assert text == f"all 20 places to clean are taken; {words} the queue"


def test_a_whole_life_in_the_queue_is_few_writes():
    texts = {describe_wait(Operation.CLEAN, Seat(False, n, 20)) for n in range(1, 10_001)}
    assert len(texts) <= 20
    assert look_again_s(Seat(False, 10, 20)) < look_again_s(Seat(False, 11, 20))


def test_nothing_of_it_shows_where_places_are_free():
    world = World(spec=spec(online=True, image=IMAGE))
    world.run(lambda: world.state is State.PROVISIONED)
    assert world.status.operational_status == "OK"
    assert ("Normal", "Delayed") not in world.events
