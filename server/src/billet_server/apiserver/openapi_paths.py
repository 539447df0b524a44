"""The operations of every served resource, in the shapes of OpenAPI v2 and v3."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from billet_server.apiserver.definitions import Definition
from billet_server.apiserver.metaschemas import DELETE_OPTIONS, STATUS

Json = dict[str, Any]

V2_REFS = "#/definitions/"
V3_REFS = "#/components/schemas/"

_JSON = "application/json"
_PATCH_TYPES = ["application/json-patch+json", "application/merge-patch+json"]
_STRATEGIC = "application/strategic-merge-patch+json"

_NAME_PREFIXES = {
    "": "io.k8s.api.core",
    "coordination.k8s.io": "io.k8s.api.coordination",
    "apiextensions.k8s.io": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
}

_QUERY = {
    "dryRun": ("string", "All: check the request, change nothing."),
    "fieldManager": ("string", "Name of who makes the change."),
    "fieldValidation": ("string", "Unknown fields are ignored (Ignore), Warn or Strict."),
    "labelSelector": ("string", "Only objects with these labels."),
    "fieldSelector": ("string", "Only objects with these field values."),
    "limit": ("integer", "At most so many objects; the rest by continue."),
    "continue": ("string", "Where the list goes on."),
    "resourceVersion": ("string", "State to list, or to watch from."),
    "resourceVersionMatch": ("string", "How resourceVersion is meant."),
    "timeoutSeconds": ("integer", "When the request ends at the latest."),
    "watch": ("boolean", "Send changes as they come."),
    "allowWatchBookmarks": ("boolean", "Send bookmarks while nothing changes."),
}
_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_LIST = tuple(name for name in _QUERY if name not in _WRITE)


class Operation(NamedTuple):
    """One operation: HTTP method, Kubernetes action, query parameters, body and answer."""

    method: str
    action: str
    words: str
    query: tuple[str, ...]
    body: str | None
    answer: str
    is_patch: bool = False


def schema_name(definition: Definition) -> str:
    """Return the name of a kind's schema, such as ``io.metal3.v1alpha1.BareMetalHost``."""
    kind = definition.kind
    prefix = _NAME_PREFIXES.get(kind.group) or ".".join(reversed(kind.group.split(".")))
    return f"{prefix}.{kind.version}.{kind.kind}"


def render_v2_paths(definitions: Iterable[Definition]) -> Json:
    """Return the ``paths`` of a Swagger document."""
    return {
        path: {
            **{op.method: _v2_operation(definition, op) for op in operations},
            "parameters": [
                {**_path_parameter(name), "type": "string"} for name in _placeholders(path)
            ],
        }
        for path, definition, operations in _paths(definitions)
    }


def render_v3_paths(definitions: Iterable[Definition]) -> Json:
    """Return the ``paths`` of an OpenAPI 3.0 document."""
    return {
        path: {
            **{op.method: _v3_operation(definition, op) for op in operations},
            "parameters": [
                {**_path_parameter(name), "schema": {"type": "string"}}
                for name in _placeholders(path)
            ],
        }
        for path, definition, operations in _paths(definitions)
    }


def _paths(
    definitions: Iterable[Definition],
) -> Iterator[tuple[str, Definition, list[Operation]]]:
    for definition in definitions:
        kind = definition.kind
        name = schema_name(definition)
        root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
        listing = Operation("get", "list", "list or watch", _LIST, None, f"{name}List")
        collection = f"{root}/{kind.plural}"
        if kind.namespaced:
            yield collection, definition, [listing]
            collection = f"{root}/namespaces/{{namespace}}/{kind.plural}"
        created = Operation("post", "post", "create", _WRITE, name, name)
        operations = [listing, created]
        if "deletecollection" in definition.verbs:
            operations.append(
                Operation("delete", "deletecollection", "delete all", _LIST, None, STATUS)
            )
        yield collection, definition, operations
        whole = [
            Operation("get", "get", "read", (), None, name),
            Operation("put", "put", "replace", _WRITE, name, name),
            Operation("patch", "patch", "change parts of", _WRITE, "", name, is_patch=True),
        ]
        deleted = Operation("delete", "delete", "delete", ("dryRun",), DELETE_OPTIONS, STATUS)
        yield f"{collection}/{{name}}", definition, [*whole, deleted]
        if definition.has_status:
            yield f"{collection}/{{name}}/status", definition, whole


def _placeholders(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


def _path_parameter(name: str) -> Json:
    descriptions = {"name": "Name of the object.", "namespace": "Namespace of the object."}
    return {"name": name, "in": "path", "required": True, "description": descriptions[name]}


def _shared(definition: Definition, operation: Operation) -> Json:
    kind = definition.kind
    return {
        "description": f"{operation.words} {kind.kind}",
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": {
            "group": kind.group,
            "version": kind.version,
            "kind": kind.kind,
        },
    }


def _patch_types(definition: Definition) -> list[str]:
    is_builtin = definition.kind.group in _NAME_PREFIXES
    return [*_PATCH_TYPES, _STRATEGIC] if is_builtin else _PATCH_TYPES


def _v2_operation(definition: Definition, operation: Operation) -> Json:
    parameters: list[Json] = []
    if operation.body is not None:
        schema: Json = {"$ref": V2_REFS + operation.body} if operation.body else {"type": "object"}
        parameters.append(
            {
                "name": "body",
                "in": "body",
                "required": operation.body != DELETE_OPTIONS,
                "schema": schema,
            }
        )
    for name in operation.query:
        kind, description = _QUERY[name]
        parameters.append({"name": name, "in": "query", "type": kind, "description": description})
    return {
        **_shared(definition, operation),
        "consumes": _patch_types(definition) if operation.is_patch else ["*/*"],
        "produces": [_JSON],
        "schemes": ["https"],
        "parameters": parameters,
        "responses": {
            "200": {"description": "OK", "schema": {"$ref": V2_REFS + operation.answer}},
            "401": {"description": "Unauthorized"},
        },
    }


def _v3_operation(definition: Definition, operation: Operation) -> Json:
    answer = {_JSON: {"schema": {"$ref": V3_REFS + operation.answer}}}
    rendered = {
        **_shared(definition, operation),
        "parameters": [
            {"name": name, "in": "query", "description": words, "schema": {"type": kind}}
            for name in operation.query
            for kind, words in (_QUERY[name],)
        ],
        "responses": {
            "200": {"description": "OK", "content": answer},
            "401": {"description": "Unauthorized"},
        },
    }
    if operation.body is not None:
        schema = {"$ref": V3_REFS + operation.body} if operation.body else {"type": "object"}
        types = _patch_types(definition) if operation.is_patch else ["*/*"]
        rendered["requestBody"] = {
            "content": {media_type: {"schema": schema} for media_type in types},
            "required": operation.body != DELETE_OPTIONS,
        }
    return rendered
