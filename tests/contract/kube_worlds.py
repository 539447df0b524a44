"""Three Kubernetes APIs behind one seam: the twin, the embedded API, a genuine API server.

A world can stop and start its API and drop its change history, which is what the contract's
harder tests need; everything else goes through the port.
"""

import asyncio
from pathlib import Path

from billet_server.apiserver import ApiServer
from billet_server.kube.client import LightKube
from billet_server.kube.config import build_client, read_config
from billet_server.memory.kube import MemoryKube
from billet_server.ports import KubeApi
from clusters import Cluster, GenuineServer

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
        self.kubeconfig = self._server.kubeconfig_path
        self.api: KubeApi = connect(self.kubeconfig)

    async def stop(self) -> None:
        await self._server.stop()

    async def start(self) -> None:
        self._server = ApiServer(self._folder)
        await self._server.start(host="127.0.0.1", port=self._port)
        self._port = int(self._server.url.rpartition(":")[2])

    async def expire(self) -> None:
        await self._server.compact()

    forget_pages = expire

    async def close(self) -> None:
        await self.api.close()
        await self._server.stop()


class GenuineWorld:
    name = "genuine"

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stopped = False
        self.kubeconfig = cluster.kubeconfig
        self.api: KubeApi = connect(cluster.kubeconfig)

    async def stop(self) -> None:
        assert isinstance(self._cluster, GenuineServer), "mark the test own_api: this is not ours"
        self._stopped = True
        await asyncio.to_thread(self._cluster.stop)

    async def start(self) -> None:
        await asyncio.to_thread(self._cluster.start)
        self._stopped = False

    async def expire(self) -> None:
        """A restart empties the server's watch history."""
        await self.stop()
        await self.start()

    async def forget_pages(self) -> None:
        """Only etcd's compaction ends what pages are read from."""
        await self.stop()
        await asyncio.to_thread(self._cluster.start, "--etcd-compaction-interval=1s")
        await asyncio.sleep(3)
        await self.stop()
        await self.start()

    async def close(self) -> None:
        await self.api.close()
        if self._stopped:
            await self.start()
