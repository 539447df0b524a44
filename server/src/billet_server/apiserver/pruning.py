"""Walks of an object along a structural schema: drop unknown fields, fill in defaults.

Both follow apiextensions: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/
"Field pruning" and "Defaulting". Neither changes its argument; both are idempotent.
"""

import copy
from collections.abc import Mapping
from typing import Any

Json = Any
JsonSchema = Mapping[str, Any]

META_FIELDS = ("apiVersion", "kind", "metadata")

_OBJECT_META_FIELDS = frozenset(
    (
        *("annotations", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp"),
        *("finalizers", "generateName", "generation", "labels", "managedFields", "name"),
        *("namespace", "ownerReferences", "resourceVersion", "selfLink", "uid"),
    )
)


def prune_object(obj: dict[str, Json], schema: JsonSchema) -> tuple[dict[str, Json], list[str]]:
    """Return a copy without the fields that the schema does not know, and their paths, sorted."""
    unknown: list[str] = []
    pruned = _prune(obj, schema, "", unknown, is_resource=True)
    return pruned, sorted(unknown)


def _prune(
    value: Json, schema: JsonSchema, path: str, unknown: list[str], *, is_resource: bool = False
) -> Json:
    if isinstance(value, list):
        items = schema.get("items")
        if items is None:
            return copy.deepcopy(value)
        return [
            _prune(item, items, f"{path}[{index}]", unknown) for index, item in enumerate(value)
        ]
    if isinstance(value, dict):
        resource = is_resource or bool(schema.get("x-kubernetes-embedded-resource"))
        return _prune_fields(value, schema, path, unknown, resource)
    return value


def _prune_fields(
    value: dict[str, Json], schema: JsonSchema, path: str, unknown: list[str], is_resource: bool
) -> dict[str, Json]:
    properties = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
    keeps_all = bool(schema.get("x-kubernetes-preserve-unknown-fields")) or additional is True
    kept: dict[str, Json] = {}
    for name, child in value.items():
        child_path = f"{path}.{name}" if path else name
        if is_resource and name in META_FIELDS:
            kept[name] = _prune_meta(child, child_path, unknown) if name == "metadata" else child
        elif name in properties:
            kept[name] = _prune(child, properties[name], child_path, unknown)
        elif isinstance(additional, Mapping):
            kept[name] = _prune(child, additional, child_path, unknown)
        elif keeps_all:
            kept[name] = copy.deepcopy(child)
        else:
            unknown.append(child_path)
    return kept


def _prune_meta(metadata: Json, path: str, unknown: list[str]) -> Json:
    if not isinstance(metadata, dict):
        return metadata
    unknown += [f"{path}.{name}" for name in metadata if name not in _OBJECT_META_FIELDS]
    kept = {name: child for name, child in metadata.items() if name in _OBJECT_META_FIELDS}
    return copy.deepcopy(kept)


def fill_defaults(value: Json, schema: JsonSchema) -> Json:
    """Return a copy with the schema's defaults where a field is absent or a forbidden null.

    Other nulls in fields that are not nullable are dropped, as the API server does.
    """
    if isinstance(value, list):
        items = schema.get("items")
        if items is None:
            return copy.deepcopy(value)
        return [fill_defaults(item, items) for item in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
    filled: dict[str, Json] = {}
    for name, child in value.items():
        child_schema = properties.get(name, additional)
        if not isinstance(child_schema, Mapping):
            filled[name] = copy.deepcopy(child)
        elif child is not None or child_schema.get("nullable"):
            filled[name] = fill_defaults(child, child_schema)
    for name, child_schema in properties.items():
        if name not in filled and "default" in child_schema:
            filled[name] = fill_defaults(child_schema["default"], child_schema)
    return filled
