"""A BareMetalHost as an Ironic node. Pure.

State names follow baremetal-operator's use of Ironic: what Metal3 has an Ironic node in while
its host is in a state is what is shown here for that state.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from billet_server.core import turn
from billet_server.core.annotations import DETACHED, PAUSED
from billet_server.core.bmcaddress import split_scheme
from billet_server.core.host import Host, parse_host
from billet_server.core.states import State, read_state
from billet_server.ports import Object

SUMMARY: Final = (
    *("uuid", "name", "instance_uuid", "maintenance", "power_state", "provision_state"),
    "links",
)
"""Fields of a node in a plain list."""

SINCE: Final[Mapping[str, int]] = {
    "driver_internal_info": 3,
    "name": 5,
    "inspection_finished_at": 6,
    "inspection_started_at": 6,
    "clean_step": 7,
    "raid_config": 12,
    "target_raid_config": 12,
    "network_interface": 20,
    "resource_class": 21,
    **dict.fromkeys(
        (
            *("boot_interface", "console_interface", "deploy_interface", "inspect_interface"),
            *("management_interface", "power_interface", "raid_interface", "vendor_interface"),
        ),
        31,
    ),
    "storage_interface": 33,
    "traits": 37,
    "rescue_interface": 38,
    "bios_interface": 40,
    "fault": 42,
    "deploy_step": 44,
    "conductor_group": 46,
    "automated_clean": 47,
    "protected": 48,
    "protected_reason": 48,
    "conductor": 49,
    "owner": 50,
    "description": 51,
    "allocation_uuid": 52,
    "retired": 61,
    "retired_reason": 61,
    "lessee": 65,
    "network_data": 66,
    "boot_mode": 75,
    "secure_boot": 75,
    "shard": 82,
    "parent_node": 83,
    "firmware_interface": 86,
    "service_step": 87,
    "disable_power_off": 95,
    "instance_name": 104,
}
"""The minor version that brought a field; the others were there from 1.1 on."""

_STATES: Final[Mapping[State, tuple[str, str | None]]] = {
    State.NONE: ("enroll", None),
    State.UNMANAGED: ("enroll", None),
    State.REGISTERING: ("verifying", "manageable"),
    State.INSPECTING: ("inspect wait", "manageable"),
    State.PREPARING: ("manageable", None),
    State.READY: ("available", None),
    State.PROVISIONING: ("deploying", "active"),
    State.PROVISIONED: ("active", None),
    State.EXTERNALLY_PROVISIONED: ("active", None),
    State.DEPROVISIONING: ("deleting", "available"),
    State.POWERING_OFF: ("deleting", None),
    State.DELETING: ("deleting", None),
}
_WAITING: Final = {State.PROVISIONING: "wait call-back", State.DEPROVISIONING: "clean wait"}
_FAILED: Final[Mapping[tuple[State, str], tuple[str, str | None]]] = {
    (State.REGISTERING, turn.REGISTRATION): ("enroll", None),
    (State.INSPECTING, turn.INSPECTION): ("inspect failed", "manageable"),
    (State.PREPARING, turn.PREPARATION): ("clean failed", "manageable"),
    (State.PROVISIONING, turn.PROVISIONING): ("deploy failed", "active"),
    (State.DEPROVISIONING, turn.PROVISIONING): ("clean failed", "available"),
}
_INSTANCE: Final = (State.PROVISIONING, State.PROVISIONED, State.EXTERNALLY_PROVISIONED)


def state_of(host: Host) -> tuple[str, str | None]:
    """Return Ironic's words for where a host is and where it goes."""
    state, status = read_state(host.status.provisioning.state), host.status
    if (state, status.error_type) in _FAILED:
        return _FAILED[state, status.error_type]
    word, target = _STATES[state]
    boot = status.boot
    if state in _WAITING and boot is not None and not boot.agent_id:
        return _WAITING[state], target
    return word, target


def maintenance_of(host: Host) -> tuple[bool, str | None, str | None]:
    """Return whether a host is in maintenance, why, and the fault that put it there."""
    if DETACHED in host.annotations:
        return True, "detached: nothing is done to the machine", None
    if PAUSED in host.annotations:
        return True, host.annotations[PAUSED] or None, None
    if host.status.error_type == turn.POWER:
        return True, host.status.error_message or None, "power failure"
    return False, None, None


def driver_of(host: Host) -> str:
    """Return the hardware type by the BMC's address: ipmi, redfish, or "" where there is none."""
    if not host.spec.bmc.address:
        return ""
    scheme, _ = split_scheme(host.spec.bmc.address)
    return "redfish" if "redfish" in scheme else "ipmi"


def render_summary(host: Host) -> dict[str, Any]:
    """Return the fields of a plain list but name and links."""
    powered = host.status.powered_on
    return {
        "uuid": host.uid,
        "instance_uuid": _instance(host),
        "maintenance": maintenance_of(host)[0],
        "power_state": None if powered is None else "power on" if powered else "power off",
        "provision_state": state_of(host)[0],
    }


