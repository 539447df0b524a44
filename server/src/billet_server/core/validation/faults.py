"""A fault of an object, and how the checks read fields and quote values."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Json = Mapping[str, Any]

REQUIRED, INVALID, FORBIDDEN = "Required value", "Invalid value", "Forbidden"
UNSUPPORTED, DUPLICATE = "Unsupported value", "Duplicate value"

_MOST_CHARS = 200


class Fault(NamedTuple):
    """One fault. ``type`` is Kubernetes' ("Required value", "Invalid value", "Forbidden" …)."""

    path: str
    type: str
    message: str


def part(value: Json, name: str) -> Json:
    """Return an object's field that is an object; an empty one where it is not."""
    found = value.get(name)
    return found if isinstance(found, Mapping) else {}


def text(value: Json, name: str) -> str:
    """Return an object's field that is text; "" where it is not."""
    found = value.get(name)
    return found if isinstance(found, str) else ""


def rows(value: Json, name: str) -> Iterator[tuple[int, Json]]:
    """Yield the objects of a list field with their places."""
    found = value.get(name)
    for place, row in enumerate(found if isinstance(found, list) else ()):
        if isinstance(row, Mapping):
            yield place, row


def quote(value: str) -> str:
    """Quote a text as the API server does; a long one is cut."""
    value = value if len(value) <= _MOST_CHARS else value[:_MOST_CHARS] + "…"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def annotations_of(host: Json) -> Json:
    """Return the annotations of an object."""
    return part(part(host, "metadata"), "annotations")
