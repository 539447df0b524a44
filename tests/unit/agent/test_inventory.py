"""Hardware from recorded trees: physical SCSI and NVMe machines, a virtual one, an empty one."""

import struct
from pathlib import Path

import pytest

from billet_agent.inventory import read_inventory
from billet_agent.inventory.cpu import read_available_bytes
from billet_agent.inventory.disks import read_partitions
from billet_agent.inventory.dmi import parse_memory
from billet_agent.inventory.nics import read_macs
from billet_agent.inventory.sources import Sources
from billet_wire import InspectResult

CPUINFO = """processor\t: 0
model name\t: Intel(R) Xeon(R) Gold 6130
cpu MHz\t\t: 1000.5
flags\t\t: sse fpu avx

processor\t: 1
model name\t: Intel(R) Xeon(R) Gold 6130
cpu MHz\t\t: 2100.0
flags\t\t: sse fpu avx
"""
BY_PATH = "/dev/disk/by-path/pci-0000:3b:00.0-scsi-0:2:0:0"
UDEV = {
    ("block", "sda"): {
        "ID_MODEL": "PERC_H740P_Mini",
        "ID_SERIAL_SHORT": "62cea7f05ee2",
        "ID_SCSI_SERIAL": "00c2e25e",
        "ID_WWN": "0x62cea7f05ee20e00",
        "ID_WWN_WITH_EXTENSION": "0x62cea7f05ee20e0025",
        "ID_WWN_VENDOR_EXTENSION": "0x25",
        "DEVLINKS": f"{BY_PATH} /dev/disk/by-id/wwn-0x62cea",
    },
    ("net", "eno1"): {
        "ID_VENDOR_FROM_DATABASE": "Broadcom Inc.",
        "ID_MODEL_FROM_DATABASE": "NetXtreme BCM5720",
    },
}


