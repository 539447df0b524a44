"""Checks of a BareMetalHost on its way into the API, beyond what its schema can say.

They are those of Metal3's validating webhook (create and update, never delete) as far as Billet
has the feature. Pure: no name is looked up, nothing is fetched.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from billet_server.core.annotations import DETACHED
from billet_server.core.bmcaddress import address_fault, split_scheme

Json = Mapping[str, Any]

MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
CHECKSUM_TYPES = ("md5", "sha256", "sha512", "auto")

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_DEVICE = re.compile(r"/dev/(disk/by-path/)?[^/\s]+")
_DIGEST = re.compile(r"[0-9A-Fa-f]+")
_DIGEST_LENGTHS = {"md5": (32,), "sha256": (64,), "sha512": (128,), "auto": (32, 64, 128)}

# As Metal3: the address may change while registering, and while the host is detached.
_ADDRESS_MAY_CHANGE = ("", "unmanaged", "registering")

_REQUIRED, _INVALID, _FORBIDDEN = "Required value", "Invalid value", "Forbidden"
_UNSUPPORTED = "Unsupported value"


class Fault(NamedTuple):
    """One fault. ``type`` is Kubernetes' ("Required value", "Invalid value", "Forbidden" …)."""

    path: str
    type: str
    message: str


def validate_host(new: Json, old: Json | None) -> list[Fault]:
    """Return all faults of a BareMetalHost, by path; ``old`` is the object before an update.

    Both are plain objects of ``metal3.io/v1alpha1``. What the update does not touch is not
    refused: an object that was let in once can always be labelled or deleted.
    """
    faults = set(_faults_of(new))
    if old is not None:
        faults -= set(_faults_of(old))
        faults |= set(_change_faults(new, old))
    return sorted(faults)


def _faults_of(host: Json) -> Iterator[Fault]:
    spec = _part(host, "spec")
    namespace = _text(_part(host, "metadata"), "namespace")
    yield from _name_faults(_text(_part(host, "metadata"), "name"))
    yield from _bmc_faults(spec)
    yield from _image_faults(_part(spec, "image"))
    yield from _secret_faults(spec, namespace)
    yield from _device_faults(spec)
    if spec.get("disablePowerOff") is True and spec.get("online") is False:
        yield Fault("spec.online", _FORBIDDEN, "may not be false while disablePowerOff is true")


def _name_faults(name: str) -> Iterator[Fault]:
    if name and not _NAME.fullmatch(name):
        rule = "a host's name has only letters, digits, '.', '_' and '-'"
        yield Fault("metadata.name", _INVALID, f"{_quote(name)}: {rule}")
    elif _UUID.fullmatch(name):
        rule = "a host's name may not look like a UUID, since hosts are also found by UUID"
        yield Fault("metadata.name", _INVALID, f"{_quote(name)}: {rule}")


def _bmc_faults(spec: Json) -> Iterator[Fault]:
    bmc = _part(spec, "bmc")
    address, credentials = _text(bmc, "address"), _text(bmc, "credentialsName")
    mac = _text(spec, "bootMACAddress")
    scheme = ""
    if address.strip():
        scheme = split_scheme(address)[0]
        if fault := address_fault(address):
            yield Fault("spec.bmc.address", _INVALID, f"{_quote(_masked(address))}: {fault}")
        if not credentials:
            reason = "the name of a Secret with username and password"
            yield Fault("spec.bmc.credentialsName", _REQUIRED, reason)
    elif credentials:
        yield Fault("spec.bmc.address", _REQUIRED, "where the management controller is")
    if mac:
        if not MAC.fullmatch(mac):
            rule = "must be six pairs of hex digits with colons, like 00:c2:fc:3b:e1:01"
            yield Fault("spec.bootMACAddress", _INVALID, f"{_quote(mac)}: {rule}")
    elif scheme == "libvirt":
        reason = "a libvirt:// host is known by the MAC address it boots from"
        yield Fault("spec.bootMACAddress", _REQUIRED, reason)
    elif address.strip() and spec.get("inspectionMode") == "disabled":
        reason = "without an inspection only this tells which machine boots"
        yield Fault("spec.bootMACAddress", _REQUIRED, reason)
    if spec.get("bootMode") == "UEFISecureBoot" and scheme in ("ipmi", "libvirt"):
        yield Fault("spec.bootMode", _INVALID, '"UEFISecureBoot": IPMI cannot set Secure Boot')


