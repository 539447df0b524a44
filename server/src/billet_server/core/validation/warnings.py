"""What an object asks for and nothing follows from: let in, since it does no harm, and said."""

from collections.abc import Iterator

from billet_server.core.validation.faults import Json, part, quote, text

PROFILES = ("", "unknown", "libvirt", "dell", "dell-raid", "openstack", "empty")


def warnings_of(host: Json) -> Iterator[str]:
    """Yield a sentence for each wish that is not fulfilled."""
    spec = part(host, "spec")
    if spec.get("taints"):
        yield "spec.taints: kept and not acted on, as by Metal3"
    if spec.get("networkInterfaces"):
        yield "spec.networkInterfaces: kept and not acted on; Billet configures no switches"
    if text(spec, "preprovisioningNetworkDataName"):
        yield (
            "spec.preprovisioningNetworkDataName: the ramdisk gets its address by DHCP; used for "
            "the image only, where networkData is unset"
        )
    if text(part(spec, "image"), "ociAuthSecretName"):
        yield "spec.image.ociAuthSecretName: kept and not acted on; no registry is asked"
    if (architecture := text(spec, "architecture")) not in ("", "x86_64"):
        yield f"spec.architecture: {quote(architecture)}: the ramdisk is for x86_64 only"
    if (profile := text(spec, "hardwareProfile")) not in PROFILES:
        yield f"spec.hardwareProfile: {quote(profile)}: no such profile; no hint follows"
    if text(spec, "inspectionMode") == "fast":
        yield 'spec.inspectionMode: "fast": boots the ramdisk, as agent does'
    if text(spec, "bootMode") == "UEFISecureBoot":
        yield 'spec.bootMode: "UEFISecureBoot": sets UEFI; Secure Boot stays as the firmware has it'
    for name in ("hardwareRAIDVolumes", "softwareRAIDVolumes"):
        if part(spec, "raid").get(name) == []:
            yield f"spec.raid.{name}: an empty list removes all volumes; Billet removes none"
