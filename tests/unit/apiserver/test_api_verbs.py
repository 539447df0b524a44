"""The verbs over HTTP, with Kubernetes' answers."""

import asyncio
import base64
import socket
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from billet_server.apiserver import ApiServer
from billet_server.apiserver.collector import Collector
from billet_server.apiserver.definitions import builtin_definitions
from billet_server.apiserver.objects import Objects, WriteOptions
from billet_server.apiserver.registry import Registry, initial_namespace
from billet_server.apiserver.schema import FieldError
from billet_server.apiserver.store import Key, Store
from billet_server.errors import ConfigError
from billet_server.ports import BARE_METAL_HOST, EVENT, NAMESPACE

STATUS = "application/merge-patch+json"


def causes(answer):
    return [(cause["reason"], cause["field"]) for cause in answer.json["details"]["causes"]]


# --- create ------------------------------------------------------------------------------------


async def test_create_sets_what_the_server_decides(client, make_host):
    sent = make_host()
    sent["metadata"] |= {"uid": "mine", "generation": 9, "creationTimestamp": None,
                         "managedFields": [{}], "selfLink": "x"}  # fmt: skip
    made = await client.make(client.hosts, {**sent, "status": {"errorCount": 3}})
    meta = made["metadata"]
    assert meta["generation"] == 1
    assert meta["uid"] != "mine"
    assert meta["creationTimestamp"].endswith("Z")
    assert meta["namespace"] == "default"
    assert "managedFields" not in meta
    assert "selfLink" not in meta
    assert made.get("status", {}).get("errorCount", 0) == 0
    assert (await client.get(f"{client.hosts}/h1")).json == made


@pytest.mark.parametrize(
    ("path", "change", "status", "message"),
    [
        ("default", {"metadata": {"name": "Bad_"}}, 422, "a lowercase RFC 1123 subdomain"),
        ("default", {"metadata": {}}, 422, "metadata.name: Required value"),
        ("default", {"metadata": {"name": "a", "labels": {"a": "b c"}}}, 422, "a valid label"),
        ("default", {"metadata": {"name": "a", "labels": {"b c": ""}}}, 422, "name part must"),
        ("default", {"metadata": {"name": "a", "labels": 1}}, 422, "must be of type object"),
        ("default", {"metadata": {"name": "a", "resourceVersion": "1"}}, 400, "should not be set"),
        ("default", {"metadata": {"name": "a", "namespace": "b"}}, 400, "does not match the names"),
        ("default", {"apiVersion": "metal3.io/v1"}, 400, "does not match the expected API version"),
        ("default", {"kind": "Host"}, 400, "cannot be handled as a BareMetalHost"),
        ("default", {"spec": {}}, 422, "spec.online: Required value"),
        ("nowhere", {}, 404, 'namespaces "nowhere" not found'),
        (
            "default",
            {"metadata": {"name": "a", "ownerReferences": [{"uid": "x"}]}},
            422,
            "metadata.ownerReferences[0].kind: Required value",
        ),
        (
            "default",
            {"metadata": {"name": "a", "annotations": {"a": "x" * 270_000}}},
            422,
            "metadata.annotations: Too long",
        ),
    ],
)
async def test_creates_that_are_refused(client, make_host, path, change, status, message):
    answer = await client("POST", client.hosts.replace("default", path), {**make_host(), **change})
    assert answer.status == answer.json["code"] == status
    assert answer.json["kind"] == "Status"
    assert message in answer.message


async def test_create_twice(client, make_host):
    await client.make(client.hosts, make_host())
    answer = await client("POST", client.hosts, make_host())
    assert (answer.status, answer.json["reason"]) == (409, "AlreadyExists")
    assert answer.message == 'baremetalhosts.metal3.io "h1" already exists'
    assert answer.json["details"] == {
        "name": "h1", "group": "metal3.io", "kind": "baremetalhosts",
    }  # fmt: skip


