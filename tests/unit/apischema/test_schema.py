"""Pruning, defaulting and the API server's wording of faults."""

import copy
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from billet_server.apiserver.definitions import builtin_definitions, load_crds, parse_crd
from billet_server.apiserver.schema import FieldError, Schema

HOST = Schema(parse_crd(load_crds()[0]).schema)


def wording(obj):
    """The whole road of a write, as lines of ``kubectl``'s error."""
    pruned, _ = HOST.prune(obj)
    return [str(fault) for fault in HOST.validate(HOST.default(pruned))]


WORDING = yaml.safe_load((Path(__file__).parents[2] / "data" / "crd_wording.yaml").read_text())


@pytest.mark.parametrize("case", WORDING, ids=lambda case: json.dumps(case["object"])[:60])
def test_wording(case):
    host = {"spec": {"online": True}} | case["object"]
    assert wording(host) == case["lines"]


def test_field_error_has_path_type_and_message():
    assert HOST.validate({"spec": {}}) == [FieldError("spec.online", "Required value", "")]
    (fault,) = HOST.validate({"spec": {"online": True, "image": {"url": "u", "format": "x"}}})
    assert fault[:2] == ("spec.image.format", "Unsupported value")
    assert fault.message.startswith('"x": supported values: "raw"')


def test_unknown_fields_are_dropped_and_named():
    obj = {
        "apiVersion": "metal3.io/v1alpha1",
        "kind": "BareMetalHost",
        "metadata": {"name": "a", "labels": {"x": "y"}, "zone": 1},
        "spec": {"online": True, "foo": 1, "bmc": {"address": "a", "port": [{}]}},
        "extra": {},
    }
    before = copy.deepcopy(obj)
    pruned, unknown = HOST.prune(obj)
    assert unknown == ["extra", "metadata.zone", "spec.bmc.port", "spec.foo"]
    assert pruned == {
        "apiVersion": "metal3.io/v1alpha1",
        "kind": "BareMetalHost",
        "metadata": {"name": "a", "labels": {"x": "y"}},
        "spec": {"online": True, "bmc": {"address": "a"}},
    }
    assert obj == before


KEEPING = Schema(
    {
        "type": "object",
        "properties": {
            "free": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": True,
                "properties": {"known": {"type": "object", "properties": {"a": {}}}},
            },
            "inner": {
                "type": "object",
                "x-kubernetes-embedded-resource": True,
                "properties": {"spec": {"type": "object"}},
            },
            "words": {"type": "object", "additionalProperties": {"type": "object"}},
            "port": {"x-kubernetes-int-or-string": True},
            "small": {"type": "integer", "format": "int32"},
            "big": {"type": "integer", "format": "int64"},
            "below": {"type": "number", "maximum": 5, "exclusiveMaximum": True},
            "names": {
                "type": "array",
                "items": {"type": "string"},
                "x-kubernetes-list-type": "set",
            },
            "pairs": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": {"type": "object", "properties": {"type": {"type": "string"}}},
            },
        },
    }
)


def test_preserve_unknown_fields_keeps_all_but_within_known_fields():
    obj = {"free": {"any": [1], "known": {"a": 1, "b": 2}}, "words": {"x": {"y": 1}}}
    pruned, unknown = KEEPING.prune(obj)
    assert pruned == {"free": {"any": [1], "known": {"a": 1}}, "words": {"x": {}}}
    assert unknown == ["free.known.b", "words.x.y"]


def test_embedded_resource_keeps_its_head():
    inner = {"apiVersion": "v1", "kind": "X", "metadata": {"name": "n"}, "spec": {}}
    assert KEEPING.prune({"inner": {**inner, "data": 1}}) == ({"inner": inner}, ["inner.data"])


