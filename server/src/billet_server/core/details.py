"""Hardware told by a person: Metal3's HardwareDetails as JSON, in an annotation.

As strict as Metal3: a field that nobody knows is refused, since a mistyped name would be a fact
lost. Nulls, which Go writes for empty lists, count as absent.
"""

import json
from typing import Annotated, Any, Literal

import msgspec

from billet_server.core.host import without_nulls

_MOST = 2**63 - 1
Number = Annotated[int, msgspec.Meta(ge=-_MOST, le=_MOST)]
VlanId = Annotated[int, msgspec.Meta(ge=0, le=4094)]


class _Part(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    pass


class _Vendor(_Part):
    manufacturer: str = ""
    product_name: str = ""
    serial_number: str = ""


class _Bios(_Part):
    date: str = ""
    vendor: str = ""
    version: str = ""


class _Firmware(_Part):
    bios: _Bios | None = None


class _Cpu(_Part):
    arch: str = ""
    model: str = ""
    clock_megahertz: float = 0.0
    flags: list[str] = []
    count: Number = 0


class _Vlan(_Part):
    id: VlanId = 0
    name: str = ""


class _Lldp(_Part):
    switch_id: str = msgspec.field(name="switchID", default="")
    port_id: str = msgspec.field(name="portID", default="")
    switch_system_name: str = ""


class _Nic(_Part):
    name: str = ""
    model: str = ""
    mac: str = ""
    ip: str = ""
    speed_gbps: Number = 0
    vlans: list[_Vlan] = []
    vlan_id: VlanId = 0
    pxe: bool = False
    lldp: _Lldp | None = None
    pci_address: str = ""


class _Disk(_Part):
    name: str = ""
    alternate_names: list[str] = []
    rotational: bool = False
    type: Literal["HDD", "SSD", "NVME"] | None = None
    size_bytes: Number = 0
    vendor: str = ""
    model: str = ""
    serial_number: str = ""
    wwn: str = ""
    wwn_vendor_extension: str = ""
    wwn_with_extension: str = ""
    hctl: str = ""


class _Details(_Part):
    system_vendor: _Vendor | None = None
    firmware: _Firmware | None = None
    ram_mebibytes: Number = 0
    hostname: str = ""
    cpu: _Cpu | None = None
    nics: list[_Nic] = []
    storage: list[_Disk] = []


def read_details(text: str) -> dict[str, Any] | str:
    """Return the hardware as it goes into ``status.hardware``, or what is wrong with the text."""
    try:
        raw = without_nulls(json.loads(text))
    except (ValueError, RecursionError) as error:
        return f"is not JSON: {error}"
    try:
        msgspec.convert(raw, _Details)
    except msgspec.ValidationError as error:
        return f"is not a host's hardware: {error}"
    assert isinstance(raw, dict)
    return raw
