"""The SQLite store: versions, conflicts, the change log, and a killed process."""

import signal
import subprocess
import sys

import pytest

from billet_server.apiserver.store import (
    NAMESPACES,
    Compacted,
    Halves,
    Key,
    NoNamespace,
    Put,
    Remove,
    Stale,
    Store,
)
from billet_server.errors import ConfigError

SECRETS = "/secrets"
HALVES = Halves(b'{"v":"', b'"}')


def put(
    name, expect=None, *, resource=SECRETS, namespace="ns", owners=(), labels="{}", halves=HALVES
):
    key = Key(resource, namespace, name)
    return Put(key, expect, f"uid-{resource}-{namespace}-{name}", labels, owners, halves, 1000)


def namespace(name="ns"):
    return put(name, resource=NAMESPACES, namespace="")


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "objects.sqlite")
    made.submit(namespace()).result(10)
    yield made
    made.close()


def test_versions_grow_over_all_resources_and_outlive_the_process(tmp_path):
    store = Store(tmp_path / "o.sqlite")
    assert store.submit(namespace()).result(10).version == 2
    change = store.submit(put("a")).result(10)
    assert (change.version, change.type, change.body) == (3, "ADDED", b'{"v":"3"}')
    removed = store.submit(Remove(Key(SECRETS, "ns", "a"), 3, HALVES)).result(10)
    assert (removed.version, removed.type) == (4, "DELETED")
    store.close()

    again = Store(tmp_path / "o.sqlite")
    assert again.version == 4
    assert again.submit(put("a")).result(10).version == 5
    assert again.get(Key(SECRETS, "ns", "a")) == b'{"v":"5"}'
    again.close()


@pytest.mark.parametrize(
    "operation",
    [
        put("a"),
        put("a", 99),
        put("other", 3),
        Remove(Key(SECRETS, "ns", "a"), 2, HALVES),
        Remove(Key(SECRETS, "ns", "other"), 3, HALVES),
    ],
)
def test_what_does_not_fit_the_present_state_changes_nothing(store, operation):
    assert store.submit(put("a")).result(10).version == 3
    with pytest.raises(Stale):
        store.submit(operation).result(10)
    assert store.version == 3
    assert store.page(SECRETS).bodies == [b'{"v":"3"}']


def test_new_objects_need_their_namespace(store):
    with pytest.raises(NoNamespace):
        store.submit(put("a", namespace="nowhere")).result(10)


def test_a_namespace_goes_only_when_empty(store):
    store.submit(put("a")).result(10)
    remove = Remove(Key(NAMESPACES, "", "ns"), 2, HALVES, if_empty=True)
    with pytest.raises(Stale):
        store.submit(remove).result(10)
    store.submit(Remove(Key(SECRETS, "ns", "a"), 3, HALVES)).result(10)
    store.submit(remove).result(10)
    assert store.get(Key(NAMESPACES, "", "ns")) is None


def test_pages_are_in_order_and_count_what_follows(store):
    store.submit(namespace("a-first")).result(10)
    for name in ("c", "a", "b"):
        store.submit(put(name)).result(10)
    store.submit(put("z", namespace="a-first")).result(10)
    first = store.page(SECRETS, limit=2)
    assert (first.last, first.remaining) == (("ns", "a"), 2)
    second = store.page(SECRETS, after=first.last, limit=2)
    assert (second.last, second.remaining) == (("ns", "c"), 0)
    assert len(store.page(SECRETS, "ns").bodies) == 3
    assert len(store.page(SECRETS, name="z").bodies) == 1


def test_the_log_tells_changes_of_one_resource_with_the_labels_before(store):
    store.submit(put("a", labels='{"x":"1"}')).result(10)
    store.submit(put("m", resource="/configmaps")).result(10)
    store.submit(put("a", 3, labels='{"x":"2"}')).result(10)
    found = store.changes(SECRETS, 2)
    assert [(c.version, c.type, c.old_labels) for c in found] == [
        (3, "ADDED", ""),
        (5, "MODIFIED", '{"x":"1"}'),
    ]
    assert [c.version for c in store.changes(SECRETS, 3)] == [5]
    assert store.changes(SECRETS, 2, namespace="elsewhere") == []


