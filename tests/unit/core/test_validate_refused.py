"""Every manifest that Metal3's webhook refuses, and what only Metal3 can do: each by name."""

import pytest

from billet_server.core.annotations import INSPECT
from billet_server.core.validate import host_warnings, validate_host

IMAGE = "http://172.22.0.2/images/CentOS-7.qcow2"
MD5 = "d41d8cd98f00b204e9800998ecf8427e"
REQUIRED, INVALID, FORBIDDEN = "Required value", "Invalid value", "Forbidden"
UNSUPPORTED, DUPLICATE = "Unsupported value", "Duplicate value"


def host(name="node01", annotations=None, state="", **spec):
    base = {
        "bmc": {"address": "ipmi://172.22.0.2:6230", "credentialsName": "node01-credentials"},
        "bootMACAddress": "00:c2:fc:3b:e1:01",
        "online": True,
    }
    metadata = {"name": name, "namespace": "metal3", "annotations": annotations or {}}
    status = {"provisioning": {"state": state}} if state else {}
    return {"metadata": metadata, "spec": base | spec, "status": status}


def redfish(**spec):
    return {"bmc": {"address": "redfish://h/redfish/v1/Systems/1", "credentialsName": "c"}, **spec}


def bmc(address):
    return {"bmc": {"address": address, "credentialsName": "c"}}


def image(**fields):
    return {"image": {"url": IMAGE, "checksum": MD5} | fields}


def hardware_raid(*volumes):
    return {"raid": {"hardwareRAIDVolumes": list(volumes)}}


def software_raid(*volumes):
    return {"raid": {"softwareRAIDVolumes": list(volumes)}}


NO_SOFTWARE = ("spec.raid.softwareRAIDVolumes", FORBIDDEN, "Billet makes no software RAID")
NO_HARDWARE = ("spec.raid.hardwareRAIDVolumes", FORBIDDEN, "drives no RAID controller")
ADDRESS = "spec.bmc.address"

