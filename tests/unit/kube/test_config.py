"""Kubeconfigs: what is read of them, and what is said of bad ones."""

import json
from pathlib import Path

import pytest
import yaml

from billet_server import errors
from billet_server.kube import open_kube
from billet_server.kube.config import build_client, read_config


def kubeconfig(folder, user=None, cluster=None, **more):
    content = {
        "current-context": "here",
        "contexts": [
            {"name": "here", "context": {"cluster": "c", **({"user": "u"} if user else {})}},
            {"name": "there", "context": {"cluster": "c2"}},
        ],
        "clusters": [
            {"name": "c", "cluster": {"server": "https://here.example", **(cluster or {})}},
            {"name": "c2", "cluster": {"server": "https://there.example/k8s"}},
        ],
        "users": [{"name": "u", "user": user}] if user else [],
        **more,
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(content))
    return path


async def authorization(path):
    client = build_client(read_config(path))
    request = client.build_request("GET", "api")
    flow = client.auth.async_auth_flow(request)
    sent = await anext(flow)
    await flow.aclose()
    await client.aclose()
    return sent.headers["Authorization"]


def test_contexts(tmp_path):
    path = kubeconfig(tmp_path)
    assert read_config(path).cluster.server == "https://here.example"
    assert read_config(path, "there").cluster.server == "https://there.example/k8s"


async def test_a_user_may_be_missing(tmp_path):
    kube = open_kube(kubeconfig(tmp_path))
    await kube.close()


async def test_a_token(tmp_path):
    assert await authorization(kubeconfig(tmp_path, {"token": "t0k"})) == "Bearer t0k"


async def test_a_token_file(tmp_path):
    (tmp_path / "token").write_text("from-file\n")
    user = {"tokenFile": str(tmp_path / "token")}
    assert await authorization(kubeconfig(tmp_path, user)) == "Bearer from-file"


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
async def test_a_credential_program(tmp_path, version):
    """The current protocol names itself in KUBERNETES_EXEC_INFO and insists on it."""
    program = tmp_path / "login"
    program.write_text(
        '#!/bin/sh\nprintf \'{"status":{"token":"%s"}}\' '
        '"$(printf %s "$KUBERNETES_EXEC_INFO$1$MORE" | tr -d \'"{}: ,\')"\n'
    )
    program.chmod(0o755)
    user = {
        "exec": {
            "apiVersion": f"client.authentication.k8s.io/{version}",
            "command": str(program),
            "args": ["-arg-"],
            "env": [{"name": "MORE", "value": "more"}],
        }
    }
    told = await authorization(kubeconfig(tmp_path, user))
    assert told.endswith("-arg-more")
    assert ("apiVersionclient.authentication.k8s.io/v1" in told) == (version == "v1")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "kubeconfig"),
        ("[1, 2]", "kubeconfig"),
        ("a: [", "is not a kubeconfig"),
        ("contexts: []\nclusters: []\n", "No current context"),
        ("current-context: x\ncontexts: []\nclusters: []\n", "Context 'x' not found"),
        ("contexts: []\n", "'clusters' is missing"),
        (json.dumps({"clusters": [{"name": "c", "cluster": {"server": 3}}]}), "kubeconfig"),
    ],
)
def test_bad_kubeconfigs(tmp_path, content, words):
    path = tmp_path / "kubeconfig"
    path.write_text(content)
    with pytest.raises(errors.ConfigError, match=words) as caught:
        open_kube(path)
    assert str(path) in str(caught.value)


def test_a_missing_kubeconfig(tmp_path):
    with pytest.raises(errors.ConfigError, match="not found"):
        open_kube(tmp_path / "none")


@pytest.mark.skipif(
    Path("/var/run/secrets/kubernetes.io/serviceaccount").exists(), reason="runs in a pod"
)
def test_outside_of_a_pod_there_is_no_service_account():
    with pytest.raises(errors.ConfigError, match="service account"):
        open_kube(None)


@pytest.mark.parametrize(
    "cluster", [{"certificate-authority": "missing.crt"}, {"certificate-authority-data": "AAAA"}]
)
def test_unusable_certificates(tmp_path, cluster):
    with pytest.raises(errors.ConfigError, match="cannot be used"):
        open_kube(kubeconfig(tmp_path, cluster=cluster))
