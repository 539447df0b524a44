"""Retries: bounded, told, settable; an edit, the annotation and success begin to count anew."""

from datetime import timedelta

import pytest

from billet_server.core import effects as ask
from billet_server.core.annotations import RETRY
from billet_server.core.host import Image, render_status
from billet_server.core.problems import Fault
from billet_server.core.seen import Rules, SecretSeen
from billet_server.core.states import State
from billet_server.core.terms import PowerState
from billet_wire import JobProblem
from core_world import IMAGE, World, spec

DAY = 86400
BROKEN = JobProblem("image-checksum", "md5 is 1, not 2")


def given_up(world: World) -> bool:
    problem = world.status.problem
    return problem is not None and problem.id == "retries-exhausted"


def count(world: World, kind: type) -> int:
    return sum(isinstance(effect, kind) for effect in world.performed)


def ready(**changes) -> World:
    world = World(spec=spec(**changes))
    world.run(lambda: world.state is State.READY)
    world.run()
    return world


def unprovisionable(rules: Rules | None = None) -> World:
    world = ready(online=True)
    world.rules = rules or Rules()
    world.job_fault = BROKEN
    world.edit(online=True, image=IMAGE)
    world.run(lambda: given_up(world), seconds=DAY)
    return world


def test_provisioning_is_given_up_after_its_retries_and_says_so():
    world = unprovisionable()
    assert count(world, ask.StartDeploy) == 6, "the first try and five retries"
    status, problem = world.status, world.status.problem
    assert status.provisioning_fail_count == 6
    assert status.last_attempted_image == IMAGE
    assert problem.cause == "image-checksum"
    assert problem.next_retry_at is None
    assert "provisioning failed 6 times" in problem.message
    assert "md5 is 1, not 2 (image-checksum)" in problem.message
    assert problem.message.count("metal3/node01") == 1
    assert "billet.dev/retry=now" in problem.advice
    assert (status.waiting.cause, status.waiting.actor) == ("change", "user")
    assert status.error_type == "provisioning error"
    assert world.state is State.PROVISIONING, "no cleaning reboot, unlike Metal3's loop"
    assert world.events.count(("Warning", "ProvisioningError")) == 6
    assert count(world, ask.NetworkBoot) == 1


def test_the_problem_says_how_many_retries_are_left():
    world = ready(online=True)
    world.job_fault = BROKEN
    world.edit(online=True, image=IMAGE)
    left = []

    def watched():
        problem = world.status.problem
        if problem is not None and problem.retries_left not in left:
            left.append(problem.retries_left)
        return given_up(world)

    world.run(watched, seconds=DAY)
    assert left == [5, 4, 3, 2, 1, None]
    world = ready(online=True)
    world.rules = Rules(max_provisioning_retries=0)
    world.job_fault = BROKEN
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.status.problem is not None, seconds=DAY)
    assert world.status.problem.retries_left is None


def test_what_was_given_up_is_left_alone():
    world = unprovisionable()
    deeds = len(world.performed)
    for _ in range(200):
        world.once()
        world.now += timedelta(minutes=20)
        world.restart_server()
    assert len(world.performed) - deeds <= 1, "at most the power of the waiting ramdisk is read"
    assert given_up(world)
    assert world.status.problem.cause == "image-checksum"


def test_an_agent_that_goes_meanwhile_changes_nothing():
    world = unprovisionable()
    world.lose_agent(power=PowerState.OFF)
    boots = count(world, ask.NetworkBoot)
    for _ in range(50):
        world.once()
        world.now += timedelta(seconds=30)
    assert given_up(world)
    assert world.status.problem.cause == "image-checksum"
    assert world.status.boot is None
    assert count(world, ask.NetworkBoot) == boots
    world.job_fault = None
    world.annotations[RETRY] = ""
    world.run(lambda: world.state is State.PROVISIONED)


