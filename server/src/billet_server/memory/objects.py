"""What a Kubernetes API server does to an object on its way into the store. Pure.

Follows the documented API conventions (metadata, generation, status subresource, finalizers);
used by `billet_server.memory.kube` only.
"""

import secrets
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from billet_server import errors
from billet_server.ports import (
    BARE_METAL_HOST,
    CRD,
    LEASE,
    MACHINE,
    NAMESPACE,
    SECRET,
    Kind,
    Object,
)

_FIXED = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp")
_SERVERS = ("generation", "resourceVersion", "deletionGracePeriodSeconds")
WITH_STATUS = frozenset({BARE_METAL_HOST, CRD, MACHINE})
"""Kinds whose status is a subresource."""


def resource_name(kind: Kind) -> str:
    """Return ``plural.group``, or the plural alone for the core group."""
    return f"{kind.plural}.{kind.group}" if kind.group else kind.plural


def merge_patch(target: Any, patch: Any) -> Any:
    """Return ``target`` with an RFC 7386 merge patch applied; neither is changed."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def matches(obj: Object, labels: Mapping[str, str]) -> bool:
    """Whether the object has all of these labels."""
    own = obj["metadata"].get("labels") or {}
    return all(own.get(name) == value for name, value in labels.items())


def is_custom(kind: Kind) -> bool:
    """Whether a CustomResourceDefinition serves the kind."""
    return "." in kind.group and kind.group not in (LEASE.group, CRD.group)


def has_generation(kind: Kind) -> bool:
    """Whether objects of the kind count changes of what is wanted."""
    return is_custom(kind) or kind == CRD


def wanted_part(obj: Object, *, status_apart: bool) -> Object:
    """Return the part of the object whose change raises ``metadata.generation``."""
    left_out = {"metadata", "status"} if status_apart else {"metadata"}
    return {name: value for name, value in obj.items() if name not in left_out}


def first_state(kind: Kind, obj: Object, status_apart: bool) -> Object:
    """Return what is stored of a new object, but for uid, version and time.

    Raises Invalid for another kind, a missing name, or a resourceVersion.
    """
    check_type(kind, obj)
    metadata = dict(obj.get("metadata") or {})
    if metadata.get("resourceVersion"):
        message = "metadata.resourceVersion must not be set on an object to be created"
        raise errors.Invalid(f"{describe(kind, obj)}: {message}", 400, "BadRequest")
    for name in ("uid", "creationTimestamp", "deletionTimestamp", *_SERVERS):
        metadata.pop(name, None)
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = f"{metadata['generateName']}{secrets.token_hex(3)}"
    if not metadata.get("name"):
        message = "metadata.name: a name or generateName is required"
        raise errors.Invalid(f"{resource_name(kind)}: {message}", 422, "Invalid")
    if kind.namespaced:
        metadata.setdefault("namespace", "default")
    else:
        metadata.pop("namespace", None)
    if has_generation(kind):
        metadata["generation"] = 1
    result = {
        **obj,
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": without_empty(metadata),
    }
    if status_apart:
        result.pop("status", None)
    if kind == NAMESPACE:
        result["status"] = {"phase": "Active"}
    if kind == CRD:
        conditions = [{"type": name, "status": "True"} for name in ("NamesAccepted", "Established")]
        result["status"] = {"conditions": conditions}
    return with_defaults(kind, result)


def without_empty(metadata: Object) -> Object:
    """Return metadata without its empty maps and lists, as the API server keeps it."""
    return {name: value for name, value in metadata.items() if value not in ({}, [], None)}


def check_type(kind: Kind, obj: Object) -> None:
    """Raise Invalid unless apiVersion and kind are right or left out."""
    own = (obj.get("apiVersion", kind.api_version), obj.get("kind", kind.kind))
    if own != (kind.api_version, kind.kind):
        message = f"{describe(kind, obj)}: the object says it is {own[0]} {own[1]}"
        raise errors.Invalid(message, 400, "BadRequest")


def check_identity(kind: Kind, old: Object, new: Object) -> None:
    """Raise Invalid for another type, name or namespace."""
    check_type(kind, new)
    metadata, before = new.get("metadata") or {}, old["metadata"]
    for name in ("name", "namespace"):
        if metadata.get(name) not in (None, before.get(name)):
            message = f"{describe(kind, old)}: metadata.{name} cannot change"
            raise errors.Invalid(message, 400, "BadRequest")


def check_version(kind: Kind, old: Object, new: Object) -> None:
    """Raise Conflict for an old resourceVersion, Invalid where one is needed and missing."""
    version, current = new["metadata"].get("resourceVersion"), old["metadata"]["resourceVersion"]
    if is_custom(kind) and not version:
        message = "metadata.resourceVersion: must be specified for an update"
        raise errors.Invalid(f"{describe(kind, old)}: {message}", 422, "Invalid")
    if version and version != current:
        message = f"{describe(kind, old)} has been modified: version {version} is not the latest"
        raise errors.Conflict(message, 409, "Conflict")


def defined_kinds(crd: Object) -> list[tuple[Kind, bool]]:
    """Return the kinds that a CustomResourceDefinition serves, and whether status is apart."""
    spec = crd["spec"]
    return [
        (
            Kind(
                spec["group"],
                version["name"],
                spec["names"]["kind"],
                spec["names"]["plural"],
                spec["scope"] == "Namespaced",
            ),
            "status" in version.get("subresources", {}),
        )
        for version in spec["versions"]
        if version.get("served", True)
    ]


def next_state(kind: Kind, old: Object, new: Object, *, status_apart: bool = False) -> Object:
    """Return what is stored when ``new`` is written over ``old`` through the main resource.

    Raises Invalid for another uid, and for finalizers added to a dying object.
    """
    metadata = dict(new.get("metadata") or {})
    before = old["metadata"]
    if metadata.get("uid", before["uid"]) != before["uid"]:
        message = f"{describe(kind, old)}: metadata.uid: field is immutable"
        raise errors.Invalid(message, 422, "Invalid")
    for name in (*_FIXED, *_SERVERS):
        metadata.pop(name, None)
        if name in before:
            metadata[name] = before[name]
    metadata = without_empty(metadata)
    added = set(metadata.get("finalizers") or ()) - set(before.get("finalizers") or ())
    if added and "deletionTimestamp" in before:
        raise errors.Invalid(
            f"{describe(kind, old)}: metadata.finalizers: no new finalizers can be added while "
            f"the object is being deleted ({', '.join(sorted(added))})",
            422,
            "Invalid",
        )
    result = {**new, "apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
    if status_apart:
        result.pop("status", None)
        if "status" in old:
            result["status"] = old["status"]
    changed = wanted_part(old, status_apart=status_apart) != wanted_part(
        result, status_apart=status_apart
    )
    if changed and has_generation(kind):
        metadata["generation"] = before["generation"] + 1
    return with_defaults(kind, result)


def next_status(old: Object, new: Object) -> Object:
    """Return what is stored when ``new`` is written to the status subresource: its status."""
    result = {name: value for name, value in old.items() if name != "status"}
    if "status" in new:
        result["status"] = new["status"]
    return result


def with_defaults(kind: Kind, obj: Object) -> Object:
    """Return the object with what the API server adds to built-in kinds."""
    if kind != SECRET:
        return obj
    texts = obj.get("stringData") or {}
    data = {**(obj.get("data") or {})}
    data.update({name: b64encode(text.encode()).decode() for name, text in texts.items()})
    result = {name: value for name, value in obj.items() if name != "stringData"}
    result.setdefault("type", "Opaque")
    if data:
        result["data"] = data
    return result


def describe(kind: Kind, obj: Object) -> str:
    """Return an object's name for messages."""
    metadata = obj.get("metadata") or {}
    return place(kind, metadata.get("namespace", ""), metadata.get("name", "?"))


def place(kind: Kind, namespace: str, name: str) -> str:
    """Return ``plural.group "namespace/name"`` for messages."""
    path = f"{namespace}/{name}" if namespace else name
    return f'{resource_name(kind)} "{path}"'
