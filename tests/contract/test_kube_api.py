"""The contract of `ports.KubeApi`, the same for the twin, the embedded API and a cluster."""

import asyncio
import random
from base64 import b64encode
from contextlib import aclosing

import pytest

from billet_server import errors
from billet_server.engine.clock import SystemClock
from billet_server.engine.informer import Informer
from billet_server.ports import (
    BARE_METAL_HOST,
    CONFIG_MAP,
    EVENT,
    LEASE,
    NAMESPACE,
    SECRET,
    Kind,
)


def host(namespace, name="a", **metadata):
    return {
        "apiVersion": "metal3.io/v1alpha1",
        "kind": "BareMetalHost",
        "metadata": {"namespace": namespace, "name": name, **metadata},
        "spec": {"online": False},
    }


def config_map(namespace, name="a", **metadata):
    return {"metadata": {"namespace": namespace, "name": name, **metadata}, "data": {"key": "1"}}


async def next_changes(api, kind, namespace, version, count):
    """The next ``count`` changes after a version, without bookmarks."""
    found = []
    async with (
        asyncio.timeout(20),
        aclosing(api.watch(kind, namespace, resource_version=version)) as events,
    ):
        async for event in events:
            if event.type != "BOOKMARK":
                found.append(event)
            if len(found) == count:
                return found
    raise AssertionError(f"the watch ended after {found}")


async def version_now(api, kind, namespace):
    return (await api.list(kind, namespace)).resource_version


# --- create, get, list ---------------------------------------------------------------------


async def test_create_fills_in_the_metadata(api, namespace):
    made = await api.create(BARE_METAL_HOST, host(namespace))
    metadata = made["metadata"]
    assert metadata["generation"] == 1
    assert int(metadata["resourceVersion"]) > 0
    assert len(metadata["uid"]) == 36
    assert metadata["creationTimestamp"].endswith("Z")
    assert made["spec"]["online"] is False
    assert await api.get(BARE_METAL_HOST, namespace, "a") == made


async def test_type_may_be_left_out_and_lists_carry_it(api, namespace):
    made = await api.create(CONFIG_MAP, config_map(namespace))
    assert (made["apiVersion"], made["kind"]) == ("v1", "ConfigMap")
    assert (await api.list(CONFIG_MAP, namespace)).items == [made]


async def test_a_wrong_type_is_invalid(api, namespace):
    with pytest.raises(errors.Invalid):
        await api.create(CONFIG_MAP, {**config_map(namespace), "kind": "Secret"})


async def test_creating_twice_is_a_conflict(api, namespace):
    await api.create(CONFIG_MAP, config_map(namespace))
    with pytest.raises(errors.Conflict) as caught:
        await api.create(CONFIG_MAP, config_map(namespace))
    assert (caught.value.status, caught.value.reason) == (409, "AlreadyExists")
    assert "already exists" in str(caught.value)


