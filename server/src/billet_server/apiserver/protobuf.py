"""Bodies in Kubernetes' protobuf encoding, as kubectl ≥ 1.32 sends Secrets, ConfigMaps and so on.

Only decoding: answers are JSON, which every client accepts. A body is the magic ``k8s\\0`` and a
``runtime.Unknown`` that names the kind and holds the message. Field numbers are those of the
``generated.proto`` files of k8s.io/api and k8s.io/apimachinery; fields that are not listed here
are skipped, as protobuf demands.
"""

import base64
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from billet_server.apiserver.failure import bad_request
from billet_server.ports import Object

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\0"

Value = int | bytes
Read = Callable[[Value], Any]


class Malformed(ValueError):
    """The bytes are not a message."""


class Field(NamedTuple):
    """A field's JSON name, how to read one value of it, and how values add up."""

    name: str
    read: Read
    repeated: bool = False
    is_map: bool = False


Message = Mapping[int, Field]


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Yield field numbers and raw values of a message."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire == 2:
            size, position = _varint(data, position)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise Malformed(f"wire type {wire}")
        if position + size > len(data):
            raise Malformed("the message ends early")
        yield number, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise Malformed("a number does not end")
        byte = data[position]
        result |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return result, position


def _bytes(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise Malformed("a number where text was expected")
    return value


def _number(value: Value) -> int:
    if not isinstance(value, int):
        raise Malformed("text where a number was expected")
    return value - (1 << 64) if value >> 63 else value


def _text(value: Value) -> str:
    return _bytes(value).decode()


def _base64(value: Value) -> str:
    return base64.b64encode(_bytes(value)).decode()


def _flag(value: Value) -> bool:
    return bool(_number(value))


def _moment(value: Value) -> tuple[datetime, int] | None:
    parts = {number: _number(raw) for number, raw in _fields(_bytes(value))}
    if not parts:
        return None
    return datetime.fromtimestamp(parts.get(1, 0), UTC), parts.get(2, 0)


def _time(value: Value) -> str | None:
    moment = _moment(value)
    return moment and moment[0].strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro_time(value: Value) -> str | None:
    moment = _moment(value)
    return moment and f"{moment[0]:%Y-%m-%dT%H:%M:%S}.{moment[1] // 1000:06d}Z"


def _message(fields: Message) -> Read:
    def read(value: Value) -> Object:
        return _decode(_bytes(value), fields)

    return read


def _decode(data: bytes, fields: Message) -> Object:
    """Return a message as JSON data; empty text counts as absent, like Go's omitempty."""
    result: Object = {}
    for number, raw in _fields(data):
        field = fields.get(number)
        if field is None:
            continue
        value = field.read(raw)
        if field.is_map:
            result.setdefault(field.name, {}).update(value)
        elif field.repeated:
            result.setdefault(field.name, []).append(value)
        elif value not in ("", None, {}):
            result[field.name] = value
    return result


def _map(name: str, read: Read) -> Field:
    empty = read(b"")

    def entry(value: Value) -> Object:
        parts = dict(_fields(_bytes(value)))
        return {_text(parts.get(1, b"")): read(parts[2]) if 2 in parts else empty}

    return Field(name, entry, is_map=True)


def _texts(*names: str) -> dict[int, Field]:
    """Return fields 1, 2, ... that are text; "" leaves a number out."""
    return {number: Field(name, _text) for number, name in enumerate(names, 1) if name}


_OWNER = {
    **_texts("kind", "", "name", "uid", "apiVersion"),
    6: Field("controller", _flag),
    7: Field("blockOwnerDeletion", _flag),
}
_META = {
    **_texts("name", "generateName", "namespace", "selfLink", "uid", "resourceVersion"),
    7: Field("generation", _number),
    8: Field("creationTimestamp", _time),
    9: Field("deletionTimestamp", _time),
    10: Field("deletionGracePeriodSeconds", _number),
    11: _map("labels", _text),
    12: _map("annotations", _text),
    13: Field("ownerReferences", _message(_OWNER), repeated=True),
    14: Field("finalizers", _text, repeated=True),
}
_METADATA = Field("metadata", _message(_META))
_REFERENCE = _texts(
    "kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"
)  # fmt: skip
_EVENT = {
    1: _METADATA,
    2: Field("involvedObject", _message(_REFERENCE)),
    3: Field("reason", _text),
    4: Field("message", _text),
    5: Field("source", _message(_texts("component", "host"))),
    6: Field("firstTimestamp", _time),
    7: Field("lastTimestamp", _time),
    8: Field("count", _number),
    9: Field("type", _text),
    10: Field("eventTime", _micro_time),
    11: Field("series", _message({1: Field("count", _number),
                                  2: Field("lastObservedTime", _micro_time)})),
    12: Field("action", _text),
    13: Field("related", _message(_REFERENCE)),
    14: Field("reportingComponent", _text),
    15: Field("reportingInstance", _text),
}  # fmt: skip
_LEASE = {
    1: Field("holderIdentity", _text),
    2: Field("leaseDurationSeconds", _number),
    3: Field("acquireTime", _micro_time),
    4: Field("renewTime", _micro_time),
    5: Field("leaseTransitions", _number),
}
_ACCESS = {
    1: Field("resourceAttributes", _message(
        _texts("namespace", "verb", "group", "version", "resource", "subresource", "name"))),
    2: Field("nonResourceAttributes", _message(_texts("path", "verb"))),
}  # fmt: skip

MESSAGES: Mapping[tuple[str, str], Message] = {
    ("v1", "Secret"): {
        1: _METADATA,
        2: _map("data", _base64),
        3: Field("type", _text),
        4: _map("stringData", _text),
        5: Field("immutable", _flag),
    },
    ("v1", "ConfigMap"): {
        1: _METADATA,
        2: _map("data", _text),
        3: _map("binaryData", _base64),
        4: Field("immutable", _flag),
    },
    ("v1", "Namespace"): {
        1: _METADATA,
        2: Field("spec", _message({1: Field("finalizers", _text, repeated=True)})),
        3: Field("status", _message(_texts("phase"))),
    },
    ("v1", "Event"): _EVENT,
    ("coordination.k8s.io/v1", "Lease"): {1: _METADATA, 2: Field("spec", _message(_LEASE))},
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview"): {
        1: _METADATA,
        2: Field("spec", _message(_ACCESS)),
    },
    ("authentication.k8s.io/v1", "SelfSubjectReview"): {1: _METADATA},
}
_DELETE_OPTIONS: Message = {
    1: Field("gracePeriodSeconds", _number),
    2: Field("preconditions", _message(_texts("uid", "resourceVersion"))),
    3: Field("orphanDependents", _flag),
    4: Field("propagationPolicy", _text),
    5: Field("dryRun", _text, repeated=True),
}


def parse_protobuf(body: bytes) -> Object:
    """Parse a body into the object's JSON data. Raises a 400."""
    try:
        if not body.startswith(_MAGIC):
            raise Malformed("it does not start with k8s")
        envelope = dict(_fields(body[len(_MAGIC) :]))
        names = dict(_fields(_bytes(envelope.get(1, b""))))
        api_version, kind = _text(names.get(1, b"")), _text(names.get(2, b""))
        message = _DELETE_OPTIONS if kind == "DeleteOptions" else MESSAGES.get((api_version, kind))
        if message is None:
            raise bad_request(f"{kind} of {api_version} cannot be sent as protobuf, send JSON")
        obj = _decode(_bytes(envelope.get(2, b"")), message)
    except (Malformed, UnicodeDecodeError, OverflowError, OSError) as error:
        raise bad_request(f"the body is not Kubernetes protobuf: {error}") from error
    return {"apiVersion": api_version, "kind": kind, "metadata": {}, **obj}
