"""Annotations that the server takes off: only as they were when that was decided."""

import pytest

from billet_server import errors
from billet_server.core.effects import RemoveAnnotations
from billet_server.core.host import parse_host
from billet_server.engine.perform import Performer, describe
from billet_server.ports import BARE_METAL_HOST
from engine_rig import NAME, NS, Rig


async def annotated(rig: Rig, **annotations: str | None):
    keys = {f"billet.dev/{key}": value for key, value in annotations.items()}
    patch = {"metadata": {"annotations": keys}}
    return await rig.api.patch(BARE_METAL_HOST, NS, NAME, patch)


@pytest.fixture
async def rig():
    rig = Rig()
    rig.api.put_namespace(NS)
    await rig.add_host()
    return rig


def performer(rig: Rig, written: list) -> Performer:
    return Performer(rig.api, rig.bmcs, rig.agents, lambda *_: None, written.append)


async def test_annotations_are_taken_off_and_others_stay(rig):
    written = []
    obj = await annotated(rig, a="1", b="2", c="3")
    effect = RemoveAnnotations((("billet.dev/a", "1"), ("billet.dev/b", "2")))
    outcome = await performer(rig, written).perform(effect, parse_host(obj), None)
    assert outcome.fault is None
    left = await rig.host()
    assert left["metadata"]["annotations"] == {"billet.dev/c": "3"}
    assert written == [left], "the next pass must see it at once"


async def test_an_annotation_set_anew_meanwhile_stays(rig):
    obj = await annotated(rig, a="new")
    effect = RemoveAnnotations((("billet.dev/a", "old"), ("billet.dev/gone", "1")))
    await performer(rig, []).perform(effect, parse_host(obj), None)
    assert (await rig.host())["metadata"]["annotations"] == {"billet.dev/a": "new"}


async def test_an_object_written_meanwhile_is_looked_at_again_first(rig):
    obj = await annotated(rig, a="1")
    await annotated(rig, a="2")
    effect = RemoveAnnotations((("billet.dev/a", "1"),))
    with pytest.raises(errors.Conflict):
        await performer(rig, []).perform(effect, parse_host(obj), None)
    assert (await rig.host())["metadata"]["annotations"] == {"billet.dev/a": "2"}


def test_logs_name_the_annotations_and_not_their_values():
    effect = RemoveAnnotations((("reboot.metal3.io", "{}"), ("a/b", "long")))
    assert describe(effect) == "RemoveAnnotations(reboot.metal3.io, a/b)"