async def test_generate_name_and_dry_run(client, make_config_map):
    sent = {**make_config_map(), "metadata": {"generateName": "n-"}}
    names = {(await client.make(client.config_maps, sent))["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("n-") and len(name) == 7 for name in names)
    tried = await client("POST", f"{client.config_maps}?dryRun=All", make_config_map())
    assert tried.status == 201
    assert (await client.get(f"{client.config_maps}/c1")).status == 404
    assert (await client("POST", f"{client.config_maps}?dryRun=x", make_config_map())).status == 422


@pytest.mark.parametrize(
    ("validation", "status", "warned"),
    [("Strict", 400, False), ("Warn", 201, True), ("Ignore", 201, False), ("", 201, True)],
)
async def test_unknown_fields(client, make_host, validation, status, warned):
    sent = make_host(bogus=1)
    sent["metadata"]["odd"] = 1
    answer = await client("POST", f"{client.hosts}?fieldValidation={validation}", sent)
    assert answer.status == status
    if status == 400:
        assert answer.message == (
            'BareMetalHost in version "v1alpha1" cannot be handled as a BareMetalHost: strict '
            'decoding error: unknown field "metadata.odd", unknown field "spec.bogus"'
        )
    else:
        assert "bogus" not in answer.json["spec"]
        assert answer.headers.getall("Warning", []) == (
            ['299 - "unknown field \\"metadata.odd\\""', '299 - "unknown field \\"spec.bogus\\""']
            if warned
            else []
        )


@pytest.mark.parametrize(
    "body", ["", "x", "[]", '"a"', "[" * 5000, '{"a":' * 100 + "1" + "}" * 100]
)
async def test_bodies_that_are_no_objects(client, body):
    answer = await client("POST", client.secrets, data=body)
    assert (answer.status, answer.json["reason"]) == (400, "BadRequest")


async def test_bodies_that_are_too_large(client):
    answer = await client("POST", client.secrets, data="x" * (3 * 2**20 + 1))
    assert (answer.status, answer.json["reason"]) == (413, "RequestEntityTooLarge")


async def test_bodies_in_other_encodings(client):
    headers = {"Content-Type": "application/yaml"}
    answer = await client("POST", client.secrets, data="a: b", headers=headers)
    assert (answer.status, answer.json["reason"]) == (415, "UnsupportedMediaType")


async def test_validators_of_the_product_are_asked(running, connect, make_host):
    seen = []

    def check(new, old):
        seen.append((new["metadata"]["name"], old and old["spec"]["online"]))
        wrong = new["spec"].get("description") == "wrong"
        return [FieldError("spec.description", "Forbidden", "because")] if wrong else []

    client = connect(await running(validators={BARE_METAL_HOST: check}))
    await client.make(client.hosts, make_host())
    answer = await client.patch(f"{client.hosts}/h1", {"spec": {"description": "wrong"}})
    assert answer.status == 422
    assert causes(answer) == [("FieldValueForbidden", "spec.description")]
    assert seen == [("h1", None), ("h1", True)]
    await client.close()


async def test_advisers_of_the_product_warn_with_every_field_validation(
    running, connect, make_host
):
    def advise(new, old):
        return [f"{new['spec']['description']} after {old and old['spec'].get('description')}"]

    client = connect(await running(advisers={BARE_METAL_HOST: advise}))
    path = f"{client.hosts}/h1"
    for validation in ("Strict", "Warn", "Ignore"):
        query = f"?fieldValidation={validation}&dryRun=All"
        answer = await client("POST", client.hosts + query, make_host(description="a"))
        assert answer.headers.getall("Warning") == ['299 - "a after None"']
    await client.make(client.hosts, make_host(description="a"))
    answer = await client.patch(path, {"spec": {"description": "b"}})
    assert answer.headers.getall("Warning") == ['299 - "b after a"']
    await client.close()


@pytest.mark.parametrize("name", ["a\nInjected: 1", 'quote"', "back\\slash", "Ü€", "\x7f\x00", ""])
async def test_a_warning_is_one_header_whatever_the_field_is_called(client, make_host, name):
    answer = await client("POST", client.hosts, make_host(**{name: 1}))
    assert answer.status == 201
    (warning,) = answer.headers.getall("Warning")
    assert warning.startswith('299 - "unknown field')
    assert "Injected" not in answer.headers


async def test_a_flood_of_warnings_is_cut_as_in_a_cluster(client, make_host):
    fields = {f"field{number}" + "x" * 1000: 1 for number in range(100)}
    answer = await client("POST", client.hosts, make_host(**fields))
    warnings = answer.headers.getall("Warning")
    assert len(warnings) == 16
    assert sum(map(len, warnings)) < 5000


# --- update and patch --------------------------------------------------------------------------


async def test_replace_guards_versions_and_counts_generations(client, make_host):
    made = await client.make(client.hosts, make_host())
    path = f"{client.hosts}/h1"
    stale = await client(
        "PUT", path, {**made, "metadata": {**made["metadata"], "resourceVersion": "1"}}
    )
    assert (stale.status, stale.json["reason"]) == (409, "Conflict")
    assert "the object has been modified; please apply your changes" in stale.message
    same = await client("PUT", path, made)
    assert same.json == made
    labelled = {**made, "metadata": {**made["metadata"], "labels": {"a": "b"}}}
    second = (await client("PUT", path, labelled)).json
    assert second["metadata"]["generation"] == 1
    third = (await client("PUT", path, {**second, "spec": {"online": False}})).json
    assert third["metadata"]["generation"] == 2
    other = await client("PUT", f"{client.hosts}/h2", third)
    assert other.status == 400
    assert "does not match the name on the URL" in other.message


async def test_status_and_spec_are_written_apart(client, make_host):
    await client.make(client.hosts, make_host())
    path = f"{client.hosts}/h1"
    await client.patch(path, {"status": {"errorCount": 2}, "spec": {"online": False}})
    body = {
        "status": {"errorCount": 5},
        "spec": {"online": True},
        "metadata": {"labels": {"a": "b"}},
    }
    answer = await client.patch(f"{path}/status", body)
    assert answer.json["status"]["errorCount"] == 5
    found = (await client.get(path)).json
    assert found["status"]["errorCount"] == 5
    assert found["spec"]["online"] is False
    assert "labels" not in found["metadata"]
    assert found["metadata"]["generation"] == 2
    assert (await client.get(f"{path}/status")).json == found
    assert (await client.patch(f"{client.secrets}/x/status", {})).status == 404


ONLINE = {"path": "/spec/online", "value": False}


@pytest.mark.parametrize(
    ("media", "body", "status"),
    [
        ("application/merge-patch+json", {"spec": {"online": False}}, 200),
        ("application/json-patch+json", [{"op": "replace", **ONLINE}], 200),
        ("application/json-patch+json", [{"op": "test", **ONLINE}], 422),
        ("application/strategic-merge-patch+json", {"spec": {"online": False}}, 415),
        ("application/apply-patch+yaml", {"spec": {"online": False}}, 415),
        ("application/json", {"spec": {"online": False}}, 415),
        ("application/merge-patch+json", [], 400),
        ("application/merge-patch+json", {"metadata": {"resourceVersion": "1"}}, 409),
        ("application/merge-patch+json", {"spec": {"online": 7}}, 422),
    ],
)
async def test_patch_types(client, make_host, media, body, status):
    await client.make(client.hosts, make_host())
    answer = await client.patch(f"{client.hosts}/h1", body, media)
    assert answer.status == status, answer.body
    assert (await client.get(f"{client.hosts}/h1")).json["spec"]["online"] is (status != 200)


async def test_server_side_apply_names_the_way_out(client):
    answer = await client.patch(f"{client.hosts}/h1", {}, "application/apply-patch+yaml")
    assert answer.status == 415
    assert "kubectl apply --server-side=false" in answer.message


async def test_concurrent_patches_are_all_kept(client, make_config_map):
    await client.make(client.config_maps, make_config_map())
    path = f"{client.config_maps}/c1"
    patches = [client.patch(path, {"data": {f"k{number}": "v"}}) for number in range(15)]
    answers = await asyncio.gather(*patches)
    assert {answer.status for answer in answers} == {200}
    assert len((await client.get(path)).json["data"]) == 16


# --- kinds -------------------------------------------------------------------------------------


async def test_secrets_fold_text_into_data(client):
    secret = {"metadata": {"name": "s"}, "stringData": {"a": "ä", "b": "2"}, "data": {"b": "MQ=="}}
    made = await client.make(client.secrets, secret)
    assert made["type"] == "Opaque"
    assert "stringData" not in made
    assert base64.b64decode(made["data"]["a"]).decode() == "ä"
    assert made["data"]["b"] == "Mg=="
    changed = await client.patch(f"{client.secrets}/s", {"stringData": {"c": "3"}},
                                 "application/strategic-merge-patch+json")  # fmt: skip
    assert sorted(changed.json["data"]) == ["a", "b", "c"]
    retyped = await client.patch(f"{client.secrets}/s", {"type": "other"})
    assert 'type: Invalid value: "other": field is immutable' in retyped.message


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ({"data": {"a": "secret-text"}}, 400),
        ({"data": {"a": 12}}, 400),
        ({"data": ["secret-text"]}, 400),
        ({"stringData": {"a": 12}}, 400),
        ({"data": {"a b": ""}}, 422),
        ({"data": {"a": "A" * 1_500_000}}, 422),
    ],
)
async def test_bad_secrets_are_refused_without_quoting_them(client, content, status):
    answer = await client("POST", client.secrets, {"metadata": {"name": "s"}, **content})
    assert answer.status == status
    assert "secret-text" not in answer.message
    assert "12" not in answer.message


