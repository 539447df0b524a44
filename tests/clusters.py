"""Kubernetes APIs that are not Billet's own: one started for the tests, or somebody's cluster.

BILLET_TEST_KUBEAPI is a program that starts an API server in a folder (``start DIR``,
``stop DIR``); BILLET_TEST_KUBECONFIG leads to a cluster that is there already and is left as it
was: what the tests put there has names of its own and goes again.
"""

import contextlib
import json
import os
import secrets
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import yaml

CRDS = Path(__file__).parents[1] / "crds"
GOING_S = 90
"""How long our namespaces may take to go."""

SESSION = f"billet-test-{secrets.token_hex(3)}"
"""What the names of all namespaces of this run begin with."""


def new_namespace():
    """Return a name that no namespace has."""
    return f"{SESSION}-{secrets.token_hex(4)}"


class Cluster:
    """A Kubernetes API with Billet's definitions."""

    kubeconfig: Path

    @contextlib.contextmanager
    def opened(self):
        """Have it ready, and afterwards as it was."""
        self.open()
        try:
            yield self
        finally:
            self.close()

    def kubectl(self, *arguments, timeout_s=60):
        """Run kubectl; returns what it printed."""
        done = subprocess.run(
            ["kubectl", f"--kubeconfig={self.kubeconfig}", *map(str, arguments)],
            capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"kubectl {arguments}: {done.stderr}"
        return done.stdout

    def install(self):
        """Apply the definitions that are missing; returns their names, those that the run made.

        A definition that is there and is not ours is nobody's to overwrite: it fails the run.
        """
        have = set(self.kubectl("get", "crds", "-o", "name").split())
        made = []
        for path in sorted(CRDS.glob("*.yaml")):
            name = yaml.safe_load(path.read_text())["metadata"]["name"]
            if f"customresourcedefinition.apiextensions.k8s.io/{name}" in have:
                self._compare(name, path)
                continue
            self.kubectl("apply", "--server-side", "-f", path)
            made.append(name)
            self._wait_established(name)
        return made

    def _wait_established(self, name, patience_s=30):
        # Not by kubectl wait: it ends with an error while a new definition's conditions are null.
        end = time.monotonic() + patience_s
        while True:
            status = json.loads(self.kubectl("get", "crd", name, "-o", "json")).get("status") or {}
            told = {said["type"]: said["status"] for said in status.get("conditions") or []}
            if told.get("Established") == "True":
                return
            assert time.monotonic() < end, f"{name} is not established: {told}"
            time.sleep(0.1)

    def _compare(self, name, path):
        arguments = ("--server-side", "--force-conflicts", "--dry-run=server")
        ours = json.loads(self.kubectl("apply", *arguments, "-f", path, "-o", "json"))
        theirs = json.loads(self.kubectl("get", "crd", name, "-o", "json"))
        assert ours["spec"] == theirs["spec"], (
            f"the cluster has another {name} than crds/{path.name}, and the tests do not replace"
            f" it: kubectl diff --server-side --force-conflicts -f crds/{path.name} shows how it"
            " differs; apply ours, or take another cluster"
        )


class GenuineServer(Cluster):
    """The API server of BILLET_TEST_KUBEAPI in a folder of its own; it may be stopped."""

    def __init__(self, program):
        self._program = program
        self._folder = Path(tempfile.mkdtemp(prefix="billet-kubeapi-"))
        self.kubeconfig = self._folder / "state" / "kubeconfig"
        self._warden = None

    def open(self):
        """Start it, with the definitions; it ends with this process, however that ends."""
        end = 'read -r _; "$0" stop "$1/state" && rm -rf "$1"'
        self._warden = subprocess.Popen(
            ["sh", "-c", end, self._program, self._folder],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            self.start()
            self.install()
        except BaseException:
            self.close()
            raise

    def start(self, *flags):
        self._run("start", *(("--", *flags) if flags else ()))

    def stop(self):
        """Objects, port and credentials stay."""
        self._run("stop")

    def close(self):
        """Stop it and take its files away."""
        self._warden.stdin.close()
        assert self._warden.wait(90) == 0
        assert not self._folder.exists()

    def _run(self, verb, *more):
        command = [self._program, verb, self._folder / "state", *more]
        subprocess.run(command, check=True, timeout=90, stdout=subprocess.DEVNULL)


class GivenCluster(Cluster):
    """A cluster that was there before the tests and stays."""

    def __init__(self, kubeconfig):
        self.kubeconfig = Path(kubeconfig)
        self._made = []

    def open(self):
        """Add what definitions are missing."""
        self._made = self.install()

    def close(self):
        """Wait until our namespaces are gone; take away the definitions that were not there."""
        end = time.monotonic() + GOING_S
        while left := [name for name in self._names("namespaces") if SESSION in name]:
            assert time.monotonic() < end, f"namespaces were left in the cluster: {left}"
            time.sleep(0.5)
        for name in self._made:
            # Somebody may have begun to use them meanwhile.
            if not self._names(name, "-A"):
                self.kubectl("delete", "crd", name)

    def _names(self, *what):
        return self.kubectl("get", *what, "-o", "name").split()


def find_cluster():
    """Return the cluster that the environment names; skips the test where it names none."""
    if kubeconfig := os.environ.get("BILLET_TEST_KUBECONFIG"):
        return GivenCluster(kubeconfig)
    return own_cluster()


def own_cluster():
    """Return an API server that may be stopped and changed; skips the test without one."""
    if program := os.environ.get("BILLET_TEST_KUBEAPI"):
        return GenuineServer(program)
    pytest.skip("skipped: no cluster")
