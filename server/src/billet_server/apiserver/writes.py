"""POST, PUT, PATCH and DELETE on resources."""

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from billet_server.apiserver import encoding
from billet_server.apiserver.failure import (
    Failure,
    bad_request,
    method_not_allowed,
    no_such_path,
    too_large,
    unsupported_media,
)
from billet_server.apiserver.lists import parse_scope, splice
from billet_server.apiserver.objects import Objects, WriteOptions, Written
from billet_server.apiserver.patch import PatchRefused, json_patch, merge, strategic_merge
from billet_server.apiserver.protobuf import MEDIA_TYPE, parse_protobuf
from billet_server.apiserver.reads import Reads
from billet_server.apiserver.registry import Resource
from billet_server.apiserver.repeated import repeated_fields
from billet_server.apiserver.target import (
    Target,
    parse_delete_options,
    parse_list_query,
    parse_write_options,
)
from billet_server.apiserver.warning_headers import render_warnings
from billet_server.errors import ApiError
from billet_server.ports import Object

_JSON_PATCH = "application/json-patch+json"
PATCHES: Mapping[str, Callable[[Any, Any], Any]] = {
    _JSON_PATCH: json_patch,
    "application/merge-patch+json": merge,
    "application/strategic-merge-patch+json": strategic_merge,
}
_STRATEGIC = "application/strategic-merge-patch+json"
_APPLY = ("application/apply-patch+yaml", "application/apply-patch+cbor")


class Writes:
    """Answers writes."""

    def __init__(self, objects: Objects, reads: Reads) -> None:
        self._objects, self._reads = objects, reads

    async def create(
        self, request: web.Request, resource: Resource, target: Target
    ) -> web.Response:
        """Answer POST on a collection."""
        if resource.kind.namespaced and target.namespace is None:
            raise no_such_path()
        obj = await read_object(request)
        options = await _write_options(request, "CreateOptions")
        done = await self._objects.create(resource, target.namespace or "", obj, options)
        return self._written(request, resource, done)

    async def replace(
        self, request: web.Request, resource: Resource, target: Target
    ) -> web.Response:
        """Answer PUT on an object."""
        obj = await read_object(request)
        done = await self._objects.replace(
            resource,
            target.namespace or "",
            target.name,
            obj,
            await _write_options(request, "UpdateOptions"),
            subresource=_subresource(target),
        )
        return self._written(request, resource, done)

    async def patch(self, request: web.Request, resource: Resource, target: Target) -> web.Response:
        """Answer PATCH on an object."""
        apply = _choose_patch(request.content_type, resource)
        given = encoding.parse_body(await _read(request))
        if apply is not json_patch and not isinstance(given, dict):
            raise bad_request("the patch must be a JSON object")

        def patched(old: Object) -> Object:
            try:
                new = apply(old, given)
            except PatchRefused as refusal:
                message = "the server rejected our request due to an error in our request"
                raise Failure(422, "Invalid", f"{message}: {refusal}", {}) from refusal
            if not isinstance(new, dict):
                raise bad_request("the patch leaves no object")
            return new

        done = await self._objects.patch(
            resource,
            target.namespace or "",
            target.name,
            patched,
            await _write_options(request, "PatchOptions"),
            subresource=_subresource(target),
        )
        return self._written(request, resource, done)

    async def delete(
        self, request: web.Request, resource: Resource, target: Target
    ) -> web.Response:
        """Answer DELETE on an object: a Status when it is gone, the object while it is not."""
        options = parse_delete_options(request.query, await _read_options(request))
        namespace = target.namespace or ""
        done = await self._objects.delete(resource, namespace, target.name, options)
        if not done.removed:
            return self._written(request, resource, done)
        kind = resource.kind
        uid = encoding.decode(done.body)["metadata"]["uid"]
        details = {"name": target.name, "group": kind.group, "kind": kind.plural, "uid": uid}
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {key: value for key, value in details.items() if value},
        }
        return web.Response(body=encoding.encode(status), content_type="application/json")

    async def delete_collection(
        self, request: web.Request, resource: Resource, target: Target
    ) -> web.Response:
        """Answer DELETE on a collection with what it held."""
        if resource.kind.namespaced and target.namespace is None:
            raise method_not_allowed()
        query = parse_list_query(request.query)
        options = parse_delete_options(request.query, await _read_options(request))
        listing = await self._reads.matching(
            parse_scope(resource, target.namespace, query), query
        )  # fmt: skip
        for body in listing.bodies:
            name = encoding.decode(body)["metadata"]["name"]
            try:
                await self._objects.delete(resource, target.namespace or "", name, options)
            except ApiError as error:
                if error.status != 404:
                    raise
        body = b"".join(splice(resource, listing))
        return web.Response(body=body, content_type="application/json")

    def _written(self, request: web.Request, resource: Resource, done: Written) -> web.Response:
        response = web.Response(
            body=self._reads.render_one(request, resource, done.body),
            status=201 if done.created else 200,
            content_type="application/json",
        )
        for warning in render_warnings(done.warnings):
            response.headers.add("Warning", warning)
        return response


def _subresource(target: Target) -> Any:
    return target.subresource


def _choose_patch(media: str, resource: Resource) -> Callable[[Any, Any], Any]:
    if media in _APPLY:
        raise unsupported_media(
            "server-side apply is not supported by Billet's embedded API; use client-side apply: "
            "kubectl apply --server-side=false"
        )
    accepted = [name for name in PATCHES if name != _STRATEGIC or not resource.custom]
    if media not in accepted:
        raise unsupported_media(
            "the body of the request was in an unknown format - accepted media types include: "
            + ", ".join(accepted)
        )
    return PATCHES[media]


async def _write_options(request: web.Request, name: str) -> WriteOptions:
    """Return what the query says, and what is to be said of repeated fields of the body."""
    options = parse_write_options(request.query, "Warn", name)
    if options.validation == "Ignore" or request.content_type == MEDIA_TYPE:
        return options
    is_list = request.content_type == _JSON_PATCH
    prefix = "json patch duplicate" if is_list else "duplicate"
    paths = repeated_fields(await _read(request))
    return options._replace(repeated=tuple(f'{prefix} field "{path}"' for path in paths))


async def _read(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise too_large(encoding.MAX_BODY_BYTES) from error


async def read_object(request: web.Request) -> Object:
    """Return the object in a request's body, from JSON or protobuf. Raises 400, 413, 415."""
    media = request.content_type if request.headers.get("Content-Type") else "application/json"
    body = await _read(request)
    if media == MEDIA_TYPE:
        return parse_protobuf(body)
    if media not in ("application/json", "text/json"):
        raise unsupported_media(
            "the body of the request was in an unknown format - accepted media types include: "
            f"application/json, {MEDIA_TYPE}"
        )
    return encoding.parse_object(body)


async def _read_options(request: web.Request) -> Object:
    """Return DeleteOptions; clients name all kinds of media types when there is no body."""
    return await read_object(request) if (await _read(request)).strip() else {}
