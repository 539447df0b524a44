"""deploy/ on a genuine API server: it takes every kind that it serves."""

import subprocess
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
pytestmark = [pytest.mark.cluster, pytest.mark.own_api]


@pytest.fixture(scope="module")
def kubectl(own_api):
    def run(*words, stdin=""):
        return subprocess.run(
            ["kubectl", f"--kubeconfig={own_api.kubeconfig}", *words],
            input=stdin, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    return run


def test_what_is_served_is_accepted(kubectl):
    built = kubectl("kustomize", str(DEPLOY))
    assert built.returncode == 0, built.stderr
    served = set(kubectl("api-resources", "-o", "name").stdout.split())
    accepted = []
    assert kubectl("create", "namespace", "billet-system").returncode == 0
    for each in yaml.safe_load_all(built.stdout):
        plural = each["kind"].lower() + "s"
        if not any(name == plural or name.startswith(f"{plural}.") for name in served):
            continue
        words = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
        done = kubectl(*words, stdin=yaml.safe_dump(each))
        assert done.returncode == 0, done.stderr
        assert "serverside-applied (server dry run)" in done.stdout
        accepted.append(each["kind"])
    assert {"Namespace", "ConfigMap"} <= set(accepted)
