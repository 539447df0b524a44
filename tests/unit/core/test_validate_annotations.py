"""Values of annotations, and the shapes that they hold."""

import json
import re
from typing import Any, get_args

import msgspec
import pytest

from billet_server.apiserver.definitions import load_crds
from billet_server.core.annotations import DETACHED, HARDWARE_DETAILS, INSPECT, REBOOT, STATUS
from billet_server.core.hardwaredetails import HardwareDetails, parse_details
from billet_server.core.validate import validate_host
from billet_server.core.validation import annotations as checks

INVALID, FORBIDDEN, UNSUPPORTED = "Invalid value", "Forbidden", "Unsupported value"
CRD = next(crd for crd in load_crds() if crd["metadata"]["name"] == "baremetalhosts.metal3.io")
STATUS_SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]

HARDWARE = {
    "systemVendor": {"manufacturer": "QEMU", "productName": "PC", "serialNumber": "1"},
    "firmware": {"bios": {"date": "2020", "vendor": "SeaBIOS", "version": "1.16"}},
    "ramMebibytes": 4096,
    "hostname": "node01",
    "cpu": {"arch": "x86_64", "model": "m", "clockMegahertz": 2100.5, "flags": ["a"], "count": 4},
    "nics": [{"name": "eth0", "mac": "00:c2:fc:3b:e1:01", "ip": "172.22.0.7", "pxe": True,
              "vlans": [{"id": 7, "name": "v"}], "vlanId": 7, "speedGbps": 10, "model": "0x1af4",
              "lldp": {"switchID": "s", "portID": "p", "switchSystemName": "n"}}],
    "storage": [{"name": "/dev/sda", "rotational": True, "type": "HDD", "sizeBytes": 10**12,
                 "alternateNames": ["/dev/x"], "hctl": "0:0:0:0", "wwn": "0x5"}],
}  # fmt: skip


def host(key, value, **spec):
    base = {"online": True, "bootMACAddress": "00:c2:fc:3b:e1:01"}
    metadata = {"name": "node01", "namespace": "metal3", "annotations": {key: value}}
    return {"metadata": metadata, "spec": base | spec}


def text(value):
    return value if isinstance(value, str) else json.dumps(value)


REFUSED = [
    (STATUS, "{", INVALID, '"{": is not JSON'),
    (STATUS, "[]", INVALID, '"[]": is not a JSON object'),
    (STATUS, {"operationalStatus": "fine"}, UNSUPPORTED, 'operationalStatus "fine": supported'),
    (STATUS, {"errorType": "bad luck"}, UNSUPPORTED, '"bad luck": supported values: "", "provis'),
    (STATUS, {"errorType": 7}, INVALID, "$.errorType"),
    (STATUS, {"colour": "red"}, INVALID, '"colour": no field of status has this name'),
    (STATUS, {"provisioning": {"state": "done"}}, INVALID, 'provisioning.state "done": no state'),
    (STATUS, {"hardware": {"wheels": 4}}, INVALID, "hardware: Object contains unknown field"),
    (STATUS, {"poweredOn": "perhaps"}, INVALID, "$.poweredOn"),
    (STATUS, {"lastUpdated": "yesterday"}, INVALID, "$.lastUpdated"),
    (STATUS, {"provisioning": "ready"}, INVALID, "$.provisioning"),
    (REBOOT, "now", INVALID, '"now": is not JSON'),
    (REBOOT, "true", INVALID, '"true": is not a JSON object; leave it empty'),
    (REBOOT, {"mode": "gentle"}, UNSUPPORTED, 'mode "gentle": supported values: "soft", "hard"'),
    (REBOOT, {"mode": 1}, UNSUPPORTED, 'mode "1"'),
    (REBOOT, {"force": "yes"}, INVALID, 'force "yes": must be true or false'),
    (REBOOT, {"force": 1}, INVALID, 'force "1": must be true or false'),
    (f"{REBOOT}/updater", "{mode: hard}", INVALID, "is not JSON"),
    (DETACHED, '{"deleteAction": ', INVALID, "is not JSON"),
    (DETACHED, {"deleteAction": "never"}, UNSUPPORTED, 'deleteAction "never": supported'),
    (DETACHED, {"force": "no"}, INVALID, "must be true or false"),
    (INSPECT, "again", UNSUPPORTED, '"again": supported values: "" (inspect again), "disabled"'),
]


@pytest.mark.parametrize(("key", "value", "kind", "words"), REFUSED)
def test_refused(key, value, kind, words):
    broken = host(key, text(value))
    (fault,) = validate_host(broken, None)
    assert (fault.path, fault.type) == (f"metadata.annotations[{key}]", kind)
    assert words in fault.message
    assert validate_host(broken, host(key, "")) == [fault], "refused in an update too"
    assert validate_host(broken | {"spec": broken["spec"] | {"online": False}}, broken) == []
    assert validate_host(host("other", ""), broken) == [], "and it can be taken off"


