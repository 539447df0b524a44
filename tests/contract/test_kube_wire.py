"""The Kubernetes API on the wire: the embedded API answers as a genuine API server does.

What kubectl and client libraries rely on beyond `ports.KubeApi`. Where both differ on purpose,
see test_kube_differences.py.
"""

import asyncio

import pytest

from contract.wire import (
    HTTP_WORLDS,
    JSON_PATCH,
    MERGE,
    PARTIAL,
    STRATEGIC,
    TABLE,
    config_map,
    host,
)

pytestmark = pytest.mark.parametrize("world", HTTP_WORLDS, indirect=True)
BOGUS = {"online": False, "bogus": 1, "image": {"url": "http://a/b", "checksum": "c", "x": 2}}


# --- unknown fields, dry runs ----------------------------------------------------------------


@pytest.mark.parametrize("verb", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize("validation", ["Strict", "Warn", "Ignore", None])
async def test_field_validation(wire, verb, validation):
    query = {"fieldValidation": validation} if validation else {}
    if verb == "POST":
        answer = await wire.ask("POST", wire.hosts, {**host(), "spec": BOGUS}, **query)
    else:
        made = await wire.make(wire.hosts, host())
        path = f"{wire.hosts}/h1"
        if verb == "PUT":
            answer = await wire.ask("PUT", path, {**made, "spec": BOGUS}, **query)
        else:
            answer = await wire.ask("PATCH", path, {"spec": BOGUS}, media=MERGE, **query)
    if validation == "Strict":
        assert answer.status in (400, 422)
        assert 'unknown field "spec.bogus"' in answer.message
        assert 'unknown field "spec.image.x"' in answer.message
        return
    assert answer.status in (200, 201), answer.body
    assert "bogus" not in answer.body["spec"], "pruned"
    assert answer.body["spec"]["image"] == {"url": "http://a/b", "checksum": "c"}
    warned = " ".join(answer.warnings)
    assert ('unknown field \\"spec.bogus\\"' in warned) == (validation != "Ignore")
    assert ('unknown field \\"spec.image.x\\"' in warned) == (validation != "Ignore")


async def test_unknown_query_values_are_refused(wire):
    for query in ({"fieldValidation": "Never"}, {"dryRun": "Some"}):
        answer = await wire.ask("POST", wire.hosts, host(), **query)
        assert answer.status in (400, 422), answer.body
        assert next(iter(query.values())) in answer.message


async def test_dry_runs_answer_and_change_nothing(wire):
    dry = {"dryRun": "All"}
    answer = await wire.ask("POST", wire.hosts, host(), **dry)
    assert answer.status == 201
    assert answer.body["metadata"]["uid"]
    assert (await wire.ask("GET", f"{wire.hosts}/h1")).status == 404
    made = await wire.make(wire.hosts, host())
    path = f"{wire.hosts}/h1"
    patch = {"spec": {"online": True}}
    answer = await wire.ask("PATCH", path, patch, media=MERGE, **dry)
    assert answer.body["spec"]["online"] is True
    answer = await wire.ask("PUT", path, {**made, "spec": {"online": True}}, **dry)
    assert answer.body["metadata"]["generation"] == 2
    answer = await wire.ask(
        "PATCH", f"{path}/status", {"status": {"errorCount": 1}}, media=MERGE, **dry
    )
    assert answer.body["status"]["errorCount"] == 1
    assert (await wire.ask("DELETE", path, **dry)).status == 200
    answer = await wire.ask("POST", wire.hosts, host(), **dry)
    assert (answer.status, answer.body["reason"]) == (409, "AlreadyExists")
    assert (await wire.ask("GET", path)).body == made
    bad = await wire.ask("POST", wire.hosts, host("h2", online="perhaps"), **dry)
    assert bad.status == 422, "checked like a real one"


# --- lists -----------------------------------------------------------------------------------


async def test_pages(wire):
    names = [f"c{number}" for number in range(5)]
    for name in names:
        await wire.make(wire.config_maps, config_map(name, {"mine": "yes"}))
    found, token = [], ""
    versions = set()
    for size in (2, 2, 1):
        more = {"continue": token} if token else {}
        answer = await wire.ask("GET", wire.config_maps, limit=2, labelSelector="mine=yes", **more)
        assert len(answer.names) == size
        found += answer.names
        versions.add(answer.body["metadata"]["resourceVersion"])
        token = answer.body["metadata"].get("continue", "")
        assert "remainingItemCount" not in answer.body["metadata"], "not known with a selector"
    assert found == names
    assert not token
    assert len(versions) == 1, "the pages are of one moment"
    answer = await wire.ask("GET", wire.hosts, limit=1, **{"continue": "no-token"})
    assert answer.status == 400
    assert "continue key is not valid" in answer.message


async def test_pages_say_how_many_remain(wire):
    for number in range(4):
        await wire.make(wire.hosts, host(f"h{number}"))
    answer = await wire.ask("GET", wire.hosts, limit=1)
    assert answer.body["metadata"]["remainingItemCount"] == 3


@pytest.mark.own_api
async def test_a_continue_token_from_too_long_ago_is_gone(wire, world):
    for number in range(3):
        await wire.make(wire.config_maps, config_map(f"c{number}"))
    answer = await wire.ask("GET", wire.config_maps, limit=1)
    token = answer.body["metadata"]["continue"]
    for number in range(3):
        await wire.make(wire.config_maps, config_map(f"late{number}"))
    await world.forget_pages()
    answer = await wire.ask("GET", wire.config_maps, limit=1, **{"continue": token})
    assert (answer.status, answer.body["reason"]) == (410, "Expired")


async def test_versions_of_lists(wire):
    await wire.make(wire.hosts, host())
    listed = await wire.ask("GET", wire.hosts)
    version = listed.body["metadata"]["resourceVersion"]
    for query in ({"resourceVersion": "0"}, {"resourceVersion": version}):
        assert (await wire.ask("GET", wire.hosts, **query)).names == ["h1"]
    query = {"resourceVersion": version, "resourceVersionMatch": "NotOlderThan"}
    assert (await wire.ask("GET", wire.hosts, **query)).names == ["h1"]
    answer = await wire.ask("GET", wire.hosts, resourceVersion=str(int(version) + 10**9))
    assert (answer.status, answer.body["reason"]) == (504, "Timeout")
    causes = answer.body["details"]["causes"]
    assert causes[0]["reason"] == "ResourceVersionTooLarge"
    answer = await wire.ask("GET", wire.hosts, resourceVersion="seven")
    assert answer.status in (400, 500)
    assert answer.body["status"] == "Failure"


async def test_selectors(wire):
    await wire.make(wire.hosts, host("h1", {"rack": "7", "row": "a"}))
    await wire.make(wire.hosts, host("h2", {"rack": "8"}))
    await wire.make(wire.hosts, host("h3"))

    async def names(**query):
        answer = await wire.ask("GET", wire.hosts, **query)
        assert answer.status == 200, answer.body
        return answer.names

    for selector, wanted in {
        "rack=7": ["h1"], "rack!=7": ["h2", "h3"], "rack in (7,8)": ["h1", "h2"],
        "rack notin (7)": ["h2", "h3"], "rack": ["h1", "h2"], "!rack": ["h3"],
        "rack>7": ["h2"], "rack,row=a": ["h1"],
    }.items():  # fmt: skip
        assert await names(labelSelector=selector) == wanted, selector
    assert await names(fieldSelector="metadata.name=h2") == ["h2"]
    assert await names(fieldSelector="metadata.name!=h2") == ["h1", "h3"]
    for query in ({"labelSelector": "a=b=c"}, {"fieldSelector": "spec.online=true"}):
        answer = await wire.ask("GET", wire.hosts, **query)
        assert (answer.status, answer.body["reason"]) == (400, "BadRequest")


async def test_fields_that_built_in_kinds_can_be_selected_by(wire):
    await wire.make(wire.secrets, {"metadata": {"name": "one"}, "type": "example.org/a"})
    await wire.make(wire.secrets, {"metadata": {"name": "two"}})
    assert (await wire.ask("GET", wire.secrets, fieldSelector="type=example.org/a")).names == [
        "one"
    ]
    for name in ("h1", "h2"):
        involved = {"kind": "BareMetalHost", "name": name, "namespace": wire.namespace}
        event = {"metadata": {"name": f"e-{name}"}, "involvedObject": involved,
                 "reason": "Test", "type": "Normal"}  # fmt: skip
        await wire.make(f"{wire.core}/events", event)
    for selector in ("involvedObject.name=h1", "reason=Test,involvedObject.name!=h2"):
        answer = await wire.ask("GET", f"{wire.core}/events", fieldSelector=selector)
        assert answer.names == ["e-h1"], selector


# --- forms -----------------------------------------------------------------------------------


async def test_tables(wire):
    made = await wire.make(wire.hosts, host(bmc={"address": "ipmi://h", "credentialsName": "c"}))
    for path in (wire.hosts, f"{wire.hosts}/h1"):
        answer = await wire.ask("GET", path, accept=TABLE)
        table = answer.body
        assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
        shown = [one["name"] for one in table["columnDefinitions"] if not one["priority"]]
        assert shown == [
            "Name", "Status", "Provisioning Status", "Consumer", "BMC", "Hardware Profile",
            "Online", "Error", "Age",
        ]  # fmt: skip
        (row,) = table["rows"]
        assert row["cells"][0] == "h1"
        assert row["cells"][4] == "ipmi://h"
        assert row["cells"][6] == "false"
        assert row["object"]["kind"] == "PartialObjectMetadata"
        assert row["object"]["metadata"]["uid"] == made["metadata"]["uid"]
    answer = await wire.ask("GET", wire.hosts, accept=TABLE, includeObject="Object")
    assert answer.body["rows"][0]["object"]["spec"]["online"] is False
    answer = await wire.ask("GET", wire.hosts, accept=TABLE, includeObject="Sometimes")
    assert answer.status == 400
    answer = await wire.ask("GET", wire.secrets, accept=TABLE)
    assert [one["name"] for one in answer.body["columnDefinitions"]][:4] == [
        "Name", "Type", "Data", "Age",
    ]  # fmt: skip


async def test_metadata_only(wire):
    made = await wire.make(wire.hosts, host())
    answer = await wire.ask("GET", wire.hosts, accept=PARTIAL.format("List"))
    assert answer.body["kind"] == "PartialObjectMetadataList"
    (item,) = answer.body["items"]
    assert set(item) <= {"kind", "apiVersion", "metadata"}
    assert item["metadata"]["uid"] == made["metadata"]["uid"]
    answer = await wire.ask("GET", f"{wire.hosts}/h1", accept=PARTIAL.format(""))
    assert answer.body["kind"] == "PartialObjectMetadata"
    assert "spec" not in answer.body


async def test_forms_that_nobody_serves(wire):
    answer = await wire.ask("GET", wire.hosts, accept="text/html")
    assert (answer.status, answer.body["reason"]) == (406, "NotAcceptable")
    answer = await wire.ask("POST", wire.hosts, "online: true", media="text/plain")
    assert (answer.status, answer.body["reason"]) == (415, "UnsupportedMediaType")


# --- watches ---------------------------------------------------------------------------------


async def version_of(wire, path):
    return (await wire.ask("GET", path)).body["metadata"]["resourceVersion"]


async def test_a_watch_without_a_version_begins_with_what_is_there(wire):
    await wire.make(wire.hosts, host())
    for query in ({}, {"resourceVersion": "0"}):
        async with wire.watch(wire.hosts, timeoutSeconds=20, **query) as following:
            event = await following()
            assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "h1")


