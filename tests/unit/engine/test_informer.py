"""The informer against the API's twin: faults, restarts, its own writes; in virtual time."""

import asyncio
import contextlib
import itertools
import logging
import random

import pytest

from billet_server import errors
from billet_server.engine.informer import Informer
from billet_server.engine.tasks import guarded
from billet_server.memory.clock import ManualClock
from billet_server.memory.kube import MemoryKube
from billet_server.ports import CONFIG_MAP


class Line:
    """A wire to the API that counts calls, can refuse lists, and can lead to another API."""

    def __init__(self, kube, clock):
        self.kube, self.clock = kube, clock
        self.calls = []
        self.refusal = None

    async def list(self, kind, namespace=None, *, labels=None):
        self.calls.append(("list", self.clock.monotonic()))
        if self.refusal:
            raise self.refusal
        return await self.kube.list(kind, namespace, labels=labels)

    def watch(self, kind, namespace=None, *, resource_version):
        self.calls.append(("watch", self.clock.monotonic()))
        return self.kube.watch(kind, namespace, resource_version=resource_version)

    def times(self, call):
        return [time for name, time in self.calls if name == call]


class Bench:
    def __init__(self):
        self.clock = ManualClock()
        self.kube = MemoryKube(clock=self.clock, namespaces=("default", "other"))
        self.line = Line(self.kube, self.clock)
        self.changes = []
        self.informer = self.make()

    def make(self, **options):
        return Informer(
            self.line,
            CONFIG_MAP,
            clock=self.clock,
            on_change=lambda old, new: self.changes.append((old, new)),
            jitter=lambda: 0.5,
            **options,
        )

    async def put(self, name, namespace="default", **data):
        obj = {"metadata": {"namespace": namespace, "name": name}, "data": data}
        try:
            return await self.kube.patch(CONFIG_MAP, namespace, name, obj)
        except errors.NotFound:
            return await self.kube.create(CONFIG_MAP, obj)

    async def delete(self, name, namespace="default"):
        await self.kube.delete(CONFIG_MAP, namespace, name)

    def news(self):
        """What was announced since the last call, as (name, before, after)."""
        taken, self.changes[:] = list(self.changes), []
        return [
            (
                (new or old)["metadata"]["name"],
                old and old.get("data"),
                new and new.get("data"),
            )
            for old, new in taken
        ]


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
async def run():
    tasks = []

    def start(coroutine):
        tasks.append(asyncio.create_task(coroutine))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_lists_then_follows(bench, run):
    await bench.put("a", x="1")
    assert not bench.informer.healthy
    run(bench.informer.run())
    await bench.clock.settle()
    assert bench.informer.synced.is_set()
    assert bench.informer.healthy
    assert bench.news() == [("a", None, {"x": "1"})]
    await bench.put("a", x="2")
    await bench.put("b")
    await bench.delete("a")
    await bench.clock.settle()
    assert bench.news() == [
        ("a", {"x": "1"}, {"x": "2"}),
        ("b", None, {}),
        ("a", {"x": "2"}, None),
    ]
    assert bench.informer.get("default", "a") is None
    assert bench.informer.get("default", "b") == bench.informer.items()[0]
    assert len(bench.informer) == 1


async def test_idle_costs_nothing(bench, run):
    run(bench.informer.run())
    await bench.clock.advance(3600)
    assert len(bench.line.calls) == 2
    assert bench.clock.sleepers == 0


async def test_a_broken_watch_goes_on_where_it_was(bench, run):
    await bench.put("a", x="1")
    run(bench.informer.run())
    await bench.clock.advance(5)
    bench.news()
    bench.kube.break_watches()
    await bench.put("a", x="2")
    await bench.clock.advance(5)
    assert bench.news() == [("a", {"x": "1"}, {"x": "2"})]
    assert len(bench.line.times("list")) == 1
    assert bench.informer.healthy