def _image_faults(image: Json) -> Iterator[Fault]:
    url, checksum = _text(image, "url").strip(), _text(image, "checksum").strip()
    if not url:
        return
    if fault := _url_fault(url):
        yield Fault("spec.image.url", _INVALID, f"{_quote(url)}: {fault}")
    kind = _text(image, "checksumType")
    if kind and kind not in CHECKSUM_TYPES:
        known = ", ".join(map(_quote, CHECKSUM_TYPES))
        detail = f"{_quote(kind)}: supported values: {known}"
        yield Fault("spec.image.checksumType", _UNSUPPORTED, detail)
    if image.get("format") == "live-iso":
        return
    if not checksum:
        reason = "the image's digest, or the URL of a file that lists it"
        yield Fault("spec.image.checksum", _REQUIRED, reason)
    elif "://" in checksum:
        if fault := _url_fault(checksum):
            yield Fault("spec.image.checksum", _INVALID, f"{_quote(checksum)}: {fault}")
    elif fault := _digest_fault(checksum, kind or "auto"):
        yield Fault("spec.image.checksum", _INVALID, f"{_quote(checksum)}: {fault}")


def _url_fault(url: str) -> str:
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        return f"is not a URL: {error}"
    if parts.scheme not in ("http", "https"):
        return "only http:// and https:// URLs are downloaded"
    return "" if has_host else "the URL has no host"


def _digest_fault(digest: str, kind: str) -> str:
    lengths = _DIGEST_LENGTHS.get(kind, _DIGEST_LENGTHS["auto"])
    if _DIGEST.fullmatch(digest) and len(digest) in lengths:
        return ""
    wanted = " or ".join(map(str, lengths))
    return f"must be {wanted} hex digits ({kind}), or an http(s) URL of a sum file"


def _secret_faults(spec: Json, namespace: str) -> Iterator[Fault]:
    for field in ("metaData", "networkData", "userData"):
        other = _text(_part(spec, field), "namespace")
        if other and other != namespace:
            reason = f"the Secret must be in the host's namespace {namespace}, not in {other}"
            yield Fault(f"spec.{field}.namespace", _FORBIDDEN, reason)


def _device_faults(spec: Json) -> Iterator[Fault]:
    device = _text(_part(spec, "rootDeviceHints"), "deviceName")
    if device and not _DEVICE.fullmatch(device):
        rule = "must be a device like /dev/sda or a link like /dev/disk/by-path/pci-0000:00:1f.2"
        yield Fault("spec.rootDeviceHints.deviceName", _INVALID, f"{_quote(device)}: {rule}")


def _change_faults(new: Json, old: Json) -> Iterator[Fault]:
    new_spec, old_spec = _part(new, "spec"), _part(old, "spec")
    mac, old_mac = _text(new_spec, "bootMACAddress"), _text(old_spec, "bootMACAddress")
    if old_mac and mac.lower() != old_mac.lower():
        rule = f"may not change once set (it is {old_mac}); delete the host and create it anew"
        yield Fault("spec.bootMACAddress", _FORBIDDEN, rule)
    address = _text(_part(new_spec, "bmc"), "address")
    old_address = _text(_part(old_spec, "bmc"), "address")
    if not old_address or address == old_address:
        return
    state = _text(_part(_part(old, "status"), "provisioning"), "state")
    annotations = _part(_part(old, "metadata"), "annotations")
    is_detached = _part(old, "status").get("operationalStatus") == "detached"
    if state not in _ADDRESS_MAY_CHANGE and not is_detached and DETACHED not in annotations:
        rule = (
            f"may not change while the host is {state}; only while it is registering, "
            f"or detached (annotation {DETACHED})"
        )
        yield Fault("spec.bmc.address", _FORBIDDEN, rule)


def _part(value: Json, name: str) -> Json:
    part = value.get(name)
    return part if isinstance(part, Mapping) else {}


def _text(value: Json, name: str) -> str:
    text = value.get(name)
    return text if isinstance(text, str) else ""


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _masked(address: str) -> str:
    """Hide what stands before an ``@``: it may be a password."""
    return re.sub(r"(^|//)[^/]*@", r"\1***@", address)