async def test_a_watch_ends_after_its_time(wire):
    version = await version_of(wire, wire.hosts)
    async with asyncio.timeout(10):
        events = await wire.events(wire.hosts, resourceVersion=version, timeoutSeconds=1)
    assert events == []


async def test_streaming_lists(wire):
    """What is there, a bookmark that says so, then what happens."""
    await wire.make(wire.config_maps, config_map("c1"))
    query = {
        "sendInitialEvents": "true", "allowWatchBookmarks": "true", "timeoutSeconds": 20,
        "resourceVersionMatch": "NotOlderThan",
    }  # fmt: skip
    async with wire.watch(wire.config_maps, **query) as following:
        seen = [await following()]
        while seen[-1]["type"] != "BOOKMARK":
            seen.append(await following())
        end = seen.pop()["object"]["metadata"]
        assert end["annotations"]["k8s.io/initial-events-end"] == "true"
        assert "c1" in [event["object"]["metadata"]["name"] for event in seen]
        made = await wire.make(wire.config_maps, config_map("c2"))
        event = await following()
        assert (event["type"], event["object"]) == ("ADDED", made)
        assert int(made["metadata"]["resourceVersion"]) > int(end["resourceVersion"])


async def test_labels_decide_when_objects_come_and_go(wire):
    version = await version_of(wire, wire.hosts)
    query = {"labelSelector": "rack=7", "resourceVersion": version, "timeoutSeconds": 20}
    async with wire.watch(wire.hosts, **query) as following:
        await wire.make(wire.hosts, host("h1"))
        path = f"{wire.hosts}/h1"
        for labels in ({"rack": "7"}, {"row": "a"}, {"rack": "8"}):
            await wire.ask("PATCH", path, {"metadata": {"labels": labels}}, media=MERGE)
        seen = [await following() for _ in range(3)]
        assert [event["type"] for event in seen] == ["ADDED", "MODIFIED", "DELETED"]


