"""Fast track: who waits in the ramdisk, for how long, what ends it, and what needs no boot."""

from datetime import timedelta

import pytest

from billet_server.core import effects as ask
from billet_server.core.problems import Fault
from billet_server.core.seen import Rules
from billet_server.core.states import State
from billet_server.core.terms import PowerState
from core_world import IMAGE, World, spec


def waiting_host(fast_track_s=3600.0, **changes) -> World:
    rules = Rules(fast_track_s=fast_track_s)
    world = World(spec=spec(online=True, **changes), rules=rules)
    world.run(lambda: world.state is State.READY)
    world.run()
    return world


def count(world, kind) -> int:
    return sum(isinstance(effect, kind) for effect in world.performed)


def pass_time(world, seconds) -> None:
    """Live for so long, whatever happens."""
    end = world.now + timedelta(seconds=seconds)
    while world.now < end:
        decision = world.once()
        if decision.effect is None and not world.live():
            left_s = (end - world.now).total_seconds()
            world.now += timedelta(seconds=max(0.5, min(decision.requeue_s or left_s, left_s)))


def test_a_host_that_is_meant_to_be_on_waits_and_says_until_when():
    world = waiting_host()
    boot, waiting = world.status.boot, world.status.waiting
    assert boot.purpose == "idle"
    assert waiting.cause == "fast-track"
    assert waiting.actor == "user"
    assert waiting.until == boot.idle_since + timedelta(hours=1)
    assert world.status.powered_on is True
    assert f"{waiting.until:%H:%M:%S} UTC" in waiting.message
    (told,) = [one for one in world.status.conditions if "Available" in one["type"]]
    assert waiting.message in told["message"]
    assert told["status"] == "True"
    assert ("Normal", "FastTrack") in world.events


def test_waiting_writes_nothing_and_tells_nothing_again():
    world = waiting_host()
    pass_time(world, 60)
    before, events = world.status, len(world.events)
    pass_time(world, 1800)
    assert world.status == before
    assert len(world.events) == events


@pytest.mark.parametrize("image_first", [True, False])
def test_inspected_and_provisioned_in_one_boot(image_first):
    world = World(spec=spec(online=True, image=IMAGE if image_first else None))
    if not image_first:
        world.run(lambda: world.state is State.READY)
        pass_time(world, 3000)
        world.edit(online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONED)
    assert count(world, ask.NetworkBoot) == 1
    assert count(world, ask.PowerOff) == 0
    assert world.disk == IMAGE.url


def test_cleaned_and_provisioned_again_in_one_boot():
    world = waiting_host(image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONED)
    world.edit(online=True)
    world.run(lambda: world.state is State.READY)
    boots = count(world, ask.NetworkBoot)
    assert world.status.boot.purpose == "idle"
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONED)
    assert count(world, ask.NetworkBoot) == boots == 2


def test_online_false_switches_off():
    world = waiting_host()
    world.edit(online=False)
    world.run()
    assert world.power is PowerState.OFF
    assert world.status.boot is None
    assert world.status.waiting is None
    assert ("Normal", "FastTrackEnded") not in world.events


def test_a_host_that_is_meant_to_be_off_does_not_wait():
    world = World(spec=spec(online=False))
    world.run(lambda: world.state is State.READY)
    world.run()
    assert world.power is PowerState.OFF
    assert ("Normal", "FastTrack") not in world.events


@pytest.mark.parametrize("fast_track_s", [0.0, 600.0])
def test_when_the_while_is_over_the_machine_is_switched_off_and_on(fast_track_s):
    world = waiting_host(fast_track_s)
    pass_time(world, fast_track_s - 60)
    assert count(world, ask.PowerOff) == (fast_track_s == 0)
    pass_time(world, 180)
    kinds = [type(effect) for effect in world.performed if not isinstance(effect, ask.ReadPower)]
    assert kinds[-2:] == [ask.PowerOff, ask.PowerOn] or kinds[-3:-1] == [ask.PowerOff, ask.PowerOn]
    assert world.power is PowerState.ON
    assert world.status.powered_on is True
    assert world.status.boot is None
    assert world.status.waiting is None
    assert world.events.count(("Normal", "FastTrackEnded")) == 1
    assert world.agent is None or not world.agent.connected
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONED)
    assert count(world, ask.NetworkBoot) == 2, "booted anew"


