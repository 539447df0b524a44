"""Every wait ends: with a result, or with a named problem and a next try."""

from datetime import timedelta

import pytest

from billet_server.core import effects as ask
from billet_server.core.host import Image
from billet_server.core.problems import Fault
from billet_server.core.seen import BootSeen, PowerSeen, SecretSeen
from billet_server.core.states import State
from billet_server.core.terms import PowerState
from billet_wire import JobProblem, Progress, RootDeviceHints
from core_world import IMAGE, MAC, World, spec

OTHER_MAC = "00:c2:fc:3b:e1:99"


def ready(**changes) -> World:
    world = World(spec=spec(**changes))
    world.run(lambda: world.state is State.READY)
    world.run()
    return world


def writing() -> World:
    """A world whose agent runs the deploy job and will never end it by itself."""
    world = ready()
    world.edit(online=True, image=IMAGE)
    world.job_steps = 10**9
    world.run(lambda: running(world) == "deploy")
    world.once()
    return world


def running(world: World) -> str:
    jobs = world.agent.jobs.values() if world.agent else ()
    return next((report.kind for report in jobs if report.state == "running"), "")


def pass_time(world: World, until, *, limit_s: float = 7200) -> None:
    """Passes with nothing of the machine's own life in between."""
    end = world.now + timedelta(seconds=limit_s)
    for _ in range(5000):
        if until():
            return
        decision = world.once()
        if decision.effect is None:
            assert decision.requeue_s is not None, world.describe()
            world.now += timedelta(seconds=max(decision.requeue_s, 0.5))
        assert world.now < end, world.describe()
    raise AssertionError(f"hot: {world.describe()}")


def has_problem(world: World, name: str):
    return lambda: world.status.problem is not None and world.status.problem.id == name


def test_a_job_without_news_is_stalled_and_the_machine_boots_again():
    world = writing()
    assert world.status.waiting.until is not None
    pass_time(world, has_problem(world, "agent-stalled"))
    assert world.status.boot is None
    assert world.status.error_type == "provisioning error"
    assert "metal3/node01" in world.status.error_message
    assert "without news" in world.status.error_message
    world.job_steps = 2
    world.run(lambda: world.state is State.PROVISIONED)


def test_a_job_with_news_is_left_alone_however_long_it_takes():
    world = writing()
    (job,) = [r for r in world.agent.jobs.values() if r.state == "running"]
    for percent in range(50):
        world.now += timedelta(minutes=10)
        world._report(job.id, "running", progress=Progress("write", percent=float(percent)))
        world.once()
        assert world.status.problem is None
        assert world.status.progress.percent == percent


def test_an_agent_that_takes_no_job_is_stalled():
    world = World()
    world.deaf = True
    pass_time(world, lambda: world.live() and world.agent is not None)
    pass_time(world, has_problem(world, "agent-stalled"))
    assert "reported nothing" in world.status.error_message
    sent = sum(isinstance(effect, ask.StartInspect) for effect in world.performed)
    assert 2 <= sent <= 60


def test_a_job_that_does_not_stop_is_stalled():
    world = writing()
    world.deaf = True
    world.edit(online=True)
    pass_time(world, has_problem(world, "agent-stalled"))
    assert "does not stop" in world.status.error_message
    assert sum(isinstance(effect, ask.CancelJob) for effect in world.performed) < 40


def test_a_machine_in_a_boot_loop_is_named():
    world = World(netboots=False)
    world.run(lambda: world.status.boot is not None and world.status.boot.started_at is not None)
    start = world.now
    while world.status.problem is None:
        world.now += timedelta(seconds=30)
        world.boot = BootSeen(world.now, world.now, world.now, world.now)
        world.once()
        assert world.now - start < timedelta(hours=1), "a loop restarts the wait for ever"
    assert world.status.problem.id == "agent-silent"


def test_a_restarted_agent_is_recognised_soon():
    world = writing()
    world.lose_agent()
    world.boot = world.boot._replace(rival_at=world.now + timedelta(seconds=5))
    start = world.now
    pass_time(world, has_problem(world, "agent-lost"))
    assert world.now - start < timedelta(seconds=40)
    assert "another agent" in world.status.error_message