REFUSED = {
    # names
    "characters": ({"name": "node:1"}, [("metadata.name", INVALID, "'.', '_' and '-'")]),
    "uuid": (
        {"name": "7551cfb4-d758-4ad8-9188-859ee53cf298"},
        [("metadata.name", INVALID, "may not look like a UUID")],
    ),
    "uuid without hyphens": (
        {"name": "7551cfb4d7584ad89188859ee53cf298"},
        [("metadata.name", INVALID, "may not look like a UUID")],
    ),
    # BMC
    "unknown scheme": (
        bmc("snmp://10.0.0.7"),
        [(ADDRESS, INVALID, '"snmp://10.0.0.7": unknown BMC scheme snmp://; supported are ipmi')],
    ),
    "host syntax": (bmc("ipmi://a_b c"), [(ADDRESS, INVALID, "is not a host name")]),
    "IPv6 syntax": (bmc("redfish://[fd00::zz]/"), [(ADDRESS, INVALID, "brackets")]),
    "MAC missing for libvirt": (
        {**bmc("libvirt://h:6230"), "bootMACAddress": ""},
        [("spec.bootMACAddress", REQUIRED, "libvirt://")],
    ),
    "MAC missing without inspection": (
        redfish(inspectionMode="disabled", bootMACAddress=""),
        [("spec.bootMACAddress", REQUIRED, "without an inspection")],
    ),
    "MAC missing without inspection, by annotation": (
        redfish(bootMACAddress="", annotations={INSPECT: "disabled"}),
        [("spec.bootMACAddress", REQUIRED, "without an inspection")],
    ),
    "no MAC": ({"bootMACAddress": "00:c2"}, [("spec.bootMACAddress", INVALID, "six pairs")]),
    "secure boot on IPMI": (
        {"bootMode": "UEFISecureBoot"},
        [("spec.bootMode", INVALID, "ipmi:// cannot set Secure Boot; use UEFI")],
    ),
    "secure boot on libvirt": (
        {**bmc("libvirt://h:1"), "bootMode": "UEFISecureBoot"},
        [("spec.bootMode", INVALID, "libvirt:// cannot set Secure Boot")],
    ),
    "fast inspection on IPMI": (
        {"inspectionMode": "fast"},
        [("spec.inspectionMode", INVALID, "ipmi:// does not tell the hardware; use agent")],
    ),
    # firmware and RAID
    "firmware": (
        {"firmware": {"virtualizationEnabled": True}},
        [("spec.firmware", FORBIDDEN, "HostFirmwareSettings")],
    ),
    "empty firmware": ({"firmware": {}}, [("spec.firmware", FORBIDDEN, "leave this out")]),
    "hardware RAID on IPMI": (
        hardware_raid({"level": "1"}),
        [(NO_HARDWARE[0], FORBIDDEN, "ipmi:// cannot set up RAID")],
    ),
    "hardware RAID": (
        redfish(**hardware_raid({"level": "1"})),
        [(NO_HARDWARE[0], FORBIDDEN, "Billet drives no RAID controller: make the volumes in its")],
    ),
    "software RAID": (
        software_raid({"level": "1"}),
        [(NO_SOFTWARE[0], FORBIDDEN, "choose that with rootDeviceHints")],
    ),
    "both RAIDs": (
        {"raid": {"hardwareRAIDVolumes": [{"level": "0"}],
                  "softwareRAIDVolumes": [{"level": "1"}]}},
        [("spec.raid", FORBIDDEN, "exclude each other"), NO_HARDWARE, NO_SOFTWARE],
    ),
    "physicalDisks without controller": (
        hardware_raid({"level": "0"}, {"level": "1", "physicalDisks": ["a", "b"]}),
        [NO_HARDWARE,
         ("spec.raid.hardwareRAIDVolumes[1].controller", REQUIRED, "whose disks")],
    ),
    "disk count": (
        hardware_raid({"level": "1", "controller": "c", "physicalDisks": ["a", "b"],
                       "numberOfPhysicalDisks": 3}),
        [NO_HARDWARE,
         ("spec.raid.hardwareRAIDVolumes[0].numberOfPhysicalDisks", INVALID,
          "3: physicalDisks names 2")],
    ),
    "two root volumes": (
        software_raid({"level": "1", "rootVolume": True}, {"level": "1", "rootVolume": True}),
        [NO_SOFTWARE,
         ("spec.raid.softwareRAIDVolumes[1].rootVolume", DUPLICATE, "only one volume")],
    ),
    "root volume of level 0": (
        software_raid({"level": "1"}, {"level": "0", "rootVolume": True}),
        [NO_SOFTWARE,
         ("spec.raid.softwareRAIDVolumes[1].level", INVALID, '"0": the root volume must be of')],
    ),
    "root volume with hints": (
        {**software_raid({"level": "1", "rootVolume": True}),
         "rootDeviceHints": {"deviceName": "/dev/sda"}},
        [NO_SOFTWARE, ("spec.rootDeviceHints", FORBIDDEN, "both say where the image goes")],
    ),
    "member outside by-path": (
        software_raid({"level": "1", "physicalDisks": [{"deviceName": "/dev/sda"},
                                                       {"deviceName": "/dev/disk/by-id/b"}]}),
        [NO_SOFTWARE,
         ("spec.raid.softwareRAIDVolumes[0].physicalDisks[1].deviceName", INVALID, "by-path")],
    ),
    # root device
    "device outside /dev": (
        {"rootDeviceHints": {"deviceName": "sda"}},
        [("spec.rootDeviceHints.deviceName", INVALID, '"sda": must be a device like /dev/sda')],
    ),
    "device by uuid": (
        {"rootDeviceHints": {"deviceName": "/dev/disk/by-uuid/1"}},
        [("spec.rootDeviceHints.deviceName", INVALID, "/dev/disk/by-path/")],
    ),
    "hint of a wrong type": (
        {"rootDeviceHints": {"minSizeGigabytes": "a lot"}},
        [("spec", INVALID, "$.rootDeviceHints.minSizeGigabytes")],
    ),
    # image
    "file": (image(url="file:///etc/shadow"), [("spec.image.url", INVALID, "only http://")]),
    "ftp": (image(url="ftp://h/x"), [("spec.image.url", INVALID, "put the file on a web server")]),
    "gopher": (image(url="gopher://h/x"), [("spec.image.url", INVALID, "not gopher://")]),
    "no URL": (image(url="x"), [("spec.image.url", INVALID, '"x": only http://')]),
    "oci": (
        image(url="oci://registry/image", checksum=""),
        [("spec.image.url", INVALID, "export the image from its registry")],
    ),
    "oci with checksum": (
        image(url="OCI://registry/image"),
        [("spec.image.checksum", FORBIDDEN, "must be empty with an oci:// image"),
         ("spec.image.url", INVALID, "not oci://")],
    ),
    "no checksum": (image(checksum=""), [("spec.image.checksum", REQUIRED, "digest")]),
    "checksum of no type": (
        image(checksumType="sha1"),
        [("spec.image.checksumType", UNSUPPORTED, '"sha1": supported values: "md5"')],
    ),
    "checksum of another type": (
        image(checksumType="sha512"), [("spec.image.checksum", INVALID, "128 hex digits (sha512)")]
    ),
    "format": (
        image(format="vhdx"),
        [("spec.image.format", UNSUPPORTED, '"vhdx": supported values: "raw", "qcow2"')],
    ),
    "live ISO": (
        image(format="live-iso", checksum=""),
        [("spec.image.format", UNSUPPORTED, "boots no live ISO; use a raw or qcow2 image")],
    ),
    "custom deployment": (
        {"customDeploy": {"method": "install_coreos"}},
        [("spec.customDeploy.method", UNSUPPORTED, '"install_coreos": Billet runs no deploy')],
    ),
    # references
    **{
        f"{field} elsewhere": (
            {field: {"name": "s", "namespace": "other"}},
            [(f"spec.{field}.namespace", FORBIDDEN, "namespace metal3, not in other")],
        )
        for field in ("userData", "networkData", "metaData")
    },
    # power
    "off and never off": (
        {"online": False, "disablePowerOff": True},
        [("spec.online", FORBIDDEN, "while disablePowerOff is true")],
    ),
    # cards
    "card without selector": (
        {"networkInterfaces": [{"hostNetworkAttachment": {"name": "n"}}]},
        [("spec.networkInterfaces[0]", REQUIRED, "name or macAddress")],
    ),
    "card with both selectors": (
        {"networkInterfaces": [{"name": "eno1", "macAddress": "00:c2:fc:3b:e1:01"}]},
        [("spec.networkInterfaces[0]", FORBIDDEN, "exclude each other")],
    ),
    "card twice by name": (
        {"networkInterfaces": [{"name": "eno1"}, {"name": "eno2"}, {"name": "eno1"}]},
        [("spec.networkInterfaces[2].name", DUPLICATE, '"eno1"')],
    ),
    "card twice by MAC": (
        {"networkInterfaces": [{"macAddress": "00:c2:fc:3b:e1:0a"},
                               {"macAddress": "00:C2:FC:3B:E1:0A"}]},
        [("spec.networkInterfaces[1].macAddress", DUPLICATE, "00:C2:FC:3B:E1:0A")],
    ),
    "card with no MAC": (
        {"networkInterfaces": [{"macAddress": "x"}]},
        [("spec.networkInterfaces[0].macAddress", INVALID, "six pairs")],
    ),
}  # fmt: skip

