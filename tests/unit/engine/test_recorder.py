"""Events: counted up instead of repeated, bounded, and never in the way of a host."""

import asyncio
import contextlib
import logging

import msgspec
import pytest

from billet_server import errors
from billet_server.core.host import Host, Spec, Status
from billet_server.core.terms import HostKey
from billet_server.core.turn import EventNote
from billet_server.engine import recorder
from billet_server.engine.recorder import BURST, QUEUED, SAY_EVERY_S, Recorder
from billet_server.memory.clock import ManualClock
from billet_server.memory.kube import MemoryKube
from billet_server.memory.metrics import MemoryMetrics
from billet_server.ports import EVENT

NS = "metal3"
FAILED = EventNote("Warning", "RegistrationError", "the BMC does not answer")


def host(name="node01", uid=""):
    key = HostKey(NS, name)
    return Host(key, uid or f"uid-{name}", 1, "1", Spec(), Status())


class SlowKube(MemoryKube):
    """``down`` answers nothing; calls about Events are counted."""

    def __init__(self, clock):
        super().__init__(clock=clock)
        self.down, self.calls, self.most, self._now = False, 0, 0, 0
        self.refuse = None

    async def _asked(self):
        self.calls += 1
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(0)
        self._now -= 1
        if self.down:
            raise errors.Unavailable("no answer")
        if self.refuse is not None:
            raise self.refuse

    async def create(self, kind, obj):
        await self._asked()
        return await super().create(kind, obj)

    async def patch(self, *args, **named):
        await self._asked()
        return await super().patch(*args, **named)


class Desk:
    def __init__(self):
        self.clock, self.metrics = ManualClock(), MemoryMetrics()
        self.api = SlowKube(self.clock)
        self.api.put_namespace(NS)
        self.recorder = Recorder(self.api, self.clock, self.metrics)
        self._task = None

    def start(self):
        self._task = asyncio.create_task(self.recorder.run())

    async def stop(self):
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def restart(self):
        await self.stop()
        self.recorder = Recorder(self.api, self.clock, self.metrics)
        self.start()

    async def quiet(self):
        for _ in range(200):
            await self.clock.settle()
            if not len(self.recorder):
                break
        await self.clock.settle()

    async def events(self):
        await self.quiet()
        return (await self.api.list(EVENT, NS)).items


@pytest.fixture
async def desk():
    desk = Desk()
    desk.start()
    yield desk
    await desk.stop()


async def test_an_event_has_what_kubectl_shows(desk):
    desk.recorder.record(host(), FAILED)
    (event,) = await desk.events()
    assert event["involvedObject"] == {
        "apiVersion": "metal3.io/v1alpha1",
        "kind": "BareMetalHost",
        "name": "node01",
        "namespace": NS,
        "uid": "uid-node01",
    }
    assert (event["type"], event["reason"], event["message"]) == FAILED
    assert event["source"] == {"component": "billet"}
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2026-01-01T00:00:00Z"
    assert event["count"] == 1


async def test_an_event_names_the_hosts_consumer_too(desk):
    consumer = {"apiVersion": "cluster.k8s.io/v1alpha1", "kind": "Machine", "name": "m", "uid": "1"}
    used = msgspec.structs.replace(host(), spec=Spec(consumer_ref=consumer | {"uid": None}))
    desk.recorder.record(used, FAILED)
    desk.recorder.record(host("node02"), FAILED)
    first, second = sorted(await desk.events(), key=lambda event: event["metadata"]["name"])
    assert first["related"] == {name: consumer[name] for name in ("apiVersion", "kind", "name")}
    assert "related" not in second


async def test_the_same_words_are_one_event_counted_up(desk):
    for _ in range(3):
        desk.recorder.record(host(), FAILED)
        await desk.clock.advance(60)
    (event,) = await desk.events()
    assert event["count"] == 3
    assert event["firstTimestamp"] == "2026-01-01T00:00:00Z"
    assert event["lastTimestamp"] == "2026-01-01T00:02:00Z"
    assert desk.metrics.get("billet_events_total", "Warning") == 3


async def test_other_words_reasons_types_and_hosts_are_events_of_their_own(desk):
    desk.recorder.record(host(), FAILED)
    desk.recorder.record(host(), FAILED._replace(message="another"))
    desk.recorder.record(host(), FAILED._replace(reason="InspectionError"))
    desk.recorder.record(host(), FAILED._replace(type="Normal"))
    desk.recorder.record(host("node02"), FAILED)
    desk.recorder.record(host(uid="uid-again"), FAILED)
    assert [event["count"] for event in await desk.events()] == [1] * 6


async def test_a_new_server_counts_on(desk):
    for _ in range(2):
        desk.recorder.record(host(), FAILED)
        await desk.quiet()
    await desk.restart()
    desk.recorder.record(host(), FAILED)
    (event,) = await desk.events()
    assert event["count"] == 3


async def test_an_event_that_the_api_forgot_begins_anew(desk):
    desk.recorder.record(host(), FAILED)
    (event,) = await desk.events()
    await desk.api.delete(EVENT, NS, event["metadata"]["name"])
    desk.recorder.record(host(), FAILED)
    (event,) = await desk.events()
    assert event["count"] == 1