async def test_generate_name(api, namespace):
    obj = {"metadata": {"namespace": namespace, "generateName": "event-"}, "data": {}}
    names = {(await api.create(CONFIG_MAP, obj))["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("event-") and len(name) > 6 for name in names)


@pytest.mark.parametrize("name", ["", "Upper", "under_score", "-dash"])
async def test_bad_names_are_invalid(api, namespace, name):
    with pytest.raises(errors.Invalid):
        await api.create(CONFIG_MAP, config_map(namespace, name))


async def test_a_resource_version_cannot_be_created(api, namespace):
    with pytest.raises(errors.ApiError, match="resourceVersion"):
        await api.create(CONFIG_MAP, config_map(namespace, resourceVersion="7"))


async def test_a_missing_namespace_is_not_found(api):
    with pytest.raises(errors.NotFound, match="no-such-namespace"):
        await api.create(CONFIG_MAP, config_map("no-such-namespace"))


async def test_missing_objects_are_not_found(api, namespace):
    with pytest.raises(errors.NotFound, match="gone"):
        await api.get(SECRET, namespace, "gone")
    with pytest.raises(errors.NotFound):
        await api.patch(SECRET, namespace, "gone", {"data": {}})
    with pytest.raises(errors.NotFound):
        await api.patch(BARE_METAL_HOST, namespace, "gone", {"status": {}}, subresource="status")
    with pytest.raises(errors.NotFound):
        await api.replace(BARE_METAL_HOST, host(namespace, "gone", resourceVersion="1"))
    with pytest.raises(errors.NotFound):
        await api.delete(SECRET, namespace, "gone")


async def test_a_kind_that_is_not_served_is_not_found(api, namespace):
    unknown = Kind("nowhere.example.org", "v1", "Thing", "things")
    with pytest.raises(errors.NotFound):
        await api.list(unknown)
    with pytest.raises(errors.NotFound):
        await api.create(unknown, {"metadata": {"namespace": namespace, "name": "a"}})
    with pytest.raises(errors.NotFound):
        await anext(aiter(api.watch(unknown, resource_version="1")))


async def test_lists_are_whole_and_by_namespace(api, namespace):
    names = [f"m{number:02}" for number in range(17)]
    for name in names:
        await api.create(CONFIG_MAP, config_map(namespace, name))
    listed = await api.list(CONFIG_MAP, namespace)
    assert [obj["metadata"]["name"] for obj in listed.items] == names
    everywhere = await api.list(CONFIG_MAP)
    mine = [obj for obj in everywhere.items if obj["metadata"]["namespace"] == namespace]
    assert mine == listed.items
    assert all(
        int(obj["metadata"]["resourceVersion"]) <= int(listed.resource_version)
        for obj in listed.items
    )


async def test_label_selectors(api, namespace):
    for name, labels in {"a": {"x": "1"}, "b": {"x": "1", "y": "2"}, "c": {"x": "2"}}.items():
        await api.create(CONFIG_MAP, config_map(namespace, name, labels=labels))
    await api.create(CONFIG_MAP, config_map(namespace, "d"))

    async def names(**labels):
        listed = await api.list(CONFIG_MAP, namespace, labels=labels)
        return [obj["metadata"]["name"] for obj in listed.items]

    assert await names(x="1") == ["a", "b"]
    assert await names(x="1", y="2") == ["b"]
    assert await names(z="1") == []
    await api.patch(CONFIG_MAP, namespace, "a", {"metadata": {"labels": {"x": None}}})
    assert await names(x="1") == ["b"]


# --- writes --------------------------------------------------------------------------------


async def test_merge_patch(api, namespace):
    obj = config_map(namespace, annotations={"one": "1", "two": "2"}, finalizers=["x.org/a"])
    made = await api.create(CONFIG_MAP, obj)
    patch = {
        "metadata": {"annotations": {"one": None, "three": "3"}, "finalizers": ["x.org/b"]},
        "data": {"more": "2"},
    }
    patched = await api.patch(CONFIG_MAP, namespace, "a", patch)
    assert patched["metadata"]["annotations"] == {"two": "2", "three": "3"}
    assert patched["metadata"]["finalizers"] == ["x.org/b"]
    assert patched["data"] == {"key": "1", "more": "2"}
    assert patched["metadata"]["uid"] == made["metadata"]["uid"]
    assert int(patched["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
    assert await api.get(CONFIG_MAP, namespace, "a") == patched


async def test_a_write_that_changes_nothing_is_no_change(api, namespace):
    made = await api.create(BARE_METAL_HOST, host(namespace))
    assert await api.patch(BARE_METAL_HOST, namespace, "a", {"spec": {"online": False}}) == made
    assert await api.replace(BARE_METAL_HOST, made) == made


async def test_a_patch_of_an_old_version_is_a_conflict(api, namespace):
    made = await api.create(CONFIG_MAP, config_map(namespace))
    guarded = {
        "metadata": {"resourceVersion": made["metadata"]["resourceVersion"]},
        "data": {"key": "2"},
    }
    patched = await api.patch(CONFIG_MAP, namespace, "a", guarded)
    assert patched["data"] == {"key": "2"}
    with pytest.raises(errors.Conflict) as caught:
        await api.patch(CONFIG_MAP, namespace, "a", {**guarded, "data": {"key": "3"}})
    assert (caught.value.status, caught.value.reason) == (409, "Conflict")
    assert await api.get(CONFIG_MAP, namespace, "a") == patched


async def test_a_status_patch_of_an_old_version_is_a_conflict(api, namespace):
    made = await api.create(BARE_METAL_HOST, host(namespace))
    version = made["metadata"]["resourceVersion"]
    await api.patch(BARE_METAL_HOST, namespace, "a", {"spec": {"online": True}})
    patch = {"metadata": {"resourceVersion": version}, "status": {"errorCount": 1}}
    with pytest.raises(errors.Conflict):
        await api.patch(BARE_METAL_HOST, namespace, "a", patch, subresource="status")


async def test_replace(api, namespace):
    made = await api.create(BARE_METAL_HOST, host(namespace, labels={"x": "1"}))
    new = {**made, "spec": {**made["spec"], "online": True}}
    new["metadata"] = {**made["metadata"], "labels": {"y": "2"}}
    replaced = await api.replace(BARE_METAL_HOST, new)
    assert replaced["spec"]["online"] is True
    assert replaced["metadata"]["labels"] == {"y": "2"}
    with pytest.raises(errors.Conflict):
        await api.replace(BARE_METAL_HOST, new)
    assert await api.get(BARE_METAL_HOST, namespace, "a") == replaced


async def test_a_custom_object_is_replaced_only_by_version(api, namespace):
    await api.create(BARE_METAL_HOST, host(namespace))
    with pytest.raises(errors.Invalid, match="resourceVersion"):
        await api.replace(BARE_METAL_HOST, host(namespace))


async def test_identity_cannot_change(api, namespace):
    made = await api.create(BARE_METAL_HOST, host(namespace))
    other = "00000000-0000-4000-8000-000000000000"
    with pytest.raises(errors.Invalid):
        await api.patch(BARE_METAL_HOST, namespace, "a", {"metadata": {"uid": other}})
    with pytest.raises(errors.Conflict):
        await api.replace(BARE_METAL_HOST, {**made, "metadata": {**made["metadata"], "uid": other}})
    for patch in ({"name": "b"}, {"namespace": "default"}):
        with pytest.raises(errors.Invalid):
            await api.patch(BARE_METAL_HOST, namespace, "a", {"metadata": patch})
    stamps = {"creationTimestamp": "2001-01-01T00:00:00Z", "generation": 77}
    labels = {"labels": {"x": "1"}}
    patched = await api.patch(BARE_METAL_HOST, namespace, "a", {"metadata": {**stamps, **labels}})
    assert patched["metadata"] == {
        **made["metadata"],
        **labels,
        "resourceVersion": patched["metadata"]["resourceVersion"],
    }


async def test_a_status_patch_is_guarded_by_version_not_by_uid(api, namespace):
    """A uid in it is ignored, so only a resourceVersion keeps it off a host made anew."""
    await api.create(BARE_METAL_HOST, host(namespace))
    patch = {
        "metadata": {"uid": "00000000-0000-4000-8000-000000000000"},
        "status": {"errorCount": 1},
    }
    patched = await api.patch(BARE_METAL_HOST, namespace, "a", patch, subresource="status")
    assert patched["status"]["errorCount"] == 1


async def test_emptied_metadata_is_left_out(api, namespace):
    obj = host(namespace, labels={"x": "1"}, annotations={"y": "1"}, finalizers=["x.org/a"])
    await api.create(BARE_METAL_HOST, obj)
    patch = {"labels": {"x": None}, "annotations": None, "finalizers": []}
    patched = await api.patch(BARE_METAL_HOST, namespace, "a", {"metadata": patch})
    assert {"labels", "annotations", "finalizers"}.isdisjoint(patched["metadata"])
    again = await api.patch(BARE_METAL_HOST, namespace, "a", {"metadata": {"labels": {}}})
    assert again == patched


async def test_a_custom_object_is_patched_with_a_version_or_none_mentioned(api, namespace):
    await api.create(BARE_METAL_HOST, host(namespace))
    with pytest.raises(errors.Invalid, match="resourceVersion"):
        patch = {"metadata": {"resourceVersion": None}, "spec": {"online": True}}
        await api.patch(BARE_METAL_HOST, namespace, "a", patch)


async def test_concurrent_patches_are_all_kept(api, namespace):
    await api.create(BARE_METAL_HOST, host(namespace))
    patches = [{"metadata": {"annotations": {f"x.org/{number}": "1"}}} for number in range(8)]
    await asyncio.gather(*(api.patch(BARE_METAL_HOST, namespace, "a", one) for one in patches))
    found = await api.get(BARE_METAL_HOST, namespace, "a")
    assert len(found["metadata"]["annotations"]) == 8


# --- status and generation -----------------------------------------------------------------


async def test_the_main_resource_leaves_status_alone(api, namespace):
    made = await api.create(BARE_METAL_HOST, {**host(namespace), "status": {"errorCount": 9}})
    assert "status" not in made
    patch = {"status": {"errorCount": 3}}
    await api.patch(BARE_METAL_HOST, namespace, "a", patch, subresource="status")
    patched = await api.patch(
        BARE_METAL_HOST, namespace, "a", {"spec": {"online": True}, "status": {"errorCount": 4}}
    )
    assert patched["status"]["errorCount"] == 3
    replaced = await api.replace(BARE_METAL_HOST, {**patched, "status": {}})
    assert replaced["status"]["errorCount"] == 3


async def test_the_status_resource_leaves_all_else_alone(api, namespace):
    made = await api.create(BARE_METAL_HOST, host(namespace, labels={"x": "1"}))
    patch = {
        "metadata": {"labels": {"x": "2"}, "finalizers": ["x.org/a"]},
        "spec": {"online": True},
        "status": {"errorCount": 1, "errorMessage": "no"},
    }
    patched = await api.patch(BARE_METAL_HOST, namespace, "a", patch, subresource="status")
    assert patched["spec"] == made["spec"]
    assert patched["metadata"]["labels"] == {"x": "1"}
    assert "finalizers" not in patched["metadata"]
    assert patched["status"]["errorMessage"] == "no"
    emptied = {**patched, "spec": {"online": True}, "status": {"errorCount": 2}}
    replaced = await api.replace(BARE_METAL_HOST, emptied, subresource="status")
    assert replaced["spec"] == made["spec"]
    assert replaced["status"]["errorCount"] == 2
    assert "errorMessage" not in replaced["status"]


async def test_generation_counts_what_is_wanted(api, namespace):
    await api.create(BARE_METAL_HOST, host(namespace))

    async def after(patch, subresource=""):
        obj = await api.patch(BARE_METAL_HOST, namespace, "a", patch, subresource=subresource)
        return obj["metadata"]["generation"]

    assert await after({"spec": {"online": True}}) == 2
    assert await after({"spec": {"online": True}}) == 2
    assert await after({"metadata": {"labels": {"x": "1"}}}) == 2
    assert await after({"status": {"errorCount": 1}}, "status") == 2
    assert await after({"spec": {"online": False}, "status": {"errorCount": 2}}) == 3


async def test_a_kind_without_status_has_no_status_resource(api, namespace):
    await api.create(SECRET, {"metadata": {"namespace": namespace, "name": "a"}})
    with pytest.raises(errors.NotFound):
        await api.patch(SECRET, namespace, "a", {"status": {}}, subresource="status")


# --- deletion ------------------------------------------------------------------------------


async def test_delete(api, namespace):
    made = await api.create(CONFIG_MAP, config_map(namespace))
    await api.delete(CONFIG_MAP, namespace, "a")
    with pytest.raises(errors.NotFound):
        await api.get(CONFIG_MAP, namespace, "a")
    again = await api.create(CONFIG_MAP, config_map(namespace))
    assert again["metadata"]["uid"] != made["metadata"]["uid"]


async def test_finalizers_hold_an_object(api, namespace):
    finalizers = ["billet.dev/a", "billet.dev/b"]
    await api.create(BARE_METAL_HOST, host(namespace, finalizers=finalizers))
    await api.delete(BARE_METAL_HOST, namespace, "a")
    dying = await api.get(BARE_METAL_HOST, namespace, "a")
    assert dying["metadata"]["deletionTimestamp"].endswith("Z")
    assert dying["metadata"]["generation"] == 2
    await api.delete(BARE_METAL_HOST, namespace, "a")
    assert await api.get(BARE_METAL_HOST, namespace, "a") == dying

    with pytest.raises(errors.Invalid):
        patch = {"metadata": {"finalizers": [*finalizers, "billet.dev/c"]}}
        await api.patch(BARE_METAL_HOST, namespace, "a", patch)
    still = {"metadata": {"deletionTimestamp": None, "finalizers": finalizers[:1]}}
    kept = await api.patch(BARE_METAL_HOST, namespace, "a", still)
    assert kept["metadata"]["deletionTimestamp"] == dying["metadata"]["deletionTimestamp"]
    patch = {"status": {"errorCount": 1}}
    await api.patch(BARE_METAL_HOST, namespace, "a", patch, subresource="status")

    await api.patch(BARE_METAL_HOST, namespace, "a", {"metadata": {"finalizers": None}})
    with pytest.raises(errors.NotFound):
        await api.get(BARE_METAL_HOST, namespace, "a")


async def test_delete_of_a_certain_uid(api, namespace):
    made = await api.create(CONFIG_MAP, config_map(namespace))
    with pytest.raises(errors.Conflict):
        await api.delete(CONFIG_MAP, namespace, "a", uid="00000000-0000-4000-8000-000000000000")
    await api.delete(CONFIG_MAP, namespace, "a", uid=made["metadata"]["uid"])
    with pytest.raises(errors.NotFound):
        await api.get(CONFIG_MAP, namespace, "a")


async def test_a_deleted_namespace_is_emptied(api, namespace):
    await api.create(CONFIG_MAP, config_map(namespace))
    await api.create(BARE_METAL_HOST, host(namespace, finalizers=["billet.dev/a"]))
    await api.delete(NAMESPACE, "", namespace)

    async def until(condition):
        async with asyncio.timeout(20):
            while not await condition():
                await asyncio.sleep(0.05)

    async def host_is_dying():
        obj = await api.get(BARE_METAL_HOST, namespace, "a")
        return "deletionTimestamp" in obj["metadata"]

    async def is_gone():
        try:
            await api.get(NAMESPACE, "", namespace)
        except errors.NotFound:
            return True
        return False

    await until(host_is_dying)
    with pytest.raises(errors.ApiError):
        await api.create(SECRET, {"metadata": {"namespace": namespace, "name": "late"}})
    assert not await is_gone()
    await api.patch(BARE_METAL_HOST, namespace, "a", {"metadata": {"finalizers": None}})
    await until(is_gone)
    assert (await api.list(CONFIG_MAP, namespace)).items == []


# --- built-in kinds ------------------------------------------------------------------------


async def test_secrets_keep_bytes(api, namespace):
    secret = {
        "metadata": {"namespace": namespace, "name": "bmc"},
        "data": {"username": b64encode(b"admin").decode()},
        "stringData": {"password": "s3cret"},
    }
    made = await api.create(SECRET, secret)
    assert made["type"] == "Opaque"
    assert "stringData" not in made
    assert made["data"] == {
        "username": b64encode(b"admin").decode(),
        "password": b64encode(b"s3cret").decode(),
    }
    patched = await api.patch(SECRET, namespace, "bmc", {"stringData": {"username": "root"}})
    assert patched["data"]["username"] == b64encode(b"root").decode()
    assert "generation" not in patched["metadata"]


async def test_events_and_leases(api, namespace):
    event = {
        "metadata": {"namespace": namespace, "generateName": "a-"},
        "involvedObject": {"kind": "BareMetalHost", "namespace": namespace, "name": "a"},
        "reason": "Registered",
        "message": "the BMC took the credentials",
        "type": "Normal",
        "count": 1,
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z",
    }
    made = await api.create(EVENT, event)
    counted = await api.patch(EVENT, namespace, made["metadata"]["name"], {"count": 2})
    assert counted["count"] == 2
    spec = {"holderIdentity": "one", "renewTime": "2026-01-01T00:00:00.000000Z"}
    lease = await api.create(
        LEASE, {"metadata": {"namespace": namespace, "name": "leader"}, "spec": spec}
    )
    taken = {**lease, "spec": {**spec, "holderIdentity": "two"}}
    assert (await api.replace(LEASE, taken))["spec"]["holderIdentity"] == "two"
    with pytest.raises(errors.Conflict):
        await api.replace(LEASE, {**lease, "spec": {**spec, "holderIdentity": "three"}})


async def test_strings_of_every_kind_survive(api, namespace):
    text = 'line\nfeed \u2028 \u0085 \x1e \U0001f9f1 \\ " </script> \x7f'
    version = await version_now(api, CONFIG_MAP, namespace)
    made = await api.create(CONFIG_MAP, {**config_map(namespace), "data": {"text": text}})
    assert made["data"]["text"] == text
    (seen,) = await next_changes(api, CONFIG_MAP, namespace, version, 1)
    assert seen.object == made


async def test_large_objects_pass(api, namespace):
    version = await version_now(api, CONFIG_MAP, namespace)
    data = {f"key{number}": "x" * 65_536 for number in range(12)}
    made = await api.create(CONFIG_MAP, {**config_map(namespace), "data": data})
    (seen,) = await next_changes(api, CONFIG_MAP, namespace, version, 1)
    assert seen.object == made


# --- watch ---------------------------------------------------------------------------------


async def test_a_watch_begins_with_a_bookmark(api, namespace):
    version = await version_now(api, CONFIG_MAP, namespace)
    async with aclosing(api.watch(CONFIG_MAP, namespace, resource_version=version)) as events:
        first = await anext(events)
    assert first == ("BOOKMARK", {"metadata": {"resourceVersion": version}})


async def test_a_watch_tells_each_change_in_order(api, namespace):
    version = await version_now(api, BARE_METAL_HOST, namespace)
    made = await api.create(BARE_METAL_HOST, host(namespace, finalizers=["x.org/a"]))
    spec = await api.patch(BARE_METAL_HOST, namespace, "a", {"spec": {"online": True}})
    status = await api.patch(
        BARE_METAL_HOST, namespace, "a", {"status": {"errorCount": 1}}, subresource="status"
    )
    await api.delete(BARE_METAL_HOST, namespace, "a")
    dying = await api.get(BARE_METAL_HOST, namespace, "a")
    await api.patch(BARE_METAL_HOST, namespace, "a", {"metadata": {"finalizers": []}})

    seen = await next_changes(api, BARE_METAL_HOST, namespace, version, 5)
    assert [one.type for one in seen] == ["ADDED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED"]
    assert [one.object for one in seen[:4]] == [made, spec, status, dying]
    assert seen[4].object["metadata"]["name"] == "a"
    versions = [int(one.object["metadata"]["resourceVersion"]) for one in seen]
    assert versions == sorted(set(versions))

    middle = seen[1].object["metadata"]["resourceVersion"]
    assert await next_changes(api, BARE_METAL_HOST, namespace, middle, 3) == seen[2:]


async def test_a_watch_waits_for_changes_of_its_namespace_only(api, namespace):
    other = f"{namespace}-2"
    await api.create(NAMESPACE, {"metadata": {"name": other}})
    version = await version_now(api, CONFIG_MAP, namespace)
    waiting = asyncio.create_task(next_changes(api, CONFIG_MAP, namespace, version, 1))
    everywhere = asyncio.create_task(next_changes(api, CONFIG_MAP, None, version, 2))
    await asyncio.sleep(0.05)
    await api.create(CONFIG_MAP, config_map(other, "theirs"))
    await api.create(CONFIG_MAP, config_map(namespace, "mine"))
    assert [one.object["metadata"]["name"] for one in await waiting] == ["mine"]
    names = [one.object["metadata"]["name"] for one in await everywhere]
    assert names == ["theirs", "mine"]


@pytest.mark.own_api
async def test_a_watch_from_too_long_ago_is_gone(world, namespace):
    version = await version_now(world.api, CONFIG_MAP, namespace)
    for name in ("a", "b", "c"):
        await world.api.create(CONFIG_MAP, config_map(namespace, name))
    await world.expire()
    with pytest.raises(errors.Gone) as caught:
        await next_changes(world.api, CONFIG_MAP, namespace, version, 1)
    assert caught.value.status == 410
    version = await version_now(world.api, CONFIG_MAP, namespace)
    await world.api.create(CONFIG_MAP, config_map(namespace, "d"))
    (seen,) = await next_changes(world.api, CONFIG_MAP, namespace, version, 1)
    assert seen.object["metadata"]["name"] == "d"


@pytest.mark.parametrize("seed", range(3))
async def test_list_then_watch_has_no_gap(api, namespace, seed):
    """A reader that lists and watches at any moment ends with what is there."""
    chance = random.Random(seed)
    end = "the-end"

    async def write():
        names = [f"n{number}" for number in range(4)]
        for step in range(40):
            name = chance.choice(names)
            try:
                if chance.random() < 0.3:
                    await api.delete(CONFIG_MAP, namespace, name)
                else:
                    await api.patch(CONFIG_MAP, namespace, name, {"data": {"step": str(step)}})
            except errors.NotFound:
                await api.create(CONFIG_MAP, config_map(namespace, name))
        await api.create(CONFIG_MAP, config_map(namespace, end))

    async def read(delay_s):
        await asyncio.sleep(delay_s)
        listed = await api.list(CONFIG_MAP, namespace)
        known = {obj["metadata"]["name"]: obj for obj in listed.items}
        version = listed.resource_version
        while end not in known:
            async with aclosing(
                api.watch(CONFIG_MAP, namespace, resource_version=version)
            ) as events:
                async for event in events:
                    new = event.object["metadata"]["resourceVersion"]
                    assert int(new) >= int(version)
                    version = new
                    name = event.object["metadata"].get("name")
                    if event.type == "DELETED":
                        del known[name]
                    elif event.type != "BOOKMARK":
                        assert (name in known) == (event.type == "MODIFIED")
                        known[name] = event.object
                    if end in known or chance.random() < 0.2:
                        break  # and resume from here
        return known

    delays = [chance.random() * 0.2 for _ in range(4)]
    async with asyncio.timeout(60):
        _, *readings = await asyncio.gather(write(), *(read(delay_s) for delay_s in delays))
    final = {obj["metadata"]["name"]: obj for obj in (await api.list(CONFIG_MAP, namespace)).items}
    assert all(reading == final for reading in readings)


# --- unavailable ---------------------------------------------------------------------------


@pytest.mark.own_api
async def test_the_api_stopped_and_started_again(world, namespace):
    api = world.api
    made = await api.create(CONFIG_MAP, config_map(namespace))
    version = await version_now(api, CONFIG_MAP, namespace)
    watching = asyncio.create_task(next_changes(api, CONFIG_MAP, namespace, version, 1))
    await asyncio.sleep(0.1)
    await world.stop()
    with pytest.raises((errors.Unavailable, AssertionError)):  # broken, or ended in good order
        await watching
    for call in (
        api.get(CONFIG_MAP, namespace, "a"),
        api.list(CONFIG_MAP, namespace),
        api.create(CONFIG_MAP, config_map(namespace, "b")),
        api.patch(CONFIG_MAP, namespace, "a", {"data": {"key": "2"}}),
        api.replace(CONFIG_MAP, made),
        api.delete(CONFIG_MAP, namespace, "a"),
        anext(aiter(api.watch(CONFIG_MAP, namespace, resource_version=version))),
    ):
        with pytest.raises(errors.Unavailable):
            await call
    await world.start()
    assert await api.get(CONFIG_MAP, namespace, "a") == made
    patched = await api.patch(CONFIG_MAP, namespace, "a", {"data": {"key": "2"}})
    assert patched["data"] == {"key": "2"}


# --- the informer on each API --------------------------------------------------------------


@pytest.mark.own_api
async def test_an_informer_follows_through_stop_start_and_lost_history(world, namespace):
    api = world.api
    seen = []
    informer = Informer(
        api,
        CONFIG_MAP,
        clock=SystemClock(),
        on_change=lambda old, new: seen.append((old, new)),
        namespaces=[namespace],
        jitter=lambda: 0.0,
    )

    async def until(condition):
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.02)

    kept = await api.create(CONFIG_MAP, config_map(namespace, "kept"))
    doomed = await api.create(CONFIG_MAP, config_map(namespace, "doomed"))
    task = asyncio.create_task(informer.run())
    try:
        await until(lambda: informer.healthy and len(informer) == 2)
        await world.stop()
        await until(lambda: not informer.healthy)
        assert informer.get(namespace, "kept") == kept
        await world.start()
        await api.delete(CONFIG_MAP, namespace, "doomed")
        await world.expire()
        new = await api.create(CONFIG_MAP, config_map(namespace, "new"))
        informer.note_written(new)
        assert informer.get(namespace, "new") == new
        changed = await api.patch(CONFIG_MAP, namespace, "kept", {"data": {"key": "2"}})
        await until(
            lambda: (
                informer.healthy
                and informer.get(namespace, "doomed") is None
                and informer.get(namespace, "kept") == changed
            )
        )
        assert sorted(obj["metadata"]["name"] for obj in informer.items()) == ["kept", "new"]
        assert [old["metadata"]["uid"] for old, after in seen if after is None] == [
            doomed["metadata"]["uid"]
        ]
        assert sum(after == new for _, after in seen) == 1
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
