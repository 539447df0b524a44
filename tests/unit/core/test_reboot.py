"""reboot.metal3.io in all its forms: one restart, held off, modes, force, and crashes anywhere."""

from datetime import timedelta

import pytest

from billet_server.core import effects as ask
from billet_server.core.problems import Fault
from billet_server.core.reboot import Request, parse_request
from billet_server.core.states import State
from billet_server.core.terms import PowerState
from core_world import IMAGE, World, spec

KEY = "reboot.metal3.io"
HARD = '{"mode": "hard"}'
FORCE = '{"force": true}'
REFUSED = Fault("bmc-rejected", "no")


def in_state(state: State, **changes) -> World:
    """A host at rest in a state, on; what led there is forgotten."""
    edits = {"online": True, **changes}
    if state is State.PROVISIONED:
        edits["image"] = IMAGE
    elif state is State.EXTERNALLY_PROVISIONED:
        edits["externally_provisioned"] = True
    world = World(spec=spec(**edits))
    world.run(lambda: world.state is state)
    world.run()
    world.performed.clear()
    world.events.clear()
    return world


def effects(world: World) -> list[ask.Effect]:
    skipped = (ask.ReadPower, ask.ForgetAgent)
    return [effect for effect in world.performed if not isinstance(effect, skipped)]


def settle(world: World, seconds: float = 300) -> None:
    """Let time pass: what is to happen has happened."""
    end = world.now + timedelta(seconds=seconds)
    while world.now < end:
        decision = world.once()
        if decision.effect is None and not world.live():
            world.now += timedelta(seconds=max(decision.requeue_s or 60, 0.5))


def boots(world: World) -> int:
    kinds = (ask.PowerOn, ask.PowerCycle, ask.NetworkBoot, ask.RestartFromDisk)
    return sum(isinstance(effect, kinds) for effect in world.performed)


@pytest.mark.parametrize(
    ("value", "hard", "force", "fine"),
    [
        ("", False, False, True),
        ("  ", False, False, True),
        ("{}", False, False, True),
        ("null", False, False, True),
        ('{"mode": "soft"}', False, False, True),
        ('{"mode": ""}', False, False, True),
        ('{"mode": "hard"}', True, False, True),
        ('{"Mode": "hard"}', True, False, True),
        ('{"mode": "hard", "force": true}', True, True, True),
        ('{"force": true, "other": 1}', False, True, True),
        ('{"mode": "HARD"}', False, False, False),
        ('{"mode": "reset", "force": true}', False, True, False),
        ('{"mode": 1, "force": true}', False, False, False),
        ('{"mode": "hard", "force": "yes"}', False, False, False),
        ("hard", False, False, False),
        ("{", False, False, False),
        ("[]", False, False, False),
        ('"hard"', False, False, False),
        ("[" * 100_000, False, False, False),
        ('{"mode": "\ud800"}', False, False, False),
    ],
)
def test_values_are_read_as_metal3_does(value, hard, force, fine):
    request = parse_request(KEY, value)
    assert (request.hard, request.force, not request.fault) == (hard, force, fine)
    assert len(request.fault) < 300


@pytest.mark.parametrize("state", [State.PROVISIONED, State.EXTERNALLY_PROVISIONED])
@pytest.mark.parametrize(("value", "soft"), [("", True), (HARD, False), ("{", True)])
def test_one_restart(state, value, soft):
    world = in_state(state)
    world.annotate(KEY, value)
    settle(world)
    assert effects(world) == [
        ask.PowerOff(soft=soft),
        ask.RemoveAnnotations(((KEY, value),)),
        ask.PowerOn(),
    ]
    assert world.power is PowerState.ON
    assert (world.state, world.annotations) == (state, {})
    assert world.events.count(("Normal", "PowerOff")) == 1
    assert world.events.count(("Normal", "PowerOn")) == 1


def test_a_host_that_is_off_as_wanted_stays_off_and_loses_the_request():
    world = in_state(State.PROVISIONED)
    world.edit(online=False, image=IMAGE)
    settle(world)
    world.performed.clear()
    world.annotate(KEY)
    settle(world)
    assert effects(world) == [ask.RemoveAnnotations(((KEY, ""),))]
    assert world.power is PowerState.OFF