def test_with_no_while_at_all_an_image_that_is_there_already_needs_no_boot():
    world = World(spec=spec(online=True, image=IMAGE), rules=Rules(fast_track_s=0))
    world.run(lambda: world.state is State.PROVISIONED)
    assert count(world, ask.NetworkBoot) == 1


def test_a_machine_that_must_not_be_off_is_restarted():
    world = waiting_host(600, disable_power_off=True)
    pass_time(world, 900)
    assert count(world, ask.PowerOff) == 0
    assert count(world, ask.PowerCycle) == 1
    assert world.status.boot is None
    assert world.power is PowerState.ON


@pytest.mark.parametrize("edit", [True, False], ids=["edited", "left alone"])
def test_a_restarted_server_finds_the_agent_again(edit):
    world = waiting_host()
    until, agent = world.status.waiting.until, world.agent
    world.restart_server()
    world.agent = None
    if edit:
        world.edit(online=True, image=IMAGE)
    decision = world.once()
    assert count(world, ask.NetworkBoot) == 1
    assert decision.requeue_s is not None
    if not edit:
        assert world.status.waiting.until == until, "the while does not begin anew"
    pass_time(world, 5)
    world.agent = agent._replace(connected_at=world.now)
    if not edit:
        world.edit(online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONED)
    assert count(world, ask.NetworkBoot) == 1


@pytest.mark.parametrize("restart", [True, False])
def test_a_lost_agent_costs_a_network_boot_and_no_failure(restart):
    world = waiting_host()
    world.lose_agent()
    if restart:
        world.restart_server()
        world.agent = None
    world.edit(online=True, image=IMAGE)
    world.once()
    world.once()
    assert world.status.waiting.cause == "agent-return"
    world.run(lambda: world.state is State.PROVISIONED)
    assert count(world, ask.NetworkBoot) == 2
    assert not [event for event in world.events if event[0] == "Warning"]


def test_a_machine_that_somebody_switched_off_is_booted_at_once():
    world = waiting_host()
    world.lose_agent(power=PowerState.OFF)
    world.edit(online=True, image=IMAGE)
    world.run(lambda: count(world, ask.NetworkBoot) == 2, seconds=15)


def test_an_agent_lost_long_ago_is_not_waited_for():
    world = waiting_host()
    world.lose_agent()
    pass_time(world, 300)
    assert world.status.boot is None
    assert world.status.waiting is None
    world.edit(online=True, image=IMAGE)
    world.run(lambda: count(world, ask.NetworkBoot) == 2, seconds=2)


def test_a_bmc_that_cannot_switch_off_is_asked_so_often_and_no_more():
    world = waiting_host(600)
    world.refused = ask.PowerOff
    world.rules = Rules(fast_track_s=600, max_retries=3)
    pass_time(world, 7200)
    assert count(world, ask.PowerOff) == 4
    assert world.status.boot is None
    assert world.status.problem is None, "it is on, as it should be"
    assert ("Warning", "FastTrackEnded") in world.events


def test_a_failed_switching_off_is_named_and_tried_again():
    world = waiting_host(600)
    world.refused = ask.PowerOff
    world.run(lambda: world.status.problem is not None)
    assert world.status.problem.id == "bmc-rejected"
    assert world.status.error_type == "power management error"
    world.refused = None
    pass_time(world, 120)
    assert world.status.problem is None
    assert world.power is PowerState.ON
    assert world.status.boot is None


def test_a_status_of_a_server_that_knew_no_while_begins_one():
    world = waiting_host()
    world.status.boot.idle_since = None
    world.status.waiting = None
    world.once()
    assert world.status.boot.idle_since is not None
    assert world.status.waiting.cause == "fast-track"


def test_an_inspection_asked_for_needs_no_boot_and_begins_the_while_anew():
    world = waiting_host()
    before = world.status.waiting.until
    world.now += timedelta(minutes=30)
    world.annotate("inspect.metal3.io")
    world.once()
    world.run(lambda: world.state is State.INSPECTING)
    world.run(lambda: world.state is State.READY)
    world.run()
    assert count(world, ask.NetworkBoot) == 1
    assert world.status.waiting.until > before


def test_a_credential_problem_of_the_bmc_hides_the_wait():
    world = waiting_host()
    world.bmc_fault = Fault("bmc-unreachable", "metal3/node01: no")
    world.run(lambda: world.status.problem is not None)
    assert world.status.waiting.cause == "retry"
    world.bmc_fault = None
    world.run(lambda: world.status.problem is None)
    world.run()
    assert world.status.waiting.cause == "fast-track"
