"""What Kubernetes does with its built-in kinds beyond their schemas: defaults and rules."""

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from billet_server.apiserver.schema import FieldError
from billet_server.ports import CONFIG_MAP, CRD, EVENT, LEASE, NAMESPACE, SECRET, Kind, Object

MAX_DATA_BYTES = 1024 * 1024
"""All values of a Secret or ConfigMap together."""

_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_DATA_KEY_RULE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. "
    "'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)


class Rules(NamedTuple):
    """What a kind adds to its schema.

    ``decode`` says what cannot even be read ("" is nothing), ``prepare`` returns the object with
    defaults, ``validate`` gets that and the old one.
    """

    decode: Callable[[Object], str] = lambda _: ""
    prepare: Callable[[Object], Object] = lambda obj: obj
    validate: Callable[[Object, Object | None], list[FieldError]] = lambda _new, _old: []


def _decode_secret(obj: Object) -> str:
    """Check the encoding here, because the schema's message would quote the value."""
    data = obj.get("data") or {}
    if not isinstance(data, dict):
        return "data must be a map of keys to base64 text"
    for key, value in data.items():
        if value is not None and not isinstance(value, str):
            return f"data[{key}] must be base64 text"
        try:
            base64.b64decode(value or "", validate=True)
        except ValueError:
            return f"illegal base64 data in data[{key}]"
    plain = obj.get("stringData") or {}
    if not isinstance(plain, dict):
        return "stringData must be a map of keys to text"
    wrong = [key for key, value in plain.items() if not isinstance(value, str)]
    return f"stringData[{wrong[0]}] must be text" if wrong else ""


