"""billet.dev/protect-data: what the agent is told, and how a refusal ends."""

import pytest

from billet_server.core import effects as ask
from billet_server.core.annotations import PROTECT_DATA
from billet_server.core.protection import parse_protection, protects_data
from billet_server.core.states import State
from billet_server.core.validation.annotations import annotation_faults
from billet_wire import JobProblem
from core_world import IMAGE, World, spec

HELD = JobProblem("data-protected", "this would be lost: /dev/vda1: ext4 'root'")


@pytest.mark.parametrize(
    ("value", "protects"),
    [("true", True), (" True ", True), ("false", False), ("", False), (" ", False), ("yes", True)],
)
def test_words(value: str, protects: bool) -> None:
    assert protects_data({PROTECT_DATA: value}) is protects
    assert not protects_data({})


@pytest.mark.parametrize("value", ["yes", "1", "on"])
def test_other_words_are_refused(value: str) -> None:
    with pytest.raises(ValueError):
        parse_protection(value)
    (fault,) = annotation_faults({"metadata": {"annotations": {PROTECT_DATA: value}}})
    assert fault.path == f"metadata.annotations[{PROTECT_DATA}]"


def told(world: World) -> list[bool]:
    jobs = (ask.StartDeploy, ask.StartClean)
    return [effect.protect_data for effect in world.performed if isinstance(effect, jobs)]


def test_a_refusal_stands_until_the_annotation_goes() -> None:
    world = World(spec=spec(online=True, image=IMAGE))
    world.annotations[PROTECT_DATA] = "true"
    world.job_fault = HELD
    world.run(lambda: world.status.problem is not None)
    problem = world.status.problem
    assert problem is not None
    assert problem.id == "data-protected"
    assert "/dev/vda1: ext4 'root'" in problem.message
    assert problem.next_retry_at is None, "time does not heal it"
    assert told(world) == [True]
    world.job_fault = None
    del world.annotations[PROTECT_DATA]
    world.run(lambda: world.state is State.PROVISIONED)
    assert told(world) == [True, False]


def test_deprovisioning_is_refused_as_well() -> None:
    world = World(spec=spec(online=True, image=IMAGE))
    world.run(lambda: world.state is State.PROVISIONED)
    world.annotations[PROTECT_DATA] = "true"
    world.job_fault = HELD
    world.edit(image=None)
    world.run(lambda: world.status.problem is not None)
    assert world.state is State.DEPROVISIONING
    assert told(world)[-1] is True
    world.job_fault = None
    del world.annotations[PROTECT_DATA]
    world.run(lambda: world.state is State.READY)
    assert told(world)[-1] is False


def test_a_deletion_lets_the_host_go_with_its_data() -> None:
    """As Metal3's does when cleaning fails time after time."""
    world = World(spec=spec(online=True, image=IMAGE))
    world.run(lambda: world.state is State.PROVISIONED)
    world.annotations[PROTECT_DATA] = "true"
    world.job_fault = HELD
    world.deleting = True
    world.run(lambda: world.status.problem is not None)
    problem = world.status.problem
    assert problem is not None
    assert problem.id == "data-protected"
    world.run(lambda: world.gone, seconds=100_000)
    assert told(world)[0] is False
    assert all(told(world)[1:])
