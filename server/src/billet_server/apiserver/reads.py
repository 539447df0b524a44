"""GET on resources: one object, lists, watches."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TypeVar

from aiohttp import ClientConnectionResetError, web

from billet_server.apiserver.forms import Form, object_renderer, parse_form, render_list
from billet_server.apiserver.lists import Listing, Scope, list_objects, parse_scope, splice
from billet_server.apiserver.objects import Objects
from billet_server.apiserver.registry import Resource
from billet_server.apiserver.store import Store
from billet_server.apiserver.stream import Renderers, WatchStream
from billet_server.apiserver.target import ListQuery, Target, parse_list_query
from billet_server.apiserver.watch import Hub

T = TypeVar("T")


class Reads:
    """Answers reads. Lists are read and rendered in threads, single objects at once."""

    def __init__(
        self,
        store: Store,
        hub: Hub,
        objects: Objects,
        pool: ThreadPoolExecutor,
        now: Callable[[], datetime],
    ) -> None:
        self._store, self._hub, self._objects = store, hub, objects
        self._pool, self._now = pool, now

    async def _offload(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def render_one(self, request: web.Request, resource: Resource, body: bytes) -> bytes:
        """Render one object as the request wants it. Raises a 406."""
        form = _form(request, listing=False)
        return object_renderer(form, resource.definition, self._now)(body)

    async def get(self, request: web.Request, resource: Resource, target: Target) -> web.Response:
        """Answer with one object."""
        body = self._objects.read(resource, target.namespace or "", target.name)
        return _json(self.render_one(request, resource, body))

    async def collection(
        self, request: web.Request, resource: Resource, target: Target
    ) -> web.StreamResponse:
        """Answer a list or, with ``watch``, a stream."""
        query = parse_list_query(request.query)
        form = _form(request, listing=not query.watch)
        scope = parse_scope(resource, target.namespace, query)
        if target.name:
            scope = scope._replace(name=target.name)
        if query.watch:
            return await self._watch(request, scope, query, form)
        listing = await self._offload(lambda: list_objects(self._store, scope, query))
        if form.kind:
            return _json(await self._offload(lambda: self._render(form, resource, listing)))
        return await _send_spliced(request, resource, listing)

    def _render(self, form: Form, resource: Resource, listing: Listing) -> bytes:
        return render_list(
            form, resource.definition, listing.bodies, listing.meta(), self._now()
        )  # fmt: skip

    async def matching(self, scope: Scope, query: ListQuery) -> Listing:
        """Return the list that a deletecollection means."""
        return await self._offload(lambda: list_objects(self._store, scope, query))

    async def _watch(
        self, request: web.Request, scope: Scope, query: ListQuery, form: Form
    ) -> web.StreamResponse:
        definition = scope.resource.definition
        if form.kind == "PartialObjectMetadata" or not form.kind:
            render = object_renderer(form, definition, self._now)
            renderers = Renderers(form.key, render, render)
        else:
            renderers = Renderers(
                form.key,
                object_renderer(form, definition, self._now),
                object_renderer(form, definition, self._now, headers=False),
            )
        stream = WatchStream(
            self._store, self._hub, scope, query, renderers=renderers, offload=self._offload
        )
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            async with contextlib.aclosing(stream.chunks()) as chunks:
                async for chunk in chunks:
                    if chunk:
                        await response.write(chunk)
            await response.write_eof()
        except (ConnectionResetError, ClientConnectionResetError):
            pass  # the watcher left: nobody to tell
        return response


def _form(request: web.Request, *, listing: bool) -> Form:
    accept = ",".join(request.headers.getall("Accept", []))
    return parse_form(accept, request.query.get("includeObject", ""), listing=listing)


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")


async def _send_spliced(
    request: web.Request, resource: Resource, listing: Listing
) -> web.StreamResponse:
    if len(listing.bodies) <= 100:
        return _json(b"".join(splice(resource, listing)))
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = sum(map(len, splice(resource, listing)))
    await response.prepare(request)
    for chunk in splice(resource, listing):
        await response.write(chunk)
    await response.write_eof()
    return response