@pytest.mark.parametrize("how", ["spec", "image", "secret", "data", "annotation"])
def test_every_way_to_try_again(how):
    world = unprovisionable()
    tries = count(world, ask.StartDeploy)
    match how:
        case "spec":
            world.edit(online=True, image=IMAGE, user_data=None)
        case "image":
            world.edit(online=True, image=Image(IMAGE.url, "0" * 32))
        case "secret":
            world.secret = SecretSeen("9")
        case "data":
            world.data_version = "9"
        case "annotation":
            world.annotations[RETRY] = "please"
    world.run(lambda: count(world, ask.StartDeploy) > tries, seconds=30)
    world.run(lambda: world.status.problem is None, seconds=30)
    world.run(lambda: given_up(world), seconds=DAY)
    assert count(world, ask.StartDeploy) == tries + 6, "the count began anew"
    world.job_fault = None
    world.annotations[RETRY] = "please"
    world.run(lambda: world.state is State.PROVISIONED)
    assert RETRY not in world.annotations
    assert world.status.failures is None
    assert world.status.provisioning_fail_count is None
    assert world.status.last_attempted_image is None


def test_an_image_that_is_taken_back_is_no_longer_counted():
    world = unprovisionable()
    world.job_fault = None
    world.edit(online=True)
    world.run(lambda: world.state is State.READY)
    assert "provisioningFailCount" not in render_status(world.status)


def test_no_limit_is_none():
    world = ready(online=True)
    world.rules = Rules(max_provisioning_retries=0)
    world.job_fault = BROKEN
    world.edit(online=True, image=IMAGE)
    world.run(lambda: count(world, ask.StartDeploy) > 40, seconds=10 * DAY)
    assert not given_up(world)
    assert world.status.problem.next_retry_at is not None


def test_inspection_is_given_up_and_reboots_nothing_any_more():
    world = World(netboots=False, rules=Rules(max_retries=3))
    world.run(lambda: given_up(world), seconds=10 * DAY)
    assert world.status.failures.inspection == 4
    assert count(world, ask.NetworkBoot) == 4
    assert world.status.problem.cause == "boot-no-request"
    assert "inspection failed 4 times" in world.status.error_message
    world.netboots = True
    world.annotations[RETRY] = "1"
    world.run(lambda: world.state is State.READY)
    assert ("Normal", "RetryRequested") in world.events


def test_cleaning_is_given_up():
    world = ready(online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONED)
    world.job_fault = JobProblem("clean", "wipefs failed")
    world.edit(online=True)
    world.run(lambda: given_up(world), seconds=10 * DAY)
    assert world.status.failures.deprovisioning == 11
    assert world.state is State.DEPROVISIONING


def test_a_wrong_password_is_not_tried_for_ever():
    world = World(bmc_fault=Fault("bmc-auth", "metal3/node01: refused"))
    world.run(lambda: given_up(world), seconds=DAY)
    assert count(world, ask.CheckBmc) == 11
    assert world.status.problem.cause == "bmc-auth"
    world.bmc_fault = None
    world.secret = SecretSeen("2")
    world.run(lambda: world.state is State.READY)


@pytest.mark.parametrize("state", ["registering", "ready", "provisioning"])
def test_a_bmc_that_is_away_for_a_day_needs_nobody(state):
    world = World(spec=spec(online=True, image=IMAGE))
    if state != "registering":
        world.run(lambda: world.state == state)
        world.lose_agent(power=PowerState.OFF)
    world.bmc_fault = Fault("bmc-unreachable", "metal3/node01: no answer")
    world.power_seen = None
    end = world.now + timedelta(days=1)
    while world.now < end:
        decision = world.once()
        if decision.effect is None:
            assert decision.requeue_s is not None
            assert decision.requeue_s <= 660
            world.now += timedelta(seconds=max(decision.requeue_s, 0.5))
    assert world.status.problem.id == "bmc-unreachable"
    assert world.status.waiting.until > world.now - timedelta(minutes=11)
    asked = sum(isinstance(e, ask.CheckBmc | ask.NetworkBoot | ask.ReadPower | ask.PowerOn)
                for e in world.performed)  # fmt: skip
    assert asked < 400, "slowly"
    world.bmc_fault = None
    world.run(lambda: world.state is State.PROVISIONED, seconds=3600)


