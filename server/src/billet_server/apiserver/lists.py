"""Lists: pages of stored bodies, filtered by selectors, spliced into one answer."""

import base64
import binascii
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from billet_server.apiserver import encoding
from billet_server.apiserver.failure import Failure, bad_request, expired
from billet_server.apiserver.registry import Resource
from billet_server.apiserver.selectors import (
    FieldSelector,
    LabelSelector,
    matches_fields,
    matches_labels,
    parse_field_selector,
    parse_label_selector,
    wanted_value,
)
from billet_server.apiserver.store import Store
from billet_server.apiserver.target import ListQuery

_STEP = 500
"""Objects read at a time when only some of them match."""


class Scope(NamedTuple):
    """Which objects of a resource are meant."""

    resource: Resource
    namespace: str | None
    name: str | None
    labels: LabelSelector
    fields: FieldSelector

    def matches(self, body: bytes) -> bool:
        """Whether a stored object satisfies the selectors."""
        if self.labels and not matches_labels(self.labels, encoding.parse_labels_of(body)):
            return False
        return not self.fields or matches_fields(self.fields, encoding.decode(body))


def parse_scope(resource: Resource, namespace: str | None, query: ListQuery) -> Scope:
    """Return the scope of a list or watch; what selectors pin becomes part of the key.

    Raises a 400 for selectors that cannot be parsed.
    """
    fields = parse_field_selector(query.fields, resource.kind)
    name = wanted_value(fields, "metadata.name")
    if resource.kind.namespaced and namespace is None:
        namespace = wanted_value(fields, "metadata.namespace")
    rest = tuple(
        term for term in fields if not (term.path == "metadata.name" and term.value == name)
    )
    return Scope(resource, namespace, name, parse_label_selector(query.labels), rest)


class Listing(NamedTuple):
    """The matching bodies, the version to watch from, and where the next page starts."""

    bodies: list[bytes]
    version: int
    token: str = ""
    remaining: int | None = None

    def meta(self) -> dict[str, object]:
        """Return the list's metadata (meta/v1 ListMeta)."""
        meta: dict[str, object] = {"resourceVersion": str(self.version)}
        if self.token:
            meta["continue"] = self.token
            if self.remaining:
                meta["remainingItemCount"] = self.remaining
        return meta


class _Token(msgspec.Struct):
    version: int
    after: tuple[str, str]


def render_token(version: int, after: tuple[str, str]) -> str:
    """Return a continue token."""
    return base64.urlsafe_b64encode(encoding.encode(_Token(version, after))).decode()


def parse_token(text: str) -> tuple[int, tuple[str, str]]:
    """Parse a continue token. Raises a 400."""
    try:
        token = msgspec.json.decode(base64.urlsafe_b64decode(text), type=_Token)
    except (binascii.Error, msgspec.DecodeError, ValueError) as error:
        raise bad_request("continue key is not valid: it must come from an earlier list") from error
    return token.version, token.after


def list_objects(store: Store, scope: Scope, query: ListQuery) -> Listing:
    """Read a list; blocks, for a thread. Raises 400, 410 and 504.

    Later pages show the current objects, but carry the first page's version: a watch from there
    tells of everything that changed meanwhile.
    """
    if query.continue_token:
        version, after = parse_token(query.continue_token)
        if store.compacted(version):
            raise expired(
                "The provided continue parameter is too old to display a consistent list "
                "result. You can start a new list without the continue parameter."
            )
        return _collect(store, scope, query.limit, version, after)
    if query.version and not store.has_reached(int(query.version)):
        raise _too_large(int(query.version), store.version)
    listing = _collect(store, scope, query.limit, None, None)
    if query.version_match == "Exact" and query.version != str(listing.version):
        raise expired(f"The resourceVersion for the provided list is too old: {query.version}")
    return listing


def _too_large(wanted: int, current: int) -> Failure:
    message = f"Timeout: Too large resource version: {wanted}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return Failure(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})


def _collect(
    store: Store, scope: Scope, limit: int, version: int | None, after: tuple[str, str] | None
) -> Listing:
    filtered = bool(scope.labels or scope.fields)
    bodies: list[bytes] = []
    while True:
        page = store.page(
            scope.resource.path,
            scope.namespace,
            name=scope.name,
            after=after,
            limit=_STEP if filtered else (limit or -1),
        )
        version = page.version if version is None else version
        for position, body in enumerate(page.bodies):
            if filtered and not scope.matches(body):
                continue
            bodies.append(body)
            if limit and len(bodies) == limit:
                if position + 1 == len(page.bodies) and not page.remaining:
                    break
                key = _key_of(body)
                remaining = None if filtered else page.remaining
                return Listing(bodies, version, render_token(version, key), remaining)
        if not filtered or not page.remaining:
            return Listing(bodies, version)
        after = page.last


def _key_of(body: bytes) -> tuple[str, str]:
    meta = encoding.decode(body)["metadata"]
    return meta.get("namespace", ""), meta["name"]


def splice(resource: Resource, listing: Listing, step: int = 100) -> Iterator[bytes]:
    """Yield a list's JSON in chunks, without looking into the objects."""
    kind = resource.kind
    yield b'{"apiVersion":%s,"kind":%s,"metadata":%s,"items":[' % (
        encoding.encode(kind.api_version),
        encoding.encode(resource.definition.list_kind),
        encoding.encode(listing.meta()),
    )
    for start in range(0, len(listing.bodies), step):
        chunk = b",".join(listing.bodies[start : start + step])
        yield b"," + chunk if start else chunk
    yield b"]}"


def changed_matches(scope: Scope, old_labels: str, body: bytes) -> tuple[bool, bool]:
    """Return whether an object matched before a change, and matches after it.

    Fields that can be selected by do not change, labels do.
    """
    if not scope.labels and not scope.fields:
        return bool(old_labels), True
    fields = not scope.fields or matches_fields(scope.fields, encoding.decode(body))
    now = fields and matches_labels(scope.labels, encoding.parse_labels_of(body))
    before = fields and bool(old_labels) and matches_labels(
        scope.labels, encoding.decode(old_labels.encode())
    )  # fmt: skip
    return before, now
