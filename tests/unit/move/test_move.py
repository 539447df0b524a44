"""The move between two APIs: whole, from every crash on, never both sides, back again."""

import pytest

from billet_server import errors
from billet_server.core.annotations import INSPECT, MOVE, PAUSED, REBOOT, STATUS
from billet_server.move.bundle import Mark, differences, read_mark
from billet_server.move.mover import MoveError, Mover
from billet_server.move.survey import survey
from billet_server.ports import BARE_METAL_HOST, HARDWARE_DATA, SECRET
from move_world import Died, Fuse, Worlds, notes

WRITES = 60
"""More than the writes of moving two hosts, counted before and after each."""


@pytest.fixture
def worlds():
    return Worlds()


async def two_hosts(worlds):
    """Two hosts that share their BMC's Secret; the second is paused by a person."""
    await worlds.host("node01", secrets=("bmc", "user-data"))
    await worlds.host("node02", secrets=("bmc",), annotations={PAUSED: "ask Ines"})
    return await worlds.all(worlds.here)


async def test_there_and_back(worlds):
    before = await two_hosts(worlds)
    await worlds.run()
    await worlds.assert_moved(before)
    assert await worlds.active(worlds.there) == {"node01"}
    moved = await worlds.all(worlds.there)
    await worlds.run(back=True)
    await worlds.assert_moved(moved, here=worlds.there, there=worlds.here)
    assert await worlds.active(worlds.here) == {"node01"}


async def crash(worlds, length):
    try:
        await worlds.run(Fuse(length))
    except Died:
        return True
    return False


@pytest.mark.parametrize("length", range(WRITES))
async def test_broken_off_at_any_write_it_is_run_again_and_ends_on_one_side(worlds, length):
    before = await two_hosts(worlds)
    await crash(worlds, length)
    await worlds.never_both()
    await worlds.run()
    await worlds.assert_moved(before)
    assert await worlds.active(worlds.there) == {"node01"}


async def test_the_crashes_reach_from_the_first_write_to_the_last(worlds):
    await two_hosts(worlds)
    assert await crash(worlds, 0)
    other = Worlds()
    await two_hosts(other)
    assert not await crash(other, WRITES)


@pytest.mark.parametrize("length", range(2, WRITES, 3))
async def test_broken_off_again_and_again(worlds, length):
    before = await two_hosts(worlds)
    for more in range(WRITES):
        if not await crash(worlds, length % 7 + more):
            break
    await worlds.assert_moved(before)


@pytest.mark.parametrize("length", range(WRITES))
async def test_undo_after_a_crash_leaves_all_as_it_was_or_refuses(worlds, length):
    before = await two_hosts(worlds)
    died = await crash(worlds, length)
    refused = None
    try:
        await worlds.run(undo=True)
    except MoveError as error:
        refused = str(error)
    if refused:
        assert "handed over already" in refused
        await worlds.run()
        await worlds.assert_moved(before)
        return
    if not died:
        await worlds.assert_moved(before)
        return
    left, there = await worlds.all(worlds.here), await worlds.all(worlds.there)
    gone = before.keys() - left.keys()
    assert gone <= there.keys()
    assert await worlds.active(worlds.here) | await worlds.active(worlds.there) == {"node01"}
    for key, obj in left.items():
        assert obj.get("spec") == before[key].get("spec")
        assert notes(obj) == notes(before[key])


async def test_an_edit_between_two_runs_is_moved_too(worlds):
    await worlds.host()
    with pytest.raises(Died):
        await worlds.run(Fuse(8))
    assert (await worlds.all(worlds.there)).keys()
    patch = {"metadata": {"labels": {"rack": "b"}}, "spec": {"description": "edited"}}
    await worlds.here.patch(BARE_METAL_HOST, "metal3", "node01", patch)
    worlds.here.put_secret("metal3", "user-data", userData="edited")
    before = await worlds.all(worlds.here)
    for key in before.values():
        (key["metadata"].get("annotations") or {}).pop(MOVE, None)
        (key["metadata"].get("annotations") or {}).pop(PAUSED, None)
    await worlds.run()
    await worlds.assert_moved(before)


async def test_an_edit_just_before_the_hand_over_stops_it(worlds):
    await worlds.host()

    class Edited(Mover):
        async def _hand_over(self, source, bundle, mark):
            patch = {"spec": {"online": False}}
            await worlds.here.patch(BARE_METAL_HOST, "metal3", "node01", patch)
            await super()._hand_over(source, bundle, mark)

    (item,) = await worlds.survey()
    with pytest.raises(errors.Conflict):
        await Edited(worlds.here, worlds.there, lambda key, text: None).move(item)
    await worlds.run()
    (host,) = (await worlds.there.list(BARE_METAL_HOST)).items
    assert host["spec"]["online"] is False