async def test_immutable_stays(client, make_config_map):
    await client.make(client.config_maps, {**make_config_map(), "immutable": True})
    for patch in ({"data": {"a": "c"}}, {"immutable": False}):
        answer = await client.patch(f"{client.config_maps}/c1", patch)
        assert (answer.status, "field is immutable" in answer.message) == (422, True)
    assert (
        await client.patch(f"{client.config_maps}/c1", {"metadata": {"labels": {"a": "b"}}})
    ).status == 200


async def test_events_and_leases_are_created_by_put(client):
    event = {
        "metadata": {"name": "e"},
        "reason": "R",
        "type": "Normal",
        "involvedObject": {"kind": "BareMetalHost", "name": "h", "namespace": "default"},
    }
    path = "/api/v1/namespaces/default/events/e"
    assert (await client("PUT", path, event)).status == 201
    assert (await client("PUT", path, {**event, "count": 2})).json["count"] == 2
    found = await client.get("/api/v1/events?fieldSelector=involvedObject.name=h,type=Normal")
    assert [item["metadata"]["name"] for item in found.json["items"]] == ["e"]
    none = await client.get("/api/v1/events?fieldSelector=involvedObject.name=other")
    assert none.json["items"] == []
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "l"},
        "spec": {"leaseDurationSeconds": 0},
    }
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l"
    assert "must be greater than 0" in (await client("PUT", path, lease)).message
    assert (await client("PUT", path, {**lease, "spec": {"holderIdentity": "me"}})).status == 201


