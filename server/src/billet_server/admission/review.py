"""One AdmissionReview (``admission.k8s.io/v1``) and its answer: pure.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from billet_server.core.validate import Fault, host_warnings, validate_host
from billet_server.ports import BARE_METAL_HOST

API_VERSION = "admission.k8s.io/v1"

_CHECKED = ("CREATE", "UPDATE")
_CAUSES = {
    "Required value": "FieldValueRequired",
    "Invalid value": "FieldValueInvalid",
    "Unsupported value": "FieldValueNotSupported",
    "Duplicate value": "FieldValueDuplicate",
    "Forbidden": "FieldValueForbidden",
}
_MOST_WARNING_CHARS = 250  # Kubernetes cuts longer ones, and may drop all above 4,096 together


class BadReviewError(Exception):
    """The request is no AdmissionReview that could be answered; the text says why."""


class Answer(NamedTuple):
    """What to send, and for the log what was asked and refused."""

    body: bytes
    what: str
    refusal: str = ""


def answer_review(body: bytes) -> Answer:
    """Return the answer to an AdmissionReview in JSON. Raises BadReviewError."""
    request = _request(body)
    host, old = request.get("object"), request.get("oldObject")
    operation = request.get("operation")
    what = f"{operation} {request.get('namespace', '')}/{request.get('name', '')}"
    if unchecked := _why_unchecked(request):
        return Answer(_render(request, [], [unchecked]), what)
    if operation not in _CHECKED or request.get("subResource"):
        return Answer(_render(request, [], []), what)
    if not isinstance(host, dict):
        raise BadReviewError(f"request.object must be the object of the {operation}")
    if operation == "UPDATE" and not isinstance(old, dict):
        raise BadReviewError("request.oldObject must be the object before the UPDATE")
    host = _with_identity(host, request)
    old = _with_identity(old, request) if operation == "UPDATE" and isinstance(old, dict) else None
    faults = validate_host(host, old)
    rendered = _render(request, faults, host_warnings(host, old))
    return Answer(rendered, what, "; ".join(map(_line, faults)))


def _request(body: bytes) -> dict[str, Any]:
    try:
        review = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadReviewError(f"the body is not JSON: {error}") from error
    if not isinstance(review, dict) or review.get("kind") != "AdmissionReview":
        raise BadReviewError("the body must be an AdmissionReview")
    if review.get("apiVersion") != API_VERSION:
        version = str(review.get("apiVersion"))[:60]
        raise BadReviewError(
            f"AdmissionReview of apiVersion {version!r}: only {API_VERSION} is answered; "
            "list it in the webhook's admissionReviewVersions"
        )
    request = review.get("request")
    if not isinstance(request, dict):
        raise BadReviewError("the AdmissionReview has no request")
    if not isinstance(request.get("uid"), str) or not request["uid"]:
        raise BadReviewError("request.uid must be a text: the answer has to repeat it")
    return request


def _why_unchecked(request: Mapping[str, Any]) -> str:
    """Say so where the cluster asks about a kind that nothing is known of here."""
    kind = request.get("kind")
    found = kind if isinstance(kind, dict) else {}
    asked = (found.get("group"), found.get("version"), found.get("kind"))
    if asked == (BARE_METAL_HOST.group, BARE_METAL_HOST.version, BARE_METAL_HOST.kind):
        return ""
    shown = "/".join(str(part)[:60] for part in asked)
    known = f"{BARE_METAL_HOST.api_version} BareMetalHost"
    return f"Billet's webhook checks {known} only, and let {shown} pass unseen"


def _with_identity(host: dict[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object with the request's namespace, which the object itself may leave out."""
    meta = host.get("metadata")
    if not isinstance(meta, dict) or meta.get("namespace"):
        return host
    return {**host, "metadata": {**meta, "namespace": request.get("namespace") or ""}}


def _render(request: Mapping[str, Any], faults: Sequence[Fault], warnings: Sequence[str]) -> bytes:
    response: dict[str, Any] = {"uid": request["uid"], "allowed": not faults}
    if faults:
        response["status"] = _status(str(request.get("name") or ""), faults)
    if warnings:
        response["warnings"] = [text[:_MOST_WARNING_CHARS] for text in warnings]
    return msgspec.json.encode(
        {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}
    )


def _status(name: str, faults: Sequence[Fault]) -> dict[str, Any]:
    """Return the Status of a refusal, as the embedded API would give it."""
    lines = [_line(fault) for fault in faults]
    shown = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    causes = [
        {
            "reason": _CAUSES[fault.type],
            "message": f"{fault.type}: {fault.message}",
            "field": fault.path,
        }
        for fault in faults
    ]
    kind, group = BARE_METAL_HOST.kind, BARE_METAL_HOST.group
    return {
        "status": "Failure",
        "code": 422,
        "reason": "Invalid",
        "message": f'{kind}.{group} "{name}" is invalid: {shown}',
        "details": {"name": name, "group": group, "kind": kind, "causes": causes},
    }


def _line(fault: Fault) -> str:
    return ": ".join(fault)
