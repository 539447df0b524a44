"""Unknown and repeated fields: the same headers and refusals from both API servers, byte for byte.

The port of the server's client does not show headers, so these requests are written by hand.
"""

import asyncio
import json
import uuid

import pytest

from billet_server.apiserver import ApiServer
from billet_server.kube.config import build_client, read_config
from clusters import new_namespace

HOST = {"apiVersion": "metal3.io/v1alpha1", "kind": "BareMetalHost"}
MERGE, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"


class Api:
    """Requests to one API server, with its answer's status, warnings and body."""

    def __init__(self, kubeconfig, namespace) -> None:
        self._client = build_client(read_config(kubeconfig))
        self.hosts = f"/apis/metal3.io/v1alpha1/namespaces/{namespace}/baremetalhosts"

    async def __call__(self, method, path, body=None, media="application/json"):
        data = body if isinstance(body, str | None) else json.dumps(body)
        headers = {"Content-Type": media} if data is not None else {}
        answer = await self._client.request(method, path, content=data, headers=headers)
        return answer.status_code, answer.headers.get_list("Warning"), answer.json()

    async def close(self):
        await self._client.aclose()


@pytest.fixture(params=["embedded", pytest.param("genuine", marks=pytest.mark.cluster)])
async def http(request, tmp_path):
    embedded = cluster = None
    namespace = "default"
    if request.param == "genuine":
        cluster, namespace = request.getfixturevalue("cluster"), new_namespace()
        kubeconfig = cluster.kubeconfig
        await asyncio.to_thread(cluster.kubectl, "create", "namespace", namespace)
    else:
        embedded = ApiServer(tmp_path / "state")
        await embedded.start(host="127.0.0.1", port=0)
        kubeconfig = embedded.kubeconfig_path
    api = Api(kubeconfig, namespace)
    yield api
    await api.close()
    if embedded is not None:
        await embedded.stop()
    if cluster is not None:
        await asyncio.to_thread(cluster.kubectl, "delete", "namespace", namespace, "--wait=false")


@pytest.fixture
async def name(http):
    made = f"h-{uuid.uuid4().hex[:8]}"
    yield made
    await http("DELETE", f"{http.hosts}/{made}")


def host(name, **spec):
    return {**HOST, "metadata": {"name": name}, "spec": {"online": False, **spec}}


def unknown(*paths):
    return [f'299 - "unknown field \\"{path}\\""' for path in paths]


WRONG = {"bogus": 1, "bmc": {"address": "a", "credentialsName": "b", "user": "x"},
         "raid": {"hardwareRAIDVolumes": [{"level": "1", "size": 3}]}}  # fmt: skip
PATHS = ("spec.bmc.user", "spec.bogus", "spec.raid.hardwareRAIDVolumes[0].size")


@pytest.mark.parametrize("query", ["", "?fieldValidation=Warn"])
async def test_create_warns_and_prunes(http, name, query):
    status, warnings, made = await http("POST", http.hosts + query, host(name, **WRONG))
    assert status == 201
    assert sorted(warnings) == unknown(*PATHS)
    assert "bogus" not in made["spec"]
    assert set(made["spec"]["bmc"]) == {"address", "credentialsName"}


async def test_ignore_prunes_without_a_word(http, name):
    status, warnings, made = await http(
        "POST", f"{http.hosts}?fieldValidation=Ignore", host(name, **WRONG)
    )
    assert (status, warnings) == (201, [])
    assert "bogus" not in made["spec"]


async def test_strict_refuses_and_names_all(http, name):
    status, warnings, refusal = await http(
        "POST", f"{http.hosts}?fieldValidation=Strict", host(name, **WRONG)
    )
    assert (status, warnings, refusal["reason"]) == (400, [], "BadRequest")
    for path in PATHS:
        assert f'unknown field "{path}"' in refusal["message"]
    assert "strict decoding error" in refusal["message"]
    assert (await http("GET", f"{http.hosts}/{name}"))[0] == 404


@pytest.mark.parametrize(
    ("method", "options"),
    [("POST", "CreateOptions"), ("PUT", "UpdateOptions"), ("PATCH", "PatchOptions")],
)
async def test_other_words_are_refused(http, name, method, options):
    path = http.hosts if method == "POST" else f"{http.hosts}/{name}"
    if method != "POST":
        await http("POST", http.hosts, host(name))
    media = MERGE if method == "PATCH" else "application/json"
    query = "?fieldValidation=Perhaps&dryRun=No"
    status, _, refusal = await http(method, path + query, host(name), media)
    assert status == 422
    assert refusal["message"] == (
        f'{options}.meta.k8s.io "" is invalid: [dryRun: Unsupported value: ["No"]: supported '
        'values: "All", fieldValidation: Unsupported value: "Perhaps": supported values: "", '
        '"Ignore", "Strict", "Warn"]'
    )


