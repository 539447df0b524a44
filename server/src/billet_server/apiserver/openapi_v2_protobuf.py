"""Writes a Swagger 2.0 document as protobuf: message openapi.v2.Document of gnostic.

kubectl up to 1.26 accepts ``/openapi/v2`` only in this form. Only what our documents contain is
written; the field numbers are those of gnostic's OpenAPIv2.proto.
"""

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Writer = Callable[[int, Any], bytes]


def render_v2_protobuf(document: Mapping[str, Any]) -> bytes:
    """Return the document in protobuf's wire format. Raises KeyError for unknown members."""
    return _message(_DOCUMENT)(document)


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _delimited(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _string(number: int, value: str) -> bytes:
    return _delimited(number, value.encode())


def _strings(number: int, values: Iterable[str]) -> bytes:
    return b"".join(_string(number, value) for value in values)


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(int(value))


def _double(number: int, value: float) -> bytes:
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _any(number: int, value: Any) -> bytes:
    """Message Any: the value as YAML text (JSON is YAML)."""
    return _delimited(number, _string(2, json.dumps(value) + "\n"))


def _anys(number: int, values: Iterable[Any]) -> bytes:
    return b"".join(_any(number, value) for value in values)


def _named_any(number: int, name: str, value: Any) -> bytes:
    return _delimited(number, _string(1, name) + _any(2, value))


Table = dict[str, tuple[int, Writer]]


def _message(table: Table) -> Callable[[Mapping[str, Any]], bytes]:
    """Return a function from JSON to the body of a message; ``x-*`` go to its extensions."""

    def write(value: Mapping[str, Any]) -> bytes:
        parts = []
        for name, member in value.items():
            if name.startswith("x-"):
                parts.append(_named_any(table["x-"][0], name, member))
            else:
                number, writer = table[name]
                parts.append(writer(number, member))
        return b"".join(parts)

    return write


def _one(body: Callable[[Any], bytes]) -> Writer:
    return lambda number, value: _delimited(number, body(value))


def _many(body: Callable[[Any], bytes]) -> Writer:
    return lambda number, values: b"".join(_delimited(number, body(value)) for value in values)


def _mapping(body: Callable[[Any], bytes]) -> Callable[[Mapping[str, Any]], bytes]:
    """Return a writer of a map as entries {1: name, 2: value}, all in field 1."""

    def write(values: Mapping[str, Any]) -> bytes:
        return b"".join(
            _delimited(1, _string(1, name) + _delimited(2, body(value)))
            for name, value in values.items()
        )

    return write


def _schema(value: Mapping[str, Any]) -> bytes:
    return _message(_SCHEMA)(value)


def _type_item(value: str | list[str]) -> bytes:
    return _strings(1, [value] if isinstance(value, str) else value)


def _additional(value: Any) -> bytes:
    if isinstance(value, bool):
        return _integer(2, value)
    return _delimited(1, _schema(value))


def _parameter(value: Mapping[str, Any]) -> bytes:
    """ParametersItem.parameter: a body, or one of the others (query 3, path 4)."""
    if value["in"] == "body":
        return _delimited(1, _delimited(1, _message(_BODY)(value)))
    table, number = (_QUERY, 3) if value["in"] == "query" else (_PATH, 4)
    return _delimited(1, _delimited(2, _delimited(number, _message(table)(value))))


def _paths(value: Mapping[str, Any]) -> bytes:
    path_item = _message(_PATH_ITEM)
    return b"".join(
        _delimited(2, _string(1, path) + _delimited(2, path_item(item)))
        for path, item in value.items()
    )


def _response(value: Mapping[str, Any]) -> bytes:
    return _delimited(1, _message(_RESPONSE)(value))


_SCHEMA: Table = {
    "$ref": (1, _string),
    "format": (2, _string),
    "title": (3, _string),
    "description": (4, _string),
    "default": (5, _any),
    "multipleOf": (6, _double),
    "maximum": (7, _double),
    "exclusiveMaximum": (8, _integer),
    "minimum": (9, _double),
    "exclusiveMinimum": (10, _integer),
    "maxLength": (11, _integer),
    "minLength": (12, _integer),
    "pattern": (13, _string),
    "maxItems": (14, _integer),
    "minItems": (15, _integer),
    "uniqueItems": (16, _integer),
    "maxProperties": (17, _integer),
    "minProperties": (18, _integer),
    "required": (19, _strings),
    "enum": (20, _anys),
    "additionalProperties": (21, _one(_additional)),
    "type": (22, _one(_type_item)),
    "items": (23, _one(lambda value: _delimited(1, _schema(value)))),
    "allOf": (24, _many(_schema)),
    "properties": (25, _one(_mapping(_schema))),
    "example": (30, _any),
    "x-": (31, _any),
}

_BODY: Table = {
    "description": (1, _string),
    "name": (2, _string),
    "in": (3, _string),
    "required": (4, _integer),
    "schema": (5, _one(_schema)),
}

_PATH: Table = {
    "required": (1, _integer),
    "in": (2, _string),
    "description": (3, _string),
    "name": (4, _string),
    "type": (5, _string),
}

_QUERY: Table = {**_PATH, "type": (6, _string)}

_RESPONSE: Table = {
    "description": (1, _string),
    "schema": (2, _one(lambda value: _delimited(1, _schema(value)))),
}

_OPERATION: Table = {
    "tags": (1, _strings),
    "description": (3, _string),
    "operationId": (5, _string),
    "produces": (6, _strings),
    "consumes": (7, _strings),
    "parameters": (8, _many(_parameter)),
    "responses": (9, _one(_mapping(_response))),
    "schemes": (10, _strings),
    "x-": (13, _any),
}

_PATH_ITEM: Table = {
    "get": (2, _one(_message(_OPERATION))),
    "put": (3, _one(_message(_OPERATION))),
    "post": (4, _one(_message(_OPERATION))),
    "delete": (5, _one(_message(_OPERATION))),
    "patch": (8, _one(_message(_OPERATION))),
    "parameters": (9, _many(_parameter)),
}

_INFO: Table = {"title": (1, _string), "version": (2, _string), "description": (3, _string)}

_DOCUMENT: Table = {
    "swagger": (1, _string),
    "info": (2, _one(_message(_INFO))),
    "paths": (8, _one(_paths)),
    "definitions": (9, _one(_mapping(_schema))),
}
