"""Which of two hosts keeps what only one can have."""

import pytest

from billet_server.core.terms import HostKey
from billet_server.engine.indexes import elder


def host(name, created, uid, *, working=False):
    status = {"goodCredentials": {"credentialsVersion": "1"}} if working else {}
    meta = {"namespace": "n", "name": name, "uid": uid, "creationTimestamp": created}
    return {"metadata": meta, "status": status}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (host("a", "2026-01-01T00:00:00Z", "9"), host("b", "2026-01-01T00:00:01Z", "1")),
        (
            host("a", "2026-01-01T00:00:00Z", "9", working=True),
            host("b", "2026-01-01T00:00:00Z", "1"),
        ),
        (host("a", "2026-01-01T00:00:00Z", "1"), host("b", "2026-01-01T00:00:00Z", "9")),
        (
            host("a", "2026-01-01T00:00:00Z", "9"),
            host("b", "2026-01-01T00:00:01Z", "1", working=True),
        ),
    ],
    ids=["older", "working", "uid", "older-though-not-working"],
)
def test_the_elder_keeps_it(one, other):
    for found in ([one, other], [other, one]):
        assert elder(found, HostKey("n", "a")) == ""
        assert elder(found, HostKey("n", "b")) == "n/a"


def test_alone_nobody_is_elder():
    assert elder([], HostKey("n", "a")) == ""
    assert elder([host("a", "2026-01-01T00:00:00Z", "1")], HostKey("n", "a")) == ""
