"""Metal3's six conditions: what they say, when they change, and whose others are."""

from datetime import timedelta

import pytest

from billet_server.core import effects as ask
from billet_server.core.conditions import TYPES, same_but_generation
from billet_server.core.host import Bmc, Image, host_patch, parse_host, render_status
from billet_server.core.problems import Fault
from billet_server.core.states import State
from billet_wire import JobProblem, Progress
from core_world import IMAGE, World, spec


def told(world: World, kind: str) -> tuple[str, str]:
    (one,) = [one for one in world.status.conditions if one["type"] == kind]
    return one["status"], one["reason"]


def say(world: World) -> dict[str, str]:
    return {one["type"]: one["status"] for one in world.status.conditions}


def flags(world: World) -> str:
    """Manageable, AvailableForProvisioning, Provisioned, Ready, Progressing, Healthy."""
    return "".join(say(world)[kind][0] for kind in TYPES)


LIFE = {
    State.REGISTERING: "FFFFTU",
    State.INSPECTING: "TFFFTU",
    State.READY: "TTFTFU",
    State.PROVISIONING: "TFFFTU",
    State.PROVISIONED: "TFTTFU",
    State.DEPROVISIONING: "TFFFTU",
    State.EXTERNALLY_PROVISIONED: "TFTTFU",
    State.POWERING_OFF: "TFFFTU",
}


def test_each_state_has_its_statements():
    world, seen = World(spec=spec(online=True)), {}

    def look() -> None:
        decision = world.once()
        if decision.effect is None and not world.live():
            world.now += timedelta(seconds=max(decision.requeue_s or 60, 0.5))
        if world.status.conditions and not world.gone:
            seen.setdefault(world.state, set()).add(flags(world))

    def until(state: State) -> None:
        for _ in range(500):
            if world.state is state:
                break
            look()
        look()
        assert world.state is state or state in seen

    until(State.READY)
    world.edit(online=True, image=IMAGE)
    until(State.PROVISIONED)
    world.edit(online=True)
    until(State.DEPROVISIONING)
    until(State.READY)
    world.edit(online=True, externally_provisioned=True)
    until(State.EXTERNALLY_PROVISIONED)
    world.deleting = True
    until(State.POWERING_OFF)
    seen.pop(State.NONE, None)
    for state, expected in LIFE.items():
        # An image that is set but not begun takes a ready host out of the free ones.
        others = {"TFFTFU"} if state is State.READY else set()
        found = {flag for flag in seen[state] if flag not in others}
        # A host that is being deleted has left its rest.
        found -= {"TFTFFU", "TFFFFU"}
        assert found == {expected}, (state, seen[state])


def test_a_host_without_bmc():
    world = World(spec=spec(bmc=Bmc()))
    world.run()
    assert flags(world) == "FFFFFU"
    assert told(world, "Manageable") == ("False", "Unmanaged")


def test_problems_are_reasons():
    world = World(bmc_fault=Fault("bmc-unreachable", "metal3/node01: no answer"))
    world.run(lambda: world.status.problem is not None)
    assert told(world, "Manageable") == ("False", "BmcUnreachable")
    assert told(world, "Ready") == ("False", "BmcUnreachable")
    assert told(world, "Progressing") == ("True", "Retrying")
    world.bmc_fault = None
    world.run(lambda: world.state is State.READY)
    world.job_fault = JobProblem("image-format", "no qcow2")
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.status.problem is not None)
    assert told(world, "Manageable") == ("True", "Registered")
    assert told(world, "Progressing") == ("False", "ImageFormat")
    assert told(world, "Provisioned") == ("False", "Provisioning")


def test_progress_changes_no_condition():
    world = World(spec=spec(online=True, image=IMAGE))
    world.run(lambda: world.state is State.PROVISIONING)
    world.job_steps = 10**9
    world.run(lambda: world.state is State.PROVISIONING and world.status.progress is not None
              and world.status.progress.step == "deploy")  # fmt: skip
    before = world.status.conditions
    (job,) = [r for r in world.agent.jobs.values() if r.state == "running"]
    for percent in range(20):
        world.now += timedelta(seconds=30)
        world._report(job.id, "running", progress=Progress("write", percent=float(percent)))
        world.once()
        assert world.status.progress.percent == percent
        assert world.status.conditions == before


def test_the_moment_is_of_the_change_and_the_generation_of_the_edit():
    world = World(spec=spec(online=True))
    world.run(lambda: world.state is State.READY)
    world.run()
    first = {one["type"]: one for one in world.status.conditions}
    world.now += timedelta(minutes=30)
    world.edit(online=True)
    world.once()
    second = {one["type"]: one for one in world.status.conditions}
    assert same_but_generation(list(first.values()), list(second.values()))
    assert {one["observedGeneration"] for one in second.values()} == {world.generation}
    world.edit(online=True, image=Image(IMAGE.url, "0" * 32))
    world.run(lambda: world.state is State.PROVISIONING)
    third = {one["type"]: one for one in world.status.conditions}
    assert third["Ready"]["lastTransitionTime"] > second["Ready"]["lastTransitionTime"]
    for kind in ("Healthy", "Manageable"):
        assert third[kind]["lastTransitionTime"] == second[kind]["lastTransitionTime"]


FOREIGN = {
    "type": "example.com/Racked",
    "status": "True",
    "reason": "Scanned",
    "message": "rack 7",
    "lastTransitionTime": "2020-01-01T00:00:00Z",
}


def test_conditions_of_others_stay():
    world = World()
    world.status.conditions = [FOREIGN]
    world.run(lambda: world.state is State.READY)
    assert world.status.conditions[0] == FOREIGN
    assert [one["type"] for one in world.status.conditions[1:]] == list(TYPES)


@pytest.mark.parametrize("broken", [3, "x", [3], [{"type": "Ready"}], [{"status": {}}], {}])
def test_broken_conditions_are_put_right(broken):
    world = World()
    meta = {"name": "node01", "namespace": "metal3", "uid": "u", "generation": 1,
            "resourceVersion": "1", "finalizers": ["baremetalhost.metal3.io"]}  # fmt: skip
    obj = {"metadata": meta, "spec": {"online": True}, "status": {"conditions": broken}}
    host = parse_host(obj)
    world.status = host.status
    status = world.once().status
    patch = host_patch(obj, host, status)
    assert {one["type"] for one in patch["conditions"] if "reason" in one} == set(TYPES)
    assert render_status(status)["conditions"] == patch["conditions"]


def test_an_object_that_only_others_hold_back_is_not_written():
    world = World(deleting=True, finalizers=("example.com/other",))
    before = render_status(world.status)
    decision = world.decide()
    assert decision.effect is None
    assert render_status(decision.status) == before


def test_effects_are_not_delayed_by_a_new_generation():
    world = World()
    world.run(lambda: world.state is State.READY)
    world.run()
    world.edit(online=True)
    world.run(lambda: any(isinstance(effect, ask.PowerOn) for effect in world.performed),
              seconds=60)  # fmt: skip
