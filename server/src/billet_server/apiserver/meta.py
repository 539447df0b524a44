"""ObjectMeta: its fields, its rules, and what the server alone decides in it."""

import re
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from billet_server.apiserver.schema import FieldError
from billet_server.ports import NAMESPACE, Kind, Object

_FIELDS: Mapping[str, type] = {
    "name": str, "generateName": str, "namespace": str, "selfLink": str, "uid": str,
    "resourceVersion": str, "generation": int, "creationTimestamp": str,
    "deletionTimestamp": str, "deletionGracePeriodSeconds": int, "labels": dict,
    "annotations": dict, "ownerReferences": list, "finalizers": list, "managedFields": list,
}  # fmt: skip
_OWNER_FIELDS: Mapping[str, type] = {
    "apiVersion": str, "kind": str, "name": str, "uid": str, "controller": bool,
    "blockOwnerDeletion": bool,
}  # fmt: skip

_LABEL_PART = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_LABEL = re.compile(_LABEL_PART)
_SUBDOMAIN = re.compile(rf"{_LABEL_PART}(\.{_LABEL_PART})*")
_NAME_PART = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")

_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex "
    "used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_KEY_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used "
    "for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or "
    "'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)

MAX_ANNOTATIONS_BYTES = 256 * 1024
"""All annotations' keys and values together."""

_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


def generate_name(prefix: str) -> str:
    """Return a name from ``metadata.generateName``: the prefix (cut to fit) and five letters."""
    return prefix[:58] + "".join(secrets.choice(_SUFFIX_LETTERS) for _ in range(5))


class MetaParse(NamedTuple):
    """Metadata with only known fields, the paths of the others, and type errors."""

    meta: dict[str, Any]
    unknown: list[str]
    errors: list[FieldError]


def parse_meta(value: Any) -> MetaParse:
    """Sort a client's ``metadata``. Nulls count as absent; managedFields are dropped."""
    if not isinstance(value, dict):
        return MetaParse({}, [], [_mistyped("metadata", value, dict)])
    meta: dict[str, Any] = {}
    unknown: list[str] = []
    errors: list[FieldError] = []
    for key, entry in value.items():
        wanted = _FIELDS.get(key)
        if wanted is None:
            unknown.append(f"metadata.{key}")
        elif entry is None:
            continue
        elif not isinstance(entry, wanted):
            errors.append(_mistyped(f"metadata.{key}", entry, wanted))
        elif key not in ("managedFields", "selfLink") and (entry or key == "generation"):
            meta[key] = entry
    errors += _mistyped_parts(meta)
    for index, owner in enumerate(meta.get("ownerReferences", ())):
        if isinstance(owner, dict):
            unknown += [
                f"metadata.ownerReferences[{index}].{key}" for key in owner.keys() - _OWNER_FIELDS
            ]
    return MetaParse(meta, unknown, errors)


def _mistyped(path: str, value: Any, wanted: type) -> FieldError:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer"}
    have = names.get(type(value), "null" if value is None else "number")
    message = f'"{have}": {path} in body must be of type {names[wanted]}: "{have}"'
    return FieldError(path, "Invalid value", message)


def _mistyped_parts(meta: dict[str, Any]) -> list[FieldError]:
    errors = []
    for field in ("labels", "annotations"):
        errors += [
            _mistyped(f"metadata.{field}.{key}", value, str)
            for key, value in meta.get(field, {}).items()
            if not isinstance(value, str)
        ]
    errors += [
        _mistyped(f"metadata.finalizers[{index}]", value, str)
        for index, value in enumerate(meta.get("finalizers", ()))
        if not isinstance(value, str)
    ]
    for index, owner in enumerate(meta.get("ownerReferences", ())):
        path = f"metadata.ownerReferences[{index}]"
        if not isinstance(owner, dict):
            errors.append(_mistyped(path, owner, dict))
            continue
        errors += [
            _mistyped(f"{path}.{key}", owner[key], wanted)
            for key, wanted in _OWNER_FIELDS.items()
            if owner.get(key) is not None and not isinstance(owner[key], wanted)
        ]
    return errors


def validate_meta(kind: Kind, meta: Mapping[str, Any]) -> list[FieldError]:
    """Return what is wrong with metadata that `parse_meta` found well typed."""
    errors = _validate_name(kind, meta.get("name", ""))
    for key, value in meta.get("labels", {}).items():
        errors += _validate_qualified("metadata.labels", key)
        if len(value) > 63:
            errors.append(_invalid("metadata.labels", value, "must be no more than 63 bytes"))
        elif value and not _NAME_PART.fullmatch(value):
            errors.append(_invalid("metadata.labels", value, _VALUE_RULE))
    annotations = meta.get("annotations", {})
    for key in annotations:
        errors += _validate_qualified("metadata.annotations", key.lower(), shown=key)
    total = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if total > MAX_ANNOTATIONS_BYTES:
        text = f"may not be more than {MAX_ANNOTATIONS_BYTES} bytes"
        errors.append(FieldError("metadata.annotations", "Too long", text))
    for finalizer in meta.get("finalizers", ()):
        errors += _validate_qualified("metadata.finalizers", finalizer)
    for index, owner in enumerate(meta.get("ownerReferences", ())):
        errors += [
            FieldError(f"metadata.ownerReferences[{index}].{key}", "Required value", "")
            for key in ("apiVersion", "kind", "name", "uid")
            if not owner.get(key)
        ]
    if sum(1 for owner in meta.get("ownerReferences", ()) if owner.get("controller")) > 1:
        text = "Only one reference can have Controller set to true"
        errors.append(FieldError("metadata.ownerReferences", "Invalid value", text))
    return errors


def _validate_name(kind: Kind, name: str) -> list[FieldError]:
    if not name:
        return [FieldError("metadata.name", "Required value", "name or generateName is required")]
    if kind == NAMESPACE:
        pattern, rule, limit = _LABEL, _LABEL_RULE, 63
    else:
        pattern, rule, limit = _SUBDOMAIN, _SUBDOMAIN_RULE, 253
    errors = []
    if len(name) > limit:
        errors.append(_invalid("metadata.name", name, f"must be no more than {limit} bytes"))
    if not pattern.fullmatch(name):
        errors.append(_invalid("metadata.name", name, rule))
    return errors


def _validate_qualified(path: str, key: str, shown: str = "") -> list[FieldError]:
    prefix, slash, name = key.rpartition("/")
    if slash and not (_SUBDOMAIN.fullmatch(prefix) and len(prefix) <= 253):
        return [_invalid(path, shown or key, f"prefix part {_SUBDOMAIN_RULE}")]
    if len(name) > 63:
        return [_invalid(path, shown or key, "name part must be no more than 63 bytes")]
    return [] if _NAME_PART.fullmatch(name) else [_invalid(path, shown or key, _KEY_RULE)]


def _invalid(path: str, value: str, rule: str) -> FieldError:
    return FieldError(path, "Invalid value", f'"{value}": {rule}')


def owner_uids(obj: Object) -> list[str]:
    """Return the uids of an object's owners."""
    return [owner["uid"] for owner in obj["metadata"].get("ownerReferences", ())]


def is_deleting(obj: Object) -> bool:
    """Whether the object only waits for its finalizers."""
    return "deletionTimestamp" in obj["metadata"]
