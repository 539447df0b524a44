"""Admission checks of a BareMetalHost."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billet_server.bmc.address import parse_address
from billet_server.core.bmcaddress import SCHEMES, address_fault
from billet_server.core.validate import Fault, validate_host
from billet_server.errors import BmcAddressError

IMAGE = "http://172.22.0.2/images/CentOS-7.qcow2"
MD5 = "d41d8cd98f00b204e9800998ecf8427e"


def host(name="node01", status=None, annotations=None, **spec):
    base = {
        "bmc": {"address": "ipmi://172.22.0.2:6230", "credentialsName": "node01-credentials"},
        "bootMACAddress": "00:c2:fc:3b:e1:01",
        "online": False,
    }
    metadata = {"name": name, "namespace": "metal3", "annotations": annotations or {}}
    return {"metadata": metadata, "spec": base | spec, "status": status or {}}


def found(new, old=None):
    return [(fault.path, fault.type) for fault in validate_host(new, old)]


def bmc(address, credentials="c"):
    return {"address": address, "credentialsName": credentials}


GOOD = [
    {},
    {"description": "", "hardwareProfile": "libvirt"},
    {"bmc": bmc("libvirt://192.168.122.1:6230")},
    {"bmc": bmc("172.22.0.2")},
    {"bmc": bmc("bmc-7.example.org:6230")},
    {"bmc": bmc("ipmi://[fd00::7]:6230")},
    {"bmc": bmc("ipmi://h?privilegelevel=OPERATOR")},
    {"bmc": bmc("redfish://h/redfish/v1/Systems/1")},
    {"bmc": bmc("redfish+http://127.0.0.1:8000/redfish/v1/Systems/a-b")},
    {"bmc": bmc("redfish+https://[fd00::7]/")},
    {"bmc": bmc("", "")},
    {"bmc": {}},
    {"bootMACAddress": ""},
    {"image": {"url": IMAGE, "checksum": f"{IMAGE}.md5sum"}},
    {"image": {"url": IMAGE, "checksum": MD5, "checksumType": "md5"}},
    {"image": {"url": IMAGE, "checksum": "0" * 128}},
    {"image": {"url": "", "checksum": ""}},
    {"image": {}},
    {"image": {"url": "", "checksum": "x", "format": "live-iso"}},
    {"userData": {"name": "u", "namespace": "metal3"}, "metaData": {"name": "m"}},
    {"rootDeviceHints": {"deviceName": "/dev/vda"}},
    {"rootDeviceHints": {"deviceName": "/dev/disk/by-path/pci-0000:01:00.0-scsi-0:2:0:0"}},
    {"online": True, "disablePowerOff": True},
]


@pytest.mark.parametrize("spec", GOOD)
def test_good_hosts_have_no_faults(spec):
    assert validate_host(host(**spec), None) == []


REQUIRED, INVALID, FORBIDDEN = "Required value", "Invalid value", "Forbidden"

BAD = [
    (
        {"bmc": bmc("idrac://h")},
        "spec.bmc.address",
        INVALID,
        "BMC scheme idrac:// of Metal3 is not supported",
    ),
    ({"bmc": bmc("irmc://h")}, "spec.bmc.address", INVALID, "of Metal3 is not supported yet"),
    (
        {"bmc": bmc("redfish-virtualmedia+http://h/x")},
        "spec.bmc.address",
        INVALID,
        "of Metal3 is not supported yet",
    ),
    ({"bmc": bmc("snmp://h")}, "spec.bmc.address", INVALID, "unknown BMC scheme snmp://"),
    ({"bmc": bmc("ipmi://")}, "spec.bmc.address", INVALID, "there is no host"),
    ({"bmc": bmc("ipmi://h:0")}, "spec.bmc.address", INVALID, "'0' is not a port"),
    ({"bmc": bmc("ipmi://h:65536")}, "spec.bmc.address", INVALID, "'65536' is not a port"),
    ({"bmc": bmc("ipmi://h:x")}, "spec.bmc.address", INVALID, "'x' is not a port"),
    ({"bmc": bmc("ipmi://fd00::7")}, "spec.bmc.address", INVALID, "is not a port"),
    ({"bmc": bmc("ipmi://[fd00::7")}, "spec.bmc.address", INVALID, "brackets"),
    ({"bmc": bmc("ipmi://[h]")}, "spec.bmc.address", INVALID, "brackets"),
    ({"bmc": bmc("ipmi://a b")}, "spec.bmc.address", INVALID, "'a b' is not a host name"),
    ({"bmc": bmc("ipmi://h/path")}, "spec.bmc.address", INVALID, "has no path"),
    ({"bmc": bmc("ipmi://h?x=1")}, "spec.bmc.address", INVALID, "privilegelevel"),
    ({"bmc": bmc("redfish://h/../x")}, "spec.bmc.address", INVALID, "not the path"),
    ({"bmc": bmc("redfish://h?x=1")}, "spec.bmc.address", INVALID, "no options"),
    ({"bmc": bmc("ipmi://h", "")}, "spec.bmc.credentialsName", REQUIRED, "Secret"),
    ({"bmc": bmc("", "c")}, "spec.bmc.address", REQUIRED, "management controller"),
    (
        {"bmc": bmc("libvirt://h:6230"), "bootMACAddress": ""},
        "spec.bootMACAddress",
        REQUIRED,
        "libvirt://",
    ),
    (
        {"bootMACAddress": "", "inspectionMode": "disabled"},
        "spec.bootMACAddress",
        REQUIRED,
        "without an inspection",
    ),
    ({"bootMACAddress": "00-c2-fc-3b-e1-01"}, "spec.bootMACAddress", INVALID, "six pairs"),
    ({"bootMode": "UEFISecureBoot"}, "spec.bootMode", INVALID, "Secure Boot"),
    (
        {"image": {"url": "file:///etc/passwd", "checksum": MD5}},
        "spec.image.url",
        INVALID,
        "only http:// and https://",
    ),
    ({"image": {"url": "oci://r/i"}}, "spec.image.url", INVALID, "only http"),
    ({"image": {"url": "http:///x", "checksum": MD5}}, "spec.image.url", INVALID, "no host"),
    ({"image": {"url": "http://h:x/", "checksum": MD5}}, "spec.image.url", INVALID, "not a URL"),
    ({"image": {"url": IMAGE}}, "spec.image.checksum", REQUIRED, "digest"),
    ({"image": {"url": IMAGE, "checksum": " "}}, "spec.image.checksum", REQUIRED, "digest"),
    ({"image": {"url": IMAGE, "checksum": "x"}}, "spec.image.checksum", INVALID, "32 or 64 or 128"),
    (
        {"image": {"url": IMAGE, "checksum": MD5, "checksumType": "sha256"}},
        "spec.image.checksum",
        INVALID,
        "64 hex digits (sha256)",
    ),
    (
        {"image": {"url": IMAGE, "checksum": f"sha256:{MD5}"}},
        "spec.image.checksum",
        INVALID,
        "32 or 64 or 128",
    ),
    ({"image": {"url": IMAGE, "checksum": f":{MD5}"}}, "spec.image.checksum", INVALID, "hex"),
    (
        {"image": {"url": IMAGE, "checksum": "ftp://h/x"}},
        "spec.image.checksum",
        INVALID,
        "only http",
    ),
    (
        {"image": {"url": IMAGE, "checksum": MD5, "checksumType": "crc32"}},
        "spec.image.checksumType",
        "Unsupported value",
        'supported values: "md5", "sha256", "sha512", "auto"',
    ),
    (
        {"userData": {"name": "u", "namespace": "other"}},
        "spec.userData.namespace",
        FORBIDDEN,
        "namespace metal3, not in other",
    ),
    (
        {"networkData": {"name": "u", "namespace": "other"}},
        "spec.networkData.namespace",
        FORBIDDEN,
        "not in other",
    ),
    (
        {"metaData": {"name": "u", "namespace": "other"}},
        "spec.metaData.namespace",
        FORBIDDEN,
        "not in other",
    ),
    (
        {"rootDeviceHints": {"deviceName": "sda"}},
        "spec.rootDeviceHints.deviceName",
        INVALID,
        "/dev",
    ),
    (
        {"rootDeviceHints": {"deviceName": "/dev/disk/by-id/x"}},
        "spec.rootDeviceHints.deviceName",
        INVALID,
        "by-path",
    ),
    ({"disablePowerOff": True}, "spec.online", FORBIDDEN, "disablePowerOff"),
    ({"name": "a b"}, "metadata.name", INVALID, "letters, digits"),
    ({"name": "7551cfb4-d758-4ad8-9188-859ee53cf298"}, "metadata.name", INVALID, "UUID"),
]


@pytest.mark.parametrize(("spec", "path", "kind", "words"), BAD)
def test_each_fault_is_named(spec, path, kind, words):
    (fault,) = validate_host(host(**spec), None)
    assert (fault.path, fault.type) == (path, kind)
    assert words in fault.message


def test_all_faults_come_together_sorted_by_path():
    broken = host(
        name="a b",
        bmc=bmc("idrac://h", ""),
        bootMACAddress="x",
        image={"url": "ftp://h/x"},
        userData={"name": "u", "namespace": "other"},
    )
    assert found(broken) == [
        ("metadata.name", INVALID),
        ("spec.bmc.address", INVALID),
        ("spec.bmc.credentialsName", REQUIRED),
        ("spec.bootMACAddress", INVALID),
        ("spec.image.checksum", REQUIRED),
        ("spec.image.url", INVALID),
        ("spec.userData.namespace", FORBIDDEN),
    ]


def test_a_password_in_the_address_is_refused_and_not_repeated():
    (fault,) = validate_host(host(bmc=bmc("ipmi://admin:secret@h")), None)
    assert "belong in the Secret" in fault.message
    assert "secret" not in fault.message.replace("Secret", "")


def test_mac_may_be_set_once_and_change_its_case_only():
    old = host(bootMACAddress="")
    assert found(host(), old) == []
    assert found(host(bootMACAddress="00:C2:FC:3B:E1:01"), host()) == []
    assert found(host(bootMACAddress="00:c2:fc:3b:e1:02"), host()) == [
        ("spec.bootMACAddress", FORBIDDEN)
    ]
    assert found(host(bootMACAddress=""), host()) == [("spec.bootMACAddress", FORBIDDEN)]


@pytest.mark.parametrize(
    ("state", "more", "allowed"),
    [
        ("", {}, True),
        ("registering", {}, True),
        ("unmanaged", {}, True),
        ("inspecting", {}, False),
        ("ready", {}, False),
        ("provisioned", {}, False),
        ("provisioned", {"operationalStatus": "detached"}, True),
    ],
)
def test_bmc_address_changes_only_while_registering_or_detached(state, more, allowed):
    old = host(status={"provisioning": {"state": state}, **more})
    new = {**old, "spec": old["spec"] | {"bmc": bmc("ipmi://172.22.0.9")}}
    assert found(new, old) == ([] if allowed else [("spec.bmc.address", FORBIDDEN)])


@pytest.mark.parametrize("detached", [False, True])
def test_the_detached_annotation_lets_the_address_change_once_it_is_followed(detached):
    status = {"provisioning": {"state": "provisioning"}}
    if detached:
        status["operationalStatus"] = "detached"
    old = host(status=status, annotations={"baremetalhost.metal3.io/detached": ""})
    new = {**old, "spec": old["spec"] | {"bmc": bmc("ipmi://172.22.0.9")}}
    assert found(new, old) == ([] if detached else [("spec.bmc.address", FORBIDDEN)])


def test_an_update_is_not_blamed_for_what_it_leaves_alone():
    old = host(bmc=bmc("idrac://h"), image={"url": "ftp://h/x"})
    new = copy.deepcopy(old)
    new["metadata"]["labels"] = {"a": "b"}
    assert validate_host(new, old) == []
    new["spec"]["image"]["checksum"] = "zz"
    assert found(new, old) == [("spec.image.checksum", INVALID)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=5,
)
FIELDS = ["bmc", "image", "userData", "rootDeviceHints", "bootMACAddress", "online", "bootMode"]
INNER = ["address", "credentialsName", "url", "checksum", "checksumType", "namespace", "deviceName"]
specs = st.dictionaries(
    st.sampled_from(FIELDS),
    json_values | st.dictionaries(st.sampled_from(INNER), json_values, max_size=4),
)
hosts = st.fixed_dictionaries(
    {}, optional={"metadata": json_values, "spec": specs | json_values, "status": json_values}
)


@given(hosts, st.none() | hosts)
def test_any_object_gets_an_answer(new, old):
    faults = validate_host(new, old)
    assert faults == sorted(set(faults))
    assert all(isinstance(fault, Fault) and fault.message for fault in faults)
    if old == new:
        assert faults == []


PIECES = [
    *(f"{scheme}://" for scheme in (*SCHEMES, "idrac", "ilo5+http", "x", "IPMI")),
    *("ipmi:", "redfish:", "//", "h", "bmc-7.example.org", "10.0.0.7", "[fd00::7]", "fd00::7"),
    *("[", "]", ":", ":623", ":0", ":99999", ":x", "/", "/redfish/v1", "/..", "?", "@", "a:b@"),
    *("privilegelevel=USER", "privilegelevel=x", " ", "é", "_", "-", ".", "::"),
]
addresses = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join)


@given(addresses | st.text(max_size=20))
def test_admission_and_driver_agree_on_addresses(address):
    """What is let in here must be what `bmc.address` can use."""
    try:
        parse_address(address)
        usable = True
    except BmcAddressError:
        usable = False
    assert (address_fault(address) == "") is usable
