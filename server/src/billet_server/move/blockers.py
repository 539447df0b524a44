"""Why a host cannot be moved now, and what to know about one that can. Pure."""

from collections.abc import Iterable

from billet_server.core.annotations import INSPECT, PAUSED, REBOOT
from billet_server.core.bmcaddress import machine_key
from billet_server.core.host import Host, parse_host
from billet_server.core.states import State, read_state
from billet_server.move.bundle import Bundle, other_owners, read_mark, secret_names
from billet_server.ports import Object

REST = frozenset(
    {
        State.NONE,
        State.UNMANAGED,
        State.REGISTERING,
        State.READY,
        State.PROVISIONED,
        State.EXTERNALLY_PROVISIONED,
    }
)
"""States in which nothing is going on at the machine."""

IDLE_WAITS = frozenset({"retry", "capacity"})
"""Waits, beside those for a person, during which nobody does anything to the machine."""


def busy(obj: Object) -> str:
    """Return what a host is in the middle of, "" when it is at rest. Time ends these."""
    host = parse_host(obj)
    status = host.status
    if host.deleting:
        return "it is being deleted"
    if read_state(status.provisioning.state) not in REST:
        problem = f" ({status.problem.id})" if status.problem else ""
        return f"it is {status.provisioning.state}{problem}"
    waiting = status.waiting
    if waiting is not None and waiting.actor != "user" and waiting.cause not in IDLE_WAITS:
        return f"it waits: {waiting.message or waiting.cause}"
    if REBOOT in host.annotations:
        return "a reboot is asked for"
    if host.annotations.get(INSPECT) == "" and status.provisioning.state in ("ready", "available"):
        return "an inspection is asked for"
    return ""


def advice(host: Host) -> str:
    """Return what to do about a host that is busy."""
    if PAUSED in host.annotations:
        return "it is paused in the middle of it: unpause it and let it come to rest"
    return "--wait waits for it"


def rivals(host: Host, others: Iterable[Host]) -> list[str]:
    """Return the hosts at the target which stand for the same machine."""
    mac, machine = host.spec.boot_mac_address.lower(), machine_key(host.spec.bmc.address)
    return [
        f"{other.key} there has the same {what}"
        for other in others
        if other.key != host.key
        for what, same in (
            ("bootMACAddress", bool(mac) and other.spec.boot_mac_address.lower() == mac),
            ("BMC", bool(machine) and machine_key(other.spec.bmc.address) == machine),
        )
        if same
    ]


def notes(bundle: Bundle) -> list[str]:
    """Return what a person should know before the move."""
    host = parse_host(bundle.host)
    found = []
    here = {secret["metadata"]["name"] for secret in bundle.secrets}
    missing = [name for name in secret_names(bundle.host) if name not in here]
    if missing:
        found.append(f"Secret {', '.join(missing)} does not exist")
    if host.status.boot is not None:
        found.append("its idle ramdisk is left behind; it stays on until it is booted anew")
    mark = read_mark(bundle.host)
    if PAUSED in host.annotations and (mark is None or mark.paused is not None):
        found.append("it is paused, and stays so")
    for obj in (bundle.host, *bundle.secrets):
        owners = other_owners(obj, host.uid)
        if owners:
            found.append(f"{obj['metadata']['name']} loses its owner {', '.join(owners)}")
    if bundle.hardware is None and host.status.hardware is not None:
        found.append("it has no HardwareData; its status holds the hardware")
    return found
