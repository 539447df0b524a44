"""Which disk gets the image: Metal3's operators, and the default rule."""

import pytest

from billet_agent.plan.rootdisk import GIB, Choice, NoDisk, choose_root_disk
from billet_wire import DiskReport, RootDeviceHints

SMALL = DiskReport("/dev/sda", 4 * GIB - 512, False, "SSD", serial_number="tiny")
SSD = DiskReport(
    "/dev/sdb",
    480 * 10**9,
    False,
    "SSD",
    model="INTEL SSDSC2",
    vendor="ATA",
    serial_number="BTWL1",
    wwn="0x5001",
    wwn_with_extension="0x50015001",
    wwn_vendor_extension="0x77",
    hctl="0:0:1:0",
    by_path="/dev/disk/by-path/pci-0000:00:1f.2-ata-1",
    alternate_names=("/dev/sdb", "/dev/disk/by-id/wwn-0x5001"),
)
HDD = DiskReport("/dev/sdc", 465 * GIB + 1, True, "HDD", model="WDC", serial_number="WD9")
USB = DiskReport(
    "/dev/sdd", 8 * GIB, False, "SSD", serial_number="stick", removable=True, skip="removable"
)
FAR = DiskReport("/dev/sdaa", 465 * GIB + 1, True, "HDD", model="WDC")
ALL = (FAR, HDD, USB, SSD, SMALL)


def chosen(hints: RootDeviceHints | None) -> str | None:
    result = choose_root_disk(ALL, hints)
    return result.disk.name if isinstance(result, Choice) else None


@pytest.mark.parametrize(
    ("hints", "name"),
    [
        (None, "/dev/sdb"),
        (RootDeviceHints(), "/dev/sdb"),
        (RootDeviceHints(device_name="/dev/sdc"), "/dev/sdc"),
        (RootDeviceHints(device_name="/dev/disk/by-path/pci-0000:00:1f.2-ata-1"), "/dev/sdb"),
        (RootDeviceHints(device_name="/dev/disk/by-id/wwn-0x5001"), "/dev/sdb"),
        (RootDeviceHints(device_name="/dev/sd"), None),
        (RootDeviceHints(hctl="0:0:1:0"), "/dev/sdb"),
        (RootDeviceHints(hctl="0:0:1"), None),
        (RootDeviceHints(model="ssd"), "/dev/sdb"),
        (RootDeviceHints(model="intel   SSDSC2"), "/dev/sdb"),
        (RootDeviceHints(vendor="at"), "/dev/sdb"),
        (RootDeviceHints(serial_number="btwl1"), "/dev/sdb"),
        (RootDeviceHints(serial_number="BTWL"), None),
        (RootDeviceHints(wwn="0x5001"), "/dev/sdb"),
        (RootDeviceHints(wwn="0x500"), None),
        (RootDeviceHints(wwn_with_extension="0X50015001"), "/dev/sdb"),
        (RootDeviceHints(wwn_vendor_extension="0x77"), "/dev/sdb"),
        (RootDeviceHints(min_size_gigabytes=465), "/dev/sdc"),
        (RootDeviceHints(min_size_gigabytes=466), None),
        (RootDeviceHints(rotational=True), "/dev/sdc"),
        (RootDeviceHints(rotational=False), "/dev/sda"),
        (RootDeviceHints(rotational=True, vendor="ATA"), None),
        (RootDeviceHints(serial_number="stick"), None),
        (RootDeviceHints(vendor=""), "/dev/sdb"),
    ],
)
def test_choice(hints: RootDeviceHints | None, name: str | None) -> None:
    assert chosen(hints) == name


def test_the_first_in_kernel_order_wins_and_the_others_are_named() -> None:
    result = choose_root_disk(ALL, RootDeviceHints(model="WDC"))
    assert isinstance(result, Choice)
    assert result.disk is HDD
    assert "/dev/sdaa" in result.reason


def test_of_equals_the_smaller_name() -> None:
    result = choose_root_disk((FAR, HDD))
    assert isinstance(result, Choice)
    assert result.disk is HDD


def test_no_disk_lists_every_disk_with_the_hint_it_failed() -> None:
    result = choose_root_disk(ALL, RootDeviceHints(serial_number="X", min_size_gigabytes=100))
    assert isinstance(result, NoDisk)
    problem = result.failure().problem
    assert problem.problem == "root-device"
    for disk in ALL:
        assert f"{disk.name}:" in problem.message
    assert "serialNumber: 'BTWL1' is not 'X'" in problem.message
    assert "/dev/sdd: removable" in problem.message
    assert "serialNumber=X, minSizeGigabytes=100" in problem.message


def test_the_4_gib_rule_without_hints() -> None:
    result = choose_root_disk((SMALL, USB))
    assert isinstance(result, NoDisk)
    assert "less than 4 GiB" in result.failure().problem.message
    exact = DiskReport("/dev/vda", 4 * GIB, True, "HDD")
    assert isinstance(choose_root_disk((exact,)), Choice)
    none = choose_root_disk(())
    assert isinstance(none, NoDisk)
    assert "no disk" in none.failure().problem.message
