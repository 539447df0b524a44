"""``billet.dev/boot: kexec``: the written system starts without the firmware."""

import pytest

from billet_server.core import effects as ask
from billet_server.core.annotations import BOOT
from billet_server.core.bootway import by_kexec, parse_boot
from billet_server.core.states import State
from billet_wire import HandOverResult
from core_world import IMAGE, World, spec


def provisioned(result: HandOverResult | None, word: str) -> World:
    world = World(spec=spec(online=True, image=IMAGE), annotations={BOOT: word})
    world.hand_over = result
    world.run(lambda: world.state is State.PROVISIONED)
    return world


@pytest.mark.parametrize(("text", "kexec"), [("kexec", True), (" Kexec ", True), ("reboot", False)])
def test_words(text: str, *, kexec: bool) -> None:
    assert parse_boot(text) is kexec
    assert by_kexec({BOOT: text}) is kexec


def test_a_word_that_means_nothing_reboots() -> None:
    with pytest.raises(ValueError, match="neither"):
        parse_boot("fast")
    assert by_kexec({BOOT: "fast"}) is by_kexec({}) is False


def test_the_agent_is_asked_and_its_word_is_told() -> None:
    world = provisioned(HandOverResult("kexec", "kexec: /vmlinuz of /dev/vda1"), "kexec")
    asked = [each for each in world.performed if isinstance(each, ask.StartHandOver)]
    assert asked[-1].kexec is True
    said = [note.message for note in world.notes if note.reason == "ProvisioningComplete"]
    assert "without the firmware (kexec: /vmlinuz of /dev/vda1)" in said[-1]
    assert not [note for note in world.notes if note.reason == "KexecFallback"]


def test_the_reason_of_a_reboot_instead_is_an_event() -> None:
    world = provisioned(HandOverResult("reboot", "its menu\x1b is odd"), "kexec")
    said = [note for note in world.notes if note.reason == "KexecFallback"]
    assert len(said) == 1
    assert said[0].type == "Warning"
    assert "its menu" in said[0].message
    assert "\x1b" not in said[0].message


def test_without_the_annotation_nothing_of_it_is_said() -> None:
    world = provisioned(HandOverResult("reboot"), "reboot")
    asked = [each for each in world.performed if isinstance(each, ask.StartHandOver)]
    assert asked[-1].kexec is False
    assert not [note for note in world.notes if note.reason == "KexecFallback"]


def test_a_report_of_the_job_is_no_must() -> None:
    assert provisioned(None, "kexec").state is State.PROVISIONED
