"""A Machine (``cluster.k8s.io/v1alpha1``) as typed data, and its status. Pure.

`parse_machine` never fails on an object that the API accepted.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from billet_server.core.claimable import HostView
from billet_server.core.providerspec import (
    GROUP,
    VERSION,
    Foreign,
    ProviderSpec,
    SpecFault,
    parse_provider_spec,
)
from billet_server.core.terms import HostKey
from billet_server.core.validation.faults import Json, annotations_of, part, rows, text
from billet_server.core.wording import printable

FINALIZER: Final = "machine.cluster.k8s.io"
HOST_ANNOTATION: Final = "metal3.io/BareMetalHost"

CLAIMED: Final = "HostClaimed"
PROVISIONED: Final = "Provisioned"

_MOST_ADDRESSES: Final = 64
_MOST_CHARS: Final = 2000
_OURS: Final = ("phase", "addresses", "errorReason", "errorMessage", "conditions", "providerStatus")


class Machine(NamedTuple):
    """One Machine. ``noted`` is the host that its annotation names, ``note`` the raw text."""

    key: HostKey
    uid: str
    generation: int
    resource_version: str
    deleting: bool
    finalizers: tuple[str, ...]
    note: str
    provider: ProviderSpec | SpecFault | Foreign
    status: Json

    @property
    def noted(self) -> HostKey | None:
        """The annotation's host, None where there is none or the text is no ``ns/name``."""
        namespace, slash, name = self.note.partition("/")
        good = slash and namespace and name and "/" not in name
        return HostKey(namespace, name) if good else None


class Condition(NamedTuple):
    """One statement: "True" or "False", a CamelCase reason, a sentence."""

    type: str
    status: str
    reason: str
    message: str


class Report(NamedTuple):
    """What the status is to say; ``error`` is reason and message, or None."""

    phase: str
    conditions: tuple[Condition, ...]
    host: HostView | None = None
    error: tuple[str, str] | None = None


def parse_machine(obj: Json) -> Machine:
    """Return the typed Machine of a Kubernetes object."""
    meta = part(obj, "metadata")
    namespace = text(meta, "namespace")
    finalizers = meta.get("finalizers")
    generation = meta.get("generation")
    return Machine(
        key=HostKey(namespace, text(meta, "name")),
        uid=text(meta, "uid"),
        generation=generation if isinstance(generation, int) else 0,
        resource_version=text(meta, "resourceVersion"),
        deleting="deletionTimestamp" in meta,
        finalizers=tuple(finalizers) if isinstance(finalizers, list) else (),
        note=text(annotations_of(obj), HOST_ANNOTATION),
        provider=parse_provider_spec(part(obj, "spec").get("providerSpec"), namespace),
        status=part(obj, "status"),
    )


def addresses_of(hardware: Json) -> list[dict[str, str]]:
    """Return ``status.addresses``: InternalIP for each NIC, then Hostname and InternalDNS."""
    found: list[dict[str, str]] = []
    for _, nic in rows(hardware, "nics"):
        address = {"type": "InternalIP", "address": text(nic, "ip")}
        if address["address"] and address not in found and len(found) < _MOST_ADDRESSES:
            found.append(address)
    if name := text(hardware, "hostname"):
        found += [{"type": kind, "address": name} for kind in ("Hostname", "InternalDNS")]
    return found


def status_patch(machine: Machine, report: Report, now: datetime) -> dict[str, Any]:
    """Return the merge patch that makes the status say ``report``; empty: it does already.

    Fields and conditions of others stay as they are.
    """
    wanted = _render(machine, report, now)
    old = machine.status
    patch: dict[str, Any] = {}
    for name in _OURS:
        if name in wanted:
            if old.get(name) != wanted[name]:
                patch[name] = _replacing(old.get(name), wanted[name])
        elif old.get(name) is not None:
            patch[name] = None
    return patch | {"lastUpdated": _stamp(now)} if patch else {}


def _render(machine: Machine, report: Report, now: datetime) -> dict[str, Any]:
    wanted: dict[str, Any] = {
        "phase": report.phase,
        "conditions": _conditions(machine, report.conditions, now),
    }
    if report.host is not None:
        wanted["providerStatus"] = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "BareMetalMachineProviderStatus",
            "host": report.host.key.name,
            "state": report.host.state.value,
        }
        if addresses := addresses_of(report.host.hardware):
            wanted["addresses"] = addresses
    if report.error is not None:
        wanted["errorReason"], message = report.error
        wanted["errorMessage"] = printable(message, _MOST_CHARS)
    return wanted


def _conditions(
    machine: Machine, told: tuple[Condition, ...], now: datetime
) -> list[dict[str, Any]]:
    old = machine.status.get("conditions")
    rows = [dict(one) for one in old if isinstance(one, Mapping)] if isinstance(old, list) else []
    before = {one.get("type"): one for one in rows}
    ours = {one.type for one in told} | {CLAIMED, PROVISIONED}
    kept = [one for one in rows if one.get("type") not in ours]
    for one in told:
        previous = before.get(one.type, {})
        same = previous.get("status") == one.status
        kept.append(
            {
                "type": one.type,
                "status": one.status,
                "reason": one.reason,
                "message": printable(one.message, _MOST_CHARS),
                "lastTransitionTime": (same and previous.get("lastTransitionTime")) or _stamp(now),
            }
        )
    return kept


def _replacing(old: Any, new: Any) -> Any:
    """Return the merge patch that leaves exactly ``new``: keys that are gone are null in it."""
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return new
    return {name: None for name in old if name not in new} | dict(new)


def _stamp(now: datetime) -> str:
    return f"{now:%Y-%m-%dT%H:%M:%SZ}"
