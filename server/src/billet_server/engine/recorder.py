"""Kubernetes Events about hosts and Machines: one object per host, reason and message, counted up.

Recording never waits for the API and never stops a host. What is recorded goes into a bounded
queue, where the same words about the same host are one entry with a count; a few writers empty
it in order. A host that says too much is held to `RATE_PER_S`. What is not written is counted, by
cause, and said in the log once a minute.
"""

import asyncio
import hashlib
import logging
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Final

from billet_server import errors
from billet_server.core.host import Host
from billet_server.core.ratelimit import RateLimit
from billet_server.core.terms import HostKey
from billet_server.core.turn import EventNote
from billet_server.ports import (
    BARE_METAL_HOST,
    EVENT,
    Clock,
    Kind,
    KubeApi,
    Metrics,
    NoMetrics,
    Object,
)

log = logging.getLogger(__name__)

COMPONENT: Final = "billet"
REMEMBERED: Final = 4096
"""Names of Events whose count is known without asking the API."""

QUEUED: Final = 2000
"""Events that may wait to be written; the last quarter is for Warnings."""

WRITERS: Final = 4
BURST: Final = 25
RATE_PER_S: Final = 1 / 30
"""New Events of one host: as many at once, and so many a second (client-go: 25, 1 in 300 s)."""

HOSTS: Final = 16_384
RETRY_S: Final = (0.5, 2.0, 10.0, 30.0)
SAY_EVERY_S: Final = 60.0


@dataclass(slots=True)
class _Entry:
    """One Event that waits to be written, with how often it came since."""

    kind: Kind
    key: HostKey
    uid: str
    note: EventNote
    first: str
    last: str
    related: Object
    count: int = 1


_REFERENCE: Final = (
    *("apiVersion", "kind", "namespace", "name", "uid", "resourceVersion", "fieldPath"),
)


class _Lane:
    """What one writer has to write; an Event is always its own writer's, so order is kept."""

    def __init__(self) -> None:
        self.entries: OrderedDict[str, _Entry] = OrderedDict()
        self.news = asyncio.Event()


