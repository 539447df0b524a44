"""`ports.KubeApi` over HTTP: a real cluster or the embedded API, the code does not know which.

Objects pass as plain dictionaries. Each call has a deadline; nothing is tried again here.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import Final, Literal

import httpx2
import msgspec

from billet_server import errors
from billet_server.kube import decoding, paths
from billet_server.kube.config import ANSWER_S, CONNECT_S, build_client, read_config
from billet_server.kube.failures import from_body, translated
from billet_server.ports import Kind, Object, ObjectList, WatchEvent

Subresource = Literal["", "status"]
PAGE_OBJECTS: Final = 500
"""Objects per page of a list: decoding one page blocks the loop for a few milliseconds."""
WATCH_S: Final = 300
"""The server ends a watch after this to half as much again, so that replicas spread."""
WATCH_SLACK_S: Final = 30.0
_MERGE_PATCH: Final = {"Content-Type": "application/merge-patch+json"}
_JSON: Final = {"Content-Type": "application/json"}


def open_kube(
    kubeconfig: Path | None, *, context: str | None = None, watches: int = 2
) -> "LightKube":
    """Return a client for a kubeconfig's context, or (None) for the pod's own cluster.

    ``watches`` are meant to run at once; each keeps a connection to itself. Does not touch
    the network. Raises ConfigError.
    """
    config = read_config(kubeconfig, context)
    return LightKube(build_client(config, watches=watches), config.cluster.server)


class LightKube:
    """`ports.KubeApi` on an HTTP client made from lightkube's configuration."""

    def __init__(
        self, client: httpx2.AsyncClient, server: str, *, page_objects: int = PAGE_OBJECTS
    ) -> None:
        self._client = client
        self._server = server
        self._page_objects = page_objects

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """See `ports.KubeApi.get`."""
        return await self._object("GET", "read", kind, namespace, name)

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> ObjectList:
        """See `ports.KubeApi.list`. The pages are of one moment."""
        try:
            return await self._list(kind, namespace, labels or {}, self._page_objects)
        except errors.Gone:  # the history between two pages was dropped: all in one answer
            return await self._list(kind, namespace, labels or {}, 0)

    async def watch(
        self, kind: Kind, namespace: str | None = None, *, resource_version: str
    ) -> AsyncIterator[WatchEvent]:
        """See `ports.KubeApi.watch`."""
        attempt = f"watch {paths.place(kind, namespace)}"
        timeout_s = WATCH_S + random.randrange(WATCH_S // 2)  # noqa: S311 - spreads load only
        request = self._client.build_request(
            "GET",
            paths.collection_path(kind, namespace),
            params={
                "watch": "true",
                "allowWatchBookmarks": "true",
                "resourceVersion": resource_version,
                "timeoutSeconds": timeout_s,
            },
            headers={"Accept-Encoding": "identity"},
            timeout=httpx2.Timeout(ANSWER_S, connect=CONNECT_S, read=timeout_s + WATCH_SLACK_S),
        )
        self._check_open(attempt)
        with translated(attempt, self._server):
            async with asyncio.timeout(ANSWER_S):
                response = await self._client.send(request, stream=True)
                if not response.is_success:
                    body = await response.aread()
                    raise from_body(attempt, self._server, response.status_code, body)
        try:
            yield WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": resource_version}})
            async with contextlib.aclosing(self._lines(response, attempt)) as lines:
                async for line in lines:
                    with translated(attempt, self._server):
                        event = decoding.decode_event(attempt, self._server, line)
                    yield event
        finally:
            await response.aclose()

    async def create(self, kind: Kind, obj: Object) -> Object:
        """See `ports.KubeApi.create`."""
        metadata = obj.get("metadata") or {}
        namespace = metadata.get("namespace") or "default"
        name = metadata.get("name") or metadata.get("generateName") or "?"
        attempt = f"create {paths.place(kind, namespace if kind.namespaced else None, name)}"
        path = paths.collection_path(kind, namespace)
        return await self._write("POST", attempt, path, _typed(kind, obj), _JSON)

    async def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        patch: Object,
        *,
        subresource: Subresource = "",
    ) -> Object:
        """See `ports.KubeApi.patch`."""
        attempt = _attempt("patch", kind, namespace, name, subresource)
        path = _path(attempt, kind, namespace, name, subresource)
        return await self._write("PATCH", attempt, path, patch, _MERGE_PATCH)

    async def replace(self, kind: Kind, obj: Object, *, subresource: Subresource = "") -> Object:
        """See `ports.KubeApi.replace`."""
        metadata = obj.get("metadata") or {}
        namespace, name = metadata.get("namespace") or "default", metadata.get("name") or ""
        attempt = _attempt("replace", kind, namespace, name, subresource)
        path = _path(attempt, kind, namespace, name, subresource)
        return await self._write("PUT", attempt, path, _typed(kind, obj), _JSON)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        """See `ports.KubeApi.delete`."""
        attempt = _attempt("delete", kind, namespace, name)
        path = _path(attempt, kind, namespace, name)
        options = {"preconditions": {"uid": uid}} if uid else {}
        await self._call("DELETE", attempt, path, body=options, headers=_JSON)

    async def close(self) -> None:
        """See `ports.KubeApi.close`."""
        await self._client.aclose()

    async def _object(
        self, method: str, verb: str, kind: Kind, namespace: str, name: str
    ) -> Object:
        attempt = _attempt(verb, kind, namespace, name)
        body = await self._call(method, attempt, _path(attempt, kind, namespace, name))
        with translated(attempt, self._server):
            return decoding.decode_object(body)

    async def _write(
        self, method: str, attempt: str, path: str, content: Object, headers: Mapping[str, str]
    ) -> Object:
        body = await self._call(method, attempt, path, body=content, headers=headers)
        with translated(attempt, self._server):
            return decoding.decode_object(body)

    async def _list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str], limit: int
    ) -> ObjectList:
        attempt = f"list {paths.place(kind, namespace)}"
        params = {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())}
        if limit:
            params["limit"] = str(limit)
        items: list[Object] = []
        while True:
            body = await self._call(
                "GET", attempt, paths.collection_path(kind, namespace), params=params
            )
            with translated(attempt, self._server):
                page = decoding.decode_page(kind, body)
            items += page.items or ()
            if not page.metadata.continue_:
                return ObjectList(items, page.metadata.resource_version)
            params["continue"] = page.metadata.continue_

    async def _call(
        self,
        method: str,
        attempt: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Object | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Send one request and return the body of a success."""
        self._check_open(attempt)
        with translated(attempt, self._server):
            content = None if body is None else msgspec.json.encode(body)
            request = self._client.build_request(
                method,
                path,
                params={name: value for name, value in (params or {}).items() if value},
                content=content,
                headers=headers,
            )
            async with asyncio.timeout(ANSWER_S):
                response = await self._client.send(request)
        if not response.is_success:
            raise from_body(attempt, self._server, response.status_code, response.content)
        return response.content

    def _check_open(self, attempt: str) -> None:
        if self._client.is_closed:
            raise errors.Unavailable(f"{attempt}: the client was closed, Billet is stopping")

    async def _lines(self, response: httpx2.Response, attempt: str) -> AsyncGenerator[bytes, None]:
        """Yield the stream's lines, cut at line feeds only (a string may hold U+0085, U+2028)."""
        rest = b""
        with translated(attempt, self._server):
            async for chunk in response.aiter_raw():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line:
                        yield line
        if rest.strip():
            message = f"{attempt}: the Kubernetes API at {self._server} ended amid an event"
            raise errors.Unavailable(message)


def _typed(kind: Kind, obj: Object) -> Object:
    return {"apiVersion": kind.api_version, "kind": kind.kind, **obj}


def _attempt(
    verb: str, kind: Kind, namespace: str, name: str, subresource: Subresource = ""
) -> str:
    what = f"{subresource} of " if subresource else ""
    return f"{verb} {what}{paths.place(kind, namespace if kind.namespaced else None, name)}"


def _path(
    attempt: str, kind: Kind, namespace: str, name: str, subresource: Subresource = ""
) -> str:
    if not paths.is_name(name):
        raise errors.NotFound(f"{attempt}: {name!r} is not a name", 404, "NotFound")
    return paths.object_path(kind, namespace, name, subresource)
