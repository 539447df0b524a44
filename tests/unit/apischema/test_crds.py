"""The published schemas: complete, described, and fit for the seed's and our own objects."""

from collections.abc import Iterator
from datetime import datetime
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
import pytest
import yaml

from billet_server import errors, ports
from billet_server.apiserver.definitions import load_crds, parse_crd
from billet_server.apiserver.schema import Schema
from billet_server.core.host import Spec, Status

CRDS = {crd["metadata"]["name"]: crd for crd in load_crds()}
HOST = parse_crd(CRDS["baremetalhosts.metal3.io"])
HARDWARE = parse_crd(CRDS["hardwaredata.metal3.io"])
MACHINE = parse_crd(CRDS["machines.cluster.k8s.io"])

SEED = """
apiVersion: metal3.io/v1alpha1
kind: BareMetalHost
metadata:
  name: metal3-node01
  namespace: metal3
spec:
  bmc:
    address: ipmi://172.22.0.2:6230
    credentialsName: metal3-node01-credentials
  bootMACAddress: 00:c2:fc:3b:e1:01
  description: ""
  hardwareProfile: "libvirt"
  online: false
"""
IMAGE = "http://172.22.0.2/images/CentOS-7-x86_64-GenericCloud-1901.qcow2"


def faults_of(schema: Schema, obj: dict[str, Any]) -> list[str]:
    pruned, unknown = schema.prune(obj)
    found = [str(fault) for fault in schema.validate(schema.default(pruned))]
    return [f"unknown field {path}" for path in unknown] + found


def properties_of(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, child in schema.get("properties", {}).items():
        yield f"{path}.{name}", child
        yield from properties_of(child, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from properties_of(schema[name], f"{path}[]")


def test_definitions_of_our_kinds():
    assert HOST.kind == ports.BARE_METAL_HOST
    assert HARDWARE.kind == ports.HARDWARE_DATA
    assert MACHINE.kind == ports.MACHINE
    assert MACHINE.has_status
    assert (HOST.singular, HOST.list_kind, HOST.has_status) == (
        "baremetalhost",
        "BareMetalHostList",
        True,
    )
    assert HOST.short_names == ("bmh", "bmhost")
    assert HARDWARE.short_names == ("hd",)
    assert not HARDWARE.has_status


def test_default_columns_are_those_of_2019_with_age():
    shown = [(column.name, column.json_path) for column in HOST.columns if not column.priority]
    assert shown == [
        ("Status", ".status.operationalStatus"),
        ("Provisioning Status", ".status.provisioning.state"),
        ("Consumer", ".spec.consumerRef.name"),
        ("BMC", ".spec.bmc.address"),
        ("Hardware Profile", ".status.hardwareProfile"),
        ("Online", ".spec.online"),
        ("Error", ".status.errorMessage"),
        ("Age", ".metadata.creationTimestamp"),
    ]
    wide = {column.json_path for column in HOST.columns if column.priority}
    assert {".status.progress.step", ".status.waiting.message", ".status.errorType"} <= wide


@pytest.mark.parametrize("definition", [HOST, HARDWARE, MACHINE], ids=lambda item: item.kind.kind)
def test_every_field_is_described_and_typed(definition):
    for path, schema in properties_of(definition.schema):
        if path != ".metadata":
            assert schema.get("description", "").endswith("."), path
        assert schema.get("type"), path
        assert "x-kubernetes-validations" not in schema, path


def test_hardware_has_one_shape():
    def shape(schema):
        return {name: value for name, value in schema.items() if name != "description"}

    in_status = HOST.schema["properties"]["status"]["properties"]["hardware"]
    in_data = HARDWARE.schema["properties"]["spec"]["properties"]["hardware"]
    assert shape(in_status) == shape(in_data)


def test_column_paths_lead_to_fields():
    for definition in (HOST, HARDWARE):
        known = {path for path, _ in properties_of(definition.schema)}
        for column in definition.columns:
            assert column.json_path in {*known, ".metadata.creationTimestamp"}, column


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"image": {"url": IMAGE, "checksum": f"{IMAGE}.md5sum"}},
        {"image": {"url": "", "checksum": ""}},
        {"image": None},
        {"online": True, "userData": {"name": "u", "namespace": "metal3"}},
        {"consumerRef": {"kind": "Machine", "name": "m", "namespace": "metal3", "uid": "x"}},
        {"taints": [{"key": "k", "effect": "NoSchedule", "value": "v"}]},
        {"firmware": {"virtualizationEnabled": True}},
        {"raid": {"hardwareRAIDVolumes": [], "softwareRAIDVolumes": None}},
        {"networkInterfaces": [{"name": "eno1", "hostNetworkAttachment": {"name": "n"}}]},
        {"inspectionMode": "fast", "bootMode": "UEFISecureBoot", "disablePowerOff": True},
        {"customDeploy": {"method": "install_coreos"}, "architecture": "x86_64"},
    ],
)
def test_specs_of_both_generations_are_accepted(change):
    host = yaml.safe_load(SEED)
    host["spec"] |= change
    assert faults_of(Schema(HOST.schema), host) == []


