"""What dnsmasq is told, and what its log lines mean. Pure.

dnsmasq hands out addresses (or, as a proxy, only boot files beside another DHCP server) and the
first loader over TFTP. Option numbers: RFC 2132, RFC 4578 (93: client architecture), RFC 7440;
iPXE's own options travel inside option 175.
"""

import ipaddress
import re
from pathlib import Path
from typing import Literal, NamedTuple

from billet_server.errors import ConfigError
from billet_server.ports import BootStage

Mode = Literal["dhcp", "proxy", "off"]

BIOS_LOADER = "undionly.kpxe"
UEFI_LOADER = "snponly.efi"

_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")


class DhcpSettings(NamedTuple):
    """How machines of the provisioning network get an address and their first loader.

    ``server_address`` is this machine's IPv4 address on ``interface``; range and ``gateway``
    (None: machines get no router) and ``dns`` (None: no name server) matter in mode dhcp only.
    ``state_dir`` keeps the leases. ``tftp_root`` must be reachable by the user nobody; None: a
    directory of our own under /run.
    """

    interface: str
    server_address: str
    mode: Mode
    range_start: str = ""
    range_end: str = ""
    netmask: str = "255.255.255.0"
    lease_s: int = 3600
    gateway: str | None = None
    dns: str | None = None
    http_port: int = 8080
    state_dir: Path = Path("/var/lib/billet")
    tftp_root: Path | None = None

    @property
    def script_url(self) -> str:
        """Return the address of the first iPXE script."""
        return f"http://{self.server_address}:{self.http_port}/boot.ipxe"


class Sighting(NamedTuple):
    """A line of dnsmasq's log that tells of a machine; a TFTP line knows only its address."""

    stage: BootStage
    detail: str
    mac: str = ""
    address: str = ""
    trouble: bool = False


def check_settings(settings: DhcpSettings) -> list[str]:
    """Return one sentence for each fault; mode off has none."""
    if settings.mode == "off":
        return []
    faults = []
    if not _INTERFACE.fullmatch(settings.interface):
        faults.append(f"DHCP interface {settings.interface!r} is not an interface name")
    if not 0 < settings.http_port < 65536:
        faults.append(f"boot HTTP port {settings.http_port} is not between 1 and 65535")
    try:
        network = ipaddress.IPv4Network(f"{settings.server_address}/{settings.netmask}", False)
    except ValueError as error:
        return [*faults, f"DHCP server address or netmask: {error}"]
    if settings.mode == "dhcp":
        faults += _check_range(settings, network)
    return faults


def _check_range(settings: DhcpSettings, network: ipaddress.IPv4Network) -> list[str]:
    try:
        first = ipaddress.IPv4Address(settings.range_start)
        last = ipaddress.IPv4Address(settings.range_end)
        others = [ipaddress.IPv4Address(a) for a in (settings.gateway, settings.dns) if a]
    except ValueError as error:
        return [f"DHCP range, gateway or DNS: {error}"]
    faults = []
    if first > last or first not in network or last not in network:
        faults.append(f"DHCP range {first} to {last} is not a range inside {network}")
    own = ipaddress.IPv4Address(settings.server_address)
    faults += [
        f"DHCP range {first} to {last} contains {taken}, which is in use"
        for taken in (own, *others)
        if first <= taken <= last
    ]
    if settings.lease_s < 120:
        faults.append(f"DHCP lease of {settings.lease_s} s is below dnsmasq's least, 120 s")
    return faults


def render_config(settings: DhcpSettings) -> str:
    """Return dnsmasq's configuration, one option per line. Raises ConfigError with all faults.

    The lease file and the TFTP root are not in it: they are handed over when dnsmasq starts.
    """
    faults = check_settings(settings)
    if settings.mode == "off":
        faults.append("DHCP is off: there is nothing to configure")
    if faults:
        raise ConfigError(faults)
    lines = [
        # No DNS. Listen on the one interface and nowhere else, also when its address changes.
        "port=0",
        f"interface={settings.interface}",
        "except-interface=lo",
        "bind-dynamic",
        f"enable-tftp={settings.interface}",
        "tftp-no-fail",
        "tftp-max=200",
        # Old PXE ROMs read file and server name where BOOTP had them.
        "dhcp-no-override",
        "dhcp-match=set:ipxe,175",
        "dhcp-userclass=set:ipxe,iPXE",
        "dhcp-match=set:bios,option:client-arch,0",
        "dhcp-match=set:efi,option:client-arch,7",
        "dhcp-match=set:efi,option:client-arch,9",
        "dhcp-match=set:http,option:client-arch,16",
        # iPXE takes a proxy's offer only with a next server in it, though the URL needs none.
        f"dhcp-boot=tag:ipxe,{settings.script_url},,{settings.server_address}",
    ]
    lines += _proxy_lines(settings) if settings.mode == "proxy" else _dhcp_lines(settings)
    return "".join(f"{line}\n" for line in lines)


