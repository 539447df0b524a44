"""What is written, and where: the image, the root device, RAID volumes."""

import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from billet_server.core.bmcaddress import split_scheme
from billet_server.core.validation.addresses import IPMI_SCHEMES
from billet_server.core.validation.faults import (
    DUPLICATE,
    FORBIDDEN,
    INVALID,
    REQUIRED,
    UNSUPPORTED,
    Fault,
    Json,
    part,
    quote,
    rows,
    text,
)

CHECKSUM_TYPES = ("md5", "sha256", "sha512", "auto")
FORMATS = ("raw", "qcow2", "vdi", "vmdk")

_DEVICE = re.compile(r"/dev/(disk/by-path/)?[^/\s]+")
_DIGEST = re.compile(r"[0-9A-Fa-f]+")
_DIGEST_LENGTHS = {"md5": (32,), "sha256": (64,), "sha512": (128,), "auto": (32, 64, 128)}


def image_faults(host: Json) -> Iterator[Fault]:
    """Check ``spec.image``; without a url there is no image, whatever else it says."""
    image = part(part(host, "spec"), "image")
    url, checksum = text(image, "url").strip(), text(image, "checksum").strip()
    if not url:
        return
    if fault := url_fault(url):
        yield Fault("spec.image.url", INVALID, f"{quote(url)}: {fault}")
    layout = text(image, "format")
    if layout == "live-iso":
        rule = "Billet writes images to disks and boots no live ISO; use a raw or qcow2 image"
        yield Fault("spec.image.format", UNSUPPORTED, f'"live-iso": {rule}')
    elif layout and layout not in FORMATS:
        yield Fault("spec.image.format", UNSUPPORTED, _not_one_of(layout, FORMATS))
    kind = text(image, "checksumType")
    if kind and kind not in CHECKSUM_TYPES:
        yield Fault("spec.image.checksumType", UNSUPPORTED, _not_one_of(kind, CHECKSUM_TYPES))
    if _scheme(url) == "oci":
        if checksum:
            rule = "must be empty with an oci:// image, which carries its own digest"
            yield Fault("spec.image.checksum", FORBIDDEN, rule)
    elif layout != "live-iso":
        yield from _checksum_faults(checksum, kind or "auto")


def _checksum_faults(checksum: str, kind: str) -> Iterator[Fault]:
    fault = ""
    if not checksum:
        reason = "the image's digest, or the URL of a file that lists it"
        yield Fault("spec.image.checksum", REQUIRED, reason)
    elif "://" in checksum:
        fault = url_fault(checksum)
    else:
        fault = _digest_fault(checksum, kind)
    if fault:
        yield Fault("spec.image.checksum", INVALID, f"{quote(checksum)}: {fault}")


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower()


def url_fault(url: str) -> str:
    """Return why nothing can be downloaded from a URL, or an empty text."""
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        return f"is not a URL: {error}"
    if parts.scheme in ("ftp", "gopher", "oci"):
        where = "put the file on a web server" if parts.scheme != "oci" else (
            "export the image from its registry and put the file on a web server"
        )  # fmt: skip
        return f"only http:// and https:// URLs are downloaded, not {parts.scheme}://; {where}"
    if parts.scheme not in ("http", "https"):
        return "only http:// and https:// URLs are downloaded"
    return "" if has_host else "the URL has no host"


def _digest_fault(digest: str, kind: str) -> str:
    lengths = _DIGEST_LENGTHS.get(kind, _DIGEST_LENGTHS["auto"])
    prefix, colon, digits = digest.rpartition(":")
    named = _DIGEST_LENGTHS.get(prefix.lower(), ()) if colon else lengths
    fits = len(digits) in lengths and len(digits) in named and prefix.lower() != "auto"
    if fits and _DIGEST.fullmatch(digits):
        return ""
    wanted = " or ".join(map(str, lengths))
    return f"must be {wanted} hex digits ({kind}), or an http(s) URL of a sum file"


def _not_one_of(value: str, known: tuple[str, ...]) -> str:
    return f"{quote(value)}: supported values: {', '.join(map(quote, known))}"


def device_faults(host: Json) -> Iterator[Fault]:
    """Check the hints for the root device and for members of software RAID."""
    spec = part(host, "spec")
    yield from _hint_faults(part(spec, "rootDeviceHints"), "spec.rootDeviceHints")
    for volume, row in rows(part(spec, "raid"), "softwareRAIDVolumes"):
        for disk, hints in rows(row, "physicalDisks"):
            path = f"spec.raid.softwareRAIDVolumes[{volume}].physicalDisks[{disk}]"
            yield from _hint_faults(hints, path)


