"""docs/compatibility.md against the code: nothing of Metal3's is left out, nothing is promised."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from billet_server.apiserver.definitions import load_crds, parse_crd
from billet_server.apiserver.fielderrors import FieldError
from billet_server.apiserver.schema import Schema
from billet_server.core import annotations, turn
from billet_server.core.bmcaddress import ALIASES, METAL3_ONLY, SCHEMES
from billet_server.core.conditions import TYPES
from billet_server.core.figures import FIGURES
from billet_server.core.states import ERRORS_OF_2019, SYNONYMS, State
from billet_server.core.validate import host_warnings, validate_host

TOP = Path(__file__).resolve().parents[3]
PAGE = TOP / "docs/compatibility.md"
SERVER = TOP / "server/src/billet_server"
KINDS = {found.kind.kind: found for found in map(parse_crd, load_crds())}
HOST, DATA = KINDS["BareMetalHost"].schema, KINDS["HardwareData"].schema

PROVED = ("works", "differs", "ours")
TOLD = ("refused", "warned")
VERDICTS = (*PROVED, *TOLD, "not offered")

_CODE = re.compile(r"``\s?(.+?)\s?``|`([^`\n]+)`")


class Row(NamedTuple):
    """A row of the page; ``proof`` is node ids, or the one message a user gets."""

    section: str
    names: tuple[str, ...]
    verdict: str
    proof: tuple[str, ...]
    note: str


def codes(cell: str) -> tuple[str, ...]:
    return tuple(double or single for double, single in _CODE.findall(cell))


def rows() -> Iterator[Row]:
    section, head = "", False
    for line in PAGE.read_text().splitlines():
        if line.startswith("#"):
            section = line.lstrip("# ")
        if not line.startswith("|"):
            head = True
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if head or set(line) <= set("|- "):
            head = False
            continue
        if len(cells) == 2:
            continue  # the words of the verdicts
        assert len(cells) == 4, line
        yield Row(section, codes(cells[0]) or (cells[0],), cells[1], codes(cells[2]), cells[3])


ROWS = list(rows())


def named(section: str) -> set[str]:
    found = [name for row in ROWS if row.section == section for name in row.names]
    assert found, f"there is no table under {section}"
    assert len(found) == len(set(found)), f"twice under {section}"
    return set(found)


def working(section: str) -> set[str]:
    ok = (*PROVED, *TOLD)
    return {n for row in ROWS if row.section == section and row.verdict in ok for n in row.names}


# verdicts


def test_every_row_has_a_verdict_and_what_belongs_to_it():
    assert len(ROWS) > 250
    for row in ROWS:
        assert row.verdict in VERDICTS, row
        assert row.names[0], row
        if row.verdict == "not offered":
            assert row.proof == (), row
            assert row.note, f"{row.names}: say why, and what to use"
        else:
            assert row.proof, row
        if row.verdict in TOLD:
            assert len(row.proof) == 1, row


@cache
def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, kinds)}


def test_every_proof_is_a_test_that_is_there():
    proofs = {proof for row in ROWS if row.verdict in PROVED for proof in row.proof}
    assert len(proofs) > 60
    for proof in proofs:
        file, separator, function = proof.partition("::")
        path = TOP / "tests" / file
        assert separator, proof
        assert path.is_file(), proof
        assert function.startswith("test_"), proof
        assert function in functions(path), proof


# fields


def fields(schema: dict[str, Any], path: str) -> Iterator[tuple[str, bool]]:
    """Paths under a schema; whether each is a leaf."""
    for name, child in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        inner = child.get("items", {})
        if "properties" in inner:
            yield here, False
            yield from fields(inner, f"{here}[]")
        else:
            yield here, "properties" not in child
            yield from fields(child, here)


def of(kind: dict[str, Any], part: str) -> dict[str, bool]:
    schema = kind["properties"]
    for name in part.split("."):
        schema = schema[name] if "properties" not in schema else schema["properties"][name]
    return dict(fields(schema, ""))


def covers(name: str, field: str) -> bool:
    if not name.endswith(".*"):
        return name == field
    return field.startswith((name[:-1], name[:-2] + "[]."))


@pytest.mark.parametrize(
    ("section", "known"),
    [
        ("Fields of spec", of(HOST, "spec")),
        ("Fields of status", {
            name: leaf for name, leaf in of(HOST, "status").items()
            if not name.startswith("hardware.")
        }),
        ("Hardware", of(HOST, "status.hardware")),
        ("Hardware", of(DATA, "spec.hardware")),
    ],
    ids=["spec", "status", "hardware", "HardwareData"],
)  # fmt: skip
def test_every_field_has_its_row_and_every_row_a_field(section, known):
    told = named(section)
    for name in told:
        matching = [field for field in known if covers(name, field)]
        assert matching, f"{section}: there is no field {name}"
    for field, leaf in known.items():
        holders = [name for name in told if covers(name, field)]
        assert len(holders) <= 1, (field, holders)
        inside = any(name.startswith((f"{field}.", f"{field}[]")) for name in told)
        assert holders or (inside and not leaf), f"{section}: {field} has no row"


# words


def test_every_state_has_its_row():
    words = {state.value or "(new)" for state in State} | set(SYNONYMS) | ERRORS_OF_2019
    assert named("States") == words


@pytest.mark.parametrize(
    ("section", "field"),
    [("Operational status", "operationalStatus"), ("Error types", "errorType")],
)
def test_every_word_of_an_enum_has_its_row(section, field):
    words = HOST["properties"]["status"]["properties"][field]["enum"]
    assert named(section) == {word or "(none)" for word in words}


def test_an_error_type_works_where_the_code_writes_it():
    kinds = {turn.REGISTRATION, turn.INSPECTION, turn.PREPARATION, turn.PROVISIONING, turn.POWER}
    assert working("Error types") == kinds | {"(none)"}


def test_every_annotation_has_its_row():
    known = {
        value for name, value in vars(annotations).items()
        if name.isupper() and isinstance(value, str)
    }  # fmt: skip
    assert known <= working("Annotations")
    assert {name for name in known if name.startswith("billet.dev/")} == {
        name
        for row in ROWS
        for name in row.names
        if row.section == "Annotations" and row.verdict == "ours"
    }


METAL3_EVENTS = frozenset(
    (
        *("Registered", "BMCAccessValidated", "BMCCredentialError", "Discovered", "ProfileSet"),
        *("InspectionStarted", "InspectionComplete", "InspectionSkipped", "InspectionError"),
        *("PreparationError", "ProvisioningStarted", "ProvisioningComplete", "ProvisioningError"),
        *("DeprovisioningStarted", "DeprovisioningComplete", "PowerOn", "PowerOff"),
        *("PowerManagementError", "RegistrationError", "ProvisionedRegistrationError"),
        *("DetachError", "ServicingError", "UpdateHardwareDetails", "RemoveAnnotation"),
        "InvalidAnnotationValue",
    )
)


def test_every_event_of_metal3_has_its_row_and_works_where_the_code_has_it():
    sources = [*SERVER.glob("core/*.py"), *SERVER.glob("engine/*.py")]
    code = "\n".join(path.read_text() for path in sources)
    written = set(re.findall(r'(?:note|remark|EventNote)\(\s*(?:"\w+",\s*)?"([A-Za-z]+)"', code))
    written |= set(turn.REASONS.values())
    kinds = (turn.REGISTRATION, turn.INSPECTION, turn.PREPARATION, turn.PROVISIONING, turn.POWER)
    written |= {"".join(word.capitalize() for word in kind.split()) for kind in kinds}
    assert named("Events") == METAL3_EVENTS
    assert working("Events") == METAL3_EVENTS & written


METAL3_METRICS = frozenset(
    f"metal3_{name}"
    for name in (
        *("reconcile_total", "reconcile_error_total", "host_error_total"),
        "operation_power_change_total",
        *(f"operation_{o}_duration_seconds"
          for o in ("register", "inspect", "provision", "deprovision")),
        *("provisioning_state_change_total", "delayed__provisioning_total"),
        "delayed__deprovisioning_total",
        *(f"credentials_{o}_total"
          for o in ("missing", "invalid", "unhandled_error", "updated", "no_management_access")),
        *("host_config_data_error_total", "host_registration_required_total"),
        *("host_unmanaged_total", "delete_without_deprovisioning_total"),
        *("provisioner_not_ready_total", "delete_delayed_for_detached_total"),
        *("waiting_for_preprov_image_total", "delete_without_powering_off_total"),
    )
)  # fmt: skip


def test_every_metric_of_metal3_has_its_row_and_works_where_the_code_has_it():
    assert named("Metrics") == METAL3_METRICS
    assert working("Metrics") == {name for name in FIGURES if name.startswith("metal3_")}


def test_every_condition_has_its_row():
    assert named("Conditions") == set(TYPES)


def test_every_bmc_scheme_has_its_row():
    lacking = {name.partition("+")[0] for name in METAL3_ONLY}
    aliases = {name.partition("+")[0] for name in ALIASES}
    assert named("BMC addresses") == {*SCHEMES, "HOST", *aliases, *lacking}
    assert working("BMC addresses") == {*SCHEMES, "HOST", *aliases, *lacking}
    refused = [row for row in ROWS if row.section == "BMC addresses" and row.verdict == "refused"]
    assert {name for row in refused for name in row.names} == lacking


# what a user is told


class Case(NamedTuple):
    """A manifest, and the object that it changes."""

    new: dict[str, Any]
    old: dict[str, Any] | None = None


def host(name="node01", annotations=None, state="", operational="", **spec):
    base = {
        "bmc": {"address": "redfish://h/redfish/v1/Systems/1", "credentialsName": "c"},
        "bootMACAddress": "00:c2:fc:3b:e1:01",
        "online": True,
    }
    wanted = {key: value for key, value in (base | spec).items() if value is not None}
    return {
        "metadata": {"name": name, "namespace": "metal3", "annotations": annotations or {}},
        "spec": wanted,
        "status": {"provisioning": {"state": state}, "operationalStatus": operational},
    }


def case(**given) -> Case:
    return Case(host(**given))


def noted(key, value, **given) -> Case:
    return Case(host(annotations={key: value}, **given))


def bmc(address) -> dict[str, Any]:
    return {"bmc": {"address": address, "credentialsName": "c"}}


def image(**given) -> Case:
    fields = {"url": "http://h/a.qcow2", "checksum": "d41d8cd98f00b204e9800998ecf8427e"} | given
    return case(image={key: value for key, value in fields.items() if value is not None})


def hardware(*volumes, **spec) -> Case:
    return case(raid={"hardwareRAIDVolumes": list(volumes)}, **spec)


def software(*volumes, **spec) -> Case:
    return case(raid={"softwareRAIDVolumes": list(volumes)}, **spec)


CARD = {"name": "eno1", "hostNetworkAttachment": {"name": "n"}}
IPMI = "ipmi://192.0.2.7"
ROOT = {"level": "1", "rootVolume": True}
AS_METAL3, AS_BILLET = "Refused as by Metal3", "Refused by Billet alone"

CASES = {
    # spec
    ("Fields of spec", "image.ociAuthSecretName"): image(ociAuthSecretName="s"),
    ("Fields of spec", "preprovisioningNetworkDataName"): case(preprovisioningNetworkDataName="n"),
    ("Fields of spec", "raid.hardwareRAIDVolumes.*"): hardware({"level": "1"}),
    ("Fields of spec", "raid.softwareRAIDVolumes.*"): software({"level": "1"}),
    ("Fields of spec", "customDeploy.method"): case(customDeploy={"method": "install_coreos"}),
    ("Fields of spec", "networkInterfaces.*"): case(networkInterfaces=[CARD]),
    ("Fields of spec", "taints.*"): case(taints=[{"key": "k", "effect": "NoSchedule"}]),
    ("Fields of spec", "firmware.*"): case(firmware={"virtualizationEnabled": True}),
    # 2019
    ("Fields that are gone", "spec.machineRef"): case(machineRef={"name": "m"}),
    # addresses
    **{
        ("BMC addresses", name): case(**bmc(f"{name}://192.0.2.7"))
        for name in {name.partition("+")[0] for name in METAL3_ONLY}
    },
    # Metal3's webhook
    (AS_METAL3, "a name with other characters"): case(name="node:1"),
    (AS_METAL3, "a name like a UUID"): case(name="7551cfb4-d758-4ad8-9188-859ee53cf298"),
    (AS_METAL3, "an unknown BMC scheme"): case(**bmc("snmp://192.0.2.7")),
    (AS_METAL3, "a BMC host that is none"): case(**bmc("ipmi://a b")),
    (AS_METAL3, "an IPv6 address that is none"): case(**bmc("ipmi://[fd00::zz]")),
    (AS_METAL3, "no MAC address with libvirt"): case(
        **bmc("libvirt://h:6230"), bootMACAddress=None
    ),
    (AS_METAL3, "no MAC address without inspection"): case(
        bootMACAddress=None, inspectionMode="disabled"
    ),
    (AS_METAL3, "a MAC address that is none"): case(bootMACAddress="00:c2"),
    (AS_METAL3, "Secure Boot with IPMI"): case(**bmc(IPMI), bootMode="UEFISecureBoot"),
    (AS_METAL3, "fast inspection with IPMI"): case(**bmc(IPMI), inspectionMode="fast"),
    (AS_METAL3, "firmware"): case(firmware={}),
    (AS_METAL3, "hardware RAID with IPMI"): hardware({"level": "1"}, **bmc(IPMI)),
    (AS_METAL3, "both kinds of RAID"): case(
        raid={"hardwareRAIDVolumes": [{"level": "1"}], "softwareRAIDVolumes": [{"level": "1"}]}
    ),
    (AS_METAL3, "disks without their controller"): hardware(
        {"level": "1", "physicalDisks": ["a", "b"]}
    ),
    (AS_METAL3, "another number of disks"): hardware(
        {"level": "1", "controller": "c", "physicalDisks": ["a", "b"], "numberOfPhysicalDisks": 3}
    ),
    (AS_METAL3, "two root volumes"): software(ROOT, ROOT),
    (AS_METAL3, "a root volume of another level"): software(ROOT | {"level": "0"}),
    (AS_METAL3, "a root volume beside hints"): software(ROOT, rootDeviceHints={"vendor": "v"}),
    (AS_METAL3, "a root device elsewhere"): case(
        rootDeviceHints={"deviceName": "/dev/disk/by-id/b"}
    ),
    (AS_METAL3, "an image by another protocol"): image(url="file:///a"),
    (AS_METAL3, "no checksum"): image(checksum=None),
    (AS_METAL3, "an unknown type of checksum"): image(checksumType="sha1"),
    (AS_METAL3, "a checksum of an oci image"): image(url="oci://h/a"),
    (AS_METAL3, "user data elsewhere"): case(userData={"name": "s", "namespace": "other"}),
    (AS_METAL3, "network data elsewhere"): case(networkData={"name": "s", "namespace": "other"}),
    (AS_METAL3, "meta data elsewhere"): case(metaData={"name": "s", "namespace": "other"}),
    (AS_METAL3, "off, and never off"): case(online=False, disablePowerOff=True),
    (AS_METAL3, "a network card without a name"): case(
        networkInterfaces=[{"hostNetworkAttachment": {"name": "n"}}]
    ),
    (AS_METAL3, "a network card with two names"): case(
        networkInterfaces=[CARD | {"macAddress": "00:c2:fc:3b:e1:01"}]
    ),
    (AS_METAL3, "a network card twice"): case(networkInterfaces=[CARD, CARD]),
    (AS_METAL3, "a status that is no JSON"): noted(annotations.STATUS, "{"),
    (AS_METAL3, "a status of unknown words"): noted(
        annotations.STATUS, '{"operationalStatus": "fine"}'
    ),
    (AS_METAL3, "a reboot that is no JSON"): noted(annotations.REBOOT, "now"),
    (AS_METAL3, "a reboot of another mode"): noted(annotations.REBOOT, '{"mode": "gentle"}'),
    (AS_METAL3, "another word for inspection"): noted(annotations.INSPECT, "again"),
    (AS_METAL3, "inspection on and off"): noted(
        annotations.INSPECT, "disabled", inspectionMode="agent"
    ),
    (AS_METAL3, "hardware of unknown fields"): noted(
        annotations.HARDWARE_DETAILS, '{"wheels": 4}', inspectionMode="disabled"
    ),
    (AS_METAL3, "hardware beside an inspection"): noted(annotations.HARDWARE_DETAILS, "{}"),
    (AS_METAL3, "another BMC address later"): Case(
        host(state="provisioned", **bmc("redfish://other")), host(state="provisioned")
    ),
    (AS_METAL3, "another MAC address later"): Case(
        host(bootMACAddress="00:c2:fc:3b:e1:02"), host()
    ),
    (AS_METAL3, "external later"): Case(
        host(state="provisioned", externallyProvisioned=True), host(state="provisioned")
    ),
    (AS_METAL3, "no word about the power"): case(online=None),
    (AS_METAL3, "a word that no field has"): case(bootMode="bios"),
    # Billet's own
    (AS_BILLET, "live ISO"): image(format="live-iso", checksum=None),
    (AS_BILLET, "image by ftp or gopher"): image(url="ftp://h/a.qcow2"),
    (AS_BILLET, "image from a registry"): image(url="oci://h/a", checksum=None),
    (AS_BILLET, "a password in the BMC address"): case(**bmc("ipmi://admin:secret@192.0.2.7")),
    (AS_BILLET, "a digest of another length"): image(checksumType="sha512"),
    (AS_BILLET, "a detachment of broken JSON"): noted(
        annotations.DETACHED, '{"deleteAction": "never"}'
    ),
    # let in
    ("Let in, with a warning", "bootMode: UEFISecureBoot"): case(bootMode="UEFISecureBoot"),
    ("Let in, with a warning", "inspectionMode: fast"): case(inspectionMode="fast"),
    ("Let in, with a warning", "hardwareProfile: mine"): case(hardwareProfile="mine"),
    ("Let in, with a warning", "architecture: aarch64"): case(architecture="aarch64"),
    ("Let in, with a warning", "raid.hardwareRAIDVolumes: []"): hardware(),
    ("Let in, with a warning", "raid.softwareRAIDVolumes: []"): software(),
}


def refusals(given: Case) -> list[str]:
    schema = Schema(HOST)
    new, _ = schema.prune({"apiVersion": "metal3.io/v1alpha1", "kind": "BareMetalHost"} | given.new)
    faults = [FieldError(*fault) for fault in validate_host(given.new, given.old)]
    return [str(fault) for fault in (*faults, *schema.validate(new))]


def warnings(given: Case) -> list[str]:
    _, unknown = Schema(HOST).prune(given.new)
    lost = [f'unknown field "{path}"' for path in unknown]
    return [*host_warnings(given.new, given.old), *lost]


def test_every_message_on_the_page_has_its_manifest():
    assert {(row.section, row.names[0]) for row in ROWS if row.verdict in TOLD} == set(CASES)


@pytest.mark.parametrize("row", [row for row in ROWS if row.verdict in TOLD],
                         ids=lambda row: f"{row.section}-{row.names[0]}")  # fmt: skip
def test_the_message_is_the_one_that_a_user_gets(row):
    given = CASES[row.section, row.names[0]]
    refused = refusals(given)
    if row.verdict == "refused":
        assert row.proof[0] in refused
    else:
        assert refused == []
        assert row.proof[0] in warnings(given)


def test_refused_schemes_are_refused_with_each_transport():
    for name in METAL3_ONLY:
        (message,) = refusals(case(**bmc(f"{name}://192.0.2.7")))
        assert f"the BMC scheme {name}:// of Metal3 is not supported" in message


METAL3_KINDS = frozenset(
    (
        *("HardwareData", "HostFirmwareSettings", "FirmwareSchema", "HostFirmwareComponents"),
        *("HostUpdatePolicy", "PreprovisioningImage", "DataImage", "BMCEventSubscription"),
        *("HostClaim", "HostDeployPolicy", "HostNetworkAttachment", "BareMetalSwitch"),
    )
)


def test_every_kind_of_metal3_has_its_row():
    assert named("Other kinds") == METAL3_KINDS
    assert working("Other kinds") == METAL3_KINDS & set(KINDS)