async def test_watches_of_one_name(wire):
    version = await version_of(wire, wire.hosts)
    query = {"fieldSelector": "metadata.name=h2", "resourceVersion": version, "timeoutSeconds": 20}
    async with wire.watch(wire.hosts, **query) as following:
        await wire.make(wire.hosts, host("h1"))
        await wire.make(wire.hosts, host("h2"))
        event = await following()
        assert event["object"]["metadata"]["name"] == "h2"


async def test_tables_are_watched(wire):
    version = await version_of(wire, wire.hosts)
    query = {"resourceVersion": version, "timeoutSeconds": 20}
    async with wire.watch(wire.hosts, accept=TABLE, **query) as following:
        await wire.make(wire.hosts, host("h1"))
        await wire.make(wire.hosts, host("h2"))
        first, second = (await following())["object"], (await following())["object"]
    assert first["columnDefinitions"][0]["name"] == "Name"
    assert [table["rows"][0]["cells"][0] for table in (first, second)] == ["h1", "h2"]
    assert not second.get("columnDefinitions"), "told once"


@pytest.mark.own_api
async def test_a_watch_from_too_long_ago(wire, world):
    """410 Expired, as an event or as the answer, whichever: clients take both."""
    version = await version_of(wire, wire.config_maps)
    for number in range(3):
        await wire.make(wire.config_maps, config_map(f"c{number}"))
    await world.expire()
    event = await wire.first_event(wire.config_maps, resourceVersion=version, timeoutSeconds=5)
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")