@pytest.mark.parametrize(
    "status",
    [
        {"provisioning": {"state": "ready", "ID": ""}},
        {"provisioning": {"state": "available", "ID": "7551cfb4-d758-4ad8-9188-859ee53cf298"}},
        {"errorType": "detach error", "operationalStatus": "detached"},
        {"errorType": "", "operationalStatus": "", "errorMessage": "", "errorCount": 0},
        {"operationHistory": {"inspect": {"start": "2019-09-11T08:00:00Z", "end": None}}},
        {"goodCredentials": {"credentials": {"name": "a", "namespace": "b"}}},
        {"lastUpdated": "2019-07-08T15:30:44Z", "poweredOn": True},
        {"hardware": {"nics": [{"mac": "80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03"}]}},
    ],
)
def test_states_of_both_generations_are_accepted(status):
    host = yaml.safe_load(SEED) | {"status": status}
    assert faults_of(Schema(HOST.schema), host) == []


def struct_fields(kind: type[msgspec.Struct], path: str) -> Iterator[tuple[str, Any]]:
    for field in msgspec.structs.fields(kind):
        here = f"{path}.{field.encode_name}"
        types = [field.type]
        if get_origin(field.type) in (Union, UnionType):
            types = [part for part in get_args(field.type) if part is not NoneType]
        yield here, types[0]
        for part in types:
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                yield from struct_fields(part, here)


JSON_TYPES = {bool: "boolean", int: "integer", str: "string", datetime: "string"}


@pytest.mark.parametrize(("kind", "path"), [(Spec, ".spec"), (Status, ".status")])
def test_schema_knows_every_field_that_the_core_reads_or_writes(kind, path):
    """What the schema does not know, the API would drop without a word."""
    known = dict(properties_of(HOST.schema))
    for field, field_type in struct_fields(kind, path):
        assert field in known, field
        if field_type in JSON_TYPES:
            assert known[field]["type"] == JSON_TYPES[field_type], field
        if field_type is datetime:
            assert known[field]["format"] == "date-time", field


def crd(**spec: Any) -> dict[str, Any]:
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object"}},
    }
    base = {
        "group": "example.org",
        "scope": "Cluster",
        "names": {"kind": "Thing", "plural": "things"},
        "versions": [version],
    }
    return {"metadata": {"name": "things.example.org"}, "spec": base | spec}


def test_parse_crd_fills_in_names_and_age():
    parsed = parse_crd(crd())
    assert parsed.kind == ports.Kind("example.org", "v1", "Thing", "things", namespaced=False)
    assert (parsed.singular, parsed.list_kind) == ("thing", "ThingList")
    assert [column.name for column in parsed.columns] == ["Age"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"spec": None}, "spec: Required value"),
        (crd(group=""), "spec.group: Required value"),
        (crd(names={"kind": "Thing"}), "spec.names.plural: Required value"),
        (crd(scope="World"), "spec.scope: Unsupported value"),
        (crd(versions=[]), "spec.versions: Invalid value"),
        (
            crd(versions=[{"name": "v1", "served": True, "storage": True}]),
            "schema.openAPIV3Schema: Required value",
        ),
        (crd() | {"metadata": {"name": "x"}}, 'metadata.name: Invalid value: "x"'),
    ],
)
def test_parse_crd_names_what_is_wrong(broken, message):
    with pytest.raises(errors.Invalid, match=message.replace(".", r"\.")):
        parse_crd(broken)


def test_load_crds_says_which_file_is_broken(tmp_path):
    with pytest.raises(errors.ConfigError, match="no CustomResourceDefinitions"):
        load_crds(tmp_path)
    (tmp_path / "a.yaml").write_text("a: [")
    with pytest.raises(errors.ConfigError, match=r"a\.yaml is not YAML"):
        load_crds(tmp_path)


# what the schema restricts, against Metal3's own


MAC_PATTERN = "^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$"
IMAGE_LIMITS = {
    "checksumType": {"enum": ["md5", "sha256", "sha512", "auto"]},
    "format": {"enum": ["raw", "qcow2", "vdi", "vmdk", "live-iso"]},
}
BOOT_MODES = {"enum": ["UEFI", "UEFISecureBoot", "legacy"]}
RAID_LIMITS = {
    "hardwareRAIDVolumes": {"nullable": True},
    "hardwareRAIDVolumes[].level": {"enum": ["0", "1", "2", "5", "6", "1+0", "5+0", "6+0"]},
    "hardwareRAIDVolumes[].name": {"maxLength": 64},
    "hardwareRAIDVolumes[].numberOfPhysicalDisks": {"minimum": 1},
    "hardwareRAIDVolumes[].sizeGibibytes": {"minimum": 0},
    "softwareRAIDVolumes": {"nullable": True, "maxItems": 2},
    "softwareRAIDVolumes[].level": {"enum": ["0", "1", "1+0"]},
    "softwareRAIDVolumes[].physicalDisks": {"minItems": 2},
    "softwareRAIDVolumes[].physicalDisks[].minSizeGigabytes": {"minimum": 0},
    "softwareRAIDVolumes[].sizeGibibytes": {"minimum": 0},
}