class Recorder:
    """Takes Events at any time; `run` writes them."""

    def __init__(self, api: KubeApi, clock: Clock, metrics: Metrics | None = None) -> None:
        self._api, self._clock = api, clock
        self._metrics: Metrics = metrics or NoMetrics()
        self._lanes = [_Lane() for _ in range(WRITERS)]
        self._queued = 0
        self._written: OrderedDict[str, int] = OrderedDict()
        self._rate = RateLimit(RATE_PER_S, BURST, peers=HOSTS)
        self._unsaid: Counter[str] = Counter()
        self._drops = asyncio.Event()
        self.dropped: Counter[str] = Counter()
        """How many were not written: "rate" (of one host), "queue" (full), "api" (refused)."""

    def __len__(self) -> int:
        """How many Events wait to be written."""
        return self._queued

    def record(self, host: Host, note: EventNote) -> None:
        """Have an Event about a host written, or counted up, soon."""
        self.record_about(BARE_METAL_HOST, host.key, host.uid, note, _consumer(host))

    def record_about(
        self, kind: Kind, key: HostKey, uid: str, note: EventNote, related: Object | None = None
    ) -> None:
        """Have an Event about any object written, or counted up, soon."""
        warns = note.type == "Warning"
        log.log(
            logging.WARNING if warns else logging.INFO,
            "%s %s: %s: %s",
            "host" if kind == BARE_METAL_HOST else kind.kind,
            key,
            note.reason,
            note.message,
        )
        digest = hashlib.sha256(
            f"{uid}/{note.type}/{note.reason}/{note.message}".encode()
        ).hexdigest()
        # A name has room for 253 characters.
        name = f"{key.name[:200].rstrip('.-')}.{digest[:16]}"
        lane = self._lanes[int(digest[:4], 16) % WRITERS]
        now = self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        entry = lane.entries.get(name)
        if entry is not None:
            entry.count += 1
            entry.last = now
        elif self._queued >= (QUEUED if warns else QUEUED * 3 // 4):
            self._drop("queue")
        elif not self._rate.take(uid, self._clock.monotonic()):
            self._drop("rate")
        else:
            lane.entries[name] = _Entry(kind, key, uid, note, now, now, related or {})
            lane.news.set()
            self._count_queued(1)

    async def run(self) -> None:
        """Write until cancelled; may be called again."""
        async with asyncio.TaskGroup() as group:
            for number, lane in enumerate(self._lanes):
                group.create_task(self._empty(lane), name=f"events-{number}")
            group.create_task(self._say_drops(), name="events-dropped")

    async def _empty(self, lane: _Lane) -> None:
        while True:
            if not lane.entries:
                lane.news.clear()
                await lane.news.wait()
            name, entry = lane.entries.popitem(last=False)
            self._count_queued(-1)
            try:
                await self._deliver(name, entry)
            except Exception:
                log.exception("host %s: Event %s is lost", entry.key, entry.note.reason)
                self._drop("api", entry.count)

    async def _deliver(self, name: str, entry: _Entry) -> None:
        """Write one; while the API does not answer, the others wait behind it."""
        tries = 0
        while True:
            try:
                await self._write(name, entry)
                self._metrics.add("billet_events_total", entry.note.type, amount=entry.count)
                return
            except errors.Unavailable:
                await self._clock.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
                tries += 1
            except errors.ApiError as error:
                log.warning("host %s: Event %s: %s", entry.key, entry.note.reason, error)
                self._drop("api", entry.count)
                return

    async def _write(self, name: str, entry: _Entry) -> None:
        namespace = entry.key.namespace
        count = self._written.pop(name, 0)
        if count == 0:
            try:
                await self._api.create(EVENT, _render(name, entry))
            except errors.Conflict:
                found = await self._api.get(EVENT, namespace, name)
                count = int(found.get("count") or 1)
        if count > 0:
            patch: Object = {"count": count + entry.count, "lastTimestamp": entry.last}
            try:
                await self._api.patch(EVENT, namespace, name, patch)
            except errors.NotFound:  # Events live for an hour or so
                count = 0
                await self._api.create(EVENT, _render(name, entry))
        self._written[name] = count + entry.count
        while len(self._written) > REMEMBERED:
            self._written.popitem(last=False)

    def _count_queued(self, change: int) -> None:
        self._queued += change
        self._metrics.set("billet_events_queued", self._queued)

    def _drop(self, cause: str, count: int = 1) -> None:
        self.dropped[cause] += count
        self._unsaid[cause] += count
        self._metrics.add("billet_events_dropped_total", cause, amount=count)
        self._drops.set()

    async def _say_drops(self) -> None:
        while True:
            await self._drops.wait()
            self._drops.clear()
            told = ", ".join(f"{cause}: {n}" for cause, n in sorted(self._unsaid.items()))
            self._unsaid.clear()
            log.warning("Events were not written (%s); the hosts' status is complete", told)
            await self._clock.sleep(SAY_EVERY_S)


def _consumer(host: Host) -> Object:
    """Return whom the host is used by, as far as an Event has room for it; as Metal3 does."""
    named = host.spec.consumer_ref or {}
    return {field: named[field] for field in _REFERENCE if isinstance(named.get(field), str)}


def _render(name: str, entry: _Entry) -> Object:
    host, note = entry.key, entry.note
    related: Object = {"related": entry.related} if entry.related else {}
    return related | {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": host.namespace},
        "involvedObject": {
            "apiVersion": entry.kind.api_version,
            "kind": entry.kind.kind,
            "name": host.name,
            "namespace": host.namespace,
            "uid": entry.uid,
        },
        "type": note.type,
        "reason": note.reason,
        "message": note.message[:1024],
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": COMPONENT,
        "firstTimestamp": entry.first,
        "lastTimestamp": entry.last,
        "count": entry.count,
    }
