"""Disks from sysfs and udev."""

import re

import msgspec

from billet_agent.inventory.sources import Properties, Sources
from billet_wire import DiskReport

_NOT_DISKS = re.compile(
    r"(?:loop|ram|zram|fd|sr|dm-|md|nbd|drbd|mtdblock)\d|mmcblk\d+(?:boot|rpmb)"
)
_HCTL = re.compile(r"\d+:\d+:\d+:\d+")
_MEMBER = "_raid_member"
_LINUX_RAID = "linux_raid_member"
"""What an earlier Linux left is old data; the other kinds belong to an array of the firmware's."""

_SECTOR = 512
"""sysfs counts sizes in 512-byte units whatever the disk's sector is."""


def read_disks(sources: Sources) -> tuple[DiskReport, ...]:
    """Return every disk with a medium.

    Marked ``skip``: removable, read-only, members of a firmware RAID, further paths to a disk.
    """
    names = sorted(sources.names("sys/block"), key=lambda name: (len(name), name))
    found = []
    for name in names:
        hidden = sources.text(f"sys/block/{name}/hidden") == "1"
        if not _NOT_DISKS.match(name) and not hidden and sources.number(f"sys/block/{name}/size"):
            found.append(_read_disk(sources, name))
    return _mark_paths(found)


def _mark_paths(disks: list[DiskReport]) -> tuple[DiskReport, ...]:
    """Mark all but the first path to a disk: the same world-wide name, serial number and size.

    In the ramdisk nothing joins the paths of a multipath disk; each is a disk of its own here.
    """
    first: dict[tuple[str, str, int], str] = {}
    marked = []
    for disk in disks:
        wwn = disk.wwn_with_extension or disk.wwn
        if wwn and not disk.skip:
            same = (wwn, disk.serial_number, disk.size_bytes)
            path = first.setdefault(same, disk.name)
            if path != disk.name:
                disk = msgspec.structs.replace(disk, skip=f"another path to {path} (WWN {wwn})")
        marked.append(disk)
    return tuple(marked)


def read_partitions(sources: Sources, disk: str) -> tuple[str, ...]:
    """Return the device nodes of a disk's partitions; ``disk`` is like /dev/vda."""
    name = disk.rpartition("/")[2]
    folder = f"sys/block/{name}"
    found = [
        entry
        for entry in sources.names(folder)
        if entry.startswith(name) and sources.text(f"{folder}/{entry}/partition")
    ]
    return tuple(f"/dev/{entry}" for entry in sorted(found, key=lambda n: (len(n), n)))


def _read_disk(sources: Sources, name: str) -> DiskReport:
    base = f"sys/block/{name}"
    udev = sources.udev("block", name)
    links = tuple(sorted(udev.get("DEVLINKS", "").split()))
    by_path = next((link for link in links if link.startswith("/dev/disk/by-path/")), None)
    rotational = sources.text(f"{base}/queue/rotational") == "1"
    removable = sources.text(f"{base}/removable") == "1"
    read_only = sources.text(f"{base}/ro") == "1"
    kind = "NVME" if name.startswith("nvme") else "HDD" if rotational else "SSD"
    return DiskReport(
        name=f"/dev/{name}",
        size_bytes=sources.number(f"{base}/size") * _SECTOR,
        rotational=rotational,
        type=kind,
        model=_first(sources.text(f"{base}/device/model"), _udev_text(udev, "ID_MODEL")),
        vendor=_first(sources.text(f"{base}/device/vendor"), _udev_text(udev, "ID_VENDOR")),
        serial_number=_serial(sources, base, udev),
        wwn=_first(udev.get("ID_WWN", ""), _wwid(sources, base)),
        wwn_with_extension=udev.get("ID_WWN_WITH_EXTENSION", ""),
        wwn_vendor_extension=udev.get("ID_WWN_VENDOR_EXTENSION", ""),
        hctl=_hctl(sources, base),
        by_path=by_path,
        alternate_names=(f"/dev/{name}", *links),
        logical_sector_bytes=sources.number(f"{base}/queue/logical_block_size", _SECTOR),
        read_only=read_only,
        removable=removable,
        skip="removable" if removable else "read-only" if read_only else _raid(udev),
    )


def _raid(udev: Properties) -> str | None:
    kind = udev.get("ID_FS_TYPE", "")
    if kind.endswith(_MEMBER) and kind != _LINUX_RAID:
        return f"member of a firmware RAID ({kind.removesuffix(_MEMBER)})"
    return None


def _first(*texts: str) -> str:
    return next((" ".join(text.split()) for text in texts if text.strip()), "")


def _udev_text(udev: Properties, key: str) -> str:
    return udev.get(key, "").replace("_", " ")


def _serial(sources: Sources, base: str, udev: Properties) -> str:
    return _first(
        udev.get("ID_SCSI_SERIAL", ""),
        udev.get("ID_SERIAL_SHORT", ""),
        sources.text(f"{base}/device/serial"),
        sources.text(f"{base}/serial"),
    )


def _wwid(sources: Sources, base: str) -> str:
    """Return the kernel's own world-wide name: "naa.5000..." of SCSI, "eui..." of NVMe."""
    for path in (f"{base}/device/wwid", f"{base}/wwid"):
        text = sources.text(path)
        if text.startswith("naa."):
            return f"0x{text[4:]}"
        if text.startswith(("eui.", "nvme.")):
            return text
    return ""


def _hctl(sources: Sources, base: str) -> str:
    name = sources.resolved(f"{base}/device").name
    return name if _HCTL.fullmatch(name) else ""