async def test_while_the_api_is_down_repetitions_are_one_entry_and_nothing_is_lost(desk):
    desk.api.down = True
    for _ in range(500):
        desk.recorder.record(host(), FAILED)
        await desk.clock.advance(1)
    assert len(desk.recorder) <= 1
    assert desk.api.calls < 50
    desk.api.down = False
    await desk.clock.advance(60)
    (event,) = await desk.events()
    assert event["count"] == 500
    assert not desk.recorder.dropped


async def test_one_host_that_says_ever_new_things_is_held_to_a_rate(desk, caplog):
    caplog.set_level(logging.WARNING)
    for number in range(100):
        desk.recorder.record(host(), FAILED._replace(message=f"error {number}"))
    desk.recorder.record(host("node02"), FAILED)
    events = await desk.events()
    assert len(events) == BURST + 1
    assert desk.recorder.dropped == {"rate": 100 - BURST}
    assert desk.metrics.get("billet_events_dropped_total", "rate") == 100 - BURST
    said = [r.getMessage() for r in caplog.records if "were not written" in r.getMessage()]
    assert len(said) == 1
    assert f"rate: {100 - BURST}" in said[0]
    await desk.clock.advance(60)
    desk.recorder.record(host(), FAILED._replace(message="a minute later"))
    assert len(await desk.events()) == BURST + 2


async def test_a_thousand_hosts_failing_at_once_are_a_thousand_events_a_few_at_a_time(desk):
    for number in range(1000):
        desk.recorder.record(host(f"node{number}"), FAILED)
    assert desk.metrics.get("billet_events_queued") == 1000
    assert len(await desk.events()) == 1000
    assert desk.api.most <= recorder.WRITERS
    assert desk.metrics.get("billet_events_queued") == 0


async def test_the_queue_is_bounded_and_has_room_for_warnings(desk, caplog):
    caplog.set_level(logging.WARNING)
    desk.api.down = True
    normal = EventNote("Normal", "PowerOn", "switching on")
    for number in range(QUEUED):
        desk.recorder.record(host(f"a{number}"), normal)
    for number in range(QUEUED):
        desk.recorder.record(host(f"b{number}"), FAILED)
    assert len(desk.recorder) == QUEUED
    assert desk.recorder.dropped == {"queue": QUEUED}
    await desk.clock.advance(2 * SAY_EVERY_S)
    said = [r.getMessage() for r in caplog.records if "were not written" in r.getMessage()]
    assert said == [f"Events were not written (queue: {QUEUED}); the hosts' status is complete"]
    desk.api.down = False
    await desk.clock.advance(60)
    types = [event["type"] for event in await desk.events()]
    assert types.count("Warning") == QUEUED // 4
    assert types.count("Normal") == QUEUED * 3 // 4


async def test_drops_after_the_first_word_are_said_a_minute_later(desk, caplog):
    caplog.set_level(logging.WARNING)

    def said():
        return [r.getMessage() for r in caplog.records if "were not written" in r.getMessage()]

    for number in range(BURST + 1):
        desk.recorder.record(host(), FAILED._replace(message=f"error {number}"))
    await desk.quiet()
    assert len(said()) == 1
    for number in range(5):
        desk.recorder.record(host(), FAILED._replace(message=f"later {number}"))
    await desk.quiet()
    assert len(said()) == 1
    await desk.clock.advance(SAY_EVERY_S)
    assert "rate: 5" in said()[1]
    await desk.clock.advance(10 * SAY_EVERY_S)
    assert len(said()) == 2


async def test_a_refused_event_is_counted_and_those_behind_it_are_written(desk):
    desk.api.refuse = errors.Invalid("no such namespace", 422)
    desk.recorder.record(host(), FAILED)
    await desk.quiet()
    assert desk.recorder.dropped == {"api": 1}
    desk.api.refuse = None
    desk.recorder.record(host(), FAILED)
    (event,) = await desk.events()
    assert event["count"] == 1


async def test_a_defect_in_writing_one_event_does_not_end_the_writer(desk):
    desk.api.refuse = RuntimeError("defect")
    desk.recorder.record(host(), FAILED)
    await desk.quiet()
    desk.api.refuse = None
    desk.recorder.record(host(), FAILED)
    assert len(await desk.events()) == 1
    assert desk.recorder.dropped == {"api": 1}


async def test_recording_needs_no_loop_time_and_no_running_writer():
    desk = Desk()
    desk.recorder.record(host(), FAILED)
    assert len(desk.recorder) == 1
    desk.start()
    assert len(await desk.events()) == 1
    await desk.stop()


async def test_a_writer_that_was_stopped_goes_on_with_what_is_left():
    desk = Desk()
    desk.api.down = True
    desk.start()
    for number in range(20):
        desk.recorder.record(host(f"node{number}"), FAILED)
    await desk.clock.settle()
    left = len(desk.recorder)
    assert left == 20 - recorder.WRITERS
    await desk.stop()
    desk.api.down = False
    desk.start()
    assert len(await desk.events()) == left
    await desk.stop()


async def test_long_names_and_messages_fit(desk):
    desk.recorder.record(host("n" * 253), FAILED._replace(message="x" * 5000))
    (event,) = await desk.events()
    assert len(event["metadata"]["name"]) <= 253
    assert len(event["message"]) == 1024