async def test_a_server_that_began_something_stops_the_pause(worlds):
    await worlds.host()
    (item,) = await worlds.survey()
    waiting = {"waiting": {"cause": "bmc", "message": "switching", "actor": "bmc"}}
    await worlds.here.patch(
        BARE_METAL_HOST, "metal3", "node01", {"status": waiting}, subresource="status"
    )
    with pytest.raises(errors.Conflict):
        await Mover(worlds.here, worlds.there, lambda key, text: None).move(item)
    assert await worlds.active(worlds.here) == {"node01"}
    assert await worlds.all(worlds.there) == {}


async def test_during_the_move_the_copy_holds_its_status_in_the_annotation_too(worlds):
    await worlds.host()
    with pytest.raises(Died):
        await worlds.run(Fuse(5))
    (copy,) = (await worlds.there.list(BARE_METAL_HOST)).items
    notes = copy["metadata"]["annotations"]
    assert '"provisioned"' in notes[STATUS]
    assert PAUSED in notes
    mark = read_mark(copy)
    assert mark is not None
    (source,) = (await worlds.here.list(BARE_METAL_HOST)).items
    assert mark.id == source["metadata"]["uid"]


@pytest.mark.parametrize(
    ("more", "blocker"),
    [
        ({"state": "provisioning"}, "it is provisioning (--wait"),
        ({"state": "inspecting"}, "it is inspecting"),
        ({"state": "deprovisioning", "annotations": {PAUSED: ""}}, "paused in the middle of it"),
        ({"waiting": {"cause": "bmc", "message": "switching the power on"}}, "switching the power"),
        ({"annotations": {REBOOT: ""}}, "a reboot is asked for"),
        ({"state": "ready", "annotations": {INSPECT: ""}}, "an inspection is asked for"),
    ],
)
async def test_a_host_in_the_middle_of_something_is_in_the_way(worlds, more, blocker):
    await worlds.host(**more)
    (item,) = await worlds.survey()
    (found,) = item.blockers
    assert blocker in found
    assert item.busy


@pytest.mark.parametrize("more", [
    {"state": "ready"}, {"state": "available"}, {"state": "externally provisioned"},
    {"state": "registering", "errorType": "registration error",
     "problem": {"id": "bmc-auth", "message": "x"}},
    {"waiting": {"cause": "retry", "message": "x"}},
    {"waiting": {"cause": "held", "actor": "user"}},
    {"annotations": {f"{REBOOT}/night": ""}}, {"operationalStatus": "detached"},
])  # fmt: skip
async def test_a_host_at_rest_is_not(worlds, more):
    await worlds.host(**more)
    (item,) = await worlds.survey()
    assert item.blockers == ()


async def test_what_is_at_the_target_already_is_in_the_way(worlds):
    await worlds.host("node01")
    await worlds.host("node02", secrets=("other",))
    await worlds.host("node02", api=worlds.there, secrets=("other2",))
    worlds.there.put_secret("metal3", "user-data", userData="somebody else's")
    by_name = {item.key.name: item.blockers for item in await worlds.survey()}
    assert by_name["node02"] == ("a host of this name is there already",)
    assert "metal3/node02 there has the same bootMACAddress" in by_name["node01"]
    assert "metal3/node02 there has the same BMC" in by_name["node01"]
    assert "Secret user-data with other content is there" in by_name["node01"]
    with pytest.raises(errors.ConfigError, match="same API"):
        await survey([], worlds.here, worlds.here)


async def test_a_secret_that_others_use_stays_at_the_source_until_the_last(worlds):
    await worlds.host("node01", secrets=("bmc",))
    await worlds.host("node02", secrets=("bmc",), state="provisioning")
    first, _ = await worlds.survey()
    await Mover(worlds.here, worlds.there, lambda key, text: None).move(first)
    assert ("Secret", "bmc") in await worlds.all(worlds.here)
    assert ("Secret", "bmc") in await worlds.all(worlds.there)


async def test_a_secret_that_somebody_else_owns_is_left_at_the_source(worlds):
    await worlds.host()
    machine = {"apiVersion": "v1", "kind": "Machine", "name": "m", "uid": "1-2-3"}
    await worlds.here.patch(
        SECRET, "metal3", "user-data", {"metadata": {"ownerReferences": [machine]}}
    )
    (item,) = await worlds.survey()
    assert "user-data loses its owner Machine/m" in item.notes
    await worlds.run()
    assert (await worlds.all(worlds.here)).keys() == {("Secret", "user-data")}
    copy = await worlds.there.get(SECRET, "metal3", "user-data")
    assert "ownerReferences" not in copy["metadata"]