@pytest.mark.parametrize("limits", [{"max_log_rows": 10}, {"max_log_bytes": 90}])
def test_the_log_is_bounded_and_its_past_is_gone(tmp_path, limits):
    store = Store(tmp_path / "o.sqlite", **limits)
    store.submit(namespace()).result(10)
    for number in range(40):
        store.submit(put(f"n{number}")).result(10)
    with pytest.raises(Compacted):
        store.changes(SECRETS, 2)
    assert store.compacted(2)
    assert not store.compacted(store.version)
    recent = store.changes(SECRETS, store.version - 5)
    assert [change.version for change in recent] == list(
        range(store.version - 4, store.version + 1)
    )
    assert len(store.page(SECRETS).bodies) == 40
    store.close()
    again = Store(tmp_path / "o.sqlite", **limits)
    assert again.version == 42
    assert again.submit(put("new")).result(10).version == 43
    again.close()


def test_compacting_keeps_the_last_version(store):
    store.submit(put("a")).result(10)
    store.compact().result(10)
    with pytest.raises(Compacted):
        store.changes(SECRETS, 1)
    assert store.changes(SECRETS, 3) == []
    assert store.submit(put("b")).result(10).version == 4


def test_owners_are_found_from_both_sides(store):
    owner = store.submit(put("owner")).result(10)
    store.submit(put("child", owners=[owner.uid])).result(10)
    store.submit(put("stray", owners=["uid-of-nobody"])).result(10)
    assert store.dependents(owner.uid) == [Key(SECRETS, "ns", "child")]
    assert store.orphans() == [Key(SECRETS, "ns", "stray")]
    assert store.existing([owner.uid, "uid-of-nobody"]) == {owner.uid}
    assert store.find_uid(owner.uid) == Key(SECRETS, "ns", "owner")
    store.submit(put("child", 4)).result(10)
    assert store.dependents(owner.uid) == []


def test_commits_are_announced_in_order_before_they_are_acknowledged(tmp_path):
    seen = []
    store = Store(tmp_path / "o.sqlite", lambda changes: seen.extend(c.version for c in changes))
    store.submit(namespace()).result(10)
    futures = [store.submit(put(f"n{number}")) for number in range(200)]
    for future in futures:
        assert future.result(10).version in seen
    assert seen == list(range(2, 203))
    store.close()


def test_a_cancelled_operation_leaves_the_writer_alive(store):
    futures = [store.submit(put(f"n{number}")) for number in range(50)]
    cancelled = {number for number, future in enumerate(futures) if future.cancel()}
    store.submit(put("last")).result(10)
    found = {n for n in range(50) if store.get(Key(SECRETS, "ns", f"n{n}")) is not None}
    assert found == set(range(50)) - cancelled


def test_closing_finishes_what_was_submitted(tmp_path):
    store = Store(tmp_path / "o.sqlite")
    futures = [store.submit(namespace(f"n{number}")) for number in range(100)]
    store.close()
    assert sorted(future.result(0).version for future in futures) == list(range(2, 102))


def test_a_file_of_a_newer_billet_is_refused(tmp_path):
    path = tmp_path / "o.sqlite"
    Store(path).close()
    raw = bytearray(path.read_bytes())
    raw[60:64] = (7).to_bytes(4, "big")  # PRAGMA user_version, sqlite.org/fileformat.html 1.3.12
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match="format 7"):
        Store(path)


WRITER = """
import sys
from pathlib import Path
from billet_server.apiserver.store import Halves, Key, NAMESPACES, Put, Store
store = Store(Path(sys.argv[1]))
pending = []
for number in range(1_000_000):
    key = Key(NAMESPACES, "", f"n{number}")
    pending.append(store.submit(Put(key, None, f"u{number}", "{}", (), Halves(b"", b""), 0)))
    if len(pending) == 16:
        print(pending.pop(0).result().key.name, flush=True)
"""


def test_kill_9_loses_nothing_acknowledged(tmp_path):
    path = tmp_path / "o.sqlite"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True
    )
    acknowledged = [writer.stdout.readline().strip() for _ in range(300)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += writer.stdout.read().split()
    writer.stdout.close()
    assert writer.wait(10) == -signal.SIGKILL

    store = Store(path)
    for name in acknowledged:
        assert store.get(Key(NAMESPACES, "", name)) is not None
    assert len(store.changes(NAMESPACES, 1, limit=10**6)) == len(store.page(NAMESPACES).bodies)
    assert store.submit(namespace("after")).result(10).version == store.version
    store.close()