def put(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def link(root: Path, name: str, target: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (root / target).mkdir(parents=True, exist_ok=True)
    path.symlink_to(root / target)


def memory_device(size: int, extended: int = 0, length: int = 0x22) -> bytes:
    body = bytearray(length)
    body[:4] = bytes([17, length, 0, 17])
    body[0x0C:0x0E] = struct.pack("<H", size)
    if length >= 0x20:
        body[0x1C:0x20] = struct.pack("<I", extended)
    return bytes(body) + b"DIMM A\0\0"


@pytest.fixture(name="server")
def _server(tmp_path: Path) -> Sources:
    root = tmp_path
    put(
        root,
        {
            "proc/cpuinfo": CPUINFO,
            "proc/meminfo": "MemTotal:  16000000 kB\nMemAvailable:  8000000 kB",
            "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3700000",
            "sys/class/dmi/id/sys_vendor": "Dell Inc.",
            "sys/class/dmi/id/product_name": "PowerEdge R640",
            "sys/class/dmi/id/product_serial": "To Be Filled By O.E.M.",
            "sys/class/dmi/id/bios_vendor": "Dell Inc.",
            "sys/class/dmi/id/bios_version": "2.1.8",
            "sys/class/dmi/id/bios_date": "04/30/2019",
            "sys/block/sda/size": "936640512",
            "sys/block/sda/queue/rotational": "1",
            "sys/block/sda/queue/logical_block_size": "512",
            "sys/block/sda/sda1/partition": "1",
            "sys/block/sda/sda10/partition": "10",
            "sys/block/sda/sda2/partition": "2",
            "sys/block/sda/holders/x": "",
            "sys/block/nvme0n1/size": "3125627568",
            "sys/block/nvme0n1/queue/rotational": "0",
            "sys/block/nvme0n1/queue/logical_block_size": "4096",
            "sys/block/nvme0n1/wwid": "eui.002538",
            "sys/block/nvme0n1/device/model": "SAMSUNG  MZWLL1T6",
            "sys/block/nvme0n1/device/serial": "S3HDNX0",
            "sys/block/nvme0c0n1/size": "3125627568",
            "sys/block/nvme0c0n1/hidden": "1",
            "sys/block/sdb/size": "8000000",
            "sys/block/sdb/removable": "1",
            "sys/block/sdc/size": "1000",
            "sys/block/sdc/ro": "1",
            "sys/block/sde/size": "0",
            "sys/block/loop0/size": "8",
            "sys/block/sr0/size": "8",
            "sys/block/zram0/size": "8",
            "sys/block/dm-0/size": "8",
            "sys/class/net/lo/address": "00:00:00:00:00:00",
            "sys/class/net/eno1/address": "B0:26:28:00:00:01",
            "sys/class/net/eno1/speed": "25000",
            "sys/class/net/eno1/carrier": "1",
            "sys/class/net/eno2/address": "b0:26:28:00:00:02",
            "sys/class/net/eno2/speed": "-1",
        },
    )
    sda = "sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/host0/target0:2:0/0:2:0:0"
    put(root, {f"{sda}/model": "PERC H740P Mini ", f"{sda}/vendor": "DELL    "})
    link(root, "sys/block/sda/device", sda)
    link(root, "sys/class/net/eno1/device", "sys/devices/pci0000:18/0000:18:00.0")
    virtio = "sys/devices/pci0000:00/0000:00:03.0/virtio1"
    put(root, {f"{virtio}/vendor": "0x1af4", f"{virtio}/device": "0x0001"})
    link(root, "sys/class/net/eno2/device", virtio)
    (root / "sys/firmware/efi").mkdir(parents=True)
    table = root / "sys/firmware/dmi/tables/DMI"
    table.parent.mkdir(parents=True)
    table.write_bytes(memory_device(16384) + memory_device(0) + memory_device(0x7FFF, 65536))
    addresses = {"eno1": ("fe80::1", "192.0.2.7", "2001:db8::7"), "eno2": ()}
    return Sources.recorded(root, hostname="r640", udev=UDEV, addresses=addresses)


def test_a_physical_server(server: Sources) -> None:
    found = read_inventory(server, "b0:26:28:00:00:01")
    assert isinstance(found, InspectResult)
    assert found.hostname == "r640"
    assert found.boot_mode == "UEFI"
    assert found.ram_mebibytes == 16384 + 65536
    assert found.cpu.count == 2
    assert found.cpu.clock_megahertz == 3700
    assert found.cpu.flags == ("avx", "fpu", "sse")
    assert found.cpu.model == "Intel(R) Xeon(R) Gold 6130"
    assert found.system_vendor.product_name == "PowerEdge R640"
    assert found.system_vendor.serial_number == ""
    assert (found.firmware.version, found.firmware.date) == ("2.1.8", "04/30/2019")


def test_its_disks(server: Sources) -> None:
    found = read_inventory(server)
    disks = {disk.name: disk for disk in found.disks}
    assert list(disks) == ["/dev/sda", "/dev/sdb", "/dev/sdc", "/dev/nvme0n1"]
    sda = disks["/dev/sda"]
    assert (sda.size_bytes, sda.type, sda.rotational) == (936640512 * 512, "HDD", True)
    assert (sda.model, sda.vendor, sda.serial_number) == ("PERC H740P Mini", "DELL", "00c2e25e")
    assert (sda.wwn, sda.wwn_with_extension, sda.wwn_vendor_extension) == (
        "0x62cea7f05ee20e00",
        "0x62cea7f05ee20e0025",
        "0x25",
    )
    assert (sda.hctl, sda.by_path) == ("0:2:0:0", BY_PATH)
    assert sda.alternate_names == ("/dev/sda", "/dev/disk/by-id/wwn-0x62cea", BY_PATH)
    nvme = disks["/dev/nvme0n1"]
    assert (nvme.type, nvme.model, nvme.serial_number) == ("NVME", "SAMSUNG MZWLL1T6", "S3HDNX0")
    assert (nvme.logical_sector_bytes, nvme.wwn, nvme.hctl) == (4096, "eui.002538", "")
    assert (disks["/dev/sdb"].skip, disks["/dev/sdc"].skip) == ("removable", "read-only")
    assert found.root_disk == "/dev/sda"
    assert "smallest" in found.root_disk_reason


def test_its_nics_have_a_row_for_each_family(server: Sources) -> None:
    nics = read_inventory(server, "b0:26:28:00:00:01").nics
    assert [(nic.name, nic.ip) for nic in nics] == [
        ("eno1", "192.0.2.7"),
        ("eno1", "2001:db8::7"),
        ("eno2", ""),
    ]
    first, _, last = nics
    assert (first.mac, first.speed_mbps, first.pxe) == ("b0:26:28:00:00:01", 25000, True)
    assert (first.model, first.pci_address) == ("Broadcom Inc. NetXtreme BCM5720", "0000:18:00.0")
    assert first.has_carrier
    assert (last.model, last.pci_address, last.speed_mbps, last.pxe) == (
        "0x1af4 0x0001",
        "0000:00:03.0",
        0,
        False,
    )
    assert read_macs(server) == ("b0:26:28:00:00:01", "b0:26:28:00:00:02")


def test_partitions_and_memory(server: Sources) -> None:
    assert read_partitions(server, "/dev/sda") == ("/dev/sda1", "/dev/sda2", "/dev/sda10")
    assert read_partitions(server, "/dev/nowhere") == ()
    assert read_available_bytes(server) == 8000000 * 1024


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    found = read_inventory(Sources.recorded(tmp_path))
    assert found.disks == found.nics == ()
    assert (found.cpu.count, found.ram_mebibytes, found.boot_mode) == (0, 0, "legacy")
    assert found.root_disk is None
    assert "no disk" in found.root_disk_reason


@pytest.mark.parametrize(
    ("table", "mebibytes"),
    [
        (b"", 0),
        (memory_device(0xFFFF), 0),
        (memory_device(0x8000 | 2048), 2),
        (memory_device(512, length=0x15), 512),
        (memory_device(0x7FFF, 1 << 20), 1 << 20),
        (bytes([1, 2, 0, 0]), 0),
        (bytes([127, 4, 0, 0]) + b"\0\0" + memory_device(512), 0),
        (bytes([17, 0x22, 0, 0]), 0),
    ],
)
def test_memory_devices(table: bytes, mebibytes: int) -> None:
    assert parse_memory(table) == mebibytes


def test_this_machine_can_be_read() -> None:
    found = read_inventory(Sources.live())
    assert found.cpu.count > 0
    assert found.ram_mebibytes > 0
    assert found.hostname