@pytest.mark.parametrize(
    ("obj", "lines"),
    [
        ({"port": 80}, []),
        ({"port": "http"}, []),
        ({"port": 1.5}, ["port: Invalid value"]),
        ({"small": 2**31 - 1}, []),
        ({"small": 2**31}, ["small: Invalid value"]),
        ({"big": -(2**63)}, []),
        ({"big": 2**63}, ["big: Invalid value"]),
        ({"big": 5.0}, []),
        ({"big": True}, ["big: Invalid value"]),
        ({"below": 4.9}, []),
        ({"below": 5}, ["below: Invalid value"]),
        ({"names": ["a", "b", "a"]}, ["names[2]: Duplicate value"]),
        ({"pairs": [{"type": "A"}, {}, {"type": "A"}]}, ["pairs[2]: Duplicate value"]),
    ],
)
def test_numbers_and_list_types(obj, lines):
    assert [f"{fault.path}: {fault.type}" for fault in KEEPING.validate(obj)] == lines


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("2026-08-01T12:00:00Z", True),
        ("2026-08-01T12:00:00.123456789+02:00", True),
        ("2026-08-01t12:00:00z", True),
        ("2016-12-31T23:59:60Z", True),
        ("2026-08-01 12:00:00", False),
        ("2026-08-01T12:00:00", False),
        ("2026-02-30T12:00:00Z", False),
        ("", False),
    ],
)
def test_date_time(text, valid):
    assert (HOST.validate({"status": {"lastUpdated": text}}) == []) is valid


@pytest.mark.parametrize(("text", "valid"), [("", True), ("YWRtaW4=", True), ("a", False)])
def test_secret_data_is_base64(text, valid):
    secret = Schema(builtin_definitions()[0].schema)
    assert (secret.validate({"data": {"username": text}}) == []) is valid


def test_faults_of_unchanged_parts_are_forgiven_on_update():
    old = {"spec": {"online": True, "bootMODE": 1, "image": {"url": "a", "format": "x"}}}
    new = copy.deepcopy(old)
    assert HOST.validate(new, old) == []
    new["spec"]["description"] = "moved"
    assert HOST.validate(new, old) == []
    new["spec"]["image"]["format"] = "y"
    assert [fault.path for fault in HOST.validate(new, old)] == ["spec.image.format"]
    assert HOST.validate({"spec": {"online": 1}}, {"spec": {"online": True}}) != []
    without_online = {"spec": {"description": "a"}}
    assert HOST.validate(without_online, {"spec": {"description": "b"}}) != []


def test_defaults():
    assert HOST.default({"spec": {"online": True}})["spec"]["automatedCleaningMode"] == "metadata"
    assert HOST.default({"spec": {}, "status": {}})["status"] == {"errorCount": 0}
    assert "status" not in HOST.default({"spec": {}})
    assert HOST.default({"spec": {"automatedCleaningMode": "disabled"}})["spec"] == {
        "automatedCleaningMode": "disabled"
    }


def test_an_evil_pattern_takes_no_time():
    schema = Schema({"type": "string", "pattern": "^(a+)+$"})
    assert schema.validate("a" * 30_000 + "!") != []  # type: ignore[arg-type]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def objects_like(schema):
    """Objects that mostly, but not only, have the schema's shape."""
    fields = {name: values_like(child) for name, child in schema.get("properties", {}).items()}
    known = st.fixed_dictionaries({}, optional=fields)
    return st.builds(
        lambda a, b: {**b, **a},
        known,
        st.dictionaries(st.text(max_size=3), json_values, max_size=2),
    )


def values_like(schema):
    kind = schema.get("type")
    if kind == "object":
        return st.one_of(objects_like(schema), st.none())
    if kind == "array":
        return st.lists(values_like(schema.get("items", {})), max_size=2)
    if "enum" in schema:
        return st.sampled_from([*schema["enum"], "other", None])
    return json_values


SPEC = parse_crd(load_crds()[0]).schema["properties"]["spec"]
hosts = st.fixed_dictionaries({"spec": objects_like(SPEC)})


@given(hosts)
def test_prune_and_default_are_idempotent_and_leave_their_argument(host):
    before = copy.deepcopy(host)
    pruned, _ = HOST.prune(host)
    assert HOST.prune(pruned) == (pruned, [])
    filled = HOST.default(pruned)
    assert HOST.default(filled) == filled
    assert HOST.prune(filled) == (filled, [])
    assert host == before


@given(hosts)
def test_validation_never_fails_and_gives_sorted_distinct_faults(host):
    faults = HOST.validate(host)
    assert faults == sorted(set(faults))
    assert HOST.validate(host, host) == []
    assert all(fault.path.startswith("spec") for fault in faults)
