"""The agent's inventory as Metal3's HardwareDetails (``status.hardware``, ``HardwareData``)."""

from typing import Any

from billet_wire import DiskReport, InspectResult, NicReport


def render_hardware(report: InspectResult) -> dict[str, Any]:
    """Return the HardwareDetails object; facts that are absent are left out."""
    return {
        "systemVendor": _present(
            manufacturer=report.system_vendor.manufacturer,
            productName=report.system_vendor.product_name,
            serialNumber=report.system_vendor.serial_number,
        ),
        "firmware": {
            "bios": _present(
                vendor=report.firmware.vendor,
                version=report.firmware.version,
                date=report.firmware.date,
            )
        },
        "ramMebibytes": report.ram_mebibytes,
        "hostname": report.hostname,
        "cpu": {
            "arch": report.cpu.arch,
            "model": report.cpu.model,
            "clockMegahertz": round(report.cpu.clock_megahertz),
            "flags": sorted(report.cpu.flags),
            "count": report.cpu.count,
        },
        "storage": [_storage(disk) for disk in report.disks],
        "nics": [_nic(nic) for nic in report.nics],
    }


def _storage(disk: DiskReport) -> dict[str, Any]:
    return _present(
        name=disk.by_path or disk.name,
        alternateNames=sorted({disk.name, *disk.alternate_names} - {disk.by_path}),
        type=disk.type,
        sizeBytes=disk.size_bytes,
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
        speedGbps=nic.speed_mbps // 1000,
        pciAddress=nic.pci_address,
    ) | {"pxe": nic.pxe}


def _present(**facts: Any) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value not in ("", None, [], 0)}
