import pytest

from billet_server.bmc import ipmi_commands as commands
from billet_server.core.terms import BootDevice, PowerState

NETWORK, DISK = BootDevice.NETWORK, BootDevice.DISK


@pytest.mark.parametrize(
    ("device", "uefi", "persistent", "flags"),
    [
        (NETWORK, False, False, "058004000000"),
        (NETWORK, False, True, "05c004000000"),
        (NETWORK, True, False, "05a004000000"),
        (NETWORK, True, True, "05e004000000"),
        (DISK, False, False, "058008000000"),
        (DISK, True, False, "05a008000000"),
        (DISK, True, True, "05e008000000"),
    ],
)
def test_boot_flags_are_the_bytes_of_the_specification(device, uefi, persistent, flags):
    command = commands.render_boot_flags(device, uefi=uefi, persistent=persistent)
    assert (command.netfn, command.command) == (0x00, 0x08)
    assert command.data.hex() == flags


@pytest.mark.parametrize(
    ("device", "uefi", "selector"), [(DISK, True, 0x24), (DISK, False, 0x08), (NETWORK, True, 0x04)]
)
def test_supermicro_has_its_own_uefi_disk(device, uefi, selector):
    command = commands.render_boot_flags(device, uefi=uefi, persistent=False, manufacturer=10876)
    assert command.data[2] == selector


@pytest.mark.parametrize(
    ("data", "state"),
    [
        (b"\x01\x00\x00", PowerState.ON),
        (b"\x21\x10\x40", PowerState.ON),
        (b"\x00\x00\x00", PowerState.OFF),
        (b"\x60", PowerState.OFF),
        (b"", PowerState.UNKNOWN),
    ],
)
def test_chassis_status(data, state):
    assert commands.parse_chassis_status(data) is state


def test_manufacturer():
    data = bytes([0x20, 1, 3, 0x55, 2, 0xBF, 0x7C, 0x2A, 0x00, 0x1C, 0x09])
    assert commands.parse_manufacturer(data) == 10876
    assert commands.parse_manufacturer(data[:8]) == 0


def test_uefi_flag():
    assert commands.parse_uefi_flag(bytes.fromhex("0105a004000000"))
    assert not commands.parse_uefi_flag(bytes.fromhex("01058004000000"))
    assert not commands.parse_uefi_flag(b"\x01\x05")


def test_completion_codes_have_words_and_numbers():
    assert commands.describe_code(0xC0) == "node busy (completion code 0xc0)"
    assert commands.describe_code(0x99) == "unknown code (completion code 0x99)"
