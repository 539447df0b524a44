"""Label and field selectors, media types, paths and tokens: tables."""

import pytest

from billet_server.apiserver.failure import Failure
from billet_server.apiserver.forms import Form, parse_form
from billet_server.apiserver.lists import parse_token, render_token
from billet_server.apiserver.selectors import (
    matches_fields,
    matches_labels,
    parse_field_selector,
    parse_label_selector,
)
from billet_server.apiserver.target import Target, parse_delete_options, parse_target
from billet_server.ports import BARE_METAL_HOST, EVENT, SECRET

LABELS = {"app": "web", "tier": "2", "example.com/zone": "a.b", "empty": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web,tier=2", True),
        ("app=web,tier=3", False),
        ("app!=db", True),
        ("app!=web", False),
        ("missing!=x", True),
        ("app", True),
        ("missing", False),
        ("!missing", True),
        ("!app", False),
        ("app in (web, db)", True),
        ("app in (db),tier=2", False),
        ("app notin (db,cache)", True),
        ("missing notin (x)", True),
        ("example.com/zone=a.b", True),
        ("empty=", True),
        ("app=", False),
        ("tier>1", True),
        ("tier<2", False),
        ("app>1", False),
    ],
)
def test_label_selectors(text, matches):
    assert matches_labels(parse_label_selector(text), LABELS) is matches


@pytest.mark.parametrize("text", ["a b", "a=b=c", "a in b", "=x", "a,,b", "a in (b", "-a=b", "a>x"])
def test_label_selectors_that_cannot_be_parsed(text):
    with pytest.raises(Failure) as caught:
        parse_label_selector(text)
    assert caught.value.status == 400


EVENT_OBJECT = {
    "metadata": {"name": "e", "namespace": "ns"},
    "involvedObject": {"kind": "BareMetalHost", "name": "h", "uid": "u"},
    "type": "Warning",
    "source": {"component": "billet"},
}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("involvedObject.name=h,involvedObject.uid=u", True),
        ("involvedObject.name=h,involvedObject.uid=x", False),
        ("involvedObject.fieldPath=", True),
        ("type!=Normal", True),
        ("metadata.name=e,metadata.namespace==ns", True),
        ("source=billet", True),
        ("reason=x", False),
    ],
)
def test_field_selectors(text, matches):
    assert matches_fields(parse_field_selector(text, EVENT), EVENT_OBJECT) is matches


@pytest.mark.parametrize(
    ("text", "kind"),
    [("spec.online=true", BARE_METAL_HOST), ("involvedObject.name=a", SECRET), ("name", EVENT)],
)
def test_field_selectors_that_are_refused(text, kind):
    with pytest.raises(Failure) as caught:
        parse_field_selector(text, kind)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/v1/secrets", Target("", "v1", None, "secrets")),
        ("/api/v1/namespaces/a/secrets/b", Target("", "v1", "a", "secrets", "b")),
        ("/api/v1/namespaces", Target("", "v1", None, "namespaces")),
        ("/api/v1/namespaces/a", Target("", "v1", None, "namespaces", "a")),
        ("/api/v1/namespaces/a/status", Target("", "v1", None, "namespaces", "a", "status")),
        ("/apis/g/v/namespaces/a/ps/b/status", Target("g", "v", "a", "ps", "b", "status")),
        ("/apis/g/v/ps/b", Target("g", "v", None, "ps", "b")),
        ("/api/v1/namespaces/a/secrets/b%2Fc", Target("", "v1", "a", "secrets", "b/c")),
        ("/apis", None),
        ("/apis/g/v", None),
        ("/api/v1", None),
        ("/healthz", None),
        ("/apis/g/v/ps/b/status/more", None),
    ],
)
def test_paths(path, target):
    assert parse_target(path) == target


TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Form()),
        ("application/json", Form()),
        ("*/*", Form()),
        (f"{TABLE},application/json", Form("Table")),
        (f"application/json;as=Table;v=v9;g=meta.k8s.io,{TABLE}", Form("Table")),
        ("application/vnd.kubernetes.protobuf,application/json", Form()),
        (f"{TABLE};q=0.5,application/json", Form()),
        (
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Form("PartialObjectMetadata"),
        ),
    ],
)
def test_media_types(accept, form):
    assert parse_form(accept, "", listing=True) == form


def test_media_types_that_cannot_be_served():
    with pytest.raises(Failure) as caught:
        parse_form("application/vnd.kubernetes.protobuf", "", listing=True)
    assert caught.value.status == 406


def test_continue_tokens():
    assert parse_token(render_token(7, ("ns", "name"))) == (7, ("ns", "name"))
    for text in ("x", "bm9wZQ==", "ä"):
        with pytest.raises(Failure) as caught:
            parse_token(text)
        assert caught.value.status == 400


@pytest.mark.parametrize(
    ("query", "body", "propagation"),
    [
        ({}, {}, "Background"),
        ({"propagationPolicy": "Orphan"}, {}, "Orphan"),
        ({}, {"propagationPolicy": "Foreground"}, "Foreground"),
        ({}, {"orphanDependents": True}, "Orphan"),
        ({"orphanDependents": "true"}, {}, "Orphan"),
    ],
)
def test_propagation(query, body, propagation):
    assert parse_delete_options(query, body).propagation == propagation


@pytest.mark.parametrize("body", [{"propagationPolicy": "x"}, {"dryRun": ["Some"]}])
def test_delete_options_that_are_refused(body):
    with pytest.raises(Failure) as caught:
        parse_delete_options({}, body)
    assert caught.value.status == 422