# --- patches ---------------------------------------------------------------------------------


async def test_json_patches(wire):
    await wire.make(wire.hosts, host())
    path = f"{wire.hosts}/h1"

    async def patch(*operations):
        return await wire.ask("PATCH", path, list(operations), media=JSON_PATCH)

    answer = await patch(
        {"op": "test", "path": "/spec/online", "value": False},
        {"op": "add", "path": "/metadata/annotations", "value": {"x.org/a": "1"}},
        {"op": "add", "path": "/metadata/annotations/d~1e", "value": "2"},
        {"op": "replace", "path": "/spec/online", "value": True},
    )
    assert answer.status == 200, answer.body
    assert answer.body["metadata"]["annotations"] == {"x.org/a": "1", "d/e": "2"}
    assert answer.body["spec"]["online"] is True
    for operation in (
        {"op": "test", "path": "/spec/online", "value": False},
        {"op": "remove", "path": "/spec/nothing"},
        {"op": "replace", "path": "/spec/nothing", "value": 1},
    ):
        answer = await patch(operation)
        assert (answer.status, answer.body["reason"]) == (422, "Invalid"), operation


async def test_strategic_merge_patches_are_for_built_in_kinds(wire):
    made = await wire.make(wire.hosts, host())
    answer = await wire.ask("PATCH", f"{wire.hosts}/h1", {"spec": {}}, media=STRATEGIC)
    assert (answer.status, answer.body["reason"]) == (415, "UnsupportedMediaType")
    thing = {"apiVersion": "example.org/v1", "kind": "Thing"}
    owners = [thing | {"name": "a", "uid": "1"}, thing | {"name": "b", "uid": "2"}]
    await wire.make(wire.config_maps, config_map("c1", ownerReferences=owners[:1]))
    patch = {"metadata": {"ownerReferences": owners[1:]}, "data": {"a": None, "c": "d"}}
    answer = await wire.ask("PATCH", f"{wire.config_maps}/c1", patch, media=STRATEGIC, dryRun="All")
    assert answer.status == 200, answer.body
    assert {one["uid"] for one in answer.body["metadata"]["ownerReferences"]} == {"1", "2"}
    assert answer.body["data"] == {"c": "d"}
    assert made["metadata"]["generation"] == 1