def test_a_client_holds_the_machine_off_until_it_lets_go():
    world = in_state(State.PROVISIONED)
    world.annotate(f"{KEY}/a", HARD)
    world.annotate(f"{KEY}/b")
    settle(world)
    assert effects(world) == [ask.PowerOff(soft=False)], "hard wins over soft"
    assert world.status.waiting.cause == "held"
    assert f"{KEY}/a, {KEY}/b" in world.status.waiting.message
    world.annotate(f"{KEY}/a", None)
    settle(world)
    assert world.power is PowerState.OFF
    world.annotate(f"{KEY}/b", None)
    settle(world)
    assert world.power is PowerState.ON
    assert effects(world) == [ask.PowerOff(soft=False), ask.PowerOn()]
    assert world.status.waiting is None


def test_one_restart_while_held_is_done_and_the_hold_stays():
    world = in_state(State.PROVISIONED)
    world.annotate(f"{KEY}/a")
    world.annotate(KEY)
    settle(world)
    assert list(world.annotations) == [f"{KEY}/a"]
    assert world.power is PowerState.OFF
    world.annotate(f"{KEY}/a", None)
    settle(world)
    assert boots(world) == 1


def test_switched_on_by_hand_while_held_goes_off_again():
    world = in_state(State.PROVISIONED)
    world.annotate(f"{KEY}/a")
    settle(world)
    world.power = PowerState.ON
    settle(world)
    assert world.power is PowerState.OFF


def test_online_false_and_a_hold_leave_it_off_when_the_hold_ends():
    world = in_state(State.PROVISIONED)
    world.annotate(f"{KEY}/a")
    settle(world)
    world.edit(online=False, image=IMAGE)
    world.annotate(f"{KEY}/a", None)
    settle(world)
    assert world.power is PowerState.OFF
    assert boots(world) == 0


def test_another_key_is_not_a_request():
    world = in_state(State.PROVISIONED)
    world.annotate("reboot.metal3.iox")
    world.annotate("xreboot.metal3.io/a")
    settle(world)
    assert effects(world) == []


@pytest.mark.parametrize("key", [KEY, f"{KEY}/a"])
def test_at_rest_without_a_system_only_force_acts(key):
    world = in_state(State.READY)
    world.annotate(key)
    settle(world)
    assert effects(world) == []
    assert world.power is PowerState.ON
    assert "provisioned" in world.status.waiting.message
    assert world.events.count(("Normal", "RebootDelayed")) == 1
    world.annotate(key, FORCE)
    settle(world)
    assert effects(world)[0] == ask.PowerOff(soft=False), "an idle ramdisk has nothing to lose"
    assert (world.power is PowerState.ON) is (key == KEY)


def test_a_forced_hold_keeps_a_ready_host_from_being_provisioned():
    world = in_state(State.READY)
    world.annotate(f"{KEY}/a", FORCE)
    settle(world)
    world.edit(online=True, image=IMAGE)
    settle(world)
    assert (world.state, world.power) == (State.READY, PowerState.OFF)
    assert world.status.waiting.cause == "held"
    world.annotate(f"{KEY}/a", None)
    world.run(lambda: world.state is State.PROVISIONED)


@pytest.mark.parametrize("state", [State.INSPECTING, State.PROVISIONING])
@pytest.mark.parametrize("moment", ["first", "booting", "job"])
def test_force_interrupts_and_the_operation_starts_over(state, moment):
    world = busy(state, moment)
    nonce = world.status.boot.nonce if world.status.boot else None
    world.annotate(KEY, '{"mode": "soft", "force": true}')
    passes, was_off = len(world.performed), world.power is PowerState.OFF
    world.run(lambda: KEY not in world.annotations)
    assert world.state is state
    assert isinstance(world.performed[-1], ask.RemoveAnnotations)
    off = [each for each in world.performed[passes:] if isinstance(each, ask.PowerOff)]
    assert off == ([] if was_off else [ask.PowerOff(soft=False)])
    goal = State.READY if state is State.INSPECTING else State.PROVISIONED
    world.run(lambda: world.state is goal)
    assert world.status.problem is None
    booted = [each.nonce for each in world.performed[passes:] if isinstance(each, ask.NetworkBoot)]
    assert len(booted) == 1
    assert nonce not in booted


def busy(state: State, moment: str) -> World:
    world = World(spec=spec(online=True, image=IMAGE))
    world.job_steps = 50
    world.run(lambda: world.state is state)

    def reached() -> bool:
        agent, boot = world.agent, world.status.boot
        jobs = agent.jobs.values() if agent is not None and agent.connected else ()
        running = any(each.state == "running" for each in jobs)
        if moment == "job":
            return running
        return moment == "first" or (boot is not None and boot.started_at is not None)

    world.run(reached)
    world.job_steps = 2
    return world


