"""Which version of an object the informer's cache keeps, with numbers and opaque versions."""

import pytest

from billet_server.engine.cache import ObjectCache, version_number


def obj(version, name="a", namespace="n", **more):
    return {
        "metadata": {"namespace": namespace, "name": name, "resourceVersion": str(version)},
        **more,
    }


def held(cache):
    return {(one["metadata"]["name"], one["metadata"]["resourceVersion"]) for one in cache.items()}


@pytest.mark.parametrize(
    ("version", "number"),
    [("0", 0), ("17", 17), ("", None), ("a7", None), ("-1", None), ("²", None)],
)
def test_versions_as_numbers(version, number):
    assert version_number(version) == number


def test_versions_compare_as_numbers_not_as_text():
    cache = ObjectCache()
    cache.watched(obj(9))
    assert cache.watched(obj(10)) == (obj(9), obj(10))


def test_an_older_event_changes_nothing():
    cache = ObjectCache()
    cache.watched(obj(3))
    assert cache.written(obj(5)) == (obj(3), obj(5))
    assert cache.watched(obj(4)) is None
    assert cache.watched(obj(5)) is None
    assert cache.get("n", "a") == obj(5)
    assert cache.watched(obj(6)) == (obj(5), obj(6))


def test_an_answer_the_watch_has_overtaken_changes_nothing():
    cache = ObjectCache()
    cache.watched(obj(3))
    cache.watched(obj(6))
    assert cache.written(obj(5)) is None
    assert cache.written(obj(6)) is None
    assert cache.get("n", "a") == obj(6)


def test_an_answer_does_not_bring_a_deleted_object_back():
    cache = ObjectCache()
    cache.watched(obj(3))
    assert cache.watched(obj(6), deleted=True) == (obj(3), None)
    assert cache.written(obj(5)) is None
    assert len(cache) == 0


def test_an_object_made_anew_outlives_the_old_ones_deletion():
    cache = ObjectCache()
    cache.watched(obj(3))
    cache.written(obj(8, uid="new"))
    assert cache.watched(obj(6), deleted=True) is None
    assert cache.get("n", "a") == obj(8, uid="new")


def test_a_deletion_may_carry_the_last_version():
    cache = ObjectCache()
    cache.watched(obj(3))
    assert cache.watched(obj(3), deleted=True) == (obj(3), None)
    assert cache.watched(obj(4), deleted=True) is None


def test_a_bookmark_moves_the_watch_on():
    cache = ObjectCache()
    cache.advance("10")
    assert cache.written(obj(9)) is None
    assert cache.written(obj(11)) == (None, obj(11))


def test_each_namespace_has_its_own_watch():
    cache = ObjectCache(by_namespace=True)
    cache.advance("100", "fast")
    assert cache.written(obj(70, namespace="slow")) == (None, obj(70, namespace="slow"))
    assert cache.written(obj(70, namespace="fast")) is None


def test_a_list_brings_and_takes():
    cache = ObjectCache()
    cache.replace([obj(1), obj(2, "b"), obj(3, "c")], "3")
    changes = cache.replace([obj(1), obj(5, "b"), obj(6, "d")], "7")
    assert sorted(changes, key=str) == sorted(
        [(obj(2, "b"), obj(5, "b")), (None, obj(6, "d")), (obj(3, "c"), None)], key=str
    )
    assert held(cache) == {("a", "1"), ("b", "5"), ("d", "6")}


def test_a_list_leaves_what_was_written_after_it():
    cache = ObjectCache()
    cache.replace([obj(1)], "1")
    cache.begin_list()
    cache.written(obj(9))
    cache.written(obj(8, "new"))
    assert cache.replace([obj(1)], "5") == []
    assert held(cache) == {("a", "9"), ("new", "8")}


def test_a_list_of_one_namespace_leaves_the_others():
    cache = ObjectCache(by_namespace=True)
    cache.replace([obj(1, namespace="x")], "1", scope="x")
    cache.replace([obj(2, namespace="y")], "2", scope="y")
    assert cache.replace([], "3", scope="x") == [(obj(1, namespace="x"), None)]
    assert len(cache) == 1


def test_an_older_list_means_that_history_began_anew():
    cache = ObjectCache()
    cache.replace([obj(90), obj(91, "b")], "100")
    cache.replace([obj(3, spec=1)], "4")
    assert held(cache) == {("a", "3")}
    assert cache.written(obj(5)) == (obj(3, spec=1), obj(5))


def test_opaque_versions_wait_until_the_watch_brings_what_was_written():
    cache = ObjectCache()
    cache.watched(obj("p"))
    cache.written(obj("r"))
    assert cache.watched(obj("q")) is None
    assert cache.watched(obj("r")) is None
    assert cache.watched(obj("s")) == (obj("r"), obj("s"))


def test_opaque_answers_that_the_watch_brought_before_change_nothing():
    cache = ObjectCache()
    cache.watched(obj("p"))
    cache.watched(obj("q"))
    assert cache.written(obj("p")) is None
    assert cache.watched(obj("r")) == (obj("q"), obj("r"))


def test_an_opaque_deletion_counts_at_once():
    cache = ObjectCache()
    cache.watched(obj("p"))
    cache.written(obj("q"))
    assert cache.watched(obj("z"), deleted=True) == (obj("q"), None)
    assert cache.watched(obj("new")) == (None, obj("new"))


def test_a_list_ends_the_wait_for_an_opaque_version():
    cache = ObjectCache()
    cache.written(obj("q"))
    cache.begin_list()
    cache.written(obj("k", "late"))
    cache.replace([obj("r")], "L")
    assert held(cache) == {("a", "r"), ("late", "k")}
    assert cache.watched(obj("s")) == (obj("r"), obj("s"))


def test_indexes_follow_the_objects():
    cache = ObjectCache()
    cache.watched(obj(1, "a", macs=["x", "y", "x"]))
    cache.add_index("mac", lambda one: one.get("macs", ()))
    cache.watched(obj(2, "b", macs=["y"]))
    names = lambda mac: [one["metadata"]["name"] for one in cache.by_index("mac", mac)]
    assert (names("x"), names("y"), names("z")) == (["a"], ["a", "b"], [])
    cache.watched(obj(3, "a", macs=["z"]))
    assert (names("x"), names("y"), names("z")) == ([], ["b"], ["a"])
    assert cache.by_index("mac", "z") == [obj(3, "a", macs=["z"])]
    cache.watched(obj(4, "a"), deleted=True)
    cache.replace([], "9")
    assert (names("x"), names("y"), names("z")) == ([], [], [])
    with pytest.raises(KeyError):
        cache.by_index("serial", "x")
