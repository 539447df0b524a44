"""Structural schemas of CRDs at work: pruning, defaulting, validation.

Validation is done by jsonschema-rs, compiled once per schema; patterns are matched in linear
time (the regex dialect is RE2's but for rarities). ``x-kubernetes-validations`` (CEL) are not
evaluated.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jsonschema_rs

from billet_server.apiserver.fielderrors import (
    INTEGER_LIMITS,
    FieldError,
    render_path,
    translate_error,
)
from billet_server.apiserver.formats import FORMATS
from billet_server.apiserver.pruning import fill_defaults, prune_object

__all__ = ["FieldError", "Schema"]

_Steps = tuple[str | int, ...]
_MISSING = object()


class Schema:
    """One compiled schema; immutable, shared by all requests."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Compile ``schema`` (OpenAPI v3, structural). Raises ValueError when it is not valid."""
        self._schema = schema
        self._validator = jsonschema_rs.Draft7Validator(
            _to_json_schema(schema),
            validate_formats=True,
            formats=FORMATS,
            pattern_options=jsonschema_rs.RegexOptions(),
        )
        self._has_maps = "x-kubernetes-list-type" in json.dumps(schema)

    def prune(self, obj: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Return a copy without unknown fields, and those fields' paths, sorted."""
        return prune_object(obj, self._schema)

    def default(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Return a copy with defaults filled in and nulls dropped where they cannot stay."""
        filled: dict[str, Any] = fill_defaults(obj, self._schema)
        return filled

    def validate(self, obj: dict[str, Any], old: dict[str, Any] | None = None) -> list[FieldError]:
        """Return all faults, by path; none means valid.

        With ``old`` (the object before an update) faults in parts that did not change are
        forgiven, as Kubernetes does since 1.30 (validation ratcheting).
        """
        found: list[tuple[_Steps, FieldError]] = []
        for error in _without_repeats(self._validator.iter_errors(obj)):
            steps: _Steps = tuple(error.instance_path)
            wanted, path = self._schema_at(steps), render_path(steps)
            found.append((steps, _limit_error(error, path) or translate_error(error, wanted)))
        if self._has_maps:
            found += _duplicates(obj, self._schema, ())
        if old is not None:
            found = [(steps, fault) for steps, fault in found if _changed(steps, obj, old)]
        return sorted(dict.fromkeys(fault for _, fault in found))

    def _schema_at(self, steps: _Steps) -> Mapping[str, Any]:
        schema: Any = self._schema
        for step in steps:
            if isinstance(step, int):
                schema = schema.get("items") or {}
            else:
                known = schema.get("properties") or {}
                schema = known.get(step, schema.get("additionalProperties"))
            if not isinstance(schema, Mapping):
                return {}
        found: Mapping[str, Any] = schema
        return found


_KEPT = (
    *("enum", "pattern", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems"),
    *("minProperties", "maxProperties", "multipleOf", "required"),
)


def _to_json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a structural schema's node to JSON Schema draft 7."""
    result: dict[str, Any] = {name: schema[name] for name in _KEPT if name in schema}
    kind = schema.get("type")
    if schema.get("x-kubernetes-int-or-string"):
        kind = ["integer", "string"]
    if kind:
        kinds = [kind] if isinstance(kind, str) else kind
        result["type"] = [*kinds, "null"] if schema.get("nullable") else kind
    if kind == "integer":
        result["allOf"] = [INTEGER_LIMITS.get(schema.get("format", ""), INTEGER_LIMITS["int64"])]
    elif "format" in schema and schema["format"] in FORMATS:
        result["format"] = schema["format"]
    for name, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if name in schema:
            result[exclusive if schema.get(exclusive) else name] = schema[name]
    if "items" in schema:
        result["items"] = _to_json_schema(schema["items"])
    if "properties" in schema:
        properties = schema["properties"].items()
        result["properties"] = {name: _to_json_schema(child) for name, child in properties}
    if isinstance(schema.get("additionalProperties"), Mapping):
        result["additionalProperties"] = _to_json_schema(schema["additionalProperties"])
    for name in ("allOf", "anyOf", "oneOf"):
        if name in schema:
            result.setdefault(name, [])
            result[name] = result[name] + [_to_json_schema(child) for child in schema[name]]
    if "not" in schema:
        result["not"] = _to_json_schema(schema["not"])
    return result


def _limit_error(error: jsonschema_rs.ValidationError, path: str) -> FieldError | None:
    """Translate the limits that `_to_json_schema` adds to integers (always ``allOf`` 0)."""
    if type(error.kind).__name__ not in ("Minimum", "Maximum"):
        return None
    limit = error.kind.as_dict()["limit"]
    for name, limits in INTEGER_LIMITS.items():
        if limit in limits.values() and error.schema_path[-3:-1] == ["allOf", 0]:
            detail = f'"": Checked value must be of type integer with format {name} in {path}'
            return FieldError(path, "Invalid value", detail)
    return None


_STRING_CHECKS = ("MaxLength", "MinLength", "Pattern")


def _without_repeats(
    errors: Iterable[jsonschema_rs.ValidationError],
) -> Iterator[jsonschema_rs.ValidationError]:
    """Leave out what the API server does: it stops at the first fault of a string's text."""
    ranked = {name: rank for rank, name in enumerate(_STRING_CHECKS)}
    by_place: dict[_Steps, jsonschema_rs.ValidationError] = {}
    for error in errors:
        rank = ranked.get(type(error.kind).__name__)
        if rank is None:
            yield error
            continue
        first = by_place.setdefault(tuple(error.instance_path), error)
        if rank < ranked[type(first.kind).__name__]:
            by_place[tuple(error.instance_path)] = error
    yield from by_place.values()


def _duplicates(
    value: Any, schema: Mapping[str, Any], steps: _Steps
) -> Iterator[tuple[_Steps, FieldError]]:
    """Yield one fault for every list element whose key occurred before."""
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        additional = schema.get("additionalProperties")
        for name, child in value.items():
            child_schema = properties.get(name, additional)
            if isinstance(child_schema, Mapping):
                yield from _duplicates(child, child_schema, (*steps, name))
    elif isinstance(value, list):
        items = schema.get("items") or {}
        key_of = _key_function(schema)
        seen: set[str] = set()
        for index, item in enumerate(value):
            here = (*steps, index)
            if key_of is not None and (key := key_of(item)) is not None:
                if key in seen:
                    yield here, FieldError(render_path(here), "Duplicate value", key)
                seen.add(key)
            yield from _duplicates(item, items, here)


def _key_function(schema: Mapping[str, Any]) -> Callable[[Any], str | None] | None:
    kind = schema.get("x-kubernetes-list-type")
    if kind == "set":
        return lambda item: json.dumps(item, sort_keys=True, separators=(",", ":"))
    if kind != "map":
        return None
    names = schema.get("x-kubernetes-list-map-keys") or ()

    def key_of(item: Any) -> str | None:
        if not isinstance(item, dict) or not all(name in item for name in names):
            return None
        keys = {name: item[name] for name in names}
        return json.dumps(keys, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    return key_of


def _changed(steps: _Steps, obj: Any, old: Any) -> bool:
    """Whether the value at ``steps`` differs; inside lists, whether the list does."""
    for step in steps:
        if isinstance(step, int):
            break
        obj = obj.get(step, _MISSING) if isinstance(obj, dict) else _MISSING
        old = old.get(step, _MISSING) if isinstance(old, dict) else _MISSING
    if obj is _MISSING or old is _MISSING:
        return True
    # As text, since True == 1 and 1 == 1.0 in Python.
    return json.dumps(obj, sort_keys=True) != json.dumps(old, sort_keys=True)
