"""The HTTP surface: authentication, discovery, documents, and resources."""

import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from aiohttp import web

from billet_server.apiserver import discovery, encoding, openapi
from billet_server.apiserver.admission import render_time
from billet_server.apiserver.auth import OPEN_PATHS, is_authorized
from billet_server.apiserver.failure import (
    Failure,
    method_not_allowed,
    no_such_path,
    render_status,
    unauthorized,
)
from billet_server.apiserver.forms import MediaRange, parse_accept
from billet_server.apiserver.reads import Reads
from billet_server.apiserver.registry import Registry, Resource
from billet_server.apiserver.target import Target, parse_target
from billet_server.apiserver.writes import Writes, read_object
from billet_server.core.terms import Secret
from billet_server.errors import ApiError

_LOG = logging.getLogger(__name__)
_V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Routes:
    """One handler for every path: resources are not known when the application is built."""

    def __init__(
        self,
        registry: Registry,
        reads: Reads,
        writes: Writes,
        token: Secret,
        now: Callable[[], datetime],
    ) -> None:
        self._registry, self._reads, self._writes = registry, reads, writes
        self._token, self._now = token, now
        self._documents: dict[tuple[int, str], bytes] = {}

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        app = web.Application(
            client_max_size=encoding.MAX_BODY_BYTES, middlewares=[self._answer_errors]
        )
        app.router.add_route("*", "/{path:.*}", self._handle)
        return app

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.path not in OPEN_PATHS:
                header = request.headers.get("Authorization", "")
                if not is_authorized(header, self._token):
                    raise unauthorized()
            return await handler(request)
        except ApiError as error:
            return _refuse(error)
        except web.HTTPException as error:
            return _refuse(Failure(error.status, "BadRequest", error.reason))
        except Exception:  # noqa: BLE001 - the edge: a client gets a Status, the log the traceback
            _LOG.exception("%s %s", request.method, request.path)
            message = "Internal error occurred: see the server's log"
            return _refuse(Failure(500, "InternalError", message))

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok")
        if path == "/version":
            return _json(discovery.render_version())
        if path.startswith("/openapi/"):
            return self._openapi(request)
        target = parse_target(request.rel_url.raw_path)
        if target is None or not target.plural:
            return self._discover(request)
        if target.plural in ("selfsubjectaccessreviews", "selfsubjectreviews"):
            return await self._review(request, target)
        resource = self._registry.find(target.group, target.version, target.plural)
        if resource is None or not _fits(resource, target):
            raise no_such_path()
        return await self._serve(request, resource, target)

    # --- resources ---------------------------------------------------------------------------

    async def _serve(
        self, request: web.Request, resource: Resource, target: Target
    ) -> web.StreamResponse:
        reads, writes = self._reads, self._writes
        verbs = resource.definition.verbs
        match request.method:
            case "GET" if target.name and request.query.get("watch") not in ("true", "1"):
                return await reads.get(request, resource, target)
            case "GET" if not target.subresource:
                return await reads.collection(request, resource, target)
            case "PUT" if target.name:
                return await writes.replace(request, resource, target)
            case "PATCH" if target.name:
                return await writes.patch(request, resource, target)
            case "POST" if not target.name and "create" in verbs:
                return await writes.create(request, resource, target)
            case "DELETE" if target.name and not target.subresource:
                return await writes.delete(request, resource, target)
            case "DELETE" if not target.name and "deletecollection" in verbs:
                return await writes.delete_collection(request, resource, target)
        raise method_not_allowed()

    async def _review(self, request: web.Request, target: Target) -> web.Response:
        """Answer what the holder of the token may do: everything, being the only user."""
        if request.method != "POST":
            raise method_not_allowed()
        body = await read_object(request)
        if target.plural == "selfsubjectreviews":
            status: dict[str, Any] = {
                "userInfo": {"username": "billet:admin", "groups": ["system:authenticated"]}
            }
        else:
            status = {"allowed": True, "reason": "the token's holder may do everything"}
        meta = {"creationTimestamp": render_time(self._now())}
        return _json({**body, "metadata": meta, "status": status}, 201)

    # --- discovery and documents -------------------------------------------------------------

    def _discover(self, request: web.Request) -> web.Response:
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed()
        groups = discovery.group_definitions([*self._registry.definitions, *discovery.REVIEWS])
        parts = request.path.strip("/").split("/")
        if parts in (["api"], ["apis"]):
            core = parts == ["api"]
            if version := discovery.choose_aggregated(_accepted(request)):
                body = encoding.encode(discovery.render_aggregated(groups, version, core=core))
                headers = {"Content-Type": discovery.aggregated_content_type(version)}
                return web.Response(body=body, headers=headers)
            if core:
                return _json(discovery.render_core_versions(request.host))
            return _json(discovery.render_groups(groups))
        match parts:
            case [""]:
                return _json({"paths": _paths(groups)})
            case ["apis", group] if group in groups and group:
                return _json(discovery.render_group(groups, group))
            case ["api", version] if version in groups[""]:
                return _json(discovery.render_resources("", version, groups[""][version]))
            case ["apis", group, version] if version in groups.get(group, {}) and group:
                return _json(discovery.render_resources(group, version, groups[group][version]))
        raise no_such_path()

    def _openapi(self, request: web.Request) -> web.Response:
        definitions = self._registry.definitions
        match request.path.strip("/").split("/")[1:]:
            case ["v2"]:
                if any("spec.v2@v1.0+protobuf" in media.type for media in _accepted(request)):
                    body = self._document("v2.pb", lambda: openapi.render_v2_protobuf(
                        openapi.render_v2(definitions)))  # fmt: skip
                    return web.Response(body=body, headers={"Content-Type": _V2_PROTOBUF})
                return self._json_document("v2", lambda: openapi.render_v2(definitions))
            case ["v3"]:
                return self._json_document("v3", lambda: openapi.render_v3_index(definitions))
            case ["v3", "api", version]:
                return self._v3("", version)
            case ["v3", "apis", group, version]:
                return self._v3(group, version)
        raise no_such_path()

    def _v3(self, group: str, version: str) -> web.Response:
        definitions = self._registry.definitions
        served = {(entry.kind.group, entry.kind.version) for entry in definitions}
        if (group, version) not in served:
            raise no_such_path()
        return self._json_document(
            f"v3/{group}/{version}", lambda: openapi.render_v3(definitions, group, version)
        )

    def _json_document(self, name: str, render: Callable[[], dict[str, Any]]) -> web.Response:
        body = self._document(name, lambda: encoding.encode(render()))
        return web.Response(body=body, content_type="application/json")

    def _document(self, name: str, render: Callable[[], bytes]) -> bytes:
        """Return a rendered document, kept until a definition changes."""
        key = (self._registry.revision, name)
        if key not in self._documents:
            stale = [old for old in self._documents if old[0] != key[0]]
            for old in stale:
                del self._documents[old]
            started = time.monotonic()
            self._documents[key] = render()
            _LOG.debug("rendered %s in %.3f s", name, time.monotonic() - started)
        return self._documents[key]


def _fits(resource: Resource, target: Target) -> bool:
    """Whether scope and subresource of a path exist for a resource."""
    if target.subresource and not (target.subresource == "status" and target.name):
        return False
    if target.subresource and not resource.definition.has_status:
        return False
    if not resource.kind.namespaced:
        return target.namespace is None
    return target.namespace is not None or not target.name


def _paths(groups: discovery.Groups) -> list[str]:
    paths = ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3",
             "/readyz", "/version"]  # fmt: skip
    for group, versions in groups.items():
        if group:
            paths += [f"/apis/{group}", *(f"/apis/{group}/{version}" for version in versions)]
    return sorted(paths)


def _accepted(request: web.Request) -> list[MediaRange]:
    return parse_accept(",".join(request.headers.getall("Accept", ["*/*"])))


def _json(value: Any, status: int = 200) -> web.Response:
    body = encoding.encode(value)
    return web.Response(body=body, status=status, content_type="application/json")


def _refuse(error: ApiError) -> web.Response:
    return _json(render_status(error), error.status or 500)
