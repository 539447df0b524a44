"""The annotations that drive a host: their values are an interface like any field.

A value that is refused here would otherwise be found out by nobody: there is no status to show
it in. What the old object had already is not refused again, so an annotation can be taken off.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from billet_server.core.annotations import (
    BOOT,
    DETACHED,
    HARDWARE_DETAILS,
    IMAGE_MIRRORS,
    IMAGE_RATE_LIMIT,
    INSPECT,
    PROTECT_DATA,
    REBOOT,
    STATUS,
)
from billet_server.core.bootway import parse_boot
from billet_server.core.download import parse_mirrors, parse_rate
from billet_server.core.hardwaredetails import parse_details, without_nulls
from billet_server.core.host import Status
from billet_server.core.protection import parse_protection
from billet_server.core.states import is_known
from billet_server.core.validation.addresses import inspection_is_off
from billet_server.core.validation.faults import (
    FORBIDDEN,
    INVALID,
    UNSUPPORTED,
    Fault,
    Json,
    annotations_of,
    part,
    quote,
    text,
)

OPERATIONAL_STATUSES = ("", "OK", "discovered", "error", "delayed", "detached", "servicing")
ERROR_TYPES = (
    *("", "provisioned registration error", "registration error", "inspection error"),
    *("preparation error", "provisioning error", "power management error", "detach error"),
    "servicing error",
)
STATUS_FIELDS = frozenset(
    (
        *(
            "appliedNetworkAttachmentConfigs",
            "boot",
            "conditions",
            "errorCount",
            "errorMessage",
            "errorType",
            "failures",
        ),
        *("goodCredentials", "hardware", "hardwareProfile", "lastAttemptedImage", "lastUpdated"),
        *("operationHistory", "operationalStatus", "poweredOn", "problem", "progress"),
        *("provisioning", "provisioningFailCount", "reboot", "triedCredentials", "waiting"),
    )
)
"""All that ``status`` can hold, Metal3's and ours; a test compares with the schema."""


_PARSED: Mapping[str, Callable[[str], object]] = {
    IMAGE_MIRRORS: parse_mirrors,
    IMAGE_RATE_LIMIT: parse_rate,
    PROTECT_DATA: parse_protection,
    BOOT: parse_boot,
}


def annotation_faults(host: Json) -> Iterator[Fault]:
    """Check the values of all annotations that mean something."""
    for key, value in annotations_of(host).items():
        if not isinstance(key, str) or not isinstance(value, str):
            continue
        path = f"metadata.annotations[{key}]"
        if key == STATUS:
            yield from _status_faults(path, value)
        elif key == REBOOT or key.startswith(f"{REBOOT}/"):
            yield from _reboot_faults(path, value)
        elif key == DETACHED:
            yield from _detached_faults(path, value)
        elif key == INSPECT:
            yield from _inspect_faults(path, value, text(part(host, "spec"), "inspectionMode"))
        elif key in _PARSED and value.strip():
            yield from _parsed_faults(path, value, _PARSED[key])
        elif key == HARDWARE_DETAILS and value.strip():
            yield from _details_faults(path, value, inspection_is_off(host))


def _parsed_faults(path: str, value: str, parse: Callable[[str], object]) -> Iterator[Fault]:
    try:
        parse(value)
    except ValueError as error:
        yield Fault(path, INVALID, f"{quote(value)}: {error}")


def _object(value: str) -> dict[str, Any]:
    """Parse a JSON object. Raises ValueError with what is wrong."""
    try:
        parsed = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004 - a value, not a caller's slip
    return {str(name): item for name, item in parsed.items()}


def _reboot_faults(path: str, value: str) -> Iterator[Fault]:
    example = 'leave it empty, or write {"mode": "hard"}'
    if not value:
        return
    try:
        arguments = _object(value)
    except ValueError as error:
        yield Fault(path, INVALID, f"{quote(value)}: {error}; {example}")
        return
    mode = arguments.get("mode")
    if mode not in (None, "", "soft", "hard"):
        shown = quote(mode if isinstance(mode, str) else str(mode))
        yield Fault(path, UNSUPPORTED, f'mode {shown}: supported values: "soft", "hard"')
    yield from _force_faults(path, arguments)


def _force_faults(path: str, arguments: dict[str, Any]) -> Iterator[Fault]:
    force = arguments.get("force")
    if not isinstance(force, bool | None):
        yield Fault(path, INVALID, f"force {quote(str(force))}: must be true or false")


def _detached_faults(path: str, value: str) -> Iterator[Fault]:
    if not value.lstrip().startswith("{"):
        return  # any text detaches; only what looks like JSON is meant as JSON
    example = 'leave it empty, or write {"deleteAction": "delay"}'
    try:
        arguments = _object(value)
    except ValueError as error:
        yield Fault(path, INVALID, f"{quote(value)}: {error}; {example}")
        return
    action = arguments.get("deleteAction")
    if action not in (None, "", "delay", "delete"):
        shown = quote(action if isinstance(action, str) else str(action))
        rule = 'supported values: "delay", "delete"'
        yield Fault(path, UNSUPPORTED, f"deleteAction {shown}: {rule}")
    yield from _force_faults(path, arguments)


def _inspect_faults(path: str, value: str, mode: str) -> Iterator[Fault]:
    if value not in ("", "disabled"):
        rule = 'supported values: "" (inspect again), "disabled"'
        yield Fault(path, UNSUPPORTED, f"{quote(value)}: {rule}")
    elif value and mode and mode != "disabled":
        rule = f"contradicts spec.inspectionMode {mode}; remove the annotation, the field decides"
        yield Fault(path, INVALID, f"{quote(value)}: {rule}")


def _details_faults(path: str, value: str, inspection_off: bool) -> Iterator[Fault]:
    if not inspection_off:
        rule = "may be given only with spec.inspectionMode disabled; else the inspection tells"
        yield Fault(path, FORBIDDEN, rule)
    try:
        parse_details(value)
    except ValueError as error:
        yield Fault(path, INVALID, f"{quote(value)}: not HardwareDetails: {error}")


def _status_faults(path: str, value: str) -> Iterator[Fault]:
    if not value.strip():
        return
    try:
        status = without_nulls(_object(value))
    except ValueError as error:
        yield Fault(path, INVALID, f"{quote(value)}: {error}")
        return
    for name in sorted(set(status) - STATUS_FIELDS):
        yield Fault(path, INVALID, f"{quote(name)}: no field of status has this name")
    for name, known in (("operationalStatus", OPERATIONAL_STATUSES), ("errorType", ERROR_TYPES)):
        if (given := text(status, name)) not in known:
            listed = ", ".join(map(quote, known))
            yield Fault(path, UNSUPPORTED, f"{name} {quote(given)}: supported values: {listed}")
    state = text(part(status, "provisioning"), "state")
    if not is_known(state):
        yield Fault(path, INVALID, f"provisioning.state {quote(state)}: no state has this name")
    if hardware := status.get("hardware"):
        try:
            parse_details(msgspec.json.encode(hardware).decode())
        except ValueError as error:
            yield Fault(path, INVALID, f"hardware: {error}")
    try:
        msgspec.convert(status, Status)
    except msgspec.ValidationError as error:
        yield Fault(path, INVALID, f"status cannot be read: {error}")