WIDGET = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Cluster",
        "names": {"kind": "Widget", "plural": "widgets"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"size": {"type": "integer", "default": 3, "maximum": 9}},
                    }
                },
            }
        ],
    },
}
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


async def test_definitions_made_through_the_api_are_served_also_after_a_restart(running, connect):
    client = connect(await running())
    made = await client.make(CRDS, WIDGET)
    assert {c["type"]: c["status"] for c in made["status"]["conditions"]}["Established"] == "True"
    widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}
    assert (await client.make("/apis/example.com/v1/widgets", widget))["size"] == 3
    await client.close()

    client = connect(await running())
    assert (await client.get("/apis/example.com/v1/widgets/w")).json["size"] == 3
    narrower = {"spec": {"versions": [{**WIDGET["spec"]["versions"][0], "name": "v2"}]}}
    assert (await client.patch(f"{CRDS}/widgets.example.com", narrower)).status == 200
    assert (await client.get("/apis/example.com/v1/widgets")).status == 404
    assert (await client("DELETE", f"{CRDS}/widgets.example.com")).status == 200
    for _ in range(100):
        if (await client.get(f"{CRDS}/widgets.example.com")).status == 404:
            break
        await asyncio.sleep(0.02)
    assert (await client.get("/apis/example.com/v2/widgets")).status == 404
    await client.close()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"metadata": {"name": "other"}}, 422),
        ({"spec": {}}, 422),
        ({"spec": {**WIDGET["spec"], "group": ""}}, 422),
        ({"metadata": {"name": "widgets.apps"}, "spec": {**WIDGET["spec"], "versions": []}}, 422),
    ],
)
async def test_definitions_that_are_refused(client, change, status):
    answer = await client("POST", CRDS, {**WIDGET, **change})
    assert answer.status == status, answer.body


