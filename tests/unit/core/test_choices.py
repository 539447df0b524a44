"""Choices that a spec or a setting makes, followed from the object to what is done."""

import pytest

from billet_server.core import effects as ask
from billet_server.core.seen import Rules
from billet_server.core.states import State
from billet_server.core.terms import BootMode
from core_world import IMAGE, World, spec


def modes(world: World) -> set[BootMode | None]:
    kinds = (ask.NetworkBoot, ask.SetDiskBoot, ask.RestartFromDisk)
    return {effect.mode for effect in world.performed if isinstance(effect, kinds)}


@pytest.mark.parametrize(("word", "other"), [("ready", "available"), ("available", "ready")])
def test_the_rest_state_is_written_by_the_word_that_was_set(word, other):
    world = World(rules=Rules(ready_word=word))
    world.run()
    assert world.status.provisioning.state == word
    world.status.provisioning.state = other
    world.run()
    assert world.status.provisioning.state == word
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONED)
    assert other not in world.states


@pytest.mark.parametrize("mode", list(BootMode))
def test_a_boot_mode_is_set_with_every_boot_device(mode):
    world = World(spec=spec(boot_mode=mode))
    world.run(lambda: world.state is State.READY)
    assert modes(world) == {mode}
    world.edit(boot_mode=mode, online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONED)
    assert modes(world) == {mode}


def test_without_a_boot_mode_it_is_left_as_found():
    world = World()
    world.run(lambda: world.state is State.READY)
    assert modes(world) == {None}
    assert world.status.provisioning.boot_mode == "legacy", "what the agent was booted in"
    world.performed.clear()
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONED)
    assert modes(world) == {BootMode.LEGACY}


@pytest.mark.parametrize("mode", ["metadata", "disabled"])
def test_cleaning_before_the_image_and_when_it_goes(mode):
    world = World(spec=spec(automated_cleaning_mode=mode))
    world.run(lambda: world.state is State.READY)
    world.edit(automated_cleaning_mode=mode, online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONED)
    (deploy,) = (effect for effect in world.performed if isinstance(effect, ask.StartDeploy))
    assert deploy.clean is (mode == "metadata")
    world.edit(automated_cleaning_mode=mode, online=True)
    world.run(lambda: world.state is State.READY)
    cleaned = any(isinstance(effect, ask.StartClean) for effect in world.performed)
    assert cleaned is (mode == "metadata")
    assert world.disk == ("wiped" if cleaned else IMAGE.url)