ACCEPTED = [
    (STATUS, ""),
    (STATUS, {}),
    (STATUS, {"provisioning": {"state": "available", "ID": "x", "image": {"url": "u"}},
              "operationalStatus": "OK", "errorType": "", "errorMessage": "", "errorCount": 0,
              "hardware": HARDWARE, "poweredOn": True, "lastUpdated": "2024-02-01T10:00:00Z",
              "goodCredentials": {"credentials": {"name": "a"}, "credentialsVersion": "1"},
              "operationHistory": {"inspect": {"start": "2024-02-01T10:00:00Z", "end": None}},
              "conditions": [], "hardwareProfile": "unknown", "triedCredentials": {}}),
    (STATUS, {"provisioning": {"state": "externally provisioned"}, "errorType": "detach error"}),
    (REBOOT, ""),
    (REBOOT, {}),
    (REBOOT, {"mode": "", "force": None}),
    (f"{REBOOT}/a", {"mode": "hard", "force": True}),
    (f"{REBOOT}x", "another annotation"),
    (DETACHED, ""),
    (DETACHED, "true"),
    (DETACHED, "metal3.io/detached by hand"),
    (DETACHED, {"deleteAction": "delay", "force": False}),
    (INSPECT, ""),
    (INSPECT, "disabled"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), ACCEPTED)
def test_accepted(key, value):
    assert validate_host(host(key, text(value)), None) == []


@pytest.mark.parametrize(
    ("mode", "value", "refused"),
    [("agent", "disabled", True), ("disabled", "disabled", False), ("disabled", "", False),
     ("agent", "", False), ("", "disabled", False)],
)  # fmt: skip
def test_annotation_and_field_must_agree(mode, value, refused):
    faults = validate_host(host(INSPECT, value, inspectionMode=mode or None), None)
    assert [fault.type for fault in faults] == ([INVALID] if refused else [])
    assert all("contradicts spec.inspectionMode agent" in fault.message for fault in faults)


DETAILS = [
    ("{", "is not JSON"),
    ("[]", "Expected `object`, got `array`"),
    ({"wheels": 4}, "unknown field `wheels`"),
    ({"cpu": {"cores": 4}}, "unknown field `cores` - at `$.cpu`"),
    ({"nics": [{"MAC": "x"}]}, "unknown field `MAC` - at `$.nics[0]`"),
    ({"ramMebibytes": "4096"}, "$.ramMebibytes"),
    ({"storage": [{"type": "tape"}]}, "$.storage[0].type"),
]


@pytest.mark.parametrize(("value", "words"), DETAILS)
def test_hardware_details_are_read_strictly(value, words):
    broken = host(HARDWARE_DETAILS, text(value), inspectionMode="disabled")
    (fault,) = validate_host(broken, None)
    assert (fault.path, fault.type) == (f"metadata.annotations[{HARDWARE_DETAILS}]", INVALID)
    assert "not HardwareDetails" in fault.message
    assert words in fault.message
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_details(text(value))


def test_hardware_details_exclude_an_inspection():
    given = host(HARDWARE_DETAILS, json.dumps(HARDWARE))
    (fault,) = validate_host(given, None)
    assert fault.type == FORBIDDEN
    assert "only with spec.inspectionMode disabled" in fault.message
    by_field = host(HARDWARE_DETAILS, json.dumps(HARDWARE), inspectionMode="disabled")
    assert validate_host(by_field, None) == []
    given["metadata"]["annotations"][INSPECT] = "disabled"
    assert validate_host(given, None) == []
    assert validate_host(host(HARDWARE_DETAILS, ""), None) == []


def test_details_come_back_as_written_without_nulls():
    assert parse_details(json.dumps({**HARDWARE, "hostname": None})) == {
        name: value for name, value in HARDWARE.items() if name != "hostname"
    }


def test_deep_nesting_is_refused_like_any_other_fault():
    for key in (STATUS, REBOOT, DETACHED, HARDWARE_DETAILS):
        deep = '{"a":' * 100_000
        (fault,) = validate_host(host(key, deep, inspectionMode="disabled"), None)
        assert fault.type == INVALID
        assert len(fault.message) < 500


# shapes against the schema


def shape(kind: Any) -> Any:
    found = {}
    for field in msgspec.structs.fields(kind):
        inner = [part for part in (field.type, *get_args(field.type)) if is_struct(part)]
        found[field.encode_name] = shape(inner[0]) if inner else None
    return found


def is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def schema_shape(schema: dict) -> Any:
    schema = schema.get("items", schema)
    if "properties" not in schema:
        return None
    return {name: schema_shape(child) for name, child in schema["properties"].items()}


def test_hardware_details_have_the_fields_of_the_schema():
    assert shape(HardwareDetails) == schema_shape(STATUS_SCHEMA["properties"]["hardware"])


def test_status_fields_and_words_are_those_of_the_schema():
    properties = STATUS_SCHEMA["properties"]
    assert set(properties) == checks.STATUS_FIELDS
    assert set(properties["operationalStatus"]["enum"]) == set(checks.OPERATIONAL_STATUSES)
    assert set(properties["errorType"]["enum"]) == set(checks.ERROR_TYPES)
