"""Server-printed tables."""

from datetime import UTC, datetime, timedelta

import pytest

from billet_server.apiserver.cells import render_age, render_duration
from billet_server.apiserver.definitions import (
    Column,
    Definition,
    builtin_definitions,
    load_crds,
    parse_crd,
)
from billet_server.apiserver.jsonpath import parse_path
from billet_server.apiserver.table import render_table
from billet_server.ports import Kind

NOW = datetime(2026, 8, 1, 12, 0, 0, tzinfo=UTC)
DEFINITIONS = {
    item.kind.plural: item for item in [*builtin_definitions(), *map(parse_crd, load_crds())]
}
M, H, D, Y = 60, 3600, 86400, 365 * 86400


def ago(seconds):
    return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def rows(plural, *items, include="None"):
    table = render_table(DEFINITIONS[plural], items, {"resourceVersion": "7"}, include, NOW)
    names = [column["name"] for column in table["columnDefinitions"]]
    return [dict(zip(names, row["cells"], strict=True)) for row in table["rows"]]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-2, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (10 * M - 1, "9m59s"),
        (10 * M, "10m"),
        (3 * H - 1, "179m"),
        (3 * H, "3h"),
        (7 * H + 59 * M, "7h59m"),
        (8 * H, "8h"),
        (2 * D - 1, "47h"),
        (2 * D, "2d"),
        (2 * D + 3 * H, "2d3h"),
        (8 * D, "8d"),
        (2 * Y - 1, "729d"),
        (2 * Y, "2y"),
        (2 * Y + 5 * D, "2y5d"),
        (8 * Y, "8y"),
    ],
)
def test_ages_are_those_of_kubectl(seconds, text):
    assert render_duration(seconds) == text


def test_age_of_odd_times():
    assert render_age(None, NOW) == "<unknown>"
    assert render_age("noon", NOW) == "<invalid>"
    assert render_age("2026-08-01T13:59:58.5+02:00", NOW) == "1s"


DOCUMENT = {
    "a": {"b.c": 1, "b": [10, 20, {"d": None}]},
    "conditions": [{"type": "Ready", "status": "True"}, {"type": "Healthy", "status": "False"}],
}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (".a.b[1]", [20]),
        (".a.b[-3]", [10]),
        (".a.b[7]", []),
        (r".a.b\.c", [1]),
        (".a['b.c']", [1]),
        ("{.a.b[2].d}", []),
        (".a.none.b", []),
        (".conditions[*].type", ["Ready", "Healthy"]),
        ('.conditions[?(@.type=="Ready")].status', ["True"]),
        (".conditions[?(@.type!='Ready')].status", ["False"]),
    ],
)
def test_json_path(path, values):
    assert parse_path(path)(DOCUMENT) == values


@pytest.mark.parametrize("path", ["a", ".a[", ".a[x]", "..a[?(1)]"])
def test_json_path_that_cannot_be_read(path):
    with pytest.raises(ValueError, match="cannot read JSONPath"):
        parse_path(path)


def test_host_row():
    host = {
        "metadata": {"name": "metal3-node01", "creationTimestamp": ago(300)},
        "spec": {"online": False, "bmc": {"address": "ipmi://172.22.0.1:6230"}},
        "status": {
            "operationalStatus": "OK",
            "provisioning": {"state": "inspecting"},
            "progress": {"percent": 40},
        },
    }
    (row,) = rows("baremetalhosts", host)
    assert list(row)[:9] == [
        "Name",
        "Status",
        "Provisioning Status",
        "Consumer",
        "BMC",
        "Hardware Profile",
        "Online",
        "Error",
        "Age",
    ]
    assert list(row.values())[:9] == [
        "metal3-node01",
        "OK",
        "inspecting",
        None,
        "ipmi://172.22.0.1:6230",
        None,
        "false",
        None,
        "5m",
    ]
    assert row["Progress"] == "40"


def test_rows_carry_what_was_asked_for():
    secret = {"kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "YQ=="}}

    def first(include):
        table = render_table(DEFINITIONS["secrets"], [secret], {}, include, NOW)
        return table["rows"][0]["object"]

    assert first("None") is None
    assert first("Object") == secret
    assert first("Metadata") == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"name": "s"},
    }


def test_table_head():
    table = render_table(DEFINITIONS["secrets"], [], {"resourceVersion": "7"}, "None", NOW)
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert table["metadata"] == {"resourceVersion": "7"}
    assert table["rows"] == []
    assert table["columnDefinitions"][0]["format"] == "name"


def test_rows_of_built_in_kinds():
    meta = {"name": "x", "creationTimestamp": ago(61)}
    data = {"metadata": meta, "type": "Opaque", "data": {"a": "", "b": ""}}
    assert rows("secrets", data) == [{"Name": "x", "Type": "Opaque", "Data": 2, "Age": "61s"}]
    assert rows("configmaps", {"metadata": meta}) == [{"Name": "x", "Data": 0, "Age": "61s"}]
    space = {"metadata": meta, "status": {"phase": "Active"}}
    assert rows("namespaces", space) == [{"Name": "x", "Status": "Active", "Age": "61s"}]
    lease = {"metadata": meta, "spec": {"holderIdentity": "me"}}
    assert rows("leases", lease) == [{"Name": "x", "Holder": "me", "Age": "61s"}]
    assert rows("customresourcedefinitions", {"metadata": meta}) == [
        {"Name": "x", "Created At": ago(61)}
    ]


def test_event_row():
    event = {
        "metadata": {"name": "e"},
        "type": "Warning",
        "reason": "RegistrationError",
        "message": "BMC refused the password",
        "involvedObject": {"kind": "BareMetalHost", "name": "h"},
        "source": {"component": "billet"},
        "firstTimestamp": ago(3600),
        "lastTimestamp": ago(30),
        "count": 4,
    }
    (row,) = rows("events", event)
    assert list(row.items()) == [
        ("Last Seen", "30s"),
        ("Type", "Warning"),
        ("Reason", "RegistrationError"),
        ("Object", "baremetalhost/h"),
        ("Subobject", None),
        ("Source", "billet"),
        ("Message", "BMC refused the password"),
        ("First Seen", "60m"),
        ("Count", 4),
        ("Name", "e"),
    ]
    (newer,) = rows("events", {"metadata": {}, "eventTime": ago(5)})
    assert (newer["Last Seen"], newer["First Seen"], newer["Count"]) == ("5s", "5s", 1)


@pytest.mark.parametrize(
    ("column_type", "value", "cell"),
    [
        ("string", "a", "a"),
        ("string", True, "true"),
        ("string", ["a", 1], '["a",1]'),
        ("integer", 3, 3),
        ("integer", 3.0, 3),
        ("integer", "3", None),
        ("integer", True, None),
        ("number", 1.5, 1.5),
        ("boolean", False, False),
        ("boolean", "no", None),
        ("date", ago(5), "5s"),
        ("date", 5, None),
    ],
)
def test_cells_follow_the_type_of_their_column(column_type, value, cell):
    definition = Definition(
        Kind("e", "v1", "T", "ts"), "t", "TList", columns=(Column("C", column_type, "", "", ".c"),)
    )
    table = render_table(definition, [{"metadata": {"name": "n"}, "c": value}], {}, "None", NOW)
    assert table["rows"][0]["cells"] == ["n", cell]
