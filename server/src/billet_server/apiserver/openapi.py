"""OpenAPI documents of the embedded API: v2 for kubectl up to 1.26, v3 for later ones.

kubectl reads from them: the schemas (``explain``, client-side validation), their
``x-kubernetes-group-version-kind``, and the ``patch`` operation's parameters (whether the server
knows ``dryRun`` and ``fieldValidation``).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from billet_server.apiserver.definitions import Definition
from billet_server.apiserver.metaschemas import (
    API_VERSION,
    DELETE_OPTIONS,
    KIND,
    LIST_META,
    META_SCHEMAS,
    OBJECT_META,
)
from billet_server.apiserver.openapi_paths import (
    V2_REFS,
    V3_REFS,
    render_v2_paths,
    render_v3_paths,
    schema_name,
)
from billet_server.apiserver.openapi_v2_protobuf import render_v2_protobuf

__all__ = ["render_v2", "render_v2_protobuf", "render_v3", "render_v3_index"]

Json = dict[str, Any]

_INFO = {"title": "Billet", "version": "v1"}


def render_v2(definitions: Iterable[Definition]) -> Json:
    """Return the Swagger 2.0 document of all definitions (``/openapi/v2``)."""
    served = list(definitions)
    schemas = dict(_schemas(served))
    return {
        "swagger": "2.0",
        "info": _INFO,
        "paths": render_v2_paths(served),
        "definitions": {name: _to_v2(schemas[name]) for name in sorted(schemas)},
    }


def render_v3_index(definitions: Iterable[Definition]) -> Json:
    """Return the index of v3 documents, one for each group and version (``/openapi/v3``).

    The address carries a hash of the document, so that clients may cache it for ever.
    """
    served = list(definitions)
    paths = {}
    for group, version in sorted({(item.kind.group, item.kind.version) for item in served}):
        path = f"apis/{group}/{version}" if group else f"api/{version}"
        text = json.dumps(render_v3(served, group, version), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest().upper()
        paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
    return {"paths": paths}


def render_v3(definitions: Iterable[Definition], group: str, version: str) -> Json:
    """Return the OpenAPI 3.0 document of one group and version; without paths if unknown."""
    wanted = (group, version)
    served = [item for item in definitions if (item.kind.group, item.kind.version) == wanted]
    schemas = dict(_schemas(served))
    return {
        "openapi": "3.0.0",
        "info": _INFO,
        "paths": render_v3_paths(served),
        "components": {"schemas": {name: _to_v3(schemas[name]) for name in sorted(schemas)}},
    }


def _schemas(definitions: Iterable[Definition]) -> Iterator[tuple[str, Json]]:
    """Yield name and schema of all kinds, their lists, and the shared parts."""
    groups = set()
    for definition in definitions:
        kind = definition.kind
        groups.add((kind.group, kind.version))
        name = schema_name(definition)
        schema = definition.schema or {"x-kubernetes-preserve-unknown-fields": True}
        properties = {**schema.get("properties", {}), "metadata": {"$ref": OBJECT_META}}
        properties["apiVersion"], properties["kind"] = API_VERSION, KIND
        yield name, {**schema, "properties": properties, **_gvk(definition, kind.kind)}
        yield f"{name}List", _list_schema(definition, name)
    for name, schema in META_SCHEMAS.items():
        if name == DELETE_OPTIONS:
            kinds = [
                {"group": group, "version": version, "kind": "DeleteOptions"}
                for group, version in sorted(groups)
            ]
            schema = {**schema, "x-kubernetes-group-version-kind": kinds}
        yield name, schema


def _gvk(definition: Definition, kind: str) -> Json:
    group, version = definition.kind.group, definition.kind.version
    entry = {"group": group, "version": version, "kind": kind}
    return {"x-kubernetes-group-version-kind": [entry]}


def _list_schema(definition: Definition, name: str) -> Json:
    return {
        "type": "object",
        "description": f"A list of {definition.kind.kind} objects.",
        "required": ["items"],
        "properties": {
            "apiVersion": API_VERSION,
            "items": {"type": "array", "description": "The objects.", "items": {"$ref": name}},
            "kind": KIND,
            "metadata": {"$ref": LIST_META},
        },
        **_gvk(definition, definition.list_kind),
    }


_METADATA = "Name, labels, annotations and what else all objects have in common."
_V2_DROPPED = {"nullable", "default", "oneOf", "anyOf", "not", "x-kubernetes-validations"}


def _to_v2(schema: Mapping[str, Any]) -> Json:
    """Translate a schema node as the API server does for Swagger.

    Swagger cannot say "nullable" or "anything": such fields get no type, so that kubectl's own
    validation lets them pass.
    """
    if "$ref" in schema:
        return {"$ref": V2_REFS + schema["$ref"], "description": _METADATA}
    result = {name: value for name, value in schema.items() if name not in _V2_DROPPED}
    if any(
        schema.get(name)
        for name in (
            "nullable",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-int-or-string",
        )
    ):
        for name in ("type", "items", "properties", "additionalProperties", "required"):
            if not (name == "properties" and "x-kubernetes-group-version-kind" in schema):
                result.pop(name, None)
    return _translate_children(result, _to_v2)


def _to_v3(schema: Mapping[str, Any]) -> Json:
    if "$ref" in schema:
        return {"allOf": [{"$ref": V3_REFS + schema["$ref"]}], "description": _METADATA}
    result = _translate_children(dict(schema), _to_v3)
    for name in ("allOf", "anyOf", "oneOf"):
        if name in schema:
            result[name] = [_to_v3(child) for child in schema[name]]
    return result


def _translate_children(schema: Json, translate: Any) -> Json:
    if isinstance(schema.get("properties"), Mapping):
        properties = sorted(schema["properties"].items())
        schema["properties"] = {name: translate(child) for name, child in properties}
    for name in ("items", "additionalProperties"):
        child = schema.get(name)
        if isinstance(child, Mapping):
            schema[name] = _plain_ref(child, translate) if "$ref" in child else translate(child)
    return schema


def _plain_ref(child: Mapping[str, Any], translate: Any) -> Json:
    """Return a reference without description: items take that of their schema."""
    translated = translate(child)
    reference = translated["allOf"][0] if "allOf" in translated else translated
    return {"$ref": reference["$ref"]}