def test_unknown_power_is_no_hot_loop():
    world = ready()
    world.power = PowerState.UNKNOWN
    world.power_seen = None
    before = len(world.performed)
    for _ in range(20):
        decision = world.once()
        if decision.effect is None:
            assert decision.requeue_s > 1
            break
    assert len(world.performed) - before <= 2
    assert world.status.powered_on is False, "what was known last"
    assert world.status.waiting.cause == "bmc"


@pytest.mark.parametrize("jump", [timedelta(days=-400), timedelta(hours=3)])
def test_a_clock_that_is_set_delays_nothing_for_long(jump):
    world = World(netboots=False)
    world.run(lambda: world.status.boot is not None and world.status.boot.started_at is not None)
    world.now += jump
    world.started_at = world.now
    start = world.now
    pass_time(world, has_problem(world, "boot-no-request"))
    assert world.now - start < timedelta(hours=1)
    world.now += jump
    world.started_at = start = world.now
    world.netboots = True
    world.run(lambda: world.state is State.READY)
    assert world.now - start < timedelta(hours=2)


def test_a_password_corrected_back_leaves_no_error():
    world = ready()
    world.bmc_fault, world.secret = Fault("bmc-auth", "refused"), SecretSeen("2")
    world.run(lambda: world.status.problem is not None)
    world.bmc_fault, world.secret = None, SecretSeen("1")
    world.generation += 1
    world.run()
    assert world.status.problem is None
    assert world.status.operational_status == "OK"


def test_an_address_edited_while_it_is_tried_is_tried_itself():
    world = World()
    world.run(lambda: any(isinstance(effect, ask.CheckBmc) for effect in world.performed))
    assert world.outcome is not None
    bmc = world.spec.bmc.__class__("ipmi://172.22.0.9", "node01-bmc")
    world.edit(bmc=bmc)
    world.once()
    assert world.state is State.REGISTERING, "the old address proves nothing"
    assert world.performed[-1].address == "ipmi://172.22.0.9"


def test_hints_edited_while_writing_begin_the_write_anew():
    world = writing()
    hints = RootDeviceHints(device_name="/dev/vdb")
    world.edit(online=True, image=IMAGE, root_device_hints=hints)
    world.job_steps = 2
    world.run(lambda: world.state is State.PROVISIONED)
    assert any(isinstance(effect, ask.CancelJob) for effect in world.performed)
    last = [e for e in world.performed if isinstance(e, ask.StartDeploy)][-1]
    assert last.hints == hints
    assert world.status.provisioning.root_device_hints == hints


def test_image_removed_while_writing_stops_the_job_even_without_cleaning():
    world = writing()
    world.edit(online=True, automated_cleaning_mode="disabled")
    world.run(lambda: world.state is State.READY)
    assert running(world) == ""


def test_another_boot_mac_begins_another_boot():
    world = World(netboots=False)
    world.run(lambda: world.status.boot is not None and world.status.boot.started_at is not None)
    first = world.status.boot.nonce
    world.edit(boot_mac_address=OTHER_MAC)
    world.netboots = True
    world.run(lambda: world.state is State.READY)
    boots = {e.nonce for e in world.performed if isinstance(e, ask.NetworkBoot)}
    assert len(boots) == 2
    assert first in boots
    assert MAC != OTHER_MAC


def test_a_user_data_secret_that_appears_is_used_at_once():
    world = ready()
    world.edit(online=True, image=IMAGE)
    world.deploy_fault = Fault("user-data-missing", "metal3/node01: no Secret user")
    world.run(lambda: world.status.problem is not None)
    assert world.status.problem.next_retry_at is None
    world.deploy_fault, world.data_version = None, "77"
    world.run(lambda: world.state is State.PROVISIONED)


# hand-over


def handing_over() -> World:
    world = ready()
    world.edit(online=True, image=IMAGE)
    world.run(lambda: bool(world.performed) and isinstance(world.performed[-1], ask.SetDiskBoot))
    return world