def _prepare_secret(obj: Object) -> Object:
    plain = obj.get("stringData") or {}
    data = {key: value or "" for key, value in (obj.get("data") or {}).items()}
    data |= {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
    rest = {key: value for key, value in obj.items() if key not in ("stringData", "data")}
    return {**rest, **({"data": data} if data else {}), "type": obj.get("type") or "Opaque"}


def _validate_secret(new: Object, old: Object | None) -> list[FieldError]:
    errors, total = [], 0
    for key, value in new.get("data", {}).items():
        errors += _validate_data_key("data", key)
        total += len(base64.b64decode(value))
    if total > MAX_DATA_BYTES:
        errors.append(
            FieldError("data", "Too long", f"may not be more than {MAX_DATA_BYTES} bytes")
        )
    if old is not None and old.get("type") != new.get("type"):
        text = f"{_quoted(new.get('type'))}: field is immutable"
        errors.append(FieldError("type", "Invalid value", text))
    return errors + _validate_immutable(new, old, ("data",))


def _validate_config_map(new: Object, old: Object | None) -> list[FieldError]:
    errors, total = [], 0
    data, binary = new.get("data") or {}, new.get("binaryData") or {}
    for field, values in (("data", data), ("binaryData", binary)):
        for key, value in values.items():
            errors += _validate_data_key(field, key)
            total += len(value) if isinstance(value, str) else 0
    errors += [
        FieldError(f"data[{key}]", "Invalid value", f'"{key}": duplicate of key in binaryData')
        for key in data.keys() & binary.keys()
    ]
    if total > MAX_DATA_BYTES:
        errors.append(FieldError("", "Too long", f"may not be more than {MAX_DATA_BYTES} bytes"))
    return errors + _validate_immutable(new, old, ("data", "binaryData"))


def _validate_data_key(field: str, key: str) -> list[FieldError]:
    path = f"{field}[{key}]"
    if len(key) > 253:
        return [FieldError(path, "Invalid value", f'"{key}": must be no more than 253 characters')]
    if not _DATA_KEY.fullmatch(key):
        return [FieldError(path, "Invalid value", f'"{key}": {_DATA_KEY_RULE}')]
    if key in (".", "..") or key.startswith(".."):
        return [FieldError(path, "Invalid value", f"\"{key}\": must not start with '..'")]
    return []


def _validate_immutable(
    new: Object, old: Object | None, fields: tuple[str, ...]
) -> list[FieldError]:
    if old is None or not old.get("immutable"):
        return []
    text = "field is immutable when `immutable` is set"
    changed = [field for field in fields if new.get(field) != old.get(field)]
    if not new.get("immutable"):
        changed.append("immutable")
    return [FieldError(field, "Forbidden", text) for field in changed]


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _prepare_namespace(obj: Object) -> Object:
    meta = obj["metadata"]
    labels = {**meta.get("labels", {}), "kubernetes.io/metadata.name": meta.get("name", "")}
    phase = "Terminating" if "deletionTimestamp" in meta else "Active"
    spec = obj.get("spec") or {"finalizers": ["kubernetes"]}
    status = {**obj.get("status", {}), "phase": phase}
    return {**obj, "metadata": {**meta, "labels": labels}, "spec": spec, "status": status}


def _validate_event(new: Object, _old: Object | None) -> list[FieldError]:
    involved = new.get("involvedObject")
    if not isinstance(involved, dict):
        return [FieldError("involvedObject", "Required value", "")]
    errors = []
    namespace = involved.get("namespace") or ""
    if namespace and namespace != new["metadata"].get("namespace"):
        text = f'"{namespace}": does not match event.namespace'
        errors.append(FieldError("involvedObject.namespace", "Invalid value", text))
    return errors + [
        FieldError(field, "Invalid value", "must be a string")
        for field in ("reason", "message", "type")
        if not isinstance(new.get(field, ""), str)
    ]


def _prepare_crd(obj: Object) -> Object:
    spec = obj.get("spec")
    if not isinstance(spec, dict) or not isinstance(spec.get("names"), dict):
        return obj
    names = spec["names"]
    kind = str(names.get("kind", ""))
    defaults = {"singular": kind.lower(), "listKind": f"{kind}List"}
    spec = {"conversion": {"strategy": "None"}, **spec, "names": {**defaults, **names}}
    return {**obj, "spec": spec}


def _validate_crd(new: Object, old: Object | None) -> list[FieldError]:
    spec = new.get("spec")
    names = spec.get("names") if isinstance(spec, dict) else None
    if not isinstance(spec, dict) or not isinstance(names, dict):
        return [FieldError("spec.names", "Required value", "")]
    wanted = f"{names.get('plural', '')}.{spec.get('group', '')}"
    errors = []
    if new["metadata"].get("name") != wanted:
        text = f'"{new["metadata"].get("name")}": must be spec.names.plural+"."+spec.group'
        errors.append(FieldError("metadata.name", "Invalid value", text))
    if old is not None:
        errors += [
            FieldError(f"spec.{field}", "Invalid value", f'"{spec.get(field)}": field is immutable')
            for field in ("group", "scope")
            if spec.get(field) != old["spec"].get(field)
        ]
    return errors


def _validate_lease(new: Object, _old: Object | None) -> list[FieldError]:
    spec = new.get("spec") or {}
    errors = []
    for field, least in (("leaseDurationSeconds", 1), ("leaseTransitions", 0)):
        value = spec.get(field)
        if isinstance(value, int) and value < least:
            bound = "greater than 0" if least else "greater than or equal to 0"
            text = f"{value}: must be {bound}"
            errors.append(FieldError(f"spec.{field}", "Invalid value", text))
    return errors


RULES: Mapping[Kind, Rules] = {
    SECRET: Rules(_decode_secret, _prepare_secret, _validate_secret),
    CONFIG_MAP: Rules(validate=_validate_config_map),
    NAMESPACE: Rules(prepare=_prepare_namespace),
    EVENT: Rules(validate=_validate_event),
    CRD: Rules(prepare=_prepare_crd, validate=_validate_crd),
    LEASE: Rules(validate=_validate_lease),
}

CREATE_ON_UPDATE = frozenset({EVENT, LEASE})
"""Kinds that a PUT creates when they do not exist."""

UNCONDITIONAL = frozenset({SECRET, CONFIG_MAP, NAMESPACE, EVENT})
"""Kinds that a PUT without resourceVersion overwrites."""
