"""Metal3's HardwareDetails as people write them: annotation ``inspect.metal3.io/hardwaredetails``.

Strict, as there: a field that is not one of HardwareDetails is a mistake, not a wish.
"""

from typing import Any, Literal

import msgspec

_STRICT: dict[str, Any] = {"rename": "camel", "forbid_unknown_fields": True, "frozen": True}


class SystemVendor(msgspec.Struct, **_STRICT):
    """Who made the machine."""

    manufacturer: str = ""
    product_name: str = ""
    serial_number: str = ""


class Bios(msgspec.Struct, **_STRICT):
    """The BIOS or UEFI firmware."""

    date: str = ""
    vendor: str = ""
    version: str = ""


class Firmware(msgspec.Struct, **_STRICT):
    """System firmware."""

    bios: Bios = Bios()


class Cpu(msgspec.Struct, **_STRICT):
    """Processors."""

    arch: str = ""
    model: str = ""
    clock_megahertz: float = 0
    flags: tuple[str, ...] = ()
    count: int = 0


class Vlan(msgspec.Struct, **_STRICT):
    """One VLAN on a port."""

    id: int = 0
    name: str = ""


class Lldp(msgspec.Struct, **_STRICT):
    """The switch port at the other end."""

    switch_id: str = msgspec.field(name="switchID", default="")
    port_id: str = msgspec.field(name="portID", default="")
    switch_system_name: str = ""


class Nic(msgspec.Struct, **_STRICT):
    """A network card with one address."""

    name: str = ""
    model: str = ""
    mac: str = ""
    ip: str = ""
    speed_gbps: int = 0
    vlans: tuple[Vlan, ...] = ()
    vlan_id: int = 0
    pxe: bool = False
    lldp: Lldp | None = None
    pci_address: str = ""


class Storage(msgspec.Struct, **_STRICT):
    """One disk."""

    name: str = ""
    alternate_names: tuple[str, ...] = ()
    rotational: bool = False
    type: Literal["", "HDD", "SSD", "NVME"] = ""
    size_bytes: int = 0
    vendor: str = ""
    model: str = ""
    serial_number: str = ""
    wwn: str = ""
    wwn_with_extension: str = ""
    wwn_vendor_extension: str = ""
    hctl: str = ""


class HardwareDetails(msgspec.Struct, **_STRICT):
    """``status.hardware`` and ``HardwareData.spec.hardware``."""

    system_vendor: SystemVendor = SystemVendor()
    firmware: Firmware = Firmware()
    ram_mebibytes: int = 0
    hostname: str = ""
    cpu: Cpu = Cpu()
    nics: tuple[Nic, ...] = ()
    storage: tuple[Storage, ...] = ()


def parse_details(text: str) -> dict[str, Any]:
    """Return the details as they were written, checked, without nulls. Raises ValueError."""
    try:
        value = without_nulls(msgspec.json.decode(text))
        msgspec.convert(value, HardwareDetails)
    except RecursionError as error:
        raise ValueError("it nests too deep") from error
    except msgspec.ValidationError as error:  # a DecodeError, but not one of the syntax
        raise ValueError(str(error)) from error
    except msgspec.DecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    assert isinstance(value, dict)
    return value


def without_nulls(value: Any) -> Any:
    """Return JSON without the fields that are null, which say as much as absent ones."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value
