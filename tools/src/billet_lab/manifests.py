"""BareMetalHost manifests for the lab's machines, in the shape of Metal3's own examples."""

import base64
from collections.abc import Iterable
from typing import Any

import yaml

from billet_lab.specs import MachineInfo


def secret_of(machine: MachineInfo, namespace: str) -> dict[str, Any]:
    """The Secret with the BMC's credentials."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"{machine.name}-credentials", "namespace": namespace},
        "type": "Opaque",
        "data": {
            "username": base64.b64encode(machine.username.encode()).decode(),
            "password": base64.b64encode(machine.password.encode()).decode(),
        },
    }


def host_of(machine: MachineInfo, namespace: str) -> dict[str, Any]:
    """The BareMetalHost, powered off until somebody wants it."""
    return {
        "apiVersion": "metal3.io/v1alpha1",
        "kind": "BareMetalHost",
        "metadata": {"name": machine.name, "namespace": namespace},
        "spec": {
            "bmc": {
                "address": machine.bmc_address,
                "credentialsName": f"{machine.name}-credentials",
            },
            "bootMACAddress": machine.mac,
            "bootMode": "UEFI" if machine.firmware == "uefi" else "legacy",
            "online": False,
        },
    }


def render_hosts(machines: Iterable[MachineInfo], namespace: str) -> str:
    """YAML for ``kubectl apply -f``: the namespace, then a Secret and a host per machine."""
    documents: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    ]
    for machine in machines:
        documents += [secret_of(machine, namespace), host_of(machine, namespace)]
    return yaml.safe_dump_all(documents, sort_keys=False)
