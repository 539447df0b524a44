"""Inventories as an honest agent sends them, and as nobody should."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billet_server.core.hardware import MOST_BYTES, render_hardware
from billet_server.core.hardwaredetails import (
    Bios,
    Cpu,
    Firmware,
    HardwareDetails,
    Nic,
    Storage,
    SystemVendor,
)
from billet_server.core.wording import MOST_NUMBER, printable, printable_lines, whole
from billet_wire import (
    CpuReport,
    DiskReport,
    FirmwareReport,
    InspectResult,
    NicReport,
    VendorReport,
)
from core_world import INVENTORY

FIGURES = st.one_of(st.integers(), st.floats(allow_nan=True, allow_infinity=True))
WHOLES = st.integers(min_value=-(2**80), max_value=2**80)


def test_an_honest_inventory_is_told_as_it_is():
    hardware = render_hardware(INVENTORY)
    assert hardware["cpu"] == {
        "arch": "x86_64",
        "model": "QEMU",
        "clockMegahertz": 2000,
        "flags": ["avx", "sse"],
        "count": 2,
    }
    assert hardware["storage"] == [
        {"name": "/dev/vda", "sizeBytes": 8 << 30, "type": "HDD", "rotational": False}
    ]
    assert hardware["nics"][0]["speedGbps"] == 10
    assert hardware["nics"][0]["pxe"] is True


def test_every_field_that_is_known_has_its_place():
    disk = DiskReport(
        *("/dev/sda", 10**12, True, "HDD", "PERC", "DELL", "00c2", "0x62", "0x6225", "0x25"),
        *("0:2:0:0", "/dev/disk/by-path/p", ("/dev/sda", "/dev/disk/by-id/w")),
    )
    nic = NicReport(
        "eno1", "b0:26:28:00:00:01", "Broadcom", "192.0.2.7", 25000, True, "0000:18:00.0"
    )
    report = InspectResult(
        hostname="r640",
        cpu=CpuReport("x86_64", "Xeon", 2100.5, ("sse",), 64),
        ram_mebibytes=16384,
        disks=(disk,),
        nics=(nic, NicReport("eno1", nic.mac, ip="2001:db8::7")),
        system_vendor=VendorReport("Dell Inc.", "R640", "7XK"),
        firmware=FirmwareReport("Dell", "2.1.8", "2019"),
        boot_mode="UEFI",
    )
    hardware = render_hardware(report)
    assert msgspec.convert(hardware, HardwareDetails) == HardwareDetails(
        SystemVendor("Dell Inc.", "R640", "7XK"),
        Firmware(Bios("2019", "Dell", "2.1.8")),
        16384,
        "r640",
        Cpu("x86_64", "Xeon", 2101, ("sse",), 64),
        (
            Nic("eno1", "Broadcom", nic.mac, "192.0.2.7", 25, pxe=True, pci_address="0000:18:00.0"),
            Nic("eno1", "", nic.mac, "2001:db8::7"),
        ),
        (
            Storage(
                *("/dev/disk/by-path/p", ("/dev/disk/by-id/w", "/dev/sda"), True, "HDD", 10**12),
                *("DELL", "PERC", "00c2", "0x62", "0x6225", "0x25", "0:2:0:0"),
            ),
        ),
    )


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=400), figure=FIGURES, count=WHOLES)
def test_no_inventory_makes_what_the_api_refuses(text, figure, count):
    report = InspectResult(
        hostname=text,
        cpu=CpuReport(text, text, figure, (text, text), count),
        ram_mebibytes=count,
        disks=(DiskReport(text, count, True, text, text, by_path=text or None),),
        nics=(NicReport(text, text, text, text, count),),
        system_vendor=VendorReport(text, text, text),
        firmware=FirmwareReport(text, text, text),
        boot_mode=text,
    )
    hardware = render_hardware(report)
    assert hardware["storage"][0].get("type", "HDD") in ("HDD", "SSD", "NVME")
    for value in _leaves(hardware):
        if isinstance(value, str):
            assert value == printable(value, 256)
        else:
            assert isinstance(value, int)
            assert 0 <= value <= MOST_NUMBER


def test_a_monstrous_inventory_still_fits_an_object():
    disk = DiskReport("n" * 3000, 1, True, "HDD", "m" * 3000, alternate_names=("a" * 3000,) * 99)
    nics = (NicReport("e" * 3000, "m" * 3000),) * 5000
    report = INVENTORY.__class__(**{
        name: getattr(INVENTORY, name) for name in INVENTORY.__struct_fields__
    } | {"disks": (disk,) * 5000, "nics": nics})  # fmt: skip
    hardware = render_hardware(report)
    assert len(json.dumps(hardware)) <= MOST_BYTES
    assert hardware["storage"]
    assert hardware["nics"]


@pytest.mark.parametrize(
    ("value", "said"), [(float("nan"), 0), (float("inf"), 100), (-3, 0), (41.9, 41), (10**30, 100)]
)
def test_figures_stay_in_range(value, said):
    assert whole(value, 100) == said


def test_words_of_others_cannot_steer_a_terminal():
    assert printable("a\x1b[2J\nb\u202ec", 80) == "a [2J b c"
    assert printable("x" * 50, 10) == "x" * 9 + "…"
    assert printable_lines("one\ntwo\x07", 80) == "one\ntwo "


def _leaves(value):
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value
