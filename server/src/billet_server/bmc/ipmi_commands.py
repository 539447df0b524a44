"""The few IPMI commands Billet sends, as bytes, and what their answers mean. Pure.

Section numbers are those of the IPMI 2.0 specification, revision 1.1.
"""

from typing import NamedTuple

from billet_server.bmc.quirks.ipmi import UEFI_DISK_SELECTOR
from billet_server.core.terms import BootDevice, PowerState


class Command(NamedTuple):
    """A request: network function, command number, data bytes."""

    netfn: int
    command: int
    data: bytes = b""


GET_DEVICE_ID = Command(0x06, 0x01)
CHASSIS_STATUS = Command(0x00, 0x01)
POWER_DOWN = Command(0x00, 0x02, b"\x00")
POWER_UP = Command(0x00, 0x02, b"\x01")
POWER_CYCLE = Command(0x00, 0x02, b"\x02")
HARD_RESET = Command(0x00, 0x02, b"\x03")
SOFT_SHUTDOWN = Command(0x00, 0x02, b"\x05")
GET_BOOT_FLAGS = Command(0x00, 0x09, b"\x05\x00\x00")
KEEP_BOOT_FLAGS = Command(0x00, 0x08, b"\x03\x08")
"""Boot flag valid bit clearing (28.12, parameter 3): do not drop the flags 60 s after they were
set when no power command follows; a slow POST would otherwise miss them. Not every BMC has it."""

_VALID, _PERSISTENT, _EFI = 0x80, 0x40, 0x20
_DEVICE = {BootDevice.NETWORK: 0x04, BootDevice.DISK: 0x08}

BUSY_CODES = {
    0xC0: "node busy",
    0xC3: "time-out while processing the command",
    0xC4: "out of space",
    0xD2: "BMC initialization in progress",
}
"""Completion codes (table 5-2) worth asking again for."""

UNSUPPORTED_CODES = {
    0xC1: "invalid command",
    0xC2: "command invalid for given LUN",
    0xD5: "command not supported in present state",
    0xD6: "sub-function disabled",
}
PRIVILEGE_CODE = 0xD4
LACKING_CODES = frozenset({*UNSUPPORTED_CODES, 0xCC})
"""A BMC without an optional value of a field answers 0xCC as often as one of the others."""

_OTHER_CODES = {
    0x80: "parameter not supported",
    0x81: "attempt to set a value while another one is being set",
    0xC7: "request data length invalid",
    0xC9: "parameter out of range",
    0xCC: "invalid data field",
    0xCE: "command response could not be provided",
    0xD3: "destination unavailable",
    PRIVILEGE_CODE: "insufficient privilege level",
    0xFF: "unspecified error",
}


def describe_code(code: int) -> str:
    """A completion code in words with its number."""
    words = {**BUSY_CODES, **UNSUPPORTED_CODES, **_OTHER_CODES}.get(code, "unknown code")
    return f"{words} (completion code 0x{code:02x})"


def parse_chassis_status(data: bytes) -> PowerState:
    """Power from Get Chassis Status (28.2): bit 0 of the first byte; UNKNOWN when too short."""
    if not data:
        return PowerState.UNKNOWN
    return PowerState.ON if data[0] & 1 else PowerState.OFF


def parse_manufacturer(data: bytes) -> int:
    """The manufacturer's number from Get Device ID (20.1), 0 when the answer is too short."""
    return int.from_bytes(data[6:9], "little") if len(data) >= 9 else 0


def parse_uefi_flag(data: bytes) -> bool:
    """Whether Get System Boot Options (28.13) for parameter 5 has the EFI boot bit."""
    return len(data) >= 3 and bool(data[2] & _EFI)


def render_boot_flags(
    device: BootDevice, *, uefi: bool, persistent: bool, manufacturer: int = 0
) -> Command:
    """Set System Boot Options (28.12), parameter 5, all flags in one command.

    >>> render_boot_flags(BootDevice.NETWORK, uefi=True, persistent=False).data.hex()
    '05a004000000'
    """
    flags = _VALID | (_PERSISTENT if persistent else 0) | (_EFI if uefi else 0)
    selector = _DEVICE[device]
    if uefi and device is BootDevice.DISK:
        selector = UEFI_DISK_SELECTOR.get(manufacturer, selector)
    return Command(0x00, 0x08, bytes((5, flags, selector, 0, 0, 0)))