def test_a_server_killed_while_telling_the_agent_does_not_cut_the_new_systems_power():
    world = handing_over()
    world.once()
    assert isinstance(world.performed[-1], ask.StartHandOver)
    world.restart_server()
    world.agent = None
    world.run(lambda: world.state is State.PROVISIONED)
    assert not any(isinstance(effect, ask.RestartFromDisk) for effect in world.performed)


def test_a_lost_connection_is_no_proof():
    world = handing_over()
    world.once()
    world.agent = world.agent._replace(goodbye=None)
    world.once()
    assert world.state is State.PROVISIONING
    assert world.status.waiting.until is not None
    world.agent = world.agent._replace(
        connected=True, connected_at=world.now + timedelta(seconds=5), goodbye=None
    )
    world.now += timedelta(seconds=6)
    world.once()
    told = sum(isinstance(effect, ask.StartHandOver) for effect in world.performed)
    assert told == 2, "it is told again"
    world.run(lambda: world.state is State.PROVISIONED)


def test_an_agent_that_does_not_leave_is_made_to():
    world = handing_over()
    world.deaf = True
    world.once()
    pass_time(world, lambda: world.state is State.PROVISIONED)
    assert any(isinstance(effect, ask.RestartFromDisk) for effect in world.performed)
    assert world.events.count(("Warning", "HandOverForced")) == 1


def test_a_server_that_comes_late_lets_the_agent_call_before_it_believes_that_it_left():
    """The order may never have arrived: power on is no proof while the agent can still call."""
    world = handing_over()
    world.deaf = True
    world.once()
    world.lose_agent()
    world.now += timedelta(seconds=world.rules.hand_over_s + 60)  # nobody led in between
    world.restart_server()
    silent, world.agent = world.agent, None
    decision = world.once()
    assert world.state is State.PROVISIONING
    assert decision.status.waiting.cause == "hand-over"
    world.now += timedelta(seconds=5)
    world.agent = silent._replace(connected=True, connected_at=world.now, jobs={})
    world.deaf = False
    pass_time(world, lambda: world.state is State.PROVISIONED)
    assert [each for each in world.performed if isinstance(each, ask.StartHandOver)][1:], (
        "it is told again"
    )


def test_an_agent_that_calls_a_new_server_within_the_second_of_the_order_is_told_again():
    world = handing_over()
    world.deaf = True
    world.once()
    world.now = world.status.boot.handed_over_at + timedelta(seconds=0.4)
    world.restart_server()
    world.now += timedelta(seconds=0.1)
    world.agent = world.agent._replace(connected=True, connected_at=world.now, jobs={})
    world.deaf = False
    world.run(lambda: world.state is State.PROVISIONED)
    told = [each for each in world.performed if isinstance(each, ask.StartHandOver)]
    assert len(told) == 2
    assert not any(isinstance(each, ask.RestartFromDisk) for each in world.performed)


def test_a_bmc_that_dies_at_hand_over_is_named_and_waited_for():
    world = handing_over()
    world.lose_agent()
    world.outcome = None
    world.bmc_fault = Fault("bmc-unreachable", "metal3/node01: no answer")
    pass_time(world, lambda: world.status.error_count >= 3)
    assert world.status.error_type == "power management error"
    assert world.events.count(("Warning", "HandOverForced")) == 0
    world.bmc_fault = None
    world.run(lambda: world.state is State.PROVISIONED)


# what agents say


@pytest.mark.parametrize("percent", [float("inf"), float("nan"), -5.0, 400.0])
def test_absurd_progress_is_kept_in_range(percent):
    world = writing()
    (job,) = [r for r in world.agent.jobs.values() if r.state == "running"]
    absurd = Progress("w\x1b[2J" * 99, percent, 10**30, -1, float("inf"), float("nan"), "\n" * 9999)
    world._report(job.id, "running", progress=absurd)
    world.once()
    said = world.status.progress
    assert 0 <= said.percent <= 100
    assert 0 <= said.done_bytes < 2**63
    assert said.total_bytes == 0
    assert len(said.step) <= 60
    assert said.step.isprintable()