METAL3_SCHEMES = {
    "idrac-virtualmedia+https": "use redfish:// and network boot",
    "ilo5-virtualmedia": "use redfish:// and network boot",
    "redfish-virtualmedia+http": "use redfish:// and network boot",
    "redfish-uefihttp": "use redfish:// and network boot",
    "idrac": "use redfish:// (iDRAC 8 and later) or ipmi://",
    "ibmc": "use redfish://",
    "ilo4": "use ipmi://",
    "ilo4-virtualmedia": "use ipmi://",
    "ilo5": "use redfish://",
    "irmc": "use redfish://",
}


def check(faults, expected):
    assert [(fault.path, fault.type) for fault in faults] == [row[:2] for row in expected], faults
    for fault, (_, _, words) in zip(faults, expected, strict=True):
        assert words in fault.message


@pytest.mark.parametrize("case", REFUSED)
def test_refused_when_created_and_when_changed_and_not_when_left_alone(case):
    change, expected = REFUSED[case]
    broken = host(**change)
    check(validate_host(broken, None), expected)
    if "name" not in change:
        check(validate_host(broken, host(bootMACAddress="")), expected)
    labelled = {**broken, "metadata": broken["metadata"] | {"labels": {"a": "b"}}}
    assert validate_host(labelled, broken) == []


