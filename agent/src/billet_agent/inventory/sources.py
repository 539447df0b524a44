"""Where the inventory reads from: this machine, or a recorded tree for tests."""

import array
import fcntl
import platform
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyudev

_SIOCETHTOOL = 0x8946
_ETHTOOL_GPERMADDR = 0x20

Properties = Mapping[str, str]


@dataclass(frozen=True)
class Sources:
    """One root directory for /sys, /proc and /run, and what only the kernel can tell.

    ``udev(subsystem, name)`` gives a device's udev properties (DEVLINKS among them);
    ``addresses`` the IP addresses by interface; ``permanent_mac`` a NIC's burnt-in MAC or None.
    """

    root: Path
    hostname: str
    architecture: str
    udev: Callable[[str, str], Properties]
    addresses: Callable[[], Mapping[str, tuple[str, ...]]]
    permanent_mac: Callable[[str], str | None]

    @classmethod
    def live(cls) -> "Sources":
        """Read from the running machine."""
        return cls(
            Path("/"),
            socket.gethostname(),
            platform.machine(),
            _udev_live(pyudev.Context()),
            _addresses_live,
            _permanent_mac_live,
        )

    @classmethod
    def recorded(
        cls,
        root: Path,
        *,
        hostname: str = "recorded",
        architecture: str = "x86_64",
        udev: Mapping[tuple[str, str], Properties] | None = None,
        addresses: Mapping[str, tuple[str, ...]] | None = None,
    ) -> "Sources":
        """Read from a tree that holds sys/ and proc/ as recorded elsewhere."""
        known, found = dict(udev or {}), dict(addresses or {})
        return cls(
            root,
            hostname,
            architecture,
            lambda subsystem, name: known.get((subsystem, name), {}),
            lambda: found,
            lambda _: None,
        )

    def text(self, path: str, default: str = "") -> str:
        """Return a small file's text without the white space around it."""
        try:
            return (self.root / path).read_text(errors="replace").strip("\0 \n\t")
        except OSError:
            return default

    def number(self, path: str, default: int = 0) -> int:
        """Return a file's decimal number."""
        try:
            return int(self.text(path))
        except ValueError:
            return default

    def names(self, path: str) -> list[str]:
        """Return a directory's entries, sorted; none when it is not there."""
        try:
            return sorted(entry.name for entry in (self.root / path).iterdir())
        except OSError:
            return []

    def resolved(self, path: str) -> Path:
        """Return where a symbolic link leads."""
        return (self.root / path).resolve()


def _udev_live(context: pyudev.Context) -> Callable[[str, str], Properties]:
    def properties(subsystem: str, name: str) -> Properties:
        try:
            device = pyudev.Devices.from_name(context, subsystem, name)
        except pyudev.DeviceNotFoundError:
            return {}
        return dict(device.properties)

    return properties


def _addresses_live() -> Mapping[str, tuple[str, ...]]:
    families = {socket.AF_INET, socket.AF_INET6}
    return {
        name: tuple(entry.address.partition("%")[0] for entry in found if entry.family in families)
        for name, found in psutil.net_if_addrs().items()
    }


def _permanent_mac_live(name: str) -> str | None:
    """Ask by ethtool's ioctl: struct ethtool_perm_addr {u32 cmd; u32 size; u8 data[32]}."""
    data = array.array("B", struct.pack("II32s", _ETHTOOL_GPERMADDR, 32, b""))
    request = struct.pack("16sP", name.encode()[:15], data.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock.fileno(), _SIOCETHTOOL, request)
        except OSError:
            return None
    length = struct.unpack_from("I", data, 4)[0]
    mac = data.tobytes()[8 : 8 + length]
    if length != 6 or mac in {bytes(6), b"\xff" * 6}:
        return None
    return ":".join(f"{byte:02x}" for byte in mac)
