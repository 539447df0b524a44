"""Hosts in an embedded API, and the command line against it as a person types it."""

import asyncio
import contextlib
import sys

import yaml

from billet_server.apiserver import ApiServer
from billet_server.apiserver.fielderrors import FieldError
from billet_server.cli.root import run_cli
from billet_server.core.validate import validate_host
from billet_server.kube.client import open_kube
from billet_server.ports import BARE_METAL_HOST, NAMESPACE


def _host_faults(new, old):
    return [FieldError(*fault) for fault in validate_host(new, old)]


class CliWorld:
    """One API with namespaces metal3 and other; ``cli`` runs beside it, in a thread."""

    def __init__(self, folder, capsys):
        self.folder, self._capsys = folder, capsys
        self._server = ApiServer(folder, validators={BARE_METAL_HOST: _host_faults})

    async def open(self):
        await self._server.start(host="127.0.0.1", port=0)
        self.kubeconfig = self._server.kubeconfig_path
        self.api = open_kube(self.kubeconfig)
        for name in ("metal3", "other"):
            await self.api.create(NAMESPACE, {"metadata": {"name": name}})

    async def close(self):
        await self.api.close()
        await self._server.stop()

    async def host(self, name="node01", namespace="metal3", *, labels=None, spec=None,
                   annotations=None, state="provisioned", **status):  # fmt: skip
        number = len((await self.api.list(BARE_METAL_HOST)).items) + 1
        obj = {
            "metadata": {
                "name": name, "namespace": namespace, "labels": labels or {},
                "annotations": annotations or {},
            },
            "spec": {
                "bmc": {"address": f"ipmi://192.0.2.{number}", "credentialsName": f"{name}-bmc"},
                "bootMACAddress": f"00:c2:fc:3b:e1:{number:02x}",
                "online": True,
            } | (spec or {}),
        }  # fmt: skip
        await self.api.create(BARE_METAL_HOST, obj)
        full = {"poweredOn": True, "operationalStatus": "OK", "errorCount": 0,
                "errorMessage": "", "provisioning": {"ID": "", "state": state}}  # fmt: skip
        return await self.status(name, namespace, **(full | status))

    async def status(self, name="node01", namespace="metal3", **status):
        return await self.api.patch(
            BARE_METAL_HOST, namespace, name, {"status": status}, subresource="status"
        )

    async def annotate(self, name="node01", namespace="metal3", **annotations):
        return await self.patch({"metadata": {"annotations": annotations}}, name, namespace)

    async def patch(self, patch, name="node01", namespace="metal3"):
        return await self.api.patch(BARE_METAL_HOST, namespace, name, patch)

    async def get(self, name="node01", namespace="metal3"):
        return await self.api.get(BARE_METAL_HOST, namespace, name)

    async def annotations(self, name="node01", namespace="metal3"):
        return (await self.get(name, namespace))["metadata"].get("annotations") or {}

    async def cli(self, *argv, code=0):
        """Run `billet ...`; return what it printed on both streams."""
        words = [str(word) for word in (*argv, "--kubeconfig", self.kubeconfig)]
        returned = await asyncio.to_thread(run_cli, words, [])
        captured = self._capsys.readouterr()
        text = captured.out + captured.err
        assert returned == code, text
        assert "Traceback" not in text
        return text

    async def meanwhile(self, running, *changes):
        """Run a command and, once it has shown something, what a server does."""
        task = asyncio.create_task(running)
        for change in changes:
            await asyncio.sleep(0.4)
            assert not task.done(), task.result()
            await change()
        return await task

    def write(self, name, content):
        path = self.folder / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path


@contextlib.asynccontextmanager
async def cli_world(folder, capsys):
    made = CliWorld(folder, capsys)
    await made.open()
    try:
        yield made
    finally:
        await made.close()
        sys.stdout.flush()
