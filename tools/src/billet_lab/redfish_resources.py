"""The Redfish documents of simulated machines, as plain data. Pure (DSP0266, DSP0268)."""

import hashlib
import json
from typing import Any, NamedTuple

from billet_lab.control import BootTarget, MachineControl

Document = dict[str, Any]

ROOT = "/redfish/v1"
RESET_TYPES = ("On", "ForceOff", "GracefulShutdown", "ForceRestart", "PowerCycle")


class Override(NamedTuple):
    """The boot override as a client sees it."""

    target: str
    enabled: str


def override_of(machine: MachineControl) -> Override:
    """The machine's pending override; Disabled when there is none."""
    target, persistent = machine.boot_override
    if target is BootTarget.NONE:
        return Override("None", "Disabled")
    return Override(target.value, "Continuous" if persistent else "Once")


def mode_of(machine: MachineControl) -> str:
    """BootSourceOverrideMode: a machine's firmware is what it is."""
    return "UEFI" if machine.firmware == "uefi" else "Legacy"


def service_root(uuid: str) -> Document:
    """ServiceRoot, readable without credentials."""
    return {
        "@odata.type": "#ServiceRoot.v1_15_0.ServiceRoot",
        "@odata.id": f"{ROOT}/",
        "Id": "RootService",
        "Name": "Billet lab Redfish service",
        "RedfishVersion": "1.15.0",
        "UUID": uuid,
        "Product": "Billet lab",
        "ProtocolFeaturesSupported": {"FilterQuery": False, "SelectQuery": False},
        "Systems": _link("Systems"),
        "Chassis": _link("Chassis"),
        "Managers": _link("Managers"),
        "SessionService": _link("SessionService"),
        "Links": {"Sessions": _link("SessionService/Sessions")},
    }


def collection(kind: str, path: str, members: list[str]) -> Document:
    """A resource collection; ``members`` are paths below it."""
    return {
        "@odata.type": f"#{kind}Collection.{kind}Collection",
        "@odata.id": f"{ROOT}/{path}",
        "Name": f"{kind} Collection",
        "Members@odata.count": len(members),
        "Members": [_link(f"{path}/{member}") for member in members],
    }


def session_service(timeout_s: float) -> Document:
    """SessionService."""
    return {
        "@odata.type": "#SessionService.v1_1_8.SessionService",
        "@odata.id": f"{ROOT}/SessionService",
        "Id": "SessionService",
        "Name": "Session Service",
        "ServiceEnabled": True,
        "SessionTimeout": int(timeout_s),
        "Sessions": _link("SessionService/Sessions"),
    }


def session(number: str, username: str) -> Document:
    """One session; the token goes in a header, never in the document."""
    return {
        "@odata.type": "#Session.v1_6_0.Session",
        "@odata.id": f"{ROOT}/SessionService/Sessions/{number}",
        "Id": number,
        "Name": "User session",
        "UserName": username,
    }


def system(
    machine: MachineControl, *, powered_on: bool, override: Override, reset_types: tuple[str, ...]
) -> Document:
    """ComputerSystem."""
    path = f"Systems/{machine.name}"
    return {
        "@odata.type": "#ComputerSystem.v1_20_0.ComputerSystem",
        "@odata.id": f"{ROOT}/{path}",
        "Id": machine.name,
        "Name": machine.name,
        "SystemType": "Physical",
        "UUID": machine.uuid,
        "Manufacturer": "Billet lab",
        "PowerState": "On" if powered_on else "Off",
        "Status": {"State": "Enabled" if powered_on else "StandbyOffline", "Health": "OK"},
        "Boot": {
            "BootSourceOverrideTarget": override.target,
            "BootSourceOverrideTarget@Redfish.AllowableValues": [t.value for t in BootTarget],
            "BootSourceOverrideEnabled": override.enabled,
            "BootSourceOverrideMode": mode_of(machine),
            "BootSourceOverrideMode@Redfish.AllowableValues": [mode_of(machine)],
        },
        "EthernetInterfaces": _link(f"{path}/EthernetInterfaces"),
        "Links": {
            "Chassis": [_link(f"Chassis/{machine.name}")],
            "ManagedBy": [_link(f"Managers/{machine.name}")],
        },
        "Actions": {
            "#ComputerSystem.Reset": {
                "target": f"{ROOT}/{path}/Actions/ComputerSystem.Reset",
                "ResetType@Redfish.AllowableValues": list(reset_types),
            }
        },
    }


def ethernet_interface(machine: MachineControl) -> Document:
    """The machine's one network card."""
    return {
        "@odata.type": "#EthernetInterface.v1_9_0.EthernetInterface",
        "@odata.id": f"{ROOT}/Systems/{machine.name}/EthernetInterfaces/nic1",
        "Id": "nic1",
        "Name": "Network interface",
        "MACAddress": machine.mac,
        "PermanentMACAddress": machine.mac,
        "Status": {"State": "Enabled", "Health": "OK"},
    }


def chassis(machine: MachineControl) -> Document:
    """Chassis."""
    return {
        "@odata.type": "#Chassis.v1_22_0.Chassis",
        "@odata.id": f"{ROOT}/Chassis/{machine.name}",
        "Id": machine.name,
        "Name": f"Chassis of {machine.name}",
        "ChassisType": "RackMount",
        "Links": {"ComputerSystems": [_link(f"Systems/{machine.name}")]},
    }


def manager(machine: MachineControl) -> Document:
    """Manager: the BMC itself."""
    return {
        "@odata.type": "#Manager.v1_17_0.Manager",
        "@odata.id": f"{ROOT}/Managers/{machine.name}",
        "Id": machine.name,
        "Name": f"BMC of {machine.name}",
        "ManagerType": "BMC",
        "FirmwareVersion": "1.0",
        "Links": {"ManagerForServers": [_link(f"Systems/{machine.name}")]},
    }


def error(message_id: str, message: str) -> Document:
    """An error body (DSP0266 8.6) with one message of the Base registry."""
    entry = {
        "@odata.type": "#Message.v1_1_2.Message",
        "MessageId": f"Base.1.18.{message_id}",
        "Message": message,
        "Severity": "Critical",
        "Resolution": "Correct the request and send it again.",
    }
    return {
        "error": {
            "code": f"Base.1.18.{message_id}",
            "message": message,
            "@Message.ExtendedInfo": [entry],
        }
    }


def etag(document: Document) -> str:
    """A strong entity tag of a document's present content."""
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    return f'"{digest[:16]}"'


def _link(path: str) -> Document:
    return {"@odata.id": f"{ROOT}/{path}"}
