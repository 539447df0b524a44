"""JSON in and out: objects as the store keeps them, bodies as clients send them."""

from typing import Any

import msgspec

from billet_server.apiserver.failure import bad_request
from billet_server.apiserver.store import Halves
from billet_server.ports import Object

MAX_BODY_BYTES = 3 * 1024 * 1024
"""What the API accepts as a body; Kubernetes' own limit."""

MAX_DEPTH = 64
"""Levels of nesting that a body may have; no manifest comes near."""

_encoder = msgspec.json.Encoder()
encode = _encoder.encode


def decode(body: bytes) -> Any:
    """Parse stored JSON."""
    return msgspec.json.decode(body)


def parse_body(body: bytes) -> Any:
    """Parse a client's JSON. Raises a 400 for text that is not JSON or nests too deep."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise bad_request(f"the body is not JSON: {error}") from error
    if _depth(value) > MAX_DEPTH:
        raise bad_request(f"the body nests deeper than {MAX_DEPTH} levels")
    return value


def parse_object(body: bytes) -> Object:
    """Parse a client's JSON object. Raises a 400."""
    value = parse_body(body)
    if not isinstance(value, dict):
        raise bad_request("the body must be a JSON object")
    return value


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        depth += 1
        level = [
            child
            for item in level
            for child in (
                item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
            )
            if isinstance(child, dict | list)
        ]
    return depth


def render_halves(obj: Object) -> Halves:
    """Return an object's JSON around its resourceVersion (whatever it has now is dropped)."""
    meta = {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}
    rest = {
        key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata")
    }
    head = b'{"apiVersion":%s,"kind":%s,"metadata":{"resourceVersion":"' % (
        encode(obj["apiVersion"]),
        encode(obj["kind"]),
    )
    tail = b'",' + encode(meta)[1:] + (b"," + encode(rest)[1:] if rest else b"}")
    return Halves(head, tail)


class _Labelled(msgspec.Struct):
    labels: dict[str, str] = {}


class _Head(msgspec.Struct):
    metadata: _Labelled


_head = msgspec.json.Decoder(_Head)


def parse_labels_of(body: bytes) -> dict[str, str]:
    """Return a stored object's labels without decoding the rest."""
    return _head.decode(body).metadata.labels