# --- deletion --------------------------------------------------------------------------------


async def test_collections_are_deleted(wire):
    for name, rack in (("h1", "7"), ("h2", "7"), ("h3", "8")):
        await wire.make(wire.hosts, host(name, {"rack": rack}))
    answer = await wire.ask("DELETE", wire.hosts, labelSelector="rack=7")
    assert answer.status == 200
    assert (await wire.ask("GET", wire.hosts)).names == ["h3"]


@pytest.mark.parametrize("policy", ["Background", "Foreground", "Orphan"])
async def test_dependents(wire, policy):
    owner = await wire.make(wire.hosts, host())
    reference = {"apiVersion": "metal3.io/v1alpha1", "kind": "BareMetalHost", "name": "h1",
                 "uid": owner["metadata"]["uid"], "blockOwnerDeletion": True}  # fmt: skip
    await wire.make(wire.config_maps, config_map("c1", ownerReferences=[reference]))
    await asyncio.sleep(0.3)  # a genuine collector learns of owners from watches
    answer = await wire.ask("DELETE", f"{wire.hosts}/h1", propagationPolicy=policy)
    assert answer.status == 200, answer.body

    async def gone(path):
        return (await wire.ask("GET", path)).status == 404

    async with asyncio.timeout(20):
        while not await gone(f"{wire.hosts}/h1"):
            await asyncio.sleep(0.05)
        dependent = f"{wire.config_maps}/c1"
        while policy != "Orphan" and not await gone(dependent):
            await asyncio.sleep(0.05)
    if policy == "Orphan":
        kept = (await wire.ask("GET", dependent)).body
        assert "ownerReferences" not in kept["metadata"]


async def test_delete_preconditions(wire):
    made = await wire.make(wire.hosts, host())
    body = {"apiVersion": "v1", "kind": "DeleteOptions"}
    for field in ("uid", "resourceVersion"):
        conditions = {"preconditions": {field: "1" if field == "resourceVersion" else "x"}}
        answer = await wire.ask("DELETE", f"{wire.hosts}/h1", body | conditions)
        assert (answer.status, answer.body["reason"]) == (409, "Conflict"), answer.body
    conditions = {"preconditions": {"uid": made["metadata"]["uid"]}}
    answer = await wire.ask("DELETE", f"{wire.hosts}/h1", body | conditions)
    assert answer.body["status"] == "Success"
    assert answer.body["details"]["uid"] == made["metadata"]["uid"]


# --- refusals --------------------------------------------------------------------------------