async def test_updates_warn_likewise(http, name):
    path = f"{http.hosts}/{name}"
    _, _, made = await http("POST", http.hosts, host(name))
    status, warnings, made = await http("PUT", path, {**made, "spec": made["spec"] | {"x": 1}})
    assert (status, warnings) == (200, unknown("spec.x"))
    status, warnings, made = await http("PATCH", path, {"spec": {"x": 1}}, MERGE)
    assert (status, warnings) == (200, unknown("spec.x"))
    add = [{"op": "add", "path": "/spec/x", "value": 1}]
    status, warnings, made = await http("PATCH", path, add, JSON_PATCH)
    assert (status, warnings) == (200, unknown("spec.x"))
    assert "x" not in made["spec"]
    status, _, refusal = await http(
        "PATCH", f"{path}?fieldValidation=Strict", {"spec": {"x": 1}}, MERGE
    )
    assert status in (400, 422)
    assert 'unknown field "spec.x"' in refusal["message"]


async def test_status_updates_warn_likewise(http, name):
    await http("POST", http.hosts, host(name))
    patch = {"status": {"errorCount": 1, "wheels": 4}}
    status, warnings, made = await http("PATCH", f"{http.hosts}/{name}/status", patch, MERGE)
    assert (status, warnings) == (200, unknown("status.wheels"))
    assert made["status"]["errorCount"] == 1
    assert "wheels" not in made["status"]


async def test_unknown_metadata_is_warned_of(http, name):
    sent = host(name)
    sent["metadata"]["colour"] = "red"
    status, warnings, made = await http("POST", http.hosts, sent)
    assert (status, warnings) == (201, unknown("metadata.colour"))
    assert "colour" not in made["metadata"]


REPEATED = """{"apiVersion": "metal3.io/v1alpha1", "kind": "BareMetalHost",
  "metadata": {"name": "NAME", "labels": {"a": "1", "a": "2"}},
  "spec": {"online": false, "bmc": {"address": "a", "address": "b", "credentialsName": "c"},
           "taints": [{"key": "k", "effect": "e", "key": "l"}], "online": true}}"""


async def test_repeated_fields_are_warned_of_and_the_last_one_counts(http, name):
    status, warnings, made = await http("POST", http.hosts, REPEATED.replace("NAME", name))
    assert status == 201
    assert sorted(warnings) == [
        f'299 - "duplicate field \\"{path}\\""'
        for path in ("metadata.labels.a", "spec.bmc.address", "spec.online", "spec.taints[0].key")
    ]
    assert (made["spec"]["online"], made["spec"]["bmc"]["address"]) == (True, "b")
    assert made["metadata"]["labels"] == {"a": "2"}


async def test_repeated_fields_are_refused_or_ignored_as_asked(http, name):
    body = REPEATED.replace("NAME", name)
    status, _, refusal = await http("POST", f"{http.hosts}?fieldValidation=Strict", body)
    assert status == 400
    assert 'duplicate field "spec.bmc.address"' in refusal["message"]
    status, warnings, _ = await http("POST", f"{http.hosts}?fieldValidation=Ignore", body)
    assert (status, warnings) == (201, [])


async def test_repeated_fields_of_a_patch(http, name):
    await http("POST", http.hosts, host(name))
    patch = '{"spec": {"description": "a", "description": "b"}}'
    status, warnings, made = await http("PATCH", f"{http.hosts}/{name}", patch, MERGE)
    assert (status, made["spec"]["description"]) == (200, "b")
    assert warnings == ['299 - "duplicate field \\"spec.description\\""']


async def test_repeated_fields_of_a_json_patch(http, name):
    await http("POST", http.hosts, host(name))
    patch = '[{"op": "add", "op": "add", "path": "/spec/description", "value": "b"}]'
    status, warnings, made = await http("PATCH", f"{http.hosts}/{name}", patch, JSON_PATCH)
    assert (status, made["spec"]["description"]) == (200, "b")
    assert warnings == ['299 - "json patch duplicate field \\"[0].op\\""']


async def test_repeated_fields_come_before_unknown_ones(http, name):
    body = REPEATED.replace("NAME", name).replace('"taints"', '"x": 1, "x": 2, "taints"')
    status, _, refusal = await http("POST", f"{http.hosts}?fieldValidation=Strict", body)
    assert status == 400
    message = refusal["message"]
    assert message.startswith('BareMetalHost in version "v1alpha1" cannot be handled as a ')
    assert message.endswith('duplicate field "spec.online", unknown field "spec.x"')
    assert message.count("duplicate field") == 5


async def test_repeated_fields_of_a_secret(http, name):
    secrets = "/api/v1/namespaces/default/secrets"
    body = (f'{{"metadata": {{"name": "{name}"}}, "stringData": {{"a": "1", "a": "2"}},'
            ' "colour": "red"}')  # fmt: skip
    status, warnings, _ = await http("POST", secrets, body)
    assert status == 201
    assert sorted(warnings) == [
        '299 - "duplicate field \\"stringData.a\\""', '299 - "unknown field \\"colour\\""'
    ]  # fmt: skip
    await http("DELETE", f"{secrets}/{name}")
