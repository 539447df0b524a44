"""Real kubectl, the one on the PATH and Debian 12's 1.20, against the embedded API.

The server runs in a process of its own; every test works in a namespace of its own.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

FETCH = Path(__file__).parents[2] / "tools" / "fetch-kubectl-1.20"
SERVER = """
import asyncio, sys
from pathlib import Path
from billet_server.apiserver import ApiServer

async def main():
    server = ApiServer(Path(sys.argv[1]))
    await server.start(host="127.0.0.1", port=int(sys.argv[2]))
    print(server.url, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()

asyncio.run(main())
"""


class Server:
    """The embedded API in a child process that ends with its standard input."""

    def __init__(self, state):
        self.state, self.port = state, 0
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, self.state, str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self.process.stdout.readline().strip().rpartition(":")[2])

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def end(self):
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = Server(tmp_path_factory.mktemp("api"))
    yield made
    made.end()
    assert made.process.returncode == 0


class Kubectl:
    """One kubectl program, one namespace."""

    def __init__(self, program, server, home):
        self.program, self.server = program, server
        self.environment = {
            **os.environ, "KUBECONFIG": str(server.state / "kubeconfig"), "HOME": str(home),
            "TZ": "UTC",
        }  # fmt: skip
        version = json.loads(self("version", "--client", "-o", "json"))["clientVersion"]
        self.minor = int(re.match(r"\d+", version["minor"])[0])
        self.namespace = f"n-{uuid.uuid4().hex[:8]}"

    def run(self, *arguments, stdin=None, **environment):
        return subprocess.run(
            [self.program, *arguments], capture_output=True, text=True, timeout=40, input=stdin,
            env={**self.environment, **environment}, check=False,
        )  # fmt: skip

    def __call__(self, *arguments, stdin=None, **environment):
        """Run in the default namespace of the kubeconfig; must succeed. Returns its output."""
        done = self.run(*arguments, stdin=stdin, **environment)
        assert done.returncode == 0, f"kubectl {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def here(self, *arguments, **more):
        """Run in this test's namespace."""
        return self("--namespace", self.namespace, *arguments, **more)

    def fails(self, *arguments, **more):
        """Run in this test's namespace; must fail. Returns what it said."""
        done = self.run("--namespace", self.namespace, *arguments, **more)
        assert done.returncode != 0, f"kubectl {arguments} succeeded: {done.stdout}"
        return done.stdout + done.stderr

    @contextlib.contextmanager
    def following(self, *arguments):
        """Start one that goes on; yields a function that waits for its next line."""
        process = subprocess.Popen(
            [self.program, "--namespace", self.namespace, *arguments],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        deadline = threading.Timer(30, process.kill)
        deadline.start()
        try:
            yield process.stdout.readline
        finally:
            deadline.cancel()
            process.terminate()
            process.wait(10)
            process.stdout.close()


@pytest.fixture(scope="module", params=["path", "1.20"])
def program(request):
    if request.param == "path":
        found = shutil.which("kubectl")
        if not found:
            pytest.skip("no kubectl on the PATH")
        return found
    fetched = subprocess.run([FETCH], capture_output=True, text=True, timeout=100, check=False)
    if fetched.returncode:
        pytest.skip(fetched.stderr.strip())
    return fetched.stdout.strip()


@pytest.fixture(scope="module")
def home(program, tmp_path_factory):
    return tmp_path_factory.mktemp("home")  # discovery is cached in it


@pytest.fixture
def kubectl(program, server, home):
    made = Kubectl(program, server, home)
    made("create", "namespace", made.namespace)
    yield made
    made("delete", "namespace", made.namespace, "--wait=false")


def manifest(name="h1", online="true", extra=""):
    return f"""
apiVersion: metal3.io/v1alpha1
kind: BareMetalHost
metadata:
  name: {name}
  labels: {{rack: "7"}}
spec:
  online: {online}
  bootMACAddress: 52:54:00:00:00:01
  bmc: {{address: "ipmi://192.0.2.1", credentialsName: bmc}}
  {extra}
"""


@pytest.fixture
def host(kubectl):
    """A host, ``kubectl`` arguments for it."""
    kubectl.here("apply", "-f", "-", stdin=manifest())
    return "baremetalhost/h1"


def field(kubectl, thing, path):
    return kubectl.here("get", thing, "-o", f"jsonpath={{{path}}}")


def test_get_prints_the_columns_of_2019(kubectl, host):
    header, row = kubectl("get", "baremetalhost", "-A", "-l", "rack=7").splitlines()[:2]
    assert re.split(r" {2,}", header.strip()) == [
        "NAMESPACE", "NAME", "STATUS", "PROVISIONING STATUS", "CONSUMER", "BMC",
        "HARDWARE PROFILE", "ONLINE", "ERROR", "AGE",
    ]  # fmt: skip
    assert "ipmi://192.0.2.1" in row
    assert " true " in row
    wide = kubectl.here("get", "bmh", "-o", "wide").splitlines()[0]
    assert len(wide) > len(header)
    assert json.loads(kubectl.here("get", host, "-o", "json"))["spec"]["online"] is True
    assert "online: true" in kubectl.here("get", host, "-o", "yaml")
    assert kubectl.here("get", "bmh", "--show-labels").splitlines()[1].endswith("rack=7")
    assert kubectl.here("get", "bmh", "-o", "name").strip() == "baremetalhost.metal3.io/h1"
    assert "not found" in kubectl.fails("get", "bmh", "nope")


def test_apply_again_with_and_without_change(kubectl, host):
    assert "unchanged" in kubectl.here("apply", "-f", "-", stdin=manifest())
    changed = kubectl.here("apply", "-f", "-", stdin=manifest(online="false"))
    assert changed.strip() == "baremetalhost.metal3.io/h1 configured"
    assert field(kubectl, host, ".spec.online") == "false"
    assert field(kubectl, host, ".metadata.generation") == "2"
    without = manifest().replace('  labels: {rack: "7"}\n', "")
    kubectl.here("apply", "-f", "-", stdin=without)
    assert field(kubectl, host, ".metadata.labels") == ""


def test_create_edit_patch_label_annotate(kubectl):
    kubectl.here("create", "-f", "-", stdin=manifest())
    assert "already exists" in kubectl.fails("create", "-f", "-", stdin=manifest())
    host = "bmh/h1"
    kubectl.here("edit", host, KUBE_EDITOR="sed -i 's/online: true/online: false/'")
    assert field(kubectl, host, ".spec.online") == "false"
    kubectl.here("patch", host, "--type", "merge", "-p", '{"spec":{"online":true}}')
    assert field(kubectl, host, ".spec.online") == "true"
    operation = '[{"op":"replace","path":"/spec/online","value":false}]'
    kubectl.here("patch", host, "--type", "json", "-p", operation)
    assert field(kubectl, host, ".spec.online") == "false"
    kubectl.here("label", host, "a=b")
    kubectl.here("annotate", host, "c=d")
    assert field(kubectl, host, ".metadata.labels.a") == "b"
    assert field(kubectl, host, ".metadata.annotations.c") == "d"
    kubectl.here("label", host, "a-")
    assert field(kubectl, host, ".metadata.labels.a") == ""
    assert field(kubectl, host, ".metadata.generation") == "4"
    assert "UnsupportedMediaType" in kubectl.fails("patch", host, "-p", "{}", "-v=8")


def test_secrets_by_every_road(kubectl):
    kubectl.here("create", "secret", "generic", "bmc", "--from-literal=username=admin")
    kubectl.here("patch", "secret", "bmc", "-p", '{"stringData":{"password":"pw"}}')
    data = json.loads(field(kubectl, "secret/bmc", ".data"))
    assert data == {"username": "YWRtaW4=", "password": "cHc="}
    described = kubectl.here("describe", "secret", "bmc")
    assert "password:  2 bytes" in described
    assert "Opaque" in kubectl.here("get", "secrets")
    applied = 'apiVersion: v1\nkind: Secret\nmetadata: {name: two}\nstringData: {a: "1"}\n'
    kubectl.here("apply", "-f", "-", stdin=applied)
    kubectl.here("apply", "-f", "-", stdin=applied.replace("{a:", "{b:"))
    assert field(kubectl, "secret/two", ".data.b") == "MQ=="
    kubectl.here("create", "configmap", "cm", "--from-literal=k=v")
    assert "k:\n----\nv" in kubectl.here("describe", "configmap", "cm")


def test_what_is_wrong_is_said_by_name(kubectl):
    said = kubectl.fails("apply", "-f", "-", stdin=manifest(extra="bogus: 1"))
    assert 'unknown field "spec.bogus"' in said or 'unknown field "bogus"' in said
    said = kubectl.fails("apply", "--validate=false", "-f", "-", stdin=manifest(online="12"))
    assert "spec.online: Invalid value" in said
    said = kubectl.fails("apply", "-f", "-", stdin=manifest(online="12"))
    assert "spec.online" in said
    said = kubectl.run("-n", "nowhere", "create", "configmap", "x").stderr
    assert 'namespaces "nowhere" not found' in said
    said = kubectl.fails("apply", "--server-side", "-f", "-", stdin=manifest())
    assert "use client-side apply" in said


def test_describe_shows_events(kubectl, host):
    uid = field(kubectl, host, ".metadata.uid")
    event = f"""
apiVersion: v1
kind: Event
metadata: {{name: h1.1, namespace: {kubectl.namespace}}}
involvedObject:
  {{apiVersion: metal3.io/v1alpha1, kind: BareMetalHost, name: h1, uid: {uid},
  namespace: {kubectl.namespace}}}
reason: InspectionStarted
message: the machine boots the ramdisk
type: Normal
count: 1
source: {{component: billet}}
firstTimestamp: "2024-01-01T00:00:00Z"
lastTimestamp: "2024-01-01T00:00:00Z"
"""
    kubectl("apply", "-f", "-", stdin=event)
    described = kubectl.here("describe", host)
    assert "Boot MAC Address:" in described
    assert "InspectionStarted" in described.partition("Events:")[2]
    listed = kubectl.here("get", "events").splitlines()
    assert listed[0].split() == ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    assert listed[1].split()[1:4] == ["Normal", "InspectionStarted", "baremetalhost/h1"]


def test_watching_prints_each_change_once(kubectl, host):
    with kubectl.following("get", "bmh", "-w") as following:
        assert following().startswith("NAME")
        assert following().startswith("h1 ")
        kubectl.here("patch", host, "--type", "merge", "-p", '{"spec":{"online":false}}')
        assert " false " in following()
        kubectl.here("apply", "-f", "-", stdin=manifest("h2"))
        assert following().startswith("h2 ")
    with kubectl.following("get", host, "-w", "-o", "jsonpath={.spec.online}{'\\n'}") as following:
        assert following() == "false\n"
        kubectl.here("patch", "bmh/h2", "--type", "merge", "-p", '{"spec":{"online":false}}')
        kubectl.here("patch", host, "--type", "merge", "-p", '{"spec":{"online":true}}')
        assert following() == "true\n"


def test_deleting_waits_for_finalizers(kubectl, host):
    finalizer = '{"metadata":{"finalizers":["billet.example/held"]}}'
    kubectl.here("patch", host, "--type", "merge", "-p", finalizer)
    with kubectl.following("delete", host, "--wait") as deleting:
        assert '"h1" deleted' in deleting()
        with kubectl.following("wait", "--for=delete", host, "--timeout=20s", "-v=6") as waiting:
            while "watch=true" not in (line := waiting()):
                assert line, "kubectl wait ended before it watched"
            kubectl.here("patch", host, "--type", "merge", "-p", '{"metadata":{"finalizers":null}}')
            lines = list(iter(waiting, ""))
            assert any("h1 condition met" in line for line in lines), lines
        assert deleting() == ""
    assert kubectl.here("get", "bmh") == ""
    kubectl.here("apply", "-f", "-", stdin=manifest("h2") + "---" + manifest("h3"))
    kubectl.here("delete", "bmh", "-l", "rack=7")
    assert kubectl.here("get", "bmh") == ""


def test_waiting_for_a_field(kubectl, host):
    if kubectl.minor < 23:
        said = kubectl.fails("wait", "--for=condition=Ready", host, "--timeout=1s")
        assert "timed out" in said
        return
    with kubectl.following(
        "wait", "--for=jsonpath={.spec.online}=false", host, "--timeout=20s"
    ) as waiting:
        kubectl.here("patch", host, "--type", "merge", "-p", '{"spec":{"online":false}}')
        assert "condition met" in waiting()


def test_api_resources_and_explain(kubectl):
    resources = kubectl("api-resources")
    assert re.search(r"^baremetalhosts +bmh", resources, re.MULTILINE)
    assert re.search(r"^secrets .* Secret$", resources, re.MULTILINE)
    assert "metal3.io/v1alpha1" in kubectl("api-versions")
    explained = kubectl("explain", "baremetalhost.spec.online")
    assert "<boolean>" in explained
    assert "powered on" in " ".join(explained.split())
    assert "ready" not in kubectl("version").lower()
    assert "yes" in kubectl("auth", "can-i", "create", "secrets")


def test_dry_run_and_diff_change_nothing(kubectl, host):
    tried = kubectl.here("apply", "--dry-run=server", "-f", "-", stdin=manifest(online="false"))
    assert "configured (server dry run)" in tried
    assert field(kubectl, host, ".spec.online") == "true"
    difference = kubectl.fails("diff", "-f", "-", stdin=manifest(online="false"))
    assert "-  online: true\n+  online: false" in difference


def test_a_deleted_namespace_takes_its_content_along(kubectl):
    name = f"{kubectl.namespace}-x"
    kubectl("create", "namespace", name)
    kubectl("-n", name, "create", "configmap", "x")
    assert "deleted" in kubectl("delete", "namespace", name)
    assert "not found" in kubectl.fails("get", "namespace", name)
    assert "may not be deleted" in kubectl.fails("delete", "namespace", "default")


def test_large_lists_come_in_pages(kubectl):
    many = "\n---\n".join(manifest(f"h{number:03}") for number in range(40))
    kubectl.here("create", "-f", "-", stdin=many)
    rows = kubectl.here("get", "bmh", "--chunk-size=15").splitlines()
    assert [row.split()[0] for row in rows[1:]] == [f"h{number:03}" for number in range(40)]


def test_kill_9_loses_nothing_kubectl_was_told(kubectl, server):
    created = []
    stop = threading.Event()

    def create():
        while not stop.is_set():
            name = f"c{len(created)}"
            if kubectl.run("-n", kubectl.namespace, "create", "configmap", name).returncode:
                return
            created.append(name)

    creating = threading.Thread(target=create)
    creating.start()
    while len(created) < 5:
        time.sleep(0.01)
    server.kill()
    stop.set()
    creating.join(40)
    server.start()
    found = kubectl.here("get", "configmap", "-o", "name").split()
    assert {f"configmap/{name}" for name in created} <= set(found)
    kubectl.here("create", "configmap", "afterwards")