async def test_billets_own_definitions_stay(client):
    answer = await client("DELETE", f"{CRDS}/baremetalhosts.metal3.io")
    assert (answer.status, answer.json["reason"]) == (403, "Forbidden")


# --- lists -------------------------------------------------------------------------------------


async def test_lists_in_pages(client, make_config_map):
    for number in range(7):
        labels = {"even": str(number % 2 == 0).lower()}
        await client.make(client.config_maps, make_config_map(f"c{number}", labels=labels))
    names, token, pages = [], "", 0
    while True:
        page = (await client.get(f"{client.config_maps}?limit=3&continue={token}")).json
        names += [item["metadata"]["name"] for item in page["items"]]
        token, pages = page["metadata"].get("continue", ""), pages + 1
        if not token:
            break
        assert page["metadata"]["remainingItemCount"] == 7 - len(names)
    assert (names, pages) == ([f"c{number}" for number in range(7)], 3)
    even = (await client.get(f"{client.config_maps}?labelSelector=even%3Dtrue&limit=2")).json
    assert [item["metadata"]["name"] for item in even["items"]] == ["c0", "c2"]
    token = even["metadata"]["continue"]
    rest = (
        await client.get(f"{client.config_maps}?labelSelector=even%3Dtrue&limit=2&continue={token}")
    ).json
    assert [item["metadata"]["name"] for item in rest["items"]] == ["c4", "c6"]
    assert "continue" not in rest["metadata"]
    await client.server.compact()
    for name in ("more", "and-more"):
        await client.make(client.config_maps, make_config_map(name))
    await client.server.compact()
    expired = await client.get(f"{client.config_maps}?limit=2&continue={token}")
    assert (expired.status, expired.json["reason"]) == (410, "Expired")


async def test_versions_of_lists(client):
    now = (await client.get(client.secrets)).json["metadata"]["resourceVersion"]
    exact = f"{client.secrets}?resourceVersionMatch=Exact&resourceVersion="
    assert (await client.get(exact + now)).status == 200
    assert (await client.get(exact + "1")).json["reason"] == "Expired"
    future = await client.get(f"{client.secrets}?resourceVersion=99999")
    assert (future.status, future.json["reason"]) == (504, "Timeout")
    assert (await client.get(f"{client.secrets}?resourceVersion=x")).status == 400


async def test_tables_and_partial_metadata(client, make_host):
    await client.make(client.hosts, make_host())
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    table = (await client.get(client.hosts, Accept=accept)).json
    assert (table["kind"], len(table["rows"])) == ("Table", 1)
    assert table["rows"][0]["cells"][0] == "h1"
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    whole = (await client.get(f"{client.hosts}/h1?includeObject=Object", Accept=accept)).json
    assert whole["rows"][0]["object"]["kind"] == "BareMetalHost"
    partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    listed = (await client.get(client.hosts, Accept=partial)).json
    assert listed["items"][0].keys() == {"kind", "apiVersion", "metadata"}
    assert (await client.get(client.hosts, Accept="text/html")).status == 406


# --- delete and what follows -------------------------------------------------------------------


async def gone(client, path):
    for _ in range(200):
        if (await client.get(path)).status == 404:
            return True
        await asyncio.sleep(0.02)
    return False