async def test_refusals_name_what_is_meant(wire):
    answer = await wire.ask("GET", f"{wire.hosts}/none")
    assert answer.status == 404
    assert answer.message == 'baremetalhosts.metal3.io "none" not found'
    assert answer.body["details"] == {
        "name": "none", "group": "metal3.io", "kind": "baremetalhosts",
    }  # fmt: skip
    answer = await wire.ask("POST", wire.hosts, host(online="perhaps"))
    assert answer.status == 422
    assert answer.body["details"]["kind"] == "BareMetalHost"
    assert {cause["field"] for cause in answer.body["details"]["causes"]} == {"spec.online"}
    for path in ("/apis/metal3.io/v1alpha1/nothing", "/api/v2/secrets", "/apis/example.org"):
        assert (await wire.ask("GET", path)).status == 404, path
    for verb in ("PATCH", "PUT"):
        answer = await wire.ask(verb, wire.hosts, host(), media=MERGE)
        assert answer.status in (400, 405, 415), "nothing that one could do to a collection"
    answer = await wire.ask("POST", wire.hosts, "{")
    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")
    wrong = {**host(), "kind": "HardwareData"}
    assert (await wire.ask("POST", wire.hosts, wrong)).status in (400, 422)
    elsewhere = host()
    elsewhere["metadata"]["namespace"] = "elsewhere"
    assert (await wire.ask("POST", wire.hosts, elsewhere)).status == 400
    wire.http.auth = None
    answer = await wire.ask("GET", wire.hosts)
    assert (answer.status, answer.body["reason"]) == (401, "Unauthorized")


async def test_too_much_is_refused(wire):
    answer = await wire.ask(
        "POST", wire.config_maps, {**config_map(), "data": {"a": "x" * 4_000_000}}
    )
    assert answer.status == 413
    assert answer.body["reason"] == "RequestEntityTooLarge"


# --- discovery -------------------------------------------------------------------------------


async def test_discovery(wire):
    answer = await wire.ask("GET", "/apis/metal3.io/v1alpha1")
    found = {one["name"]: one for one in answer.body["resources"]}
    assert set(found) >= {"baremetalhosts", "baremetalhosts/status", "hardwaredata"}
    hosts = found["baremetalhosts"]
    assert sorted(hosts["verbs"]) == [
        "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch",
    ]  # fmt: skip
    assert (hosts["kind"], hosts["singularName"], hosts["namespaced"]) == (
        "BareMetalHost", "baremetalhost", True,
    )  # fmt: skip
    assert sorted(hosts["shortNames"]) == ["bmh", "bmhost"]
    assert sorted(found["baremetalhosts/status"]["verbs"]) == ["get", "patch", "update"]
    media = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    answer = await wire.ask("GET", "/apis", accept=f"{media},application/json")
    assert answer.headers["content-type"] == media
    (group,) = [one for one in answer.body["items"] if one["metadata"]["name"] == "metal3.io"]
    resources = {one["resource"]: one for one in group["versions"][0]["resources"]}
    entry = resources["baremetalhosts"]
    assert (entry["scope"], entry["singularResource"]) == ("Namespaced", "baremetalhost")
    assert [one["subresource"] for one in entry["subresources"]] == ["status"]
    for path in ("/readyz", "/livez", "/healthz"):
        assert (await wire.ask("GET", path)).body == "ok"


async def test_more_watches_than_connections_for_calls(wire):
    """Each watch keeps its connection; calls have theirs beside them."""
    from billet_server.kube.client import open_kube
    from billet_server.ports import CONFIG_MAP

    api = open_kube(wire.kubeconfig, watches=70)
    version = await version_of(wire, wire.config_maps)
    watches = [api.watch(CONFIG_MAP, wire.namespace, resource_version=version) for _ in range(70)]
    try:
        async with asyncio.timeout(30):
            for watch in watches:
                await anext(watch)
            assert (await api.list(CONFIG_MAP, wire.namespace)).resource_version
            await wire.make(wire.config_maps, config_map("seen-by-all"))
            for watch in watches:
                while (event := await anext(watch)).type == "BOOKMARK":
                    pass
                assert event.object["metadata"]["name"] == "seen-by-all"
    finally:
        for watch in watches:
            await watch.aclose()
        await api.close()
