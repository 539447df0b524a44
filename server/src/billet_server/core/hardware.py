"""The agent's inventory as Metal3's HardwareDetails (``status.hardware``, ``HardwareData``).

The report is a stranger's word: texts are cut and freed of control characters, figures kept in
range, lists bounded, so that the API never refuses the result.
"""

import json
from typing import Any, Final

from billet_server.core.wording import printable, whole
from billet_wire import DiskReport, InspectResult, NicReport

MOST_CHARS: Final = 256
MOST_ROWS: Final = 512
MOST_BYTES: Final = 384 * 1024
"""Of the rendered whole, in JSON: etcd takes 1.5 MiB for an object that has much more in it."""

_DISK_TYPES: Final = ("HDD", "SSD", "NVME")
_MOST_HZ: Final = 10**6


def render_hardware(report: InspectResult) -> dict[str, Any]:
    """Return the HardwareDetails object; facts that are absent are left out."""
    vendor, bios, cpu = report.system_vendor, report.firmware, report.cpu
    hardware: dict[str, Any] = {
        "systemVendor": _present(
            manufacturer=vendor.manufacturer,
            productName=vendor.product_name,
            serialNumber=vendor.serial_number,
        ),
        "firmware": {
            "bios": _present(vendor=bios.vendor, version=bios.version, date=bios.date),
        },
        "ramMebibytes": whole(report.ram_mebibytes),
        "hostname": printable(report.hostname, MOST_CHARS),
        "cpu": {
            "arch": printable(cpu.arch, MOST_CHARS),
            "model": printable(cpu.model, MOST_CHARS),
            "clockMegahertz": whole(cpu.clock_megahertz + 0.5, _MOST_HZ),
            "flags": sorted({printable(flag, 64) for flag in cpu.flags[:MOST_ROWS]}),
            "count": whole(cpu.count),
        },
        "storage": [_storage(disk) for disk in report.disks[:MOST_ROWS]],
        "nics": [_nic(nic) for nic in report.nics[:MOST_ROWS]],
    }
    while (hardware["storage"] or hardware["nics"]) and _json_bytes(hardware) > MOST_BYTES:
        for name in ("storage", "nics"):
            hardware[name] = hardware[name][: len(hardware[name]) // 2]
    return hardware


def _json_bytes(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def _storage(disk: DiskReport) -> dict[str, Any]:
    names = {disk.name, *disk.alternate_names[:16]} - {disk.by_path or disk.name, ""}
    return _present(
        name=disk.by_path or disk.name,
        alternateNames=sorted(printable(name, MOST_CHARS) for name in names),
        type=disk.type if disk.type in _DISK_TYPES else "",
        sizeBytes=whole(disk.size_bytes),
        model=disk.model,
        vendor=disk.vendor,
        serialNumber=disk.serial_number,
        wwn=disk.wwn,
        wwnWithExtension=disk.wwn_with_extension,
        wwnVendorExtension=disk.wwn_vendor_extension,
        hctl=disk.hctl,
    ) | {"rotational": disk.rotational}


def _nic(nic: NicReport) -> dict[str, Any]:
    return _present(
        name=nic.name,
        model=nic.model,
        mac=nic.mac,
        ip=nic.ip,
        speedGbps=whole(nic.speed_mbps // 1000),
        pciAddress=nic.pci_address,
    ) | {"pxe": nic.pxe}


def _present(**facts: Any) -> dict[str, Any]:
    shown = {
        name: printable(value, MOST_CHARS) if isinstance(value, str) else value
        for name, value in facts.items()
    }
    return {name: value for name, value in shown.items() if value not in ("", None, [], 0)}