async def test_delete(client, make_config_map):
    made = await client.make(client.config_maps, make_config_map())
    path = f"{client.config_maps}/c1"
    other = await client("DELETE", path, {"preconditions": {"uid": "x"}})
    assert other.status == 409
    assert "Precondition failed: UID in precondition: x" in other.message
    old = await client("DELETE", path, {"preconditions": {"resourceVersion": "1"}})
    assert old.status == 409
    assert (await client("DELETE", f"{path}?dryRun=All")).status == 200
    answer = await client("DELETE", path)
    assert (answer.status, answer.json["status"]) == (200, "Success")
    assert answer.json["details"] == {
        "name": "c1",
        "kind": "configmaps",
        "uid": made["metadata"]["uid"],
    }
    again = await client("DELETE", path)
    assert (again.status, again.message) == (404, 'configmaps "c1" not found')


async def test_finalizers_hold_a_deleted_object(client, make_host):
    host = make_host()
    host["metadata"]["finalizers"] = ["example.com/a", "example.com/b"]
    await client.make(client.hosts, host)
    path = f"{client.hosts}/h1"
    marked = (await client("DELETE", path)).json
    assert marked["metadata"]["deletionTimestamp"]
    assert marked["metadata"]["generation"] == 2
    assert (await client("DELETE", path)).json == marked
    more = {"metadata": {"finalizers": ["example.com/a", "example.com/c"]}}
    assert "no new finalizers can be added" in (await client.patch(path, more)).message
    await client.patch(path, {"metadata": {"finalizers": ["example.com/a"]}})
    assert (await client.get(path)).status == 200
    last = await client.patch(path, {"metadata": {"finalizers": None}})
    assert last.status == 200
    assert (await client.get(path)).status == 404


async def test_delete_collection(client, make_config_map):
    for number in range(4):
        labels = {"n": str(number % 2)}
        await client.make(client.config_maps, make_config_map(f"c{number}", labels=labels))
    answer = await client("DELETE", f"{client.config_maps}?labelSelector=n%3D1")
    assert [item["metadata"]["name"] for item in answer.json["items"]] == ["c1", "c3"]
    left = (await client.get(client.config_maps)).json["items"]
    assert [item["metadata"]["name"] for item in left] == ["c0", "c2"]


def owned(make_config_map, name, *owners):
    references = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"],
         "uid": owner["metadata"]["uid"], "blockOwnerDeletion": True}
        for owner in owners
    ]  # fmt: skip
    return make_config_map(name, ownerReferences=references)


@pytest.mark.parametrize("propagation", ["Background", "Foreground"])
async def test_dependents_go_with_their_last_owner(client, make_config_map, propagation):
    path = client.config_maps
    a = await client.make(path, make_config_map("a"))
    b = await client.make(path, make_config_map("b"))
    child = await client.make(path, owned(make_config_map, "child", a))
    await client.make(path, owned(make_config_map, "grandchild", child))
    await client.make(path, owned(make_config_map, "shared", a, b))
    await client("DELETE", f"{path}/a?propagationPolicy={propagation}")
    for name in ("a", "child", "grandchild"):
        assert await gone(client, f"{path}/{name}"), name
    for _ in range(100):
        shared = (await client.get(f"{path}/shared")).json
        if len(shared["metadata"]["ownerReferences"]) == 1:
            break
        await asyncio.sleep(0.02)
    assert shared["metadata"]["ownerReferences"][0]["name"] == "b"


async def test_orphans_stay(client, make_config_map):
    a = await client.make(client.config_maps, make_config_map("a"))
    await client.make(client.config_maps, owned(make_config_map, "child", a))
    await client("DELETE", f"{client.config_maps}/a?propagationPolicy=Orphan")
    assert await gone(client, f"{client.config_maps}/a")
    child = (await client.get(f"{client.config_maps}/child")).json
    assert "ownerReferences" not in child["metadata"]


async def test_owners_of_unknown_kinds_are_left_to_others(client, make_config_map):
    references = [{"apiVersion": "cluster.x-k8s.io/v1", "kind": "Machine", "name": "m", "uid": "u"}]
    await client.make(client.config_maps, make_config_map("kept", ownerReferences=references))
    references = [{"apiVersion": "v1", "kind": "ConfigMap", "name": "m", "uid": "u"}]
    await client.make(client.config_maps, make_config_map("lost", ownerReferences=references))
    assert await gone(client, f"{client.config_maps}/lost")
    assert (await client.get(f"{client.config_maps}/kept")).status == 200


