"""The demo's Kubernetes objects, in the shape of the seed article's."""

import base64
from typing import Any

import yaml

from billet_lab.specs import MachineInfo

NAMESPACE = "metal3"


def render_host(machine: MachineInfo) -> str:
    """Return the Secret and the BareMetalHost that register a machine, as YAML."""
    name = machine.name
    return _documents(
        _secret(f"{name}-credentials", username=machine.username, password=machine.password),
        {
            "apiVersion": "metal3.io/v1alpha1",
            "kind": "BareMetalHost",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "bmc": {
                    "address": machine.bmc_address,
                    "credentialsName": f"{name}-credentials",
                },
                "bootMACAddress": machine.mac,
                "description": "",
                "hardwareProfile": "libvirt",
                "online": False,
            },
        },
    )


def render_user_data(name: str, user_data: str) -> str:
    """Return the Secret that holds the user's data, as YAML."""
    return _documents(_secret(f"{name}-user-data", userData=user_data))


def render_image_patch(name: str, url: str, checksum: str) -> dict[str, Any]:
    """Return the merge patch that provisions: image, userData, online."""
    return {
        "spec": {
            "online": True,
            "image": {"url": url, "checksum": checksum},
            "userData": {"name": f"{name}-user-data", "namespace": NAMESPACE},
        }
    }


def _secret(name: str, **values: str) -> dict[str, Any]:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "type": "Opaque",
        "data": data,
    }


def _documents(*objects: dict[str, Any]) -> str:
    return yaml.safe_dump_all(objects, sort_keys=False)
