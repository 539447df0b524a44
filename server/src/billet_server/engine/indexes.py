"""What hosts are looked up by, and which of several hosts keeps what only one can have."""

from collections.abc import Callable, Iterable
from typing import Final

from billet_server.core.bmcaddress import machine_key
from billet_server.core.claimable import (
    EXAMPLES,
    OBSTACLES,
    Group,
    consumer_of,
    explain,
    obstacle_of,
)
from billet_server.core.machineobject import HOST_ANNOTATION
from billet_server.core.terms import HostKey
from billet_server.engine.informer import Informer
from billet_server.ports import Object


def key_of(obj: Object) -> HostKey:
    """Return a namespaced object's key."""
    return HostKey(obj["metadata"]["namespace"], obj["metadata"]["name"])


def macs(obj: Object) -> list[str]:
    """Return the boot MAC, lower case."""
    mac = (obj.get("spec") or {}).get("bootMACAddress")
    return [mac.lower()] if isinstance(mac, str) and mac and not _is_detached(obj) else []


def machines(obj: Object) -> list[str]:
    """Return what tells the machine behind the BMC address from others."""
    bmc = (obj.get("spec") or {}).get("bmc")
    address = bmc.get("address") if isinstance(bmc, dict) else None
    machine = machine_key(address) if isinstance(address, str) else ""
    return [machine] if machine and not _is_detached(obj) else []


def uids(obj: Object) -> list[str]:
    """Return the UID."""
    return [str(obj["metadata"].get("uid", ""))]


def secrets(obj: Object) -> list[str]:
    """Return ``namespace/name`` of every Secret that the host refers to."""
    spec = obj.get("spec") or {}
    namespace = obj["metadata"].get("namespace", "")
    references = [(spec.get("bmc") or {}).get("credentialsName")]
    fields = ("userData", "networkData", "metaData")
    references.extend((spec.get(field) or {}).get("name") for field in fields)
    references.append(spec.get("preprovisioningNetworkDataName"))
    return [f"{namespace}/{name}" for name in references if isinstance(name, str) and name]


def consuming_machine(obj: Object) -> list[str]:
    """Return ``namespace/name`` of the Machine that the host's consumerRef names."""
    consumer = consumer_of(obj)
    machine = consumer.machine if consumer is not None else None
    return [str(machine)] if machine is not None else []


def noted_host(obj: Object) -> list[str]:
    """Return ``namespace/name`` of the host that a Machine's annotation names."""
    note = (obj["metadata"].get("annotations") or {}).get(HOST_ANNOTATION)
    return [note] if isinstance(note, str) and note else []


def obstacle_value(namespace: str, obstacle: str) -> str:
    """Return the value under which `obstacle` lists hosts of a namespace."""
    return f"{namespace}/{obstacle}"


def obstacle(obj: Object) -> list[str]:
    """Return what keeps a host from being claimed, in its namespace."""
    return [obstacle_value(obj["metadata"].get("namespace", ""), obstacle_of(obj))]


def survey(hosts: Informer, namespace: str) -> list[Group]:
    """Return how many hosts of a namespace there are with each obstacle, and some of each."""
    found = []
    for each in OBSTACLES:
        value = obstacle_value(namespace, each)
        if count := hosts.count("obstacle", value):
            some = hosts.some("obstacle", value, EXAMPLES)
            found.append(Group(each, count, tuple(map(explain, some))))
    return found


SHARED: Final[dict[str, Callable[[Object], list[str]]]] = {"mac": macs, "machine": machines}
"""What only one host can have: the others wait for a change of the one that has it.

A detached host has neither: its machine may be in other hands meanwhile.
"""


def elder(others: Iterable[Object], key: HostKey) -> str:
    """Return the oldest of the objects as ``namespace/name``, "" when that is ``key`` or nobody.

    The elder keeps what both claim, so that a mistyped new host cannot stop a running one.
    """
    oldest = min(others, key=_age, default=None)
    if oldest is None or key_of(oldest) == key:
        return ""
    return str(key_of(oldest))


def _is_detached(obj: Object) -> bool:
    status = obj.get("status")
    return isinstance(status, dict) and status.get("operationalStatus") == "detached"


def _age(obj: Object) -> tuple[str, bool, str]:
    # Creation times are whole seconds: of two made in one, the one already at work is the elder.
    meta, status = obj["metadata"], obj.get("status") or {}
    working = bool(status.get("goodCredentials")) if isinstance(status, dict) else False
    return str(meta.get("creationTimestamp", "")), not working, str(meta.get("uid", ""))
