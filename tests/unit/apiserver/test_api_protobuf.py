"""Kubernetes protobuf bodies: what kubectl 1.32 sent, and bytes that are no messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billet_server.apiserver.failure import Failure
from billet_server.apiserver.protobuf import MEDIA_TYPE, parse_protobuf

# kubectl 1.32: create secret generic bmc --from-literal=username=a
SECRET = bytes.fromhex(
    "6b3873000a0c0a02763112065365637265741226"
    "0a130a03626d6312001a0022002a00320038004200120d0a08757365726e616d651201611a001a002200"
)


def test_what_kubectl_sent():
    assert parse_protobuf(SECRET) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "bmc", "generation": 0},
        "data": {"username": "YQ=="},
    }


async def test_it_is_accepted_over_http(client):
    headers = {"Content-Type": MEDIA_TYPE, "Accept": f"{MEDIA_TYPE},application/json"}
    answer = await client("POST", client.secrets, data=SECRET, headers=headers)
    assert (answer.status, answer.json["data"]) == (201, {"username": "YQ=="})


def field(number, payload):
    """A length-delimited field of less than 128 bytes."""
    return bytes([number << 3 | 2, len(payload)]) + payload


def number(tag, value):
    return bytes([tag << 3, value])


def envelope(api_version, kind, message):
    names = field(1, api_version.encode()) + field(2, kind.encode())
    return b"k8s\0" + field(1, names) + field(2, message)


def test_leases_and_their_microseconds():
    spec = field(1, b"me") + number(2, 15) + field(3, number(1, 60) + b"\x10\xc0\x84\x3d")
    body = envelope("coordination.k8s.io/v1", "Lease", field(1, field(1, b"l")) + field(2, spec))
    lease = parse_protobuf(body)
    assert lease["spec"] == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "acquireTime": "1970-01-01T00:01:00.001000Z",
    }


def test_labels_owners_and_fields_from_the_future():
    label = field(11, field(1, b"k") + field(2, b"v"))
    owner = field(13, field(1, b"Kind") + field(3, b"name") + field(4, b"uid") + number(6, 1))
    meta = field(1, b"c") + label + owner + field(14, b"a/b") + field(15, b"?") + number(15, 1)
    parsed = parse_protobuf(envelope("v1", "ConfigMap", field(1, meta)))
    assert parsed["metadata"] == {
        "name": "c",
        "labels": {"k": "v"},
        "ownerReferences": [{"kind": "Kind", "name": "name", "uid": "uid", "controller": True}],
        "finalizers": ["a/b"],
    }


def test_delete_options_of_any_group():
    options = field(2, field(1, b"u")) + field(4, b"Orphan") + field(5, b"All")
    parsed = parse_protobuf(envelope("meta.k8s.io/v1", "DeleteOptions", options))
    assert parsed["preconditions"] == {"uid": "u"}
    assert (parsed["propagationPolicy"], parsed["dryRun"]) == ("Orphan", ["All"])


@pytest.mark.parametrize(
    "body",
    [b"", b"k8s", b"k8s\0", b'{"a":1}', SECRET[:-3], SECRET[:10], envelope("v1", "Pod", b""),
     envelope("v1", "Secret", number(1, 1)), envelope("v1", "Secret", field(1, field(1, b"\xff"))),
     envelope("v1", "Secret", b"\x0f\x01")],
)  # fmt: skip
def test_bytes_that_are_no_message(body):
    with pytest.raises(Failure) as caught:
        parse_protobuf(body)
    assert caught.value.status == 400


@given(st.binary(max_size=40), st.integers(0, len(SECRET)))
def test_any_bytes_are_an_object_or_a_400(noise, position):
    body = SECRET[:position] + noise + SECRET[position:]
    try:
        parsed = parse_protobuf(body)
    except Failure:
        return
    assert isinstance(parsed, dict)
