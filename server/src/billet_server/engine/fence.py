"""Ports that do nothing unless this server leads: the check comes right before each call.

Reading is always allowed: standbys keep their caches warm. BMC drivers get the same check and
ask it before each command, in their lanes (`bmc.registry`).
"""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Literal

from billet_server.ports import (
    AgentLink,
    AgentView,
    Kind,
    KubeApi,
    Object,
    ObjectList,
    WatchEvent,
)
from billet_wire import Job

Check = Callable[[], None]
"""Raises NotLeading where this server may not act."""

Subresource = Literal["", "status"]


class FencedKube:
    """`ports.KubeApi` whose writes are checked."""

    def __init__(self, api: KubeApi, check: Check) -> None:
        self._api, self._check = api, check

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """See `ports.KubeApi.get`."""
        return await self._api.get(kind, namespace, name)

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> ObjectList:
        """See `ports.KubeApi.list`."""
        return await self._api.list(kind, namespace, labels=labels)

    def watch(
        self, kind: Kind, namespace: str | None = None, *, resource_version: str
    ) -> AsyncIterator[WatchEvent]:
        """See `ports.KubeApi.watch`."""
        return self._api.watch(kind, namespace, resource_version=resource_version)

    async def create(self, kind: Kind, obj: Object) -> Object:
        """See `ports.KubeApi.create`. Raises NotLeading."""
        self._check()
        return await self._api.create(kind, obj)

    async def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        patch: Object,
        *,
        subresource: Subresource = "",
    ) -> Object:
        """See `ports.KubeApi.patch`. Raises NotLeading."""
        self._check()
        return await self._api.patch(kind, namespace, name, patch, subresource=subresource)

    async def replace(self, kind: Kind, obj: Object, *, subresource: Subresource = "") -> Object:
        """See `ports.KubeApi.replace`. Raises NotLeading."""
        self._check()
        return await self._api.replace(kind, obj, subresource=subresource)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        """See `ports.KubeApi.delete`. Raises NotLeading."""
        self._check()
        await self._api.delete(kind, namespace, name, uid=uid)

    async def close(self) -> None:
        """See `ports.KubeApi.close`."""
        await self._api.close()


class FencedAgents:
    """`ports.AgentLink` whose orders to agents are checked."""

    def __init__(self, agents: AgentLink, check: Check) -> None:
        self._agents, self._check = agents, check

    def view(self, host_uid: str) -> AgentView | None:
        """See `ports.AgentLink.view`."""
        return self._agents.view(host_uid)

    async def run_job(self, host_uid: str, job: Job) -> None:
        """See `ports.AgentLink.run_job`. Raises NotLeading."""
        self._check()
        await self._agents.run_job(host_uid, job)

    async def cancel_job(self, host_uid: str, job_id: str) -> None:
        """See `ports.AgentLink.cancel_job`. Raises NotLeading."""
        self._check()
        await self._agents.cancel_job(host_uid, job_id)

    async def forget(self, host_uid: str) -> None:
        """See `ports.AgentLink.forget`: only this server's own memory and connection."""
        await self._agents.forget(host_uid)
