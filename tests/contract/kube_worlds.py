"""Three Kubernetes APIs behind one seam: the twin, the embedded API, a genuine API server.

A world can stop and start its API and drop its change history, which is what the contract's
harder tests need; everything else goes through the port.
"""

import asyncio
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

from billet_server.apiserver import ApiServer
from billet_server.kube.client import LightKube
from billet_server.kube.config import build_client, read_config
from billet_server.memory.kube import MemoryKube
from billet_server.ports import CRD, KubeApi

CRDS = Path(__file__).parents[2] / "crds"
PAGE_OBJECTS = 5  # every longer list goes through several pages


class MemoryWorld:
    name = "memory"

    def __init__(self) -> None:
        self.kube = MemoryKube()
        self.api: KubeApi = self.kube

    async def stop(self) -> None:
        self.kube.unavailable = True

    async def start(self) -> None:
        self.kube.unavailable = False

    async def expire(self) -> None:
        self.kube.compact()

    async def close(self) -> None:
        await self.api.close()


def connect(kubeconfig: Path) -> LightKube:
    config = read_config(kubeconfig)
    return LightKube(build_client(config), config.cluster.server, page_objects=PAGE_OBJECTS)


class EmbeddedWorld:
    """Billet's own API server in this process, through the client for clusters."""

    name = "embedded"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = ApiServer(folder)
        self._port = 0

    async def open(self) -> None:
        await self.start()
        self.api: KubeApi = connect(self._server.kubeconfig_path)

    async def stop(self) -> None:
        await self._server.stop()

    async def start(self) -> None:
        self._server = ApiServer(self._folder)
        await self._server.start(host="127.0.0.1", port=self._port)
        self._port = int(self._server.url.rpartition(":")[2])

    async def expire(self) -> None:
        await self._server.compact()

    async def close(self) -> None:
        await self.api.close()
        await self._server.stop()


class GenuineServer:
    """The API server of BILLET_TEST_KUBEAPI in a folder of its own, for a whole test session."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._folder = Path(tempfile.mkdtemp(prefix="billet-kubeapi-"))
        self._prepared = False

    @property
    def kubeconfig(self) -> Path:
        return self._folder / "state" / "kubeconfig"

    def stop(self) -> None:
        self._run("stop")

    def start(self) -> None:
        self._run("start")

    def remove(self) -> None:
        self._run("stop")
        shutil.rmtree(self._folder)

    def _run(self, verb: str) -> None:
        subprocess.run(
            [self._program, verb, self._folder / "state"],
            check=True,
            timeout=90,
            stdout=subprocess.DEVNULL,
        )

    async def prepare(self) -> None:
        """Start it with Billet's CRDs; once."""
        if self._prepared:
            return
        self._prepared = True
        await asyncio.to_thread(self.start)
        api = connect(self.kubeconfig)
        for path in CRDS.glob("*.yaml"):
            crd = await api.create(CRD, yaml.safe_load(path.read_text()))
            await established(api, crd["metadata"]["name"])
        await api.close()


async def established(api: KubeApi, name: str) -> None:
    """Wait until a CustomResourceDefinition is served."""
    for _ in range(100):
        conditions = (await api.get(CRD, "", name)).get("status", {}).get("conditions")
        held = {one["type"] for one in conditions or () if one["status"] == "True"}
        if "Established" in held:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{name} is not served")


class GenuineWorld:
    name = "genuine"

    def __init__(self, server: GenuineServer) -> None:
        self._server = server
        self._stopped = False
        self.api: KubeApi = connect(server.kubeconfig)

    async def stop(self) -> None:
        self._stopped = True
        await asyncio.to_thread(self._server.stop)

    async def start(self) -> None:
        await asyncio.to_thread(self._server.start)
        self._stopped = False

    async def expire(self) -> None:
        """A restart empties the server's watch history."""
        await self.stop()
        await self.start()

    async def close(self) -> None:
        await self.api.close()
        if self._stopped:
            await self.start()