@pytest.mark.parametrize("state", [State.INSPECTING, State.PROVISIONING])
def test_a_forced_hold_interrupts_for_as_long_as_it_is_there(state):
    world = busy(state, "job")
    world.annotate(f"{KEY}/a", FORCE)
    settle(world, 4000)
    assert (world.state, world.power) == (state, PowerState.OFF)
    assert world.status.waiting.cause == "held"
    assert world.status.boot is None
    world.annotate(f"{KEY}/a", None)
    world.run(lambda: world.state is State.PROVISIONED)
    assert world.disk == IMAGE.url


@pytest.mark.parametrize("state", [State.INSPECTING, State.PROVISIONING])
def test_without_force_an_operation_goes_on(state):
    world = busy(state, "job")
    world.annotate(KEY)
    before = len(world.performed)
    world.once()
    assert "RebootDelayed" in [reason for _, reason in world.events]
    assert "agent runs" in world.status.waiting.message
    world.run(lambda: world.state is not state)
    assert not any(isinstance(each, ask.PowerOff) for each in world.performed[before:])


def test_a_request_from_before_the_last_restart_is_done_with_it():
    world = busy(State.PROVISIONING, "job")
    world.annotate(KEY)
    world.annotate(f"{KEY}/a", None)
    world.run(lambda: world.state is State.PROVISIONED)
    settle(world)
    assert world.annotations == {}
    assert not any(isinstance(each, ask.PowerOff) for each in world.performed)
    world.annotate(f"{KEY}/a")
    world.edit(online=True)
    world.run(lambda: world.state is State.DEPROVISIONING)
    world.annotate(KEY)
    world.run(lambda: world.state is State.READY)
    settle(world)
    assert list(world.annotations) == [f"{KEY}/a"], "a client's own is the client's to remove"


def test_deprovisioning_is_not_interrupted_even_by_force():
    world = in_state(State.PROVISIONED)
    world.edit(online=True)
    world.run(lambda: world.state is State.DEPROVISIONING)
    world.annotate(KEY, FORCE)
    world.run(lambda: world.state is State.READY)
    assert not any(isinstance(each, ask.PowerOff) for each in world.performed)


@pytest.mark.parametrize("force", ["", FORCE])
def test_a_deletion_does_not_wait_for_a_hold(force):
    world = in_state(State.PROVISIONED)
    world.annotate(f"{KEY}/a", force)
    settle(world)
    world.deleting = True
    world.run()
    assert world.gone


@pytest.mark.parametrize("state", [State.PROVISIONED, State.READY])
@pytest.mark.parametrize("crash_after", range(8))
@pytest.mark.parametrize("lost", [True, False])
def test_no_crash_reboots_twice_or_leaves_it_off(state, crash_after, lost):
    """The server dies in some pass, before or after it could write what came of the effect."""
    world = in_state(state)
    world.annotate(KEY, FORCE)
    for number in range(8):
        world.once(lose_outcome=lost and number == crash_after)
        if number == crash_after:
            world.restart_server()
    settle(world)
    assert world.power is PowerState.ON
    assert world.annotations == {}
    assert boots(world) == 1


@pytest.mark.parametrize("crash_after", range(8))
@pytest.mark.parametrize("lost", [True, False])
def test_no_crash_restarts_twice_in_place(crash_after, lost):
    world = in_state(State.PROVISIONED, disable_power_off=True)
    world.annotate(KEY)
    for number in range(8):
        world.once(lose_outcome=lost and number == crash_after)
        if number == crash_after:
            world.restart_server()
    settle(world)
    assert world.annotations == {}
    assert effects(world).count(ask.PowerCycle(soft=True)) == 1
    assert not any(isinstance(each, ask.PowerOff) for each in world.performed)
    assert world.status.reboot is None
    settle(world)
    assert boots(world) == 1


def test_a_second_request_is_a_second_restart_in_place():
    world = in_state(State.PROVISIONED, disable_power_off=True)
    for _ in range(2):
        world.annotate(KEY, HARD)
        world.run(lambda: KEY not in world.annotations)
    assert effects(world).count(ask.PowerCycle(soft=False)) == 2


def test_a_restart_whose_server_died_is_told_of_and_not_repeated():
    world = in_state(State.PROVISIONED, disable_power_off=True)
    world.annotate(f"{KEY}/a")
    while not any(isinstance(each, ask.PowerCycle) for each in world.performed):
        world.once(lose_outcome=True)
    world.restart_server()
    settle(world)
    assert ("Warning", "RebootUncertain") in world.events
    assert boots(world) == 1


