"""How the host is reached: its name, its BMC, the card it boots from, its boot mode."""

import re
from collections.abc import Iterator

from billet_server.core.annotations import INSPECT
from billet_server.core.bmcaddress import address_fault, split_scheme
from billet_server.core.validation.faults import (
    FORBIDDEN,
    INVALID,
    REQUIRED,
    Fault,
    Json,
    annotations_of,
    part,
    quote,
    text,
)

MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
IPMI_SCHEMES = ("ipmi", "libvirt")

_NAME = re.compile(r"[A-Za-z0-9._-]+")
# With and without hyphens: both are read as one by those who look hosts up by UUID.
_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|[0-9A-Fa-f]{32}")


def name_faults(host: Json) -> Iterator[Fault]:
    """Check ``metadata.name``."""
    name = text(part(host, "metadata"), "name")
    if name and not _NAME.fullmatch(name):
        rule = "a host's name has only letters, digits, '.', '_' and '-'"
        yield Fault("metadata.name", INVALID, f"{quote(name)}: {rule}")
    elif _UUID.fullmatch(name):
        rule = "a host's name may not look like a UUID, since hosts are also found by UUID"
        yield Fault("metadata.name", INVALID, f"{quote(name)}: {rule}")


def bmc_faults(host: Json) -> Iterator[Fault]:
    """Check ``spec.bmc`` and what its scheme demands or cannot do."""
    spec = part(host, "spec")
    bmc = part(spec, "bmc")
    address, credentials = text(bmc, "address"), text(bmc, "credentialsName")
    scheme = ""
    if address.strip():
        scheme = split_scheme(address)[0]
        if fault := address_fault(address):
            yield Fault("spec.bmc.address", INVALID, f"{quote(_masked(address))}: {fault}")
        if not credentials:
            reason = "the name of a Secret with username and password"
            yield Fault("spec.bmc.credentialsName", REQUIRED, reason)
    elif credentials:
        yield Fault("spec.bmc.address", REQUIRED, "where the management controller is")
    yield from _mac_faults(host, scheme)
    if scheme not in IPMI_SCHEMES:
        return
    if spec.get("bootMode") == "UEFISecureBoot":
        rule = f"{scheme}:// cannot set Secure Boot; use UEFI, or a redfish:// address"
        yield Fault("spec.bootMode", INVALID, f'"UEFISecureBoot": {rule}')
    if spec.get("inspectionMode") == "fast":
        rule = f"{scheme}:// does not tell the hardware; use agent, or a redfish:// address"
        yield Fault("spec.inspectionMode", INVALID, f'"fast": {rule}')


def _mac_faults(host: Json, scheme: str) -> Iterator[Fault]:
    mac = text(part(host, "spec"), "bootMACAddress")
    if mac:
        if not MAC.fullmatch(mac):
            rule = "must be six pairs of hex digits with colons, like 00:c2:fc:3b:e1:01"
            yield Fault("spec.bootMACAddress", INVALID, f"{quote(mac)}: {rule}")
    elif scheme == "libvirt":
        reason = "a libvirt:// host is known by the MAC address it boots from"
        yield Fault("spec.bootMACAddress", REQUIRED, reason)
    elif scheme and inspection_is_off(host):
        reason = "without an inspection only this tells which machine boots"
        yield Fault("spec.bootMACAddress", REQUIRED, reason)


def inspection_is_off(host: Json) -> bool:
    """Whether the field or, as long as that is empty, the old annotation says so."""
    mode = text(part(host, "spec"), "inspectionMode") or annotations_of(host).get(INSPECT)
    return mode == "disabled"


def power_faults(host: Json) -> Iterator[Fault]:
    """Check that the wanted power is allowed."""
    spec = part(host, "spec")
    if spec.get("disablePowerOff") is True and spec.get("online") is False:
        rule = "may not be false while disablePowerOff is true: the machine would have to go off"
        yield Fault("spec.online", FORBIDDEN, rule)


def _masked(address: str) -> str:
    """Hide what stands before an ``@``: it may be a password."""
    return re.sub(r"(^|//)[^/]*@", r"\1***@", address)