def _hint_faults(hints: Json, path: str) -> Iterator[Fault]:
    device = text(hints, "deviceName")
    if device and not _DEVICE.fullmatch(device):
        rule = "must be a device like /dev/sda or a link like /dev/disk/by-path/pci-0000:00:1f.2"
        yield Fault(f"{path}.deviceName", INVALID, f"{quote(device)}: {rule}")


def raid_faults(host: Json) -> Iterator[Fault]:
    """Check ``spec.raid``: Metal3's own rules first, then that Billet makes no volumes."""
    spec = part(host, "spec")
    raid = part(spec, "raid")
    hardware, software = (bool(raid.get(f"{kind}RAIDVolumes")) for kind in ("hardware", "software"))
    if hardware and software:
        rule = "hardwareRAIDVolumes and softwareRAIDVolumes exclude each other"
        yield Fault("spec.raid", FORBIDDEN, rule)
    yield from _hardware_raid_faults(raid)
    yield from _root_volume_faults(raid, bool(part(spec, "rootDeviceHints")))
    if hardware:
        scheme = split_scheme(text(part(spec, "bmc"), "address"))[0]
        if scheme in IPMI_SCHEMES and text(part(spec, "bmc"), "address").strip():
            why = f"{scheme}:// cannot set up RAID, and Billet drives no RAID controller"
        else:
            why = "Billet drives no RAID controller"
        advice = "make the volumes in its own set-up and choose one with rootDeviceHints"
        yield Fault("spec.raid.hardwareRAIDVolumes", FORBIDDEN, f"{why}: {advice}")
    if software:
        rule = (
            "Billet makes no software RAID: it writes the image to one disk; choose that with "
            "rootDeviceHints and let the image's first boot (userData) mirror it"
        )
        yield Fault("spec.raid.softwareRAIDVolumes", FORBIDDEN, rule)


def _hardware_raid_faults(raid: Json) -> Iterator[Fault]:
    for place, volume in rows(raid, "hardwareRAIDVolumes"):
        path = f"spec.raid.hardwareRAIDVolumes[{place}]"
        disks, count = volume.get("physicalDisks"), volume.get("numberOfPhysicalDisks")
        if not isinstance(disks, list) or not disks:
            continue
        if not text(volume, "controller"):
            yield Fault(f"{path}.controller", REQUIRED, "whose disks physicalDisks names")
        if isinstance(count, int) and count != len(disks):
            rule = f"physicalDisks names {len(disks)}"
            yield Fault(f"{path}.numberOfPhysicalDisks", INVALID, f"{count}: {rule}")


def _root_volume_faults(raid: Json, has_hints: bool) -> Iterator[Fault]:
    found = [
        (f"spec.raid.softwareRAIDVolumes[{place}]", volume)
        for place, volume in rows(raid, "softwareRAIDVolumes")
        if volume.get("rootVolume") is True
    ]
    for path, _ in found[1:]:
        yield Fault(f"{path}.rootVolume", DUPLICATE, "only one volume can be the root volume")
    for path, volume in found:
        if text(volume, "level") != "1":
            level = quote(text(volume, "level"))
            yield Fault(f"{path}.level", INVALID, f"{level}: the root volume must be of level 1")
    if found and has_hints:
        rule = "may not be given with a rootVolume: both say where the image goes"
        yield Fault("spec.rootDeviceHints", FORBIDDEN, rule)


def deploy_faults(host: Json) -> Iterator[Fault]:
    """Check what Metal3 can do to a machine and Billet cannot: firmware and custom deployments."""
    spec = part(host, "spec")
    if isinstance(spec.get("firmware"), Mapping):
        rule = (
            "no driver applies it, Metal3's neither; set the switches in the machine's firmware "
            "and leave this out (HostFirmwareSettings objects are not read by Billet)"
        )
        yield Fault("spec.firmware", FORBIDDEN, rule)
    if method := text(part(spec, "customDeploy"), "method").strip():
        rule = "Billet runs no deploy steps of other ramdisks; use spec.image"
        yield Fault("spec.customDeploy.method", UNSUPPORTED, f"{quote(method)}: {rule}")