@pytest.mark.parametrize("scheme", METAL3_SCHEMES)
def test_a_scheme_of_metal3_is_refused_with_what_to_use(scheme):
    (fault,) = validate_host(host(**bmc(f"{scheme}://10.0.0.7/x")), None)
    assert (fault.path, fault.type) == (ADDRESS, INVALID)
    assert f'"{scheme}://10.0.0.7/x": the BMC scheme {scheme}:// of Metal3' in fault.message
    assert METAL3_SCHEMES[scheme] in fault.message


@pytest.mark.parametrize("scheme", ["idrac-redfish", "ilo5-redfish+http", "idrac-redfish+https"])
def test_other_names_of_redfish_are_let_in(scheme):
    named = host(**bmc(f"{scheme}://10.0.0.7/redfish/v1/Systems/1"), inspectionMode="agent")
    assert (validate_host(named, None), host_warnings(named, None)) == ([], [])


# updates


@pytest.mark.parametrize(
    ("state", "allowed"),
    [("", False), ("unmanaged", False), ("registering", False), ("inspecting", False),
     ("ready", True), ("available", True), ("provisioning", False), ("provisioned", False),
     ("externally provisioned", True), ("deprovisioning", False)],
)  # fmt: skip
def test_external_provisioning_begins_at_creation_or_at_rest(state, allowed):
    old, new = host(state=state), host(state=state, externallyProvisioned=True)
    path = "spec.externallyProvisioned"
    now = f"it is {state} now" if state else "it has no state yet"
    check(validate_host(new, old), [] if allowed else [(path, FORBIDDEN, now)])
    assert validate_host(new, None) == []
    assert validate_host(old, new) == [], "it may end at any time"


@pytest.mark.parametrize("state", ["inspecting", "ready", "available", "provisioned"])
def test_the_address_stays(state):
    old, new = host(state=state), host(state=state, **bmc("ipmi://172.22.0.9"))
    check(validate_host(new, old), [(ADDRESS, FORBIDDEN, f"while the host is {state}")])


def test_the_mac_stays():
    new = host(bootMACAddress="00:c2:fc:3b:e1:02")
    words = "may not change once set (it is 00:c2:fc:3b:e1:01)"
    check(validate_host(new, host()), [("spec.bootMACAddress", FORBIDDEN, words)])


# what is let in


def test_a_plain_host_has_neither_faults_nor_warnings():
    assert validate_host(host(), None) == []
    assert host_warnings(host(), None) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"taints": [{"key": "k", "effect": "NoSchedule"}]}, "spec.taints: kept and not acted on"),
        ({"networkInterfaces": [{"name": "eno1"}]}, "Billet configures no switches"),
        ({"preprovisioningNetworkDataName": "n"}, "the ramdisk gets its address by DHCP"),
        (image(ociAuthSecretName="s"), "spec.image.ociAuthSecretName: kept and not acted on"),
        ({"architecture": "aarch64"}, 'spec.architecture: "aarch64": the ramdisk is for x86_64'),
        ({"hardwareProfile": "mine"}, 'spec.hardwareProfile: "mine": no such profile'),
        (redfish(inspectionMode="fast"), 'spec.inspectionMode: "fast": boots the ramdisk'),
        (redfish(bootMode="UEFISecureBoot"), "Secure Boot stays as the firmware has it"),
        ({"raid": {"hardwareRAIDVolumes": []}}, "spec.raid.hardwareRAIDVolumes: an empty list"),
        ({"raid": {"softwareRAIDVolumes": []}}, "spec.raid.softwareRAIDVolumes: an empty list"),
    ],
)
def test_wishes_without_effect_are_let_in_and_told_once(change, words):
    wishing = host(**change)
    assert validate_host(wishing, None) == []
    (warning,) = host_warnings(wishing, None)
    assert words in warning
    assert host_warnings(wishing, host()) == [warning]
    assert host_warnings(wishing, wishing) == []


@pytest.mark.parametrize(
    "change",
    [
        {"raid": {"hardwareRAIDVolumes": None, "softwareRAIDVolumes": None}},
        {"raid": {}},
        {"firmware": None},
        {"customDeploy": {"method": ""}},
        {"networkInterfaces": []},
        {"architecture": "x86_64", "hardwareProfile": "dell-raid", "inspectionMode": "agent"},
        {"online": False},
    ],
)
def test_empty_wishes_are_none(change):
    assert validate_host(host(**change), None) == []
    assert host_warnings(host(**change), None) == []
