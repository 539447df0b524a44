"""Validation errors in the words of a Kubernetes API server (k8s.io/apimachinery field errors).

The wording was compared with that of an API server of release 1.36 (a contract test does so).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jsonschema_rs

INTEGER_LIMITS = {
    "int32": {"minimum": -(2**31), "maximum": 2**31 - 1},
    "int64": {"minimum": -(2**63), "maximum": 2**63 - 1},
}


class FieldError(NamedTuple):
    """One fault of an object. ``str()`` gives the line that kubectl shows.

    ``path`` is ``spec.taints[0].key``; ``type`` one of "Required value", "Invalid value",
    "Unsupported value", "Duplicate value", "Too long", "Too many", "Forbidden"; ``message`` what
    follows it, empty where the type says all.
    """

    path: str
    type: str
    message: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in self if part)


def render_path(steps: Sequence[str | int]) -> str:
    """Render ``["spec", "taints", 0, "key"]`` as ``spec.taints[0].key``."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return text.removeprefix(".")


def type_name(value: Any) -> str:
    """Name a JSON value's type as the API server does."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    names = {str: "string", int: "integer", float: "number", list: "array", dict: "object"}
    return names[type(value)]


def render_value(value: Any) -> str:
    """Render a value as the API server quotes it."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def translate_error(error: jsonschema_rs.ValidationError, wanted: Mapping[str, Any]) -> FieldError:
    """Translate one error of jsonschema-rs. ``wanted`` is the schema of the faulty value."""
    name = type(error.kind).__name__
    facts: dict[str, Any] = error.kind.as_dict()
    value: Any = error.instance
    path = render_path(error.instance_path)
    if name == "Required":
        return FieldError(render_path([*error.instance_path, facts["property"]]), "Required value")
    if name == "Type":
        return _type_error(path, value, wanted)
    if name == "Enum":
        supported = ", ".join(map(render_value, wanted.get("enum", facts["options"])))
        detail = f"{render_value(value)}: supported values: {supported}"
        return FieldError(path, "Unsupported value", detail)
    if name == "MaxLength":
        return FieldError(path, "Too long", f"may not be more than {facts['limit']} bytes")
    if name in ("MaxItems", "MaxProperties"):
        detail = f"{len(value)}: must have at most {facts['limit']} items"
        return FieldError(path, "Too many", detail)
    if name == "Format":
        detail = f"{render_value(value)}: {path} in body must be of type {facts['format']}: "
        return FieldError(path, "Invalid value", detail + render_value(value))
    shown = len(value) if isinstance(value, (list, dict)) else value
    return FieldError(
        path, "Invalid value", f"{render_value(shown)}: {path} in body {_sentence(name, facts)}"
    )


def _type_error(path: str, value: Any, wanted: Mapping[str, Any]) -> FieldError:
    expected = wanted.get("type", "string")
    found = type_name(value)
    if expected == "integer" and "format" in wanted and isinstance(value, float):
        expected, found = wanted["format"], "float64"
    detail = f'"{found}": {path} in body must be of type {expected}: "{found}"'
    return FieldError(path, "Invalid value", detail)


def _sentence(name: str, facts: Mapping[str, Any]) -> str:
    """Return what the value should be, for the simple assertions of JSON Schema."""
    limit = facts.get("limit")
    sentences = {
        "Pattern": f"should match '{facts.get('pattern')}'",
        "Minimum": f"should be greater than or equal to {limit}",
        "Maximum": f"should be less than or equal to {limit}",
        "ExclusiveMinimum": f"should be greater than {limit}",
        "ExclusiveMaximum": f"should be less than {limit}",
        "MultipleOf": f"should be a multiple of {facts.get('multiple_of')}",
        "MinLength": f"should be at least {limit} chars long",
        "MinItems": f"should have at least {limit} items",
        "MinProperties": f"should have at least {limit} properties",
        "UniqueItems": "shouldn't contain duplicates",
        "AnyOf": "must validate at least one schema (anyOf)",
        "OneOfNotValid": "must validate one and only one schema (oneOf). Found none valid",
        "OneOfMultipleValid": "must validate one and only one schema (oneOf)",
        "Not": "must not validate the schema (not)",
    }
    return sentences.get(name, "does not fit the schema")
