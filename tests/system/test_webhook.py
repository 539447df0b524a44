"""`billet up --webhook-port` beside the embedded API: one check, two doors, the same words."""

import base64
import json
import ssl
import subprocess
import urllib.request

import pytest
import yaml

from server_rig import BILLET, Server, free_port

HOST = {
    "apiVersion": "metal3.io/v1alpha1",
    "kind": "BareMetalHost",
    "metadata": {"name": "node01", "namespace": "default"},
    "spec": {
        "online": False,
        "disablePowerOff": True,
        "bmc": {"address": "idrac-virtualmedia://10.0.0.7", "credentialsName": "c"},
        "image": {"url": "ftp://h/x", "checksum": "0" * 32},
        "networkInterfaces": [{"name": "eno1", "hostNetworkAttachment": {"name": "n"}}],
    },
}


@pytest.fixture(scope="module")
def hooked(tmp_path_factory):
    port = free_port()
    options = ("--webhook-port", port, "--webhook-host", "127.0.0.1", "--webhook-name", "hook.svc")
    server = Server(tmp_path_factory.mktemp("webhook"), options=options)
    try:
        server.start()
        yield server, port
    finally:
        status = server.stop()
    assert status == 0, server.text()


@pytest.fixture(scope="module")
def client(hooked):
    """The webhook as a cluster would ask it: address and CA are those of the manifest."""
    server, port = hooked
    manifest = subprocess.run(
        [BILLET, "webhook-manifest", "--state-dir", server.state,
         "--url", f"https://127.0.0.1:{port}"],
        check=True, capture_output=True, timeout=30,
    ).stdout  # fmt: skip
    (hook,) = yaml.safe_load(manifest)["webhooks"]
    where = hook["clientConfig"]
    tls = ssl.create_default_context(cadata=base64.b64decode(where["caBundle"]).decode())

    def ask(new, old=None):
        request = {
            "uid": "u",
            "kind": {"group": "metal3.io", "version": "v1alpha1", "kind": "BareMetalHost"},
            "name": new["metadata"]["name"],
            "namespace": new["metadata"]["namespace"],
            "operation": "CREATE" if old is None else "UPDATE",
            "object": new,
            "oldObject": old,
        }
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
        body = json.dumps({**review, "request": request}).encode()
        headers = {"Content-Type": "application/json"}
        asked = urllib.request.Request(where["url"], body, headers)
        with urllib.request.urlopen(asked, context=tls, timeout=10) as answer:
            return json.load(answer)["response"]

    return ask


def kubectl(server, host, *args):
    return subprocess.run(
        ["kubectl", "--kubeconfig", server.kubeconfig, "create", "--validate=false", *args,
         "-f", "-"],
        input=json.dumps(host), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_both_doors_refuse_with_the_same_words(hooked, client):
    server, _ = hooked
    response = client(HOST)
    assert response["allowed"] is False
    done = kubectl(server, HOST)
    assert done.returncode == 1
    causes = response["status"]["details"]["causes"]
    assert [cause["field"] for cause in causes] == [
        "spec.bmc.address", "spec.image.url", "spec.online"]  # fmt: skip
    for cause in causes:
        assert f"* {cause['field']}: {cause['message']}" in done.stderr
    assert response["status"]["message"].startswith('BareMetalHost.metal3.io "node01" is invalid')


def test_both_doors_warn_with_the_same_words(hooked, client):
    server, _ = hooked
    good = {
        **HOST,
        "spec": {"online": True, "networkInterfaces": HOST["spec"]["networkInterfaces"]},
    }
    response = client(good)
    assert response["allowed"] is True
    (warning,) = response["warnings"]
    done = kubectl(server, good, "--dry-run=server")
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"Warning: {warning}\n"
    assert "warnings" not in client(good, good)
