"""Our schemas on a genuine API server, and our reading of them against its own.

Needs BILLET_TEST_KUBEAPI, the path of a program that starts an API server in a folder
(``start DIR``, ``stop DIR``).
"""

import json
import os
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from billet_server.apiserver.definitions import load_crds, parse_crd
from billet_server.apiserver.openapi import render_v2, render_v3
from billet_server.apiserver.schema import Schema
from billet_server.apiserver.table import render_table

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
WORDING = yaml.safe_load((ROOT / "tests" / "data" / "crd_wording.yaml").read_text())
DEFINITIONS = [parse_crd(crd) for crd in load_crds()]
HOST = DEFINITIONS[0]
HOSTS = "/apis/metal3.io/v1alpha1/namespaces/default/baremetalhosts"
BASE = {"apiVersion": "metal3.io/v1alpha1", "kind": "BareMetalHost"}


class RealApi:
    """An API server with our CRDs applied, and a way to ask it."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program, self._folder = program, folder / "kube"
        self._run("start")
        self.kubeconfig = self._folder / "kubeconfig"
        config = yaml.safe_load(self.kubeconfig.read_text())
        self._server = config["clusters"][0]["cluster"]["server"]
        self._token = (self._folder / "pki" / "token").read_text().strip()
        self._tls = ssl.create_default_context(cafile=self._folder / "pki" / "ca.crt")

    def _run(self, verb: str) -> None:
        subprocess.run(
            [self._program, verb, self._folder],
            check=True,
            timeout=90,
            stdout=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        self._run("stop")

    def ask(self, method: str, path: str, body=None, accept="application/json", kind=None):
        """Return (status, parsed answer)."""
        request = urllib.request.Request(
            self._server + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self._token}",
                "Accept": accept,
                "Content-Type": kind or "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=20, context=self._tls) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)


def apply(api: RealApi, crd: dict) -> None:
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}"
    status, answer = api.ask(
        "PATCH",
        f"{path}?fieldManager=test&force=true&fieldValidation=Strict",
        crd,
        kind="application/apply-patch+yaml",
    )
    assert status in (200, 201), answer
    for _ in range(100):
        _, stored = api.ask("GET", path)
        found = stored.get("status", {}).get("conditions") or []
        conditions = {entry["type"]: entry for entry in found}
        if conditions.get("Established", {}).get("status") == "True":
            assert conditions.get("NonStructuralSchema", {}).get("status") != "True", conditions
            return
        time.sleep(0.1)
    pytest.fail(f"{crd['metadata']['name']} was not established: {conditions}")


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    program = os.environ.get("BILLET_TEST_KUBEAPI")
    if not program:
        print("skipped: no cluster")
        pytest.skip("skipped: no cluster")
    api = RealApi(program, tmp_path_factory.mktemp("kubeapi"))
    try:
        for crd in load_crds():
            apply(api, crd)
        yield api
    finally:
        api.stop()


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
    assert done.stdout.count("serverside-applied") == 2


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
        answer = real.ask("POST", f"{HOSTS}?dryRun=All", host)
    else:
        real.ask("POST", HOSTS, host)
        _, stored = real.ask("GET", f"{HOSTS}/w")
        host["metadata"] = stored["metadata"]
        answer = real.ask("PUT", f"{HOSTS}/w/status?dryRun=All", host)
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
    status, stored = real.ask("POST", f"{HOSTS}?dryRun=All", host)
    assert status == 201, stored
    schema = Schema(HOST.schema)
    pruned, unknown = schema.prune(host)
    assert schema.default(pruned)["spec"] == stored["spec"]
    status, answer = real.ask("POST", f"{HOSTS}?dryRun=All&fieldValidation=Strict", host)
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
    real.ask("POST", HOSTS, host)
    patch = {"status": {"operationalStatus": "OK", "poweredOn": True, "progress": {"percent": 5}}}
    patch["status"]["provisioning"] = {"state": "inspecting", "ID": ""}
    status, stored = real.ask(
        "PATCH", f"{HOSTS}/t/status", patch, kind="application/merge-patch+json"
    )
    assert status == 200
    table_type = "application/json;as=Table;v=v1;g=meta.k8s.io"
    for include in ("Object", "None", "Metadata"):
        query = f"?labelSelector=test%3Dtable&includeObject={include}"
        _, theirs = real.ask("GET", HOSTS + query, accept=table_type)
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
    real.ask("DELETE", f"{HOSTS}/t")