async def test_a_deleted_namespace_is_emptied_first(client, make_config_map):
    await client.make("/api/v1/namespaces", {"metadata": {"name": "n"}})
    inside = "/api/v1/namespaces/n/configmaps"
    await client.make(inside, make_config_map("free"))
    await client.make(inside, make_config_map("held", finalizers=["example.com/a"]))
    answer = (await client("DELETE", "/api/v1/namespaces/n")).json
    assert answer["status"]["phase"] == "Terminating"
    assert await gone(client, f"{inside}/free")
    refused = await client("POST", inside, make_config_map("late"))
    assert refused.status == 403
    assert "because it is being terminated" in refused.message
    assert (await client.get("/api/v1/namespaces/n")).status == 200
    await client.patch(f"{inside}/held", {"metadata": {"finalizers": None}})
    assert await gone(client, "/api/v1/namespaces/n")
    kept = await client("DELETE", "/api/v1/namespaces/default")
    assert (kept.status, kept.json["reason"]) == (403, "Forbidden")


async def test_cleaning_up_goes_on_after_a_restart(running, connect, make_config_map):
    client = connect(await running())
    await client.make("/api/v1/namespaces", {"metadata": {"name": "n"}})
    inside = "/api/v1/namespaces/n/configmaps"
    await client.make(inside, make_config_map("held", finalizers=["example.com/a"]))
    await client("DELETE", "/api/v1/namespaces/n")
    await client.close()
    client = connect(await running())
    await client.patch(f"{inside}/held", {"metadata": {"finalizers": None}})
    assert await gone(client, "/api/v1/namespaces/n")
    await client.close()


# --- documents and doors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/bogus", 404),
        ("GET", "/apis/metal3.io/v9", 404),
        ("GET", "/apis/metal3.io/v1alpha1/bogus", 404),
        ("GET", "/apis/metal3.io/v1alpha1/baremetalhosts/x", 404),
        ("GET", "/api/v1/namespaces/default/namespaces/x", 404),
        ("GET", "/api/v1/namespaces/default/secrets/x/status", 404),
        ("POST", "/apis/metal3.io/v1alpha1/baremetalhosts", 404),
        ("PUT", "/api/v1/namespaces/default/secrets", 405),
        ("POST", "/api/v1/namespaces/default/secrets/x", 405),
        ("DELETE", "/api/v1/namespaces", 405),
        ("POST", "/apis", 405),
        ("GET", "/openapi/v3/apis/bogus/v1", 404),
    ],
)
async def test_paths_and_methods_that_do_not_exist(client, method, path, status):
    answer = await client(method, path, {} if method in ("POST", "PUT") else None)
    assert (answer.status, answer.json["kind"]) == (status, "Status")


async def test_only_the_token_opens_the_door(client):
    for wrong in ("", "Bearer ", "Bearer wrong", "Basic abc", client.server.token.reveal()):
        answer = await client.get("/api", Authorization=wrong)
        assert (answer.status, answer.json["reason"]) == (401, "Unauthorized")
    for path in ("/healthz", "/livez", "/readyz", "/version"):
        assert (await client.get(path, Authorization="")).status == 200
    files = client.server.kubeconfig_path.parent
    for name in (
        "kubeconfig",
        "token",
        "pki/ca.key",
        "pki/api.key",
        "objects.sqlite",
        "objects.sqlite-wal",
    ):
        assert (files / name).stat().st_mode & 0o777 == 0o600


