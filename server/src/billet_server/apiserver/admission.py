"""What a client's object becomes before it is stored: pure, one pass per write.

Order as in Kubernetes: decode (strictly, if asked), prune, default, the server's own metadata,
validation by schema, by kind, and by the product's own validators.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from billet_server.apiserver.failure import (
    bad_request,
    conflict,
    invalid,
    resource_name,
    strict_decoding,
)
from billet_server.apiserver.meta import generate_name, is_deleting, parse_meta, validate_meta
from billet_server.apiserver.registry import Resource
from billet_server.apiserver.rules import RULES, UNCONDITIONAL, Rules
from billet_server.apiserver.schema import FieldError
from billet_server.ports import CRD, Kind, Object

Validator = Callable[[Object, Object | None], list[FieldError]]
"""Gets the new object and the old one (None: create); returns what is wrong."""

Adviser = Callable[[Object, Object | None], list[str]]
"""Gets the same; returns warnings for the client."""

Validation = Literal["Strict", "Warn", "Ignore"]
Subresource = Literal["", "status"]

_NO_RULES = Rules()
_SYSTEM = ("uid", "creationTimestamp", "generation", "deletionTimestamp",
           "deletionGracePeriodSeconds")  # fmt: skip


class Admitted(NamedTuple):
    """An object ready to store, and warnings for the client."""

    obj: Object
    warnings: list[str]


def render_time(moment: datetime) -> str:
    """Return a Kubernetes timestamp: RFC 3339, UTC, seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def check_identity(resource: Resource, obj: Object, namespace: str, name: str) -> Object:
    """Return the object with the URL's namespace. Raises a 400 where body and URL differ."""
    kind = resource.kind
    if not resource.custom:
        obj = {"apiVersion": kind.api_version, "kind": kind.kind, **obj}
    for field, wanted in (("apiVersion", kind.api_version), ("kind", kind.kind)):
        if not obj.get(field):
            shown = field[0].upper() + field[1:]
            raise bad_request(f"Object '{shown}' is missing: the body needs {field} {wanted!r}")
    if obj["apiVersion"] != kind.api_version:
        raise bad_request(
            f"the API version in the data ({obj['apiVersion']}) does not match the expected "
            f"API version ({kind.api_version})"
        )
    if obj["kind"] != kind.kind:
        raise bad_request(
            f'{obj["kind"]} in version "{kind.version}" cannot be handled as a {kind.kind}: '
            f"the path is that of {kind.plural}"
        )
    meta = obj.get("metadata")
    meta = {} if meta is None else meta
    if not isinstance(meta, dict):
        raise bad_request("metadata must be an object")
    if name and not meta.get("name"):
        raise bad_request(
            f"the name of the object ({name} based on URL) was undeterminable: "
            "name must be provided"
        )
    if name and meta["name"] != name:
        raise bad_request(
            f"the name of the object ({meta['name']}) does not match the name on the URL ({name})"
        )
    if meta.get("namespace") not in (None, "", namespace):
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    kept = {key: value for key, value in meta.items() if key != "namespace"}
    if kind.namespaced:
        kept["namespace"] = namespace
    return {**obj, "metadata": kept}