def test_an_agents_problem_is_cut_and_printable():
    world = ready()
    world.job_fault = JobProblem("No Such Id\n", "bad\x1b[31m" * 9999, "e" * 99999, "\x00", True)
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.status.problem is not None)
    assert world.status.problem.id == "agent-internal"
    assert world.status.error_message.isprintable()
    assert len(world.status.error_message) < 2000
    assert len(world.status.problem.evidence) <= 2000


def test_an_agent_of_an_earlier_boot_is_cut_off():
    world = ready(online=True)
    assert world.status.boot is not None
    world.agent = world.agent._replace(nonce="0" * 32)
    world.once()
    assert isinstance(world.performed[-1], ask.ForgetAgent)


def test_an_idle_ramdisk_whose_agent_is_lost_loses_its_token():
    world = ready(online=True)
    assert world.status.boot.purpose == "idle"
    world.lose_agent()
    pass_time(world, lambda: world.status.boot is None, limit_s=180)
    world.run()
    assert world.agent is None


# deletion


@pytest.mark.parametrize("fault", ["bmc-unsupported", "bmc-address", "bmc-unreachable", "internal"])
@pytest.mark.parametrize("state", ["inspecting", "ready", "provisioning", "provisioned"])
def test_a_deletion_never_waits_for_anybody(fault, state):
    world = World(spec=spec(online=True, image=IMAGE))
    world.run(lambda: world.status.provisioning.state == state)
    world.deleting = True
    world.bmc_fault = Fault(fault, "metal3/node01: no")
    world.power_seen = PowerSeen(PowerState.ON, world.now)
    world.lose_agent()
    world.run(lambda: world.gone, seconds=86400)
    assert ("Warning", "DeleteIncomplete") in world.events


def test_a_deletion_after_a_problem_that_waits_for_a_person_goes_on():
    world = ready()
    world.edit(online=True, image=IMAGE)
    world.job_fault = JobProblem("clean", "no", "", "", heals=False)
    world.run(lambda: world.status.problem is not None)
    world.deleting = True
    world.run(lambda: world.gone, seconds=86400)


@pytest.mark.parametrize("change", ["mac", "bmc", "spec"])
def test_a_deletion_with_a_standing_fault_gives_up_cleaning(change):
    world = ready()
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONED)
    if change == "mac":
        world.mac_conflict = "metal3/other"
    elif change == "bmc":
        world.bmc_conflict = "metal3/other"
    else:
        world.edit(online=True, image=IMAGE, boot_mac_address="")
    world.deleting = True
    offs = sum(isinstance(effect, ask.PowerOff) for effect in world.performed)
    world.run(lambda: world.gone)
    assert ("Warning", "DeleteIncomplete") in world.events
    cut = sum(isinstance(effect, ask.PowerOff) for effect in world.performed) - offs
    assert cut == (0 if change == "bmc" else 1), "another host's machine is not switched off"


# states that edits lead to


def test_a_second_host_with_the_same_bmc_stands():
    world = World(bmc_conflict="metal3/elder")
    world.run()
    assert world.status.problem.id == "bmc-conflict"
    assert "metal3/elder" in world.status.error_message
    assert not any(isinstance(effect, ask.CheckBmc) for effect in world.performed)
    world.bmc_conflict = ""
    world.run()
    assert world.state is State.READY


def test_externally_provisioned_taken_back_is_provisioned_by_the_spec():
    world = World(spec=spec(externally_provisioned=True, online=True))
    world.run(lambda: world.state is State.EXTERNALLY_PROVISIONED)
    world.run()
    assert not any(isinstance(effect, ask.NetworkBoot) for effect in world.performed)
    world.edit(online=True)
    world.run(lambda: world.state is State.READY)
    world.edit(online=True, image=Image(IMAGE.url, IMAGE.checksum))
    world.run(lambda: world.disk == IMAGE.url and world.state is State.PROVISIONED)


def test_a_host_that_may_not_be_switched_off_is_still_looked_at():
    world = World(spec=spec(online=True))
    world.run(lambda: world.state is State.READY)
    world.edit(online=False, disable_power_off=True)
    world.run()
    decision = world.once()
    assert decision.requeue_s is not None