def test_an_image_server_that_is_down_for_a_day_needs_nobody():
    world = ready(online=True)
    world.job_fault = JobProblem("image-fetch", "503")
    world.edit(online=True, image=IMAGE)
    end = world.now + timedelta(days=1)
    world.run(lambda: world.now > end, seconds=2 * DAY, passes=5000)
    assert world.status.problem.id == "image-fetch"
    assert count(world, ask.NetworkBoot) == 1
    world.job_fault = None
    world.run(lambda: world.state is State.PROVISIONED, seconds=3600)


def test_switching_is_given_up_and_the_power_is_still_read():
    world = ready()
    world.refused = ask.PowerOn
    world.edit(online=True)
    world.run(lambda: given_up(world), seconds=DAY)
    assert world.status.failures.power == 11
    ons = count(world, ask.PowerOn)
    for _ in range(20):
        world.once()
        world.now += timedelta(seconds=61)
    assert count(world, ask.PowerOn) == ons
    assert given_up(world)
    world.power = PowerState.ON  # somebody pressed the button
    world.run(lambda: world.status.problem is None, seconds=300)
    assert world.status.failures is None


def test_an_edit_while_a_failing_bmc_is_read_is_a_new_try():
    """Switching was given up, the power is read, the host is edited, the reading fails."""
    world = ready()
    world.refused = ask.PowerOn
    world.edit(online=True)
    world.run(lambda: given_up(world), seconds=DAY)
    world.bmc_fault = Fault("bmc-unreachable", "metal3/node01: no answer")
    world.now += timedelta(seconds=61)
    while not isinstance(world.once().effect, ask.ReadPower):
        world.now += timedelta(seconds=61)
    world.edit(online=True, disable_power_off=True)
    status = world.decide().status
    assert status.waiting is not None
    assert status.problem.id == "bmc-unreachable"
    assert status.problem.next_retry_at is not None
    world.refused = world.bmc_fault = None
    world.run(lambda: world.power is PowerState.ON, seconds=3600)


def test_the_annotation_shortens_a_wait_and_loses_no_outcome():
    world = World(bmc_fault=Fault("bmc-unreachable", "metal3/node01: no answer"))
    world.run(lambda: world.status.error_count >= 8)
    world.bmc_fault = None
    before = world.now
    world.annotations[RETRY] = ""
    world.run(lambda: world.state is State.INSPECTING, passes=20)
    assert world.now - before < timedelta(seconds=10)
    while not isinstance(world.performed[-1], ask.NetworkBoot):
        world.once()
    world.annotations[RETRY] = "again"  # set while the machine is power cycled
    world.run(lambda: world.state is State.READY)
    assert count(world, ask.NetworkBoot) == 1
    assert RETRY not in world.annotations


def test_counts_left_by_metal3_hold_for_their_image():
    world = ready(online=True)
    world.job_fault = BROKEN
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONING)
    world.status.provisioning_fail_count, world.status.last_attempted_image = 5, IMAGE
    world.run(lambda: given_up(world), seconds=DAY)
    assert count(world, ask.StartDeploy) == 1
    world.status.failures = None
    world.edit(online=True, image=Image("http://x/b", "0" * 32))
    world.run(lambda: count(world, ask.StartDeploy) > 2, seconds=DAY)
    assert world.status.provisioning_fail_count < 5


def test_a_job_that_failed_is_not_taken_for_the_next_try():
    """What the agent tells again after the count was set back is an old story."""
    world = ready(online=True)
    world.job_fault = BROKEN
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.status.provisioning_fail_count == 3)
    world.secret = SecretSeen("", Fault("bmc-secret-missing", "no Secret"))
    world.once()
    world.secret = SecretSeen("1")
    world.job_fault = None
    world.run(lambda: world.state is State.PROVISIONED, seconds=60)
    ids = [effect.job_id for effect in world.performed if isinstance(effect, ask.StartDeploy)]
    assert len(set(ids)) == 4