def admit_create(
    resource: Resource,
    obj: Object,
    now: datetime,
    *,
    validation: Validation = "Strict",
    repeated: Sequence[str] = (),
    validators: Mapping[Kind, Validator],
) -> Admitted:
    """Return a new object as it will be stored. Raises 400 and 422."""
    obj, warnings = _decode(resource, obj, validation, repeated)
    meta = obj["metadata"]
    if meta.get("resourceVersion"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    name = meta.get("name") or (
        generate_name(meta["generateName"]) if meta.get("generateName") else ""
    )
    kept = {key: value for key, value in meta.items() if key not in _SYSTEM}
    meta = {**kept, "name": name, "uid": str(uuid.uuid4()), "creationTimestamp": render_time(now)}
    if resource.has_generation:
        meta["generation"] = 1
    obj = {**obj, "metadata": meta}
    if resource.definition.has_status or resource.kind == CRD:
        obj.pop("status", None)
    return Admitted(_validate(resource, obj, None, validators), warnings)


def admit_update(
    resource: Resource,
    obj: Object,
    old: Object,
    *,
    subresource: Subresource = "",
    validation: Validation = "Strict",
    repeated: Sequence[str] = (),
    validators: Mapping[Kind, Validator],
) -> Admitted:
    """Return the object as it will replace ``old``. Raises 400, 409 and 422."""
    _check_version(resource, obj, old)
    obj, warnings = _decode(resource, obj, validation, repeated)
    meta, old_meta = obj["metadata"], old["metadata"]
    if subresource == "status":
        return Admitted(_with_status(resource, obj, old, validators), warnings)
    _check_immutable(resource, meta, old)
    kept = {key: value for key, value in meta.items() if key not in _SYSTEM}
    system = {key: old_meta[key] for key in _SYSTEM if key in old_meta}
    meta = {**kept, **system, "resourceVersion": old_meta["resourceVersion"]}
    obj = {**obj, "metadata": meta}
    if resource.definition.has_status or resource.kind == CRD:
        obj.pop("status", None)
        if "status" in old:
            obj["status"] = old["status"]
    _check_finalizers(resource, obj, old)
    obj = _validate(resource, obj, old, validators)
    if resource.has_generation and _content(obj) != _content(old):
        meta = {**obj["metadata"], "generation": old_meta.get("generation", 0) + 1}
        obj = {**obj, "metadata": meta}
    return Admitted(obj, warnings)


def _with_status(
    resource: Resource, obj: Object, old: Object, validators: Mapping[Kind, Validator]
) -> Object:
    rest = {key: value for key, value in old.items() if key != "status"}
    obj = {**rest, **({"status": obj["status"]} if "status" in obj else {})}
    return _validate(resource, obj, old, validators)


def _content(obj: Object) -> Object:
    """Everything that counts for the generation."""
    return {key: value for key, value in obj.items() if key not in ("metadata", "status")}


def _check_version(resource: Resource, obj: Object, old: Object) -> None:
    version, current = obj["metadata"].get("resourceVersion"), old["metadata"]["resourceVersion"]
    name = old["metadata"]["name"]
    if not version:
        if resource.kind in UNCONDITIONAL:
            return
        text = "0: must be specified for an update"
        error = FieldError("metadata.resourceVersion", "Invalid value", text)
        raise invalid(resource.kind._replace(group="", kind=resource.kind.plural), name, [error])
    if version != current:
        raise conflict(resource_name(resource.kind), name)


def _check_immutable(resource: Resource, meta: Object, old: Object) -> None:
    """Refuse a changed uid and a deletion that does not come by DELETE; other stamps stay."""
    fields = ("uid",) if is_deleting(old) else ("uid", "deletionTimestamp")
    errors = [
        FieldError(f"metadata.{field}", "Invalid value", f'"{meta[field]}": field is immutable')
        for field in fields
        if meta.get(field) not in (None, "", old["metadata"].get(field))
    ]
    if errors:
        raise invalid(resource.kind, old["metadata"]["name"], errors)


def _check_finalizers(resource: Resource, obj: Object, old: Object) -> None:
    if not is_deleting(old):
        return
    had = old["metadata"].get("finalizers", ())
    added = [entry for entry in obj["metadata"].get("finalizers", ()) if entry not in had]
    if added:
        listed = ", ".join(f'"{entry}"' for entry in added)
        text = (
            "no new finalizers can be added if the object is being deleted, "
            f"found new finalizers []string{{{listed}}}"
        )
        error = FieldError("metadata.finalizers", "Forbidden", text)
        raise invalid(resource.kind, old["metadata"]["name"], [error])


def _decode(
    resource: Resource, obj: Object, validation: Validation, repeated: Sequence[str]
) -> Admitted:
    """Prune unknown fields, or refuse them, and fill in defaults."""
    parsed = parse_meta(obj.get("metadata", {}))
    name = obj["metadata"].get("name") or ""
    if parsed.errors:
        raise invalid(resource.kind, str(name), parsed.errors)
    if fault := RULES.get(resource.kind, _NO_RULES).decode(obj):
        kind = resource.kind
        raise bad_request(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {fault}'
        )
    unknown = list(parsed.unknown)
    bare = {**obj, "metadata": parsed.meta}
    if resource.schema is not None:
        bare, pruned = resource.schema.prune(bare)
        unknown += pruned
        bare = resource.schema.default(bare)
    faults = [*repeated, *(f'unknown field "{path}"' for path in unknown)]
    if faults and validation == "Strict":
        raise strict_decoding(resource.kind, faults)
    warnings = faults if validation == "Warn" else []
    # The schema says nothing about metadata; what it made of it does not count.
    return Admitted({**bare, "metadata": parsed.meta}, warnings)


def _validate(
    resource: Resource, obj: Object, old: Object | None, validators: Mapping[Kind, Validator]
) -> Object:
    """Return the object with its kind's defaults, or raise a 422 with all that is wrong."""
    name = obj["metadata"].get("name", "")
    errors: Sequence[FieldError] = validate_meta(resource.kind, obj["metadata"])
    if resource.schema is not None:
        errors = [*errors, *resource.schema.validate(obj, old)]
    if errors:
        raise invalid(resource.kind, name, errors)
    # From here on the types are those of the schema.
    rules = RULES.get(resource.kind, _NO_RULES)
    obj = rules.prepare(obj)
    errors = rules.validate(obj, old)
    if not errors and resource.kind in validators:
        errors = validators[resource.kind](obj, old)
    if errors:
        raise invalid(resource.kind, name, errors)
    return obj
