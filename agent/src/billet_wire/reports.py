"""What finished jobs return. Sizes are bytes, speeds as named; absent facts are None or empty."""

from typing import Literal

import msgspec


class CpuReport(msgspec.Struct, frozen=True):
    """Processors: Metal3 ``status.hardware.cpu``; ``count`` is hardware threads."""

    arch: str
    model: str
    clock_megahertz: float
    flags: tuple[str, ...]
    count: int


class DiskReport(msgspec.Struct, frozen=True):
    """One block device: Metal3 ``status.hardware.storage[]`` plus what hints compare.

    ``name`` is the kernel's (/dev/vda), ``by_path`` a stable alias or None. ``skip`` says why
    the disk is never a root disk (removable, read-only, ...) or is None.
    """

    name: str
    size_bytes: int
    rotational: bool
    type: str
    model: str = ""
    vendor: str = ""
    serial_number: str = ""
    wwn: str = ""
    wwn_with_extension: str = ""
    wwn_vendor_extension: str = ""
    hctl: str = ""
    by_path: str | None = None
    alternate_names: tuple[str, ...] = ()
    logical_sector_bytes: int = 512
    read_only: bool = False
    removable: bool = False
    skip: str | None = None


class NicReport(msgspec.Struct, frozen=True):
    """One network interface and one address: Metal3 has a row for each IP family."""

    name: str
    mac: str
    model: str = ""
    ip: str = ""
    speed_mbps: int = 0
    pxe: bool = False
    pci_address: str = ""
    has_carrier: bool = False


class VendorReport(msgspec.Struct, frozen=True):
    """DMI system information (SMBIOS type 1)."""

    manufacturer: str = ""
    product_name: str = ""
    serial_number: str = ""


class FirmwareReport(msgspec.Struct, frozen=True):
    """DMI firmware information (SMBIOS type 0)."""

    vendor: str = ""
    version: str = ""
    date: str = ""


class InspectResult(msgspec.Struct, frozen=True):
    """The inventory. ``root_disk`` is the default choice with ``root_disk_reason`` in words."""

    hostname: str
    cpu: CpuReport
    ram_mebibytes: int
    disks: tuple[DiskReport, ...]
    nics: tuple[NicReport, ...]
    system_vendor: VendorReport
    firmware: FirmwareReport
    boot_mode: str
    root_disk: str | None = None
    root_disk_reason: str = ""


class CleanResult(msgspec.Struct, frozen=True):
    """Which disks were wiped, and which were left alone and why (name, reason)."""

    wiped: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()


class DeployResult(msgspec.Struct, frozen=True):
    """What was written where, and the proof.

    ``checksum`` is "<algorithm>:<hex digest>" as computed; ``seconds`` maps step to duration.
    """

    root_disk: str
    root_disk_reason: str
    image_bytes: int
    virtual_bytes: int
    checksum: str
    boot_mode: str
    boot_entry: str | None
    seconds: dict[str, float]


class HandOverResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the agent leaves the machine, and what it starts, or why it reboots instead of kexec."""

    action: Literal["reboot", "power-off", "kexec"]
    reason: str = ""