async def test_after_gone_the_difference_is_announced(bench, run):
    for name in ("kept", "changed", "deleted"):
        await bench.put(name, x="1")
    run(bench.informer.run())
    await bench.clock.settle()
    bench.news()
    bench.kube.break_watches()
    await bench.put("changed", x="2")
    await bench.delete("deleted")
    await bench.put("new")
    bench.kube.compact()
    await bench.clock.advance(5)
    assert sorted(bench.news(), key=str) == [
        ("changed", {"x": "1"}, {"x": "2"}),
        ("deleted", {"x": "1"}, None),
        ("new", None, {}),
    ]
    assert bench.informer.healthy


async def test_a_stopped_api_is_asked_ever_more_seldom_and_found_again(bench, run):
    await bench.put("a", x="1")
    run(bench.informer.run())
    await bench.clock.advance(5)
    bench.kube.unavailable = True
    await bench.clock.advance(0)
    assert not bench.informer.healthy
    assert isinstance(bench.informer.last_error, errors.Unavailable)
    assert bench.informer.synced.is_set()
    assert bench.informer.get("default", "a")["data"] == {"x": "1"}
    await bench.clock.advance(600)
    times = bench.line.times("list")[1:]
    pauses = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30
    assert len(times) < 30
    bench.kube.unavailable = False
    await bench.clock.advance(30)
    assert bench.informer.healthy


async def test_the_pause_is_short_again_after_good_times(bench, run):
    run(bench.informer.run())
    for _ in range(2):
        await bench.clock.advance(60)
        bench.line.calls.clear()
        bench.kube.break_watches()
        await bench.clock.advance(0.5)
        assert len(bench.line.times("watch")) == 1


async def test_an_api_that_refuses_is_asked_again(bench, run):
    bench.line.refusal = errors.ApiError("not allowed to list", 403, "Forbidden")
    run(bench.informer.run())
    await bench.clock.advance(3)
    assert not bench.informer.synced.is_set()
    assert bench.informer.last_error is bench.line.refusal
    bench.line.refusal = None
    await bench.clock.advance(10)
    assert bench.informer.healthy


async def test_a_watch_that_the_server_ends_at_once_is_not_repeated_in_a_hurry(bench, run):
    class Hasty(Line):
        async def watch(self, kind, namespace=None, *, resource_version):
            self.calls.append(("watch", self.clock.monotonic()))
            for _ in ():
                yield

    bench.line = Hasty(bench.kube, bench.clock)
    run(bench.make().run())
    await bench.clock.advance(300)
    assert 5 < len(bench.line.times("watch")) < 30


async def test_a_write_is_known_at_once_and_announced_once(bench, run):
    await bench.put("a", x="1")
    run(bench.informer.run())
    await bench.clock.settle()
    bench.news()
    first = await bench.put("a", x="2")
    written = await bench.put("a", x="3")
    bench.informer.note_written(written)
    assert bench.informer.get("default", "a") == written
    bench.informer.note_written(first)
    assert bench.informer.get("default", "a") == written
    await bench.clock.settle()
    assert bench.news()[-1][2] == {"x": "3"}
    assert bench.informer.get("default", "a") == written


async def test_a_stale_event_does_not_undo_a_write(bench, run):
    await bench.put("a", x="1")
    task = run(bench.informer.run())
    await bench.clock.settle()
    task.cancel()  # the watch lags behind
    await bench.clock.settle()
    bench.news()
    await bench.put("a", x="2")
    bench.informer.note_written(await bench.put("a", x="3"))
    assert bench.news() == [("a", {"x": "1"}, {"x": "3"})]
    run(bench.informer.run())
    await bench.clock.settle()
    assert bench.news() == [("a", {"x": "3"}, {"x": "3"})]  # a run begins with every object


