"""The catalogue decides what time heals; an agent is asked only for what it alone knows."""

import msgspec
import pytest

from billet_server.core.problems import CATALOGUE, heals, of_agent
from billet_server.core.states import State
from billet_wire import JobProblem
from core_world import IMAGE, World, spec

NEEDS_AN_EDIT = ("checksum-file", "image-format", "root-device", "image-too-large", "image-boot")


@pytest.mark.parametrize("word", [True, False, None])
@pytest.mark.parametrize("problem", sorted(CATALOGUE))
def test_the_catalogue_overrules_the_agent(problem, word):
    fault = of_agent(JobProblem(problem, "no", heals=word), "metal3/node01")
    assert heals(fault) is CATALOGUE[problem].heals


@pytest.mark.parametrize(("word", "healed"), [(True, True), (False, False), (None, True)])
def test_an_agents_word_counts_for_what_the_catalogue_lacks(word, healed):
    fault = of_agent(JobProblem("flux-capacitor", "no", heals=word), "metal3/node01")
    assert fault.problem == "flux-capacitor"
    assert heals(fault) is healed


@pytest.mark.parametrize("problem", NEEDS_AN_EDIT)
def test_what_needs_an_edit_waits_for_it(problem):
    world = World(spec=spec(online=True, image=IMAGE))
    world.job_fault = JobProblem(problem, "no", heals=True)
    world.run(lambda: world.status.problem is not None)
    assert world.status.problem.id == problem
    assert world.status.problem.next_retry_at is None
    assert world.status.waiting.actor == "user"
    world.job_fault = None
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONED)


def test_old_and_new_agents_are_understood():
    old = msgspec.json.decode(b'{"problem": "x", "message": "m", "heals": false}', type=JobProblem)
    assert old.heals is False
    sent = msgspec.json.encode(JobProblem("x", "m"))
    assert b"heals" not in sent, "a server of before would not take null"