def under(path: str, limits: dict[str, Any]) -> dict[str, Any]:
    return {f"{path}.{name}": limit for name, limit in limits.items()}


METAL3_LIMITS = {
    ".spec.automatedCleaningMode": {"enum": ["metadata", "disabled"], "default": "metadata"},
    ".spec.bootMACAddress": {"pattern": MAC_PATTERN},
    ".spec.bootMode": BOOT_MODES,
    **under(".spec.image", IMAGE_LIMITS),
    ".spec.inspectionMode": {"enum": ["disabled", "agent", "fast"]},
    ".spec.networkInterfaces[].hostNetworkAttachment.name": {"maxLength": 253},
    ".spec.networkInterfaces[].macAddress": {"pattern": MAC_PATTERN},
    ".spec.networkInterfaces[].name": {"pattern": "^[a-zA-Z0-9._-]+$"},
    ".spec.networkInterfaces[].switchPort.switchID": {"pattern": MAC_PATTERN},
    **under(".spec.raid", RAID_LIMITS),
    ".spec.rootDeviceHints.minSizeGigabytes": {"minimum": 0},
    ".status.appliedNetworkAttachmentConfigs[].switchPort.switchID": {"pattern": MAC_PATTERN},
    ".status.conditions": {"maxItems": 32},
    ".status.conditions[].message": {"maxLength": 32768},
    ".status.conditions[].observedGeneration": {"minimum": 0},
    ".status.conditions[].reason": {
        "minLength": 1,
        "maxLength": 1024,
        "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
    },
    ".status.conditions[].status": {"enum": ["True", "False", "Unknown"]},
    ".status.conditions[].type": {
        "maxLength": 316,
        "pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
        "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
    },
    ".status.errorCount": {"default": 0},
    ".status.errorType": {
        # The empty one too: objects of 2019 hold it.
        "enum": ["", "provisioned registration error", "registration error", "inspection error",
                 "preparation error", "provisioning error", "power management error",
                 "detach error", "servicing error"],
    },
    ".status.hardware.nics[].vlanId": {"minimum": 0, "maximum": 4094},
    ".status.hardware.nics[].vlans[].id": {"minimum": 0, "maximum": 4094},
    ".status.hardware.storage[].type": {"enum": ["HDD", "SSD", "NVME"]},
    **under(".status.lastAttemptedImage", IMAGE_LIMITS),
    **{
        f".status.operationHistory.{operation}.{end}": {"nullable": True}
        for operation in ("deprovision", "inspect", "provision", "register")
        for end in ("end", "start")
    },
    ".status.operationalStatus": {
        "enum": ["", "OK", "discovered", "error", "delayed", "detached", "servicing"],
    },
    ".status.provisioning.bootMode": BOOT_MODES,
    **under(".status.provisioning.image", IMAGE_LIMITS),
    **under(".status.provisioning.raid", RAID_LIMITS),
    ".status.provisioning.rootDeviceHints.minSizeGigabytes": {"minimum": 0},
}  # fmt: skip

LIMITS = frozenset(
    ("enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems",
     "nullable", "default")
)  # fmt: skip
OURS = tuple(f".status.{part}." for part in ("boot", "problem", "progress", "reboot", "waiting"))


def test_values_are_restricted_as_by_metal3_and_no_further():
    found = {}
    for path, schema in properties_of(HOST.schema):
        limits = {name: value for name, value in schema.items() if name in LIMITS}
        if limits and not path.startswith(OURS):
            found[path] = limits
    assert found == METAL3_LIMITS


def test_required_fields_are_those_of_both_generations():
    required = {
        path: schema["required"] for path, schema in properties_of(HOST.schema)
        if "required" in schema and ".raid" not in path
    }  # fmt: skip
    assert {path: fields for path, fields in required.items() if path.startswith(".spec")} == {
        ".spec": ["online"],
        ".spec.bmc": ["address", "credentialsName"],
        ".spec.customDeploy": ["method"],
        ".spec.image": ["url"],
        ".spec.networkInterfaces[].switchPort": ["portID", "switchID"],
    }
    items = dict(properties_of(HOST.schema))
    assert items[".spec.networkInterfaces"]["items"]["required"] == ["hostNetworkAttachment"]
    assert items[".spec.taints"]["items"]["required"] == ["effect", "key"]
    for kind in ("hardwareRAIDVolumes", "softwareRAIDVolumes"):
        assert items[f".spec.raid.{kind}"]["items"]["required"] == ["level"]