def _dhcp_lines(settings: DhcpSettings) -> list[str]:
    first = ipaddress.IPv4Address(settings.range_start)
    last = ipaddress.IPv4Address(settings.range_end)
    server = settings.server_address
    loader_url = f"http://{server}:{settings.http_port}/boot/loader/{UEFI_LOADER}"
    return [
        f"dhcp-range={first},{last},{settings.netmask},{settings.lease_s}s",
        f"dhcp-lease-max={int(last) - int(first) + 1}",
        "dhcp-authoritative",
        # Firmware, iPXE and Linux send different client ids; one machine gets one address.
        "dhcp-ignore-clid",
        # The range is ours alone: pinging an address before the offer costs three seconds.
        "no-ping",
        f"dhcp-option=option:router{',' + settings.gateway if settings.gateway else ''}",
        f"dhcp-option=option:dns-server{',' + settings.dns if settings.dns else ''}",
        # iPXE: do not wait for ProxyDHCP offers, there are none.
        "dhcp-option=tag:ipxe,encap:175,176,1b",
        f"dhcp-boot=tag:!ipxe,tag:bios,{BIOS_LOADER},,{server}",
        f"dhcp-boot=tag:!ipxe,tag:efi,{UEFI_LOADER},,{server}",
        # UEFI HTTP boot wants its own class back and a URL.
        "dhcp-option-force=tag:http,option:vendor-class,HTTPClient",
        f"dhcp-boot=tag:!ipxe,tag:http,{loader_url}",
    ]


def _proxy_lines(settings: DhcpSettings) -> list[str]:
    network = ipaddress.IPv4Network(f"{settings.server_address}/{settings.netmask}", False)
    server = settings.server_address
    return [
        f"dhcp-range={network.network_address},proxy,{network.netmask}",
        # The file in the offer itself for BIOS; UEFI asks again at port 4011 (PXE 2.1, 2.2.3).
        f"dhcp-boot=tag:!ipxe,tag:bios,{BIOS_LOADER},,{server}",
        f"pxe-service=tag:!ipxe,BC_EFI,Billet,{UEFI_LOADER},{server}",
        f"pxe-service=tag:!ipxe,X86-64_EFI,Billet,{UEFI_LOADER},{server}",
    ]


_LINE = re.compile(r"dnsmasq-(?:dhcp|tftp)(?:\[\d+\])?: (?:\d+ )?(.*)")
_MAC = r"(?P<mac>[0-9a-f]{2}(?::[0-9a-f]{2}){5})"
_IP = r"(?P<ip>\d{1,3}(?:\.\d{1,3}){3})"
_DISCOVER = re.compile(rf"DHCPDISCOVER\(\S+\) (?:{_IP} )?{_MAC}(?P<none> no address available)?")
_ACK = re.compile(rf"DHCPACK\(\S+\) {_IP} {_MAC}")
_REFUSED = re.compile(rf"DHCP(?P<what>NAK|DECLINE)\(\S+\) {_IP} {_MAC} ?(?P<why>.*)")
_PXE = re.compile(rf"PXE\(\S+\) (?:{_IP} )?{_MAC} (?P<what>\S+)")
_SENT = re.compile(rf"sent (?P<file>\S+) to {_IP}")
_FAILED = re.compile(rf"(?:failed sending|file) (?P<file>\S+) (?:to|not found for) {_IP}")


def parse_log(line: str) -> Sighting | None:
    """Return what a line of dnsmasq's log says of a machine, or None when it says nothing."""
    match = _LINE.match(line)
    if match is None:
        return None
    text = match[1]
    if found := _ACK.match(text):
        return Sighting("dhcp", f"given {found['ip']}", found["mac"], found["ip"])
    if found := _DISCOVER.match(text):
        if found["none"]:
            return Sighting("dhcp", "no address is left in the DHCP range", found["mac"], "", True)
        return Sighting("dhcp", "asked for an address", found["mac"])
    if found := _REFUSED.match(text):
        detail = f"DHCP {found['what']} {found['ip']} {found['why']}".rstrip()
        return Sighting("dhcp", detail, found["mac"], "", True)
    if found := _PXE.match(text):
        detail = f"offered {found['what']} beside another DHCP server"
        return Sighting("dhcp", detail, found["mac"], found["ip"] or "")
    if found := _SENT.match(text):
        return Sighting("loader", f"sent {Path(found['file']).name}", "", found["ip"])
    if found := _FAILED.match(text):
        detail = f"could not send {Path(found['file']).name} by TFTP"
        return Sighting("loader", detail, "", found["ip"], True)
    return None