async def test_discovery_in_both_forms(client):
    core = (await client.get("/api/v1")).json
    by_name = {entry["name"]: entry for entry in core["resources"]}
    assert by_name["secrets"]["namespaced"] is True
    assert by_name["namespaces/status"]["verbs"] == ["get", "patch", "update"]
    groups = {group["name"] for group in (await client.get("/apis")).json["groups"]}
    assert {"metal3.io", "coordination.k8s.io", "apiextensions.k8s.io"} <= groups
    for version in ("v2", "v2beta1"):
        kind = f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
        answer = await client.get("/apis", Accept=f"{kind},application/json")
        assert answer.headers["Content-Type"] == kind
        items = {item["metadata"]["name"]: item for item in answer.json["items"]}
        resources = items["metal3.io"]["versions"][0]["resources"]
        hosts = next(entry for entry in resources if entry["resource"] == "baremetalhosts")
        assert hosts["subresources"][0]["subresource"] == "status"
    assert (await client.get("/api", Accept="application/json")).json["versions"] == ["v1"]


async def test_openapi_documents_follow_definitions(client):
    index = (await client.get("/openapi/v3")).json["paths"]
    assert (await client.get(index["apis/metal3.io/v1alpha1"]["serverRelativeURL"])).status == 200
    assert "apis/example.com/v1" not in index
    await client.make(CRDS, WIDGET)
    index = (await client.get("/openapi/v3")).json["paths"]
    assert "apis/example.com/v1" in index
    old = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
    answer = await client.get("/openapi/v2", Accept=old)
    assert answer.headers["Content-Type"].endswith("+protobuf")
    assert b"com.example.v1.Widget" in answer.body
    assert (await client.get("/openapi/v2")).json["swagger"] == "2.0"


async def test_questions_about_oneself(client):
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    question = {
        "spec": {"resourceAttributes": {"verb": "get", "resource": "secrets"}},
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
    }
    answer = await client.make(path, question)
    assert answer["status"]["allowed"] is True
    assert answer["spec"] == question["spec"]


async def test_a_listening_socket_may_be_handed_in(tmp_path, connect):
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = ApiServer(tmp_path / "own", namespace="metal3")
    await server.start(host="ignored.example", port=1, sock=listener)
    assert server.url == f"https://127.0.0.1:{port}"
    config = yaml.safe_load(server.kubeconfig_path.read_text())
    assert config["contexts"][0]["context"]["namespace"] == "metal3"
    client = connect(server)
    assert (await client.get("/api/v1/namespaces/metal3")).status == 200
    await client.close()
    await server.stop()


async def test_an_address_in_use_is_said_plainly(tmp_path, client):
    port = int(client.server.url.rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {port}"):
        await ApiServer(tmp_path / "other").start(host="127.0.0.1", port=port)


async def test_a_disk_that_is_full_is_an_error_not_a_lie(client, make_config_map):
    path = client.server.kubeconfig_path.parent / "objects.sqlite"
    pages = path.stat().st_size // 4096
    client.server._store._writer.execute(f"PRAGMA max_page_count={pages}")
    large = {**make_config_map(), "data": {"a": "x" * 10**6}}
    answer = await client("POST", client.config_maps, large)
    assert (answer.status, answer.json["reason"]) == (500, "InternalError")
    assert "cannot be written" in answer.message
    client.server._store._writer.execute(f"PRAGMA max_page_count={2**30}")
    await client.make(client.config_maps, make_config_map())


async def test_old_events_go(tmp_path):
    store = Store(tmp_path / "o.sqlite")
    registry = Registry(builtin_definitions())
    times = [datetime(2024, 1, 1, tzinfo=UTC)]
    objects = Objects(store, registry, {}, lambda: times[0])
    namespaces, events = registry.find_kind(NAMESPACE), registry.find_kind(EVENT)
    await objects.create(namespaces, "", initial_namespace("n"), WriteOptions())
    event = {"involvedObject": {"kind": "X", "namespace": "n"}, "metadata": {"name": "old"}}
    await objects.create(events, "n", event, WriteOptions())
    times[0] += timedelta(minutes=50)
    await objects.create(events, "n", {**event, "metadata": {"name": "new"}}, WriteOptions())
    times[0] += timedelta(minutes=20)
    collector = Collector(store, objects, registry, sweep_every_s=0.01, clock=times[0].timestamp)
    running = asyncio.create_task(collector.run())
    while store.get(Key("/events", "n", "old")) is not None:
        await asyncio.sleep(0.01)
    assert store.get(Key("/events", "n", "new")) is not None
    running.cancel()
    store.close()