def render_node(obj: Object, name: str, base: str, conductor: str) -> dict[str, Any]:
    """Return all fields of a node. BMC credentials and user data are in none of them."""
    host = parse_host(obj)
    status, spec, meta = host.status, host.spec, obj["metadata"]
    _, reason, fault = maintenance_of(host)
    image, history = status.provisioning.image or spec.wanted_image, status.operation_history
    driver = driver_of(host)
    instance = {} if image is None else {"image_source": image.url}
    if image is not None and image.checksum:
        instance["image_checksum"] = image.checksum
    node = render_summary(host) | {
        "name": name,
        "driver": driver,
        "driver_info": _driver_info(driver, host),
        "driver_internal_info": {},
        "properties": properties(host),
        "instance_info": instance,
        "instance_name": None,
        "extra": {"namespace": host.key.namespace, "name": host.key.name},
        "description": spec_text(obj, "description") or None,
        "target_power_state": _target_power(host),
        "target_provision_state": state_of(host)[1],
        "provision_updated_at": _time(history.provision.end or history.provision.start),
        "inspection_started_at": _time(history.inspect.start),
        "inspection_finished_at": _time(history.inspect.end),
        "created_at": _iso(meta.get("creationTimestamp")),
        "updated_at": _time(status.last_updated),
        "last_error": status.error_message or None,
        "maintenance_reason": reason,
        "fault": fault,
        "console_enabled": False,
        "reservation": None,
        "chassis_uuid": None,
        "clean_step": {},
        "deploy_step": {},
        "service_step": {},
        "raid_config": {},
        "target_raid_config": {},
        "resource_class": spec.hardware_profile or None,
        "network_data": {},
        "traits": [],
        "conductor": conductor,
        "conductor_group": "",
        "automated_clean": spec.automated_cleaning_mode != "disabled",
        "protected": False,
        "protected_reason": None,
        "retired": False,
        "retired_reason": None,
        "owner": None,
        "lessee": None,
        "allocation_uuid": None,
        "shard": None,
        "parent_node": None,
        "boot_mode": _boot_mode(host),
        "secure_boot": None,
        "disable_power_off": spec.disable_power_off,
    }
    return node | _interfaces(driver) | _links(base, host.uid)


def trimmed(node: dict[str, Any], minor: int) -> dict[str, Any]:
    """Return a node as clients of a version know it."""
    shown = {key: value for key, value in node.items() if SINCE.get(key, 1) <= minor}
    if minor < 2 and shown.get("provision_state") == "available":
        shown["provision_state"] = None
    if minor < 39 and shown.get("provision_state") == "inspect wait":
        shown["provision_state"] = "inspecting"
    return shown


def links_of(base: str, kind: str, uuid: str) -> list[dict[str, str]]:
    """Return the two links that Ironic gives every resource."""
    return [
        {"href": f"{base}/v1/{kind}/{uuid}", "rel": "self"},
        {"href": f"{base}/{kind}/{uuid}", "rel": "bookmark"},
    ]


def properties(host: Host) -> dict[str, Any]:
    """Return what schedulers read: figures of the inspection."""
    hardware = host.status.hardware or {}
    cpu = hardware.get("cpu")
    found = {
        "cpus": cpu.get("count") if isinstance(cpu, dict) else None,
        "cpu_arch": cpu.get("arch") if isinstance(cpu, dict) else None,
        "memory_mb": hardware.get("ramMebibytes"),
    }
    return {key: value for key, value in found.items() if value}


def spec_text(obj: Object, field: str) -> str:
    """Return a text of ``spec`` that the step does not read."""
    spec = obj.get("spec")
    value = spec.get(field) if isinstance(spec, dict) else None
    return value if isinstance(value, str) else ""


def _instance(host: Host) -> str | None:
    return host.uid if read_state(host.status.provisioning.state) in _INSTANCE else None


def _driver_info(driver: str, host: Host) -> dict[str, Any]:
    return {f"{driver}_address": host.spec.bmc.address} if driver else {}


def _target_power(host: Host) -> str | None:
    powered, rests = host.status.powered_on, state_of(host)[0] in ("available", "active")
    if powered is None or not rests or powered == host.spec.online:
        return None
    return "power on" if host.spec.online else "power off"


def _boot_mode(host: Host) -> str | None:
    mode = host.spec.boot_mode
    return None if mode is None else "uefi" if mode.is_uefi else "bios"


def _interfaces(driver: str) -> dict[str, Any]:
    own = driver or None
    return {
        **{f"{name}_interface": own for name in ("power", "management")},
        "boot_interface": "ipxe",
        "deploy_interface": "direct",
        "inspect_interface": "agent",
        **{
            f"{name}_interface": f"no-{name}"
            for name in ("bios", "console", "firmware", "raid", "rescue", "vendor")
        },
        "network_interface": "noop",
        "storage_interface": "noop",
    }


def _links(base: str, uid: str) -> dict[str, Any]:
    more = {
        name: links_of(base, "nodes", f"{uid}/{name}") for name in ("ports", "states", "volume")
    }
    return {"links": links_of(base, "nodes", uid), **more}


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _iso(stamp: Any) -> str | None:
    return stamp.replace("Z", "+00:00") if isinstance(stamp, str) else None
