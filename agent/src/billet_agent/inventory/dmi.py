"""System, firmware and memory as SMBIOS tells them (DSP0134)."""

import struct

from billet_agent.inventory.sources import Sources
from billet_wire import FirmwareReport, VendorReport

_MIB = 1 << 20
_MEMORY_DEVICE = 17
_FILLERS = {"", "not specified", "none", "to be filled by o.e.m.", "default string", "0"}


def read_vendor(sources: Sources) -> VendorReport:
    """Return SMBIOS type 1 from sysfs; what a maker left as filler is empty."""
    return VendorReport(
        _field(sources, "sys_vendor"),
        _field(sources, "product_name"),
        _field(sources, "product_serial"),
    )


def read_firmware(sources: Sources) -> FirmwareReport:
    """Return SMBIOS type 0 from sysfs."""
    return FirmwareReport(
        _field(sources, "bios_vendor"),
        _field(sources, "bios_version"),
        _field(sources, "bios_date"),
    )


def read_physical_memory(sources: Sources) -> int:
    """Return the installed memory in MiB, 0 when SMBIOS does not tell."""
    try:
        table = (sources.root / "sys/firmware/dmi/tables/DMI").read_bytes()
    except OSError:
        return 0
    return parse_memory(table)


def parse_memory(table: bytes) -> int:
    """Return the MiB of all memory devices (type 17) in an SMBIOS structure table."""
    total, at = 0, 0
    while at + 4 <= len(table):
        kind, length = table[at], table[at + 1]
        if length < 4:
            break
        if kind == _MEMORY_DEVICE and length >= 0x0E and at + length <= len(table):
            total += _device_mib(table[at : at + length])
        end = table.find(b"\0\0", at + length)
        if end < 0 or kind == 127:
            break
        at = end + 2
    return total


def _device_mib(device: bytes) -> int:
    size = int(struct.unpack_from("<H", device, 0x0C)[0])
    if size in {0, 0xFFFF}:
        return 0
    if size == 0x7FFF and len(device) >= 0x20:
        return int(struct.unpack_from("<I", device, 0x1C)[0]) & 0x7FFFFFFF
    return (size & 0x7FFF) // 1024 if size & 0x8000 else size


def _field(sources: Sources, name: str) -> str:
    text = sources.text(f"sys/class/dmi/id/{name}")
    return "" if text.casefold() in _FILLERS else text