def test_a_hold_where_off_is_forbidden_is_one_restart_and_a_wait():
    world = in_state(State.PROVISIONED, disable_power_off=True)
    world.annotate(f"{KEY}/a")
    settle(world)
    world.annotate(f"{KEY}/b", HARD)
    settle(world)
    assert effects(world) == [ask.PowerCycle(soft=True)]
    assert world.power is PowerState.ON
    assert world.status.waiting.cause == "held"
    assert "disablePowerOff" in world.status.waiting.message
    world.annotations.clear()
    settle(world)
    assert world.status.reboot is None
    assert world.status.waiting is None
    world.annotate(f"{KEY}/a", HARD)
    settle(world)
    assert effects(world)[-1] == ask.PowerCycle(soft=False)
    assert boots(world) == 2


def test_one_restart_asked_for_while_held_is_no_second_one_in_place():
    world = in_state(State.PROVISIONED, disable_power_off=True)
    world.annotate(f"{KEY}/a")
    settle(world)
    world.annotate(KEY)
    settle(world)
    assert list(world.annotations) == [f"{KEY}/a"]
    assert boots(world) == 1


def test_a_machine_found_off_where_off_is_forbidden_is_switched_on_and_not_restarted():
    world = in_state(State.PROVISIONED, disable_power_off=True)
    world.power = PowerState.OFF
    world.power_seen = None
    world.annotate(KEY)
    settle(world)
    assert effects(world) == [ask.RemoveAnnotations(((KEY, ""),)), ask.PowerOn()]


def test_a_refused_restart_in_place_is_told_again_hard():
    world = in_state(State.PROVISIONED, disable_power_off=True)
    world.bmc_fault = REFUSED
    world.annotate(KEY)
    world.run(lambda: world.status.error_count == 1)
    assert world.status.error_type == "power management error"
    world.bmc_fault = None
    world.run(lambda: KEY not in world.annotations)
    assert effects(world).count(ask.PowerCycle(soft=True)) <= 1
    assert effects(world).count(ask.PowerCycle(soft=False)) == 1
    settle(world)
    assert world.status.problem is None


def test_after_any_error_the_power_is_cut():
    world = in_state(State.PROVISIONED)
    world.power_seen = world.power_seen._replace(at=world.now)
    world.bmc_fault = REFUSED
    world.annotate(KEY)
    world.run(lambda: world.status.error_count == 1)
    assert effects(world) == [ask.PowerOff(soft=True)]
    world.bmc_fault = None
    settle(world)
    assert effects(world)[1] == ask.PowerOff(soft=False)
    assert world.power is PowerState.ON
    assert world.status.problem is None
    assert world.events.count(("Normal", "PowerOff")) == 1


def test_a_change_of_the_request_retries_at_once():
    world = in_state(State.PROVISIONED)
    world.bmc_fault = REFUSED
    world.annotate(KEY)
    world.run(lambda: world.status.error_count == 5)
    world.bmc_fault, before = None, world.now
    world.annotate(KEY, HARD)
    world.run(lambda: KEY not in world.annotations)
    assert world.now - before < timedelta(seconds=10)


def test_broken_values_are_reported_once_and_mended_ones_forgotten():
    world = in_state(State.PROVISIONED)
    world.annotate(f"{KEY}/a", '{"mode": "reset"}')
    settle(world, 900)
    assert world.events.count(("Warning", "InvalidAnnotationValue")) == 1
    assert "'reset' is neither soft nor hard" in world.status.waiting.message
    world.annotate(f"{KEY}/a", HARD)
    settle(world)
    assert "neither" not in world.status.waiting.message


def test_a_soft_off_has_an_end():
    world = in_state(State.PROVISIONED)
    world.power_seen = world.power_seen._replace(at=world.now)
    world.annotate(KEY)
    decision = world.decide()
    assert decision.effect == ask.PowerOff(soft=True)
    left = decision.status.waiting.until - world.now
    assert timedelta(seconds=178) < left <= timedelta(seconds=180)


def test_a_request_has_its_key():
    assert parse_request(f"{KEY}/x", "") == Request(f"{KEY}/x")


@pytest.mark.parametrize("never_off", [True, False])
@pytest.mark.parametrize("value", ["", "{"])
def test_a_held_host_is_not_written_while_nothing_changes(never_off, value):
    world = in_state(State.PROVISIONED, disable_power_off=never_off)
    world.annotate(f"{KEY}/a", value)
    settle(world)
    before, events = world.status, list(world.events)
    for _ in range(10):
        world.now += timedelta(seconds=world.once().requeue_s or 0)
        assert world.status == before
    assert world.events == events
