"""Network interfaces from sysfs, udev's hardware database and the kernel's addresses."""

import ipaddress
import re
from collections.abc import Iterable

from billet_agent.inventory.sources import Sources
from billet_wire import NicReport

_PCI = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")


def read_nics(sources: Sources, boot_mac: str | None = None) -> tuple[NicReport, ...]:
    """Return the physical interfaces: one row for each IP family, one without any address."""
    rows: list[NicReport] = []
    addresses = sources.addresses()
    for name in sources.names("sys/class/net"):
        if (sources.root / f"sys/class/net/{name}/device").exists():
            rows += _rows(sources, name, addresses.get(name, ()), boot_mac)
    return tuple(rows)


def read_macs(sources: Sources) -> tuple[str, ...]:
    """Return the permanent MACs of all physical interfaces."""
    return tuple(dict.fromkeys(nic.mac for nic in read_nics(sources)))


def _rows(
    sources: Sources, name: str, addresses: Iterable[str], boot_mac: str | None
) -> list[NicReport]:
    base = f"sys/class/net/{name}"
    mac = (sources.permanent_mac(name) or sources.text(f"{base}/address")).lower()
    if not _MAC.fullmatch(mac):
        return []
    nic = NicReport(
        name=name,
        mac=mac,
        model=_model(sources, name, base),
        speed_mbps=max(0, sources.number(f"{base}/speed")),
        pxe=mac == boot_mac,
        pci_address=_pci_address(sources, f"{base}/device"),
        has_carrier=sources.text(f"{base}/carrier") == "1",
    )
    chosen = _one_per_family(addresses)
    return [_with_ip(nic, ip) for ip in chosen] or [nic]


def _with_ip(nic: NicReport, ip: str) -> NicReport:
    return NicReport(
        nic.name, nic.mac, nic.model, ip, nic.speed_mbps, nic.pxe, nic.pci_address, nic.has_carrier
    )


def _one_per_family(addresses: Iterable[str]) -> list[str]:
    """Return one IPv4 and one IPv6 address; link-local ones only for want of better."""
    parsed = [ipaddress.ip_address(text) for text in addresses]
    best: dict[int, str] = {}
    for address in sorted(parsed, key=lambda entry: entry.is_link_local):
        best.setdefault(address.version, str(address))
    return [best[version] for version in sorted(best)]


def _model(sources: Sources, name: str, base: str) -> str:
    udev = sources.udev("net", name)
    words = (udev.get("ID_VENDOR_FROM_DATABASE", ""), udev.get("ID_MODEL_FROM_DATABASE", ""))
    if any(words):
        return " ".join(word for word in words if word)
    ids = (sources.text(f"{base}/device/vendor"), sources.text(f"{base}/device/device"))
    return " ".join(word for word in ids if word)


def _pci_address(sources: Sources, path: str) -> str:
    """Return the nearest PCI function above; a virtio NIC hangs below one."""
    for part in reversed(sources.resolved(path).parts):
        if _PCI.fullmatch(part):
            return part
    return ""
