"""Refusals with Kubernetes' status codes, reasons and wording.

Clients match on these: kubectl on reason and message, client libraries on code and reason.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from billet_server.apiserver.schema import FieldError
from billet_server.errors import ApiError
from billet_server.ports import Kind

_CAUSES = {
    "Required value": "FieldValueRequired",
    "Invalid value": "FieldValueInvalid",
    "Unsupported value": "FieldValueNotSupported",
    "Duplicate value": "FieldValueDuplicate",
    "Not found": "FieldValueNotFound",
    "Forbidden": "FieldValueForbidden",
    "Too long": "FieldValueTooLong",
    "Too many": "FieldValueTooMany",
}


class ResourceName(NamedTuple):
    """A resource as messages name it: ``secrets``, ``baremetalhosts.metal3.io``."""

    group: str
    plural: str

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


def resource_name(kind: Kind) -> ResourceName:
    """Return the resource of a kind."""
    return ResourceName(kind.group, kind.plural)


class Failure(ApiError):
    """A refusal that becomes a Status object."""

    def __init__(
        self, status: int, reason: str, message: str, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message, status, reason)
        self.details = details


def render_status(error: ApiError) -> dict[str, Any]:
    """Return the Status object (meta/v1) of a refusal."""
    status: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": str(error),
        "reason": error.reason,
        "code": error.status,
    }
    details = error.details if isinstance(error, Failure) else None
    if details is not None:
        status["details"] = details
    return status


def _details(resource: ResourceName, name: str) -> dict[str, Any]:
    details = {"name": name, "group": resource.group, "kind": resource.plural}
    return {key: value for key, value in details.items() if value}


def not_found(resource: ResourceName, name: str) -> Failure:
    """404 for an object."""
    return Failure(404, "NotFound", f'{resource} "{name}" not found', _details(resource, name))


def no_such_path() -> Failure:
    """404 for a path that nothing is served under."""
    message = "the server could not find the requested resource"
    return Failure(404, "NotFound", message, {})


def method_not_allowed() -> Failure:
    """405."""
    message = "the server does not allow this method on the requested resource"
    return Failure(405, "MethodNotAllowed", message, {})


def already_exists(resource: ResourceName, name: str) -> Failure:
    """409 for a create."""
    message = f'{resource} "{name}" already exists'
    return Failure(409, "AlreadyExists", message, _details(resource, name))


def conflict(resource: ResourceName, name: str, why: str = "") -> Failure:
    """409 for a write to a version that is no longer current."""
    why = why or (
        "the object has been modified; please apply your changes to the latest version "
        "and try again"
    )
    message = f'Operation cannot be fulfilled on {resource} "{name}": {why}'
    return Failure(409, "Conflict", message, _details(resource, name))


def precondition(resource: ResourceName, name: str, field: str, wanted: str, have: str) -> Failure:
    """409 for a precondition (``field`` is UID or ResourceVersion) that does not hold."""
    why = f"Precondition failed: {field} in precondition: {wanted}, {field} in object meta: {have}"
    return conflict(resource, name, why)


def forbidden(resource: ResourceName, name: str, why: str) -> Failure:
    """403."""
    message = f'{resource} "{name}" is forbidden: {why}'
    return Failure(403, "Forbidden", message, _details(resource, name))


def bad_request(message: str) -> Failure:
    """400."""
    return Failure(400, "BadRequest", message)


def expired(message: str) -> Failure:
    """410: list again."""
    return Failure(410, "Expired", message)


def too_large(limit_bytes: int) -> Failure:
    """413."""
    message = f"Request entity too large: limit is {limit_bytes}"
    return Failure(413, "RequestEntityTooLarge", message, {})


def unauthorized() -> Failure:
    """401."""
    return Failure(401, "Unauthorized", "Unauthorized")


def unsupported_media(message: str) -> Failure:
    """415."""
    return Failure(415, "UnsupportedMediaType", message, {})


def not_acceptable(accepted: Sequence[str]) -> Failure:
    """406."""
    message = f"only the following media types are accepted: {', '.join(accepted)}"
    return Failure(406, "NotAcceptable", message, {})


def invalid(kind: Kind, name: str, errors: Sequence[FieldError]) -> Failure:
    """422 with all field errors."""
    resource = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    texts = list(dict.fromkeys(str(error) for error in errors))
    shown = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    causes = [
        {
            "reason": _CAUSES.get(error.type, "FieldValueInvalid"),
            "message": f"{error.type}: {error.message}" if error.message else error.type,
            "field": error.path,
        }
        for error in errors
    ]
    details = {"name": name, "group": kind.group, "kind": kind.kind, "causes": causes}
    details = {key: value for key, value in details.items() if value}
    return Failure(422, "Invalid", f'{resource} "{name}" is invalid: {shown}', details)


def strict_decoding(kind: Kind, faults: Sequence[str]) -> Failure:
    """400 for fields that are unknown or repeated, with fieldValidation=Strict."""
    listed = ", ".join(faults)
    return bad_request(
        f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
        f"strict decoding error: {listed}"
    )
