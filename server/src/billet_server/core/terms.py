"""The field's words as types, shared by every layer."""

import enum
from typing import NamedTuple


class HostKey(NamedTuple):
    """A BareMetalHost's namespace and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class PowerState(enum.StrEnum):
    """What a BMC says of the machine's power."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


class BootDevice(enum.StrEnum):
    """Where the firmware boots from next."""

    NETWORK = "network"
    DISK = "disk"


class BootMode(enum.StrEnum):
    """Firmware mode, Metal3 ``spec.bootMode``."""

    UEFI = "UEFI"
    UEFI_SECURE = "UEFISecureBoot"
    LEGACY = "legacy"

    @property
    def is_uefi(self) -> bool:
        """Whether the firmware is UEFI, with or without Secure Boot."""
        return self is not BootMode.LEGACY


class Secret(str):
    """Text that never shows: prints, formats and represents as ``***``.

    It *is* the text for those who ask for it by `reveal`; everything that formats it by
    accident gets stars.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def reveal(self) -> str:
        """Return the text itself; only adapters that must send it call this."""
        return str.__str__(self)


class Credentials(NamedTuple):
    """A BMC's user name and password."""

    username: str
    password: Secret
