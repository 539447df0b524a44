"""Our schemas on a genuine API server, and our reading of them against its own."""

import json
import os
import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
import yaml
from lightkube.config.client_adapter import ConnectionParams

from billet_server.apiserver.definitions import load_crds, parse_crd
from billet_server.apiserver.openapi import render_v2, render_v3
from billet_server.apiserver.schema import Schema
from billet_server.apiserver.table import render_table
from billet_server.kube.config import read_config
from clusters import Cluster, new_namespace

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
WORDING = yaml.safe_load((ROOT / "tests" / "data" / "crd_wording.yaml").read_text())
DEFINITIONS = [parse_crd(crd) for crd in load_crds()]
HOST = DEFINITIONS[0]
BASE = {"apiVersion": "metal3.io/v1alpha1", "kind": "BareMetalHost"}


class RealApi:
    """A cluster with our definitions, and a way to ask it."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        config = read_config(cluster.kubeconfig)
        settings = ConnectionParams().httpx_params(config)
        self.kubeconfig = cluster.kubeconfig
        self.hosts = f"/apis/metal3.io/v1alpha1/namespaces/{namespace}/baremetalhosts"
        self._http = httpx2.Client(
            base_url=config.cluster.server,
            auth=settings["auth"],
            verify=settings["verify"],
            timeout=20,
        )

    def close(self) -> None:
        self._http.close()

    def ask(self, method: str, path: str, body=None, accept="application/json", kind=None):
        """Return (status, parsed answer)."""
        headers = {"Accept": accept, "Content-Type": kind or "application/json"}
        content = None if body is None else json.dumps(body).encode()
        answer = self._http.request(method, path, content=content, headers=headers)
        return answer.status_code, answer.json()


@pytest.fixture(scope="module")
def real(cluster):
    namespace = new_namespace()
    cluster.kubectl("create", "namespace", namespace)
    api = RealApi(cluster, namespace)
    try:
        yield api
    finally:
        api.close()
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")


def test_definitions_are_served_as_they_are_published(cluster):
    """Structural, established, and applied strictly: with no field that the API does not know."""
    for crd in load_crds():
        name = crd["metadata"]["name"]
        stored = json.loads(cluster.kubectl("get", "crd", name, "-o", "json"))
        held = {one["type"]: one["status"] for one in stored["status"]["conditions"]}
        assert held["Established"] == "True"
        assert held.get("NonStructuralSchema") != "True", stored["status"]
    path = ROOT / "crds"
    cluster.kubectl("apply", "--server-side", "--dry-run=server", "--force-conflicts",
                    "--validate=strict", "-f", path)  # fmt: skip


@pytest.mark.own_api
def test_kubectl_applies_the_crds_server_side(real):
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl on the PATH")
    done = subprocess.run(
        [kubectl, "apply", "--server-side", "--force-conflicts", "-f", ROOT / "crds"],
        env={**os.environ, "KUBECONFIG": str(real.kubeconfig)},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert done.stdout.count("serverside-applied") == 3


def refusal(status: int, answer: dict) -> list[str]:
    """The lines of a refusal as our schema writes them.

    The API server checks status on its own, without the prefix ``status.`` in its sentences; and
    it repeats faults of integers in a second cause without a path.
    """
    if status < 400:
        return []
    lines = set()
    for cause in answer["details"]["causes"]:
        message = cause["message"]
        if cause["field"].startswith("status."):
            bare = cause["field"].removeprefix("status.")
            message = message.replace(f" {bare} in body", f" {cause['field']} in body")
        if "Checked value must be of type integer" not in message:
            lines.add(f"{cause['field']}: {message}")
    return sorted(lines)


@pytest.mark.parametrize("case", WORDING, ids=lambda case: json.dumps(case["object"])[:60])
def test_wording(real, case):
    host = {**BASE, "metadata": {"name": "w"}, "spec": {"online": True}, **case["object"]}
    if "status" not in host:
        answer = real.ask("POST", f"{real.hosts}?dryRun=All", host)
    else:
        real.ask("POST", real.hosts, host)
        _, stored = real.ask("GET", f"{real.hosts}/w")
        host["metadata"] = stored["metadata"]
        answer = real.ask("PUT", f"{real.hosts}/w/status?dryRun=All", host)
    assert refusal(*answer) == case["lines"]


@pytest.mark.parametrize(
    "spec",
    [
        {"online": True},
        {"online": True, "automatedCleaningMode": None, "image": None, "bmc": None},
        {"online": False, "foo": 1, "bmc": {"address": "a", "credentialsName": "b", "x": [{}]}},
        {"online": True, "raid": {"softwareRAIDVolumes": None, "hardwareRAIDVolumes": []}},
        {"online": True, "taints": [{"key": "a", "effect": "b", "zz": 1, "value": None}]},
        {
            "online": True,
            "rootDeviceHints": {},
            "networkInterfaces": [{"hostNetworkAttachment": {}}],
        },
    ],
)
def test_pruning_and_defaults(real, spec):
    host = {**BASE, "metadata": {"name": "p"}, "spec": spec}
    status, stored = real.ask("POST", f"{real.hosts}?dryRun=All", host)
    assert status == 201, stored
    schema = Schema(HOST.schema)
    pruned, unknown = schema.prune(host)
    assert schema.default(pruned)["spec"] == stored["spec"]
    status, answer = real.ask("POST", f"{real.hosts}?dryRun=All&fieldValidation=Strict", host)
    assert [f'unknown field "{path}"' in answer.get("message", "") for path in unknown] == [
        True for _ in unknown
    ]
    assert status == (400 if unknown else 201)


@pytest.mark.parametrize(("version", "path"), [("v2", "/openapi/v2"), ("v3", "/openapi/v3")])
def test_openapi_schemas_are_those_that_the_server_publishes(real, version, path):
    if version == "v2":
        ours, theirs = render_v2(DEFINITIONS)["definitions"], None
    else:
        path += "/apis/metal3.io/v1alpha1"
        ours = render_v3(DEFINITIONS, "metal3.io", "v1alpha1")["components"]["schemas"]
    names = [name for name in ours if name.startswith("io.metal3.")]
    for _ in range(50):  # published a moment after the CRD is established
        _, document = real.ask("GET", path)
        theirs = document.get("definitions") or document.get("components", {}).get("schemas", {})
        if set(names) <= set(theirs):
            break
        time.sleep(0.2)
    for name in names:
        assert without_words(ours[name]) == without_words(theirs[name]), name


def without_words(schema):
    """The schema without descriptions: those of metadata and lists are in our own words."""
    if isinstance(schema, dict):
        return {
            key: without_words(value)
            for key, value in schema.items()
            if key != "description" or not isinstance(value, str)
        }
    return [without_words(value) for value in schema] if isinstance(schema, list) else schema


def test_table(real):
    host = {
        **BASE,
        "metadata": {"name": "t", "labels": {"test": "table"}},
        "spec": {"online": False, "bmc": {"address": "ipmi://h", "credentialsName": "c"}},
    }
    real.ask("POST", real.hosts, host)
    patch = {"status": {"operationalStatus": "OK", "poweredOn": True, "progress": {"percent": 5}}}
    patch["status"]["provisioning"] = {"state": "inspecting", "ID": ""}
    status, stored = real.ask(
        "PATCH", f"{real.hosts}/t/status", patch, kind="application/merge-patch+json"
    )
    assert status == 200
    table_type = "application/json;as=Table;v=v1;g=meta.k8s.io"
    for include in ("Object", "None", "Metadata"):
        query = f"?labelSelector=test%3Dtable&includeObject={include}"
        _, theirs = real.ask("GET", real.hosts + query, accept=table_type)
        ours = render_table(HOST, [stored], theirs["metadata"], include, datetime.now(UTC))
        for column in (*ours["columnDefinitions"], *theirs["columnDefinitions"]):
            if column["name"] == "Name":
                column["description"] = ""
        age = [column["name"] for column in ours["columnDefinitions"]].index("Age")
        for table in (ours, theirs):
            for row in table["rows"]:
                row["cells"][age] = "?"
                if include == "Metadata":  # the order of managedFields differs
                    row["object"]["metadata"].pop("managedFields", None)
        assert ours == theirs
    real.ask("DELETE", f"{real.hosts}/t")