async def test_a_target_that_drops_fields_is_found_out_before_anything_is_lost(worlds):
    await worlds.host()

    class Pruning:
        def __getattr__(self, name):
            return getattr(worlds.there, name)

        async def create(self, kind, obj):
            spec = {k: v for k, v in (obj.get("spec") or {}).items() if k != "userData"}
            return await worlds.there.create(kind, {**obj, "spec": spec} if "spec" in obj else obj)

    before = await worlds.all(worlds.here)
    (item,) = await worlds.survey()
    with pytest.raises(MoveError, match=r"did not keep spec\.userData"):
        await Mover(worlds.here, Pruning(), lambda key, text: None).move(item)
    assert (await worlds.all(worlds.here)).keys() == before.keys()
    await worlds.run(undo=True)
    assert await worlds.active(worlds.here) == {"node01"}
    assert await worlds.all(worlds.there) == {}


async def test_a_copy_that_somebody_unpaused_is_not_built_upon(worlds):
    await worlds.host()
    with pytest.raises(Died):
        await worlds.run(Fuse(8))
    patch = {"metadata": {"annotations": {PAUSED: None}}}
    await worlds.there.patch(BARE_METAL_HOST, "metal3", "node01", patch)
    (item,) = await worlds.survey()
    assert "unpaused by somebody" in item.blockers[0]
    with pytest.raises(MoveError, match="unpaused by somebody"):
        await Mover(worlds.here, worlds.there, lambda key, text: None).move(item)


async def test_what_belongs_to_the_old_server_is_left_behind(worlds):
    boot = {"nonce": "n", "purpose": "idle", "agentID": "a"}
    await worlds.host(state="ready", boot=boot, waiting={"cause": "retry", "message": "x"})
    (item,) = await worlds.survey()
    assert any("idle ramdisk" in note for note in item.notes)
    await worlds.run()
    (host,) = (await worlds.there.list(BARE_METAL_HOST)).items
    assert not {"boot", "waiting", "progress"} & host["status"].keys()


async def test_a_host_without_its_secret_is_moved_and_said(worlds):
    await worlds.host()
    await worlds.here.delete(SECRET, "metal3", "bmc")
    (item,) = await worlds.survey()
    assert "Secret bmc does not exist" in item.notes
    await worlds.run()
    (host,) = (await worlds.there.list(BARE_METAL_HOST)).items
    assert host["status"]["goodCredentials"]["credentialsVersion"] == ""


async def test_a_new_namespace_is_made(worlds):
    worlds.here.put_namespace("lab")
    await worlds.here.create(
        BARE_METAL_HOST,
        {"metadata": {"namespace": "lab", "name": "bare"}, "spec": {"online": False}},
    )
    await worlds.run()
    assert (await worlds.there.get(BARE_METAL_HOST, "lab", "bare"))["spec"] == {"online": False}


async def test_hardware_data_with_a_finalizer_goes_too(worlds):
    await worlds.host()
    patch = {"metadata": {"finalizers": ["hardwaredata.metal3.io"]}}
    await worlds.here.patch(HARDWARE_DATA, "metal3", "node01", patch)
    await worlds.run()
    assert await worlds.all(worlds.here) == {}
    data = await worlds.there.get(HARDWARE_DATA, "metal3", "node01")
    assert data["metadata"]["finalizers"] == ["hardwaredata.metal3.io"]


async def test_secrets_that_move_do_not_count_as_changed_since_the_image_was_written(worlds):
    obj = await worlds.host()
    version = (await worlds.here.get(SECRET, "metal3", "user-data"))["metadata"]["resourceVersion"]
    drive = {"provisioning": {**obj["status"]["provisioning"],
                              "configDrive": f"userData={version},metaData=1"}}  # fmt: skip
    await worlds.here.patch(
        BARE_METAL_HOST, "metal3", "node01", {"status": drive}, subresource="status"
    )
    await worlds.run()
    (host,) = (await worlds.there.list(BARE_METAL_HOST)).items
    moved = await worlds.there.get(SECRET, "metal3", "user-data")
    version = moved["metadata"]["resourceVersion"]
    assert host["status"]["provisioning"]["configDrive"] == (
        f"userData={version},metaData=changed-before-move"
    )


def test_differences_are_paths_of_what_is_missing():
    assert differences({"a": {"b": 1}, "c": [1, {"d": 2}]}, {"a": {}, "c": [1, {"d": 3}]}) == [
        "a.b", "c[1].d",
    ]  # fmt: skip
    assert differences({"a": None}, {"b": 1}) == []
    assert differences([1], [1, 2]) == ["(all)"]


@pytest.mark.parametrize("text", ["", "x", "[]", '{"a": 1}', "null"])
def test_a_mark_that_cannot_be_read_is_none(text):
    assert read_mark({"metadata": {"annotations": {MOVE: text}}}) is None
    mark = Mark("id", "other", None, handed_over=True, made=["Secret/a"])
    assert read_mark({"metadata": {"annotations": {MOVE: mark.render()}}}) == mark