async def test_an_api_whose_history_began_anew(bench, run):
    for number in range(50):
        await bench.put("old", x=str(number))
    run(bench.informer.run())
    await bench.clock.advance(5)
    fresh = MemoryKube(clock=bench.clock)
    await fresh.create(CONFIG_MAP, {"metadata": {"namespace": "default", "name": "restored"}})
    bench.line.kube = fresh
    bench.kube.unavailable = True
    await bench.clock.advance(60)
    await fresh.create(CONFIG_MAP, {"metadata": {"namespace": "default", "name": "more"}})
    await bench.clock.advance(120)
    names = {obj["metadata"]["name"] for obj in bench.informer.items()}
    assert names == {"restored", "more"}
    assert bench.informer.healthy


async def test_only_some_namespaces(bench, run):
    informer = bench.make(namespaces=("default", "other"))
    await bench.put("a")
    await bench.put("b", "other")
    bench.kube.put_namespace("third")
    await bench.put("c", "third")
    run(informer.run())
    await bench.clock.settle()
    await bench.put("d", "other")
    await bench.put("e", "third")
    await bench.clock.settle()
    assert {obj["metadata"]["name"] for obj in informer.items()} == {"a", "b", "d"}
    assert informer.synced.is_set()


async def test_indexes(bench, run):
    bench.informer.add_index("x", lambda obj: filter(None, [obj.get("data", {}).get("x")]))
    run(bench.informer.run())
    await bench.put("a", x="1")
    await bench.clock.settle()
    await bench.put("b", x="1")
    bench.informer.note_written(await bench.put("a", x="2"))
    assert [one["metadata"]["name"] for one in bench.informer.by_index("x", "2")] == ["a"]
    await bench.clock.settle()
    assert [one["metadata"]["name"] for one in bench.informer.by_index("x", "1")] == ["b"]


async def test_a_guarded_informer_survives_its_listener(bench, run):
    """A listener that raises ends the run; the next one announces every object again."""
    angry = True

    def listen(old, new):
        if angry:
            raise ValueError
        bench.changes.append((old, new))

    informer = Informer(bench.line, CONFIG_MAP, clock=bench.clock, on_change=listen)
    await bench.put("a", x="1")
    log = logging.getLogger("billet.test")
    run(guarded("hosts", informer.run, log, bench.clock))
    await bench.clock.settle()
    assert bench.changes == []
    angry = False
    await bench.clock.advance(5)
    assert ("a", {"x": "1"}, {"x": "1"}) in bench.news()


@pytest.mark.parametrize("seed", range(40))
async def test_it_converges_whatever_happens(run, seed):
    """Random writes, own writes noted early or late, and faults: the cache ends up right.

    On the way the announcements of a name are a chain, and no version of it ever goes back.
    """
    chance = random.Random(seed)
    bench = Bench()
    known = {}

    def listen(old, new):
        name = (new or old)["metadata"]["name"]
        assert known.get(name) == old
        if old and new:
            versions = [int(one["metadata"]["resourceVersion"]) for one in (old, new)]
            assert versions[0] <= versions[1]
        known[name] = new

    informer = Informer(
        bench.line, CONFIG_MAP, clock=bench.clock, on_change=listen, jitter=chance.random
    )
    task = run(informer.run())
    answers = []
    for step in range(60):
        name = f"n{chance.randrange(4)}"
        match chance.choice(["put", "put", "own", "own", "delete", "fault", "time", "late"]):
            case "put":
                await bench.put(name, step=str(step))
            case "own":
                answers.append(await bench.put(name, own=str(step)))
                if chance.random() < 0.5:
                    informer.note_written(answers.pop())
            case "late" if answers:
                informer.note_written(answers.pop(chance.randrange(len(answers))))
            case "delete":
                with contextlib.suppress(errors.NotFound):
                    await bench.delete(name)
            case "fault":
                chance.choice([bench.kube.compact, bench.kube.break_watches])()
            case "time":
                await bench.clock.advance(chance.random() * 2)
    await bench.clock.advance(120)
    assert not task.done()
    listed = (await bench.kube.list(CONFIG_MAP)).items
    assert sorted(informer.items(), key=str) == sorted(listed, key=str)
    assert {name for name, obj in known.items() if obj} == {
        obj["metadata"]["name"] for obj in listed
    }
    assert informer.healthy
