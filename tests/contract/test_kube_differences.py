"""What remains different between the embedded API and a cluster: docs/kubernetes.md, row by row.

Each row's test sees the difference on both sides, so that the page neither leaves a difference
out that a test knows of, nor tells of one that is no more.
"""

import asyncio
import re
from pathlib import Path

import pytest

from contract.wire import APPLY, HTTP_WORLDS, MERGE, host

PAGE = Path(__file__).parents[2] / "docs" / "kubernetes.md"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def row(name):
    """Say which row of the page a test stands for."""

    def mark(test):
        test.row = name
        return pytest.mark.parametrize("world", HTTP_WORLDS, indirect=True)(test)

    return mark


def test_the_page_has_a_row_for_each_of_these_tests():
    page = PAGE.read_text().split("## What differs", 1)[1].split("\n## ", 1)[0]
    told = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    tested = [test.row for test in globals().values() if hasattr(test, "row")]
    assert sorted(told) == sorted(tested)


@pytest.fixture
def embedded(world):
    return world.name == "embedded"


@row("server-side apply")
async def test_server_side_apply(wire, embedded):
    query = {"fieldManager": "test", "force": "true"}
    answer = await wire.ask("PATCH", f"{wire.hosts}/h1", host(), media=APPLY, **query)
    if not embedded:
        assert answer.status == 201
        return
    assert (answer.status, answer.body["reason"]) == (415, "UnsupportedMediaType")
    assert "use client-side apply" in answer.message
    assert "kubectl apply --server-side=false" in answer.message


@row("metadata.managedFields")
async def test_managed_fields(wire, embedded):
    made = await wire.make(wire.hosts, host())
    assert ("managedFields" in made["metadata"]) == (not embedded)


@row("later pages of a list")
async def test_later_pages(wire, embedded):
    for number in range(3):
        await wire.make(wire.hosts, host(f"h{number}"))
    first = await wire.ask("GET", wire.hosts, limit=1)
    token = first.body["metadata"]["continue"]
    await wire.ask("DELETE", f"{wire.hosts}/h1")
    rest = await wire.ask("GET", wire.hosts, **{"continue": token})
    assert rest.names == (["h2"] if embedded else ["h1", "h2"])


@row("lists of the past")
async def test_lists_of_the_past(wire, embedded):
    await wire.make(wire.hosts, host("h1"))
    version = (await wire.ask("GET", wire.hosts)).body["metadata"]["resourceVersion"]
    await wire.make(wire.hosts, host("h2"))
    query = {"resourceVersion": version, "resourceVersionMatch": "Exact"}
    answer = await wire.ask("GET", wire.hosts, **query)
    if embedded:
        assert (answer.status, answer.body["reason"]) == (410, "Expired")
    else:
        assert answer.names == ["h1"]


@row("watches after a restart")
@pytest.mark.own_api
async def test_watches_after_a_restart(wire, world, embedded):
    version = (await wire.ask("GET", wire.hosts)).body["metadata"]["resourceVersion"]
    await wire.make(wire.hosts, host("h1"))
    await world.stop()
    await world.start()
    query = {"resourceVersion": version, "timeoutSeconds": 2}
    answer = await wire.first_event(wire.hosts, **query)
    if embedded:
        assert (answer["type"], answer["object"]["metadata"]["name"]) == ("ADDED", "h1")
    else:
        assert answer["object"]["code"] == 410


@row("bodies in YAML and CBOR")
async def test_bodies_in_yaml(wire, embedded):
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c1}\n"
    answer = await wire.ask("POST", wire.config_maps, text, media="application/yaml")
    assert answer.status == (415 if embedded else 201)


@row("Secrets of the well-known types")
async def test_secrets_of_well_known_types(wire, embedded):
    secret = {"metadata": {"name": "s1"}, "type": "kubernetes.io/tls", "data": {}}
    answer = await wire.ask("POST", wire.secrets, secret)
    assert answer.status == (201 if embedded else 422)


@row("kinds")
async def test_kinds(wire, embedded):
    answer = await wire.ask("GET", "/apis")
    groups = {group["name"] for group in answer.body["groups"]}
    assert groups >= {"metal3.io", "apiextensions.k8s.io", "coordination.k8s.io"}
    assert ("events.k8s.io" in groups) == (not embedded)
    if embedded:
        assert groups == {
            "metal3.io", "cluster.k8s.io", "apiextensions.k8s.io", "coordination.k8s.io",
            "authorization.k8s.io", "authentication.k8s.io",
        }  # fmt: skip
        answer = await wire.ask("GET", f"{wire.core}/pods")
        assert answer.status == 404


def definition(name, **version):
    """A small CustomResourceDefinition of a test."""
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {"size": {"type": "integer"}},
                "x-kubernetes-validations": [
                    {"rule": "!has(self.size) || self.size < 10", "message": "too large"}
                ],
            }
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{name}s.{name}.example.org"},
        "spec": {
            "group": f"{name}.example.org",
            "scope": "Namespaced",
            "names": {"plural": f"{name}s", "kind": name.capitalize()},
            "versions": [
                {
                    "name": "v1", "served": True, "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "selectableFields": [{"jsonPath": ".spec.size"}], **version,
                },
                {
                    "name": "v2", "served": True, "storage": False,
                    "schema": {"openAPIV3Schema": schema | {"description": "newer"}}, **version,
                },
            ],
        },
    }  # fmt: skip


@row("definitions of your own")
async def test_definitions_of_your_own(wire, embedded):
    name = "t" + re.sub(r"[^a-z]", "", wire.namespace)[-6:] + "x"
    made = await wire.make(CRDS, definition(name))
    path = f"{CRDS}/{made['metadata']['name']}"
    try:
        things = f"/apis/{name}.example.org/v1/namespaces/{wire.namespace}/{name}s"
        thing = {"apiVersion": f"{name}.example.org/v1", "kind": name.capitalize(),
                 "metadata": {"name": "a"}}  # fmt: skip
        async with asyncio.timeout(20):
            while (await wire.ask("GET", things)).status == 404:
                await asyncio.sleep(0.1)
        await wire.make(things, {**thing, "spec": {"size": 5}})
        patch = {"spec": {"size": 50}}
        answer = await wire.ask("PATCH", f"{things}/a", patch, media=MERGE)
        assert answer.status == (200 if embedded else 422)
        answer = await wire.ask("GET", things.replace("/v1/", "/v2/"))
        assert answer.status == (404 if embedded else 200)
        answer = await wire.ask("GET", things, fieldSelector="spec.size=5")
        assert answer.status == (400 if embedded else 200)
    finally:
        await wire.ask("DELETE", path)


@row("billet's checks")
async def test_checks_at_the_door(wire, embedded):
    """The bare API, both times: what refuses bad hosts is a part of `billet up`."""
    bad = host(bmc={"address": "ipmy://1.2.3.4", "credentialsName": "x"})
    assert (await wire.ask("POST", wire.hosts, bad)).status == 201
    assert embedded in (True, False)


@row("who may do what")
async def test_who_may_do_what(wire, embedded):
    if not embedded:
        return
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
              "spec": {"resourceAttributes": {"verb": "delete", "resource": "nodes"}}}  # fmt: skip
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = await wire.ask("POST", path, review)
    assert answer.body["status"]["allowed"] is True


@row("version and metrics")
async def test_version_and_metrics(wire, embedded):
    version = (await wire.ask("GET", "/version")).body["gitVersion"]
    assert ("billet" in version) == embedded
    assert (await wire.ask("GET", "/metrics")).status == (404 if embedded else 200)
