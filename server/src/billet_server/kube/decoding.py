"""From the API's bytes to plain objects and watch events. Pure."""

from typing import Any, Final, Literal, cast

import msgspec

from billet_server import errors
from billet_server.kube.failures import from_status
from billet_server.ports import Kind, Object, WatchEvent

_TYPES: Final = frozenset({"ADDED", "MODIFIED", "DELETED", "BOOKMARK"})
_EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


class _Line(msgspec.Struct):
    type: str
    object: dict[str, Any]


class _ListMetadata(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class ObjectPage(msgspec.Struct):
    """A page of a list: ``metadata.continue`` is "" on the last one."""

    metadata: _ListMetadata
    items: list[dict[str, Any]] | None = None


_line = msgspec.json.Decoder(_Line)
_page = msgspec.json.Decoder(ObjectPage)
_object = msgspec.json.Decoder(dict[str, Any])


def decode_object(body: bytes) -> Object:
    """Decode one object, without its field ownership (nobody here reads it, and it is large)."""
    return _without_ownership(_object.decode(body))


def decode_page(kind: Kind, body: bytes) -> ObjectPage:
    """Decode a page of a list; items get the apiVersion and kind that lists leave out."""
    page = _page.decode(body)
    for obj in page.items or ():
        obj.setdefault("apiVersion", kind.api_version)
        obj.setdefault("kind", kind.kind)
        _without_ownership(obj)
    return page


def decode_event(attempt: str, server: str, line: bytes) -> WatchEvent:
    """Decode a line of a watch. Raises the ApiError that an ERROR event carries."""
    event = _line.decode(line)
    if event.type == "BOOKMARK":
        version = event.object["metadata"]["resourceVersion"]
        return WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": version}})
    if event.type in _TYPES:
        return WatchEvent(cast("_EventType", event.type), _without_ownership(event.object))
    if event.type == "ERROR":
        raise from_status(attempt, server, int(event.object.get("code") or 500), event.object)
    raise errors.ApiError(f"{attempt}: unknown watch event {event.type}")


def _without_ownership(obj: Object) -> Object:
    metadata = obj.get("metadata")
    if isinstance(metadata, dict):
        metadata.pop("managedFields", None)
    return obj
