"""Fan-out of committed changes to those who watch just that resource, namespace or name.

Everything here runs in the event loop's thread. An event is rendered once for each form that
somebody asked for, however many watch.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from billet_server.apiserver import encoding
from billet_server.apiserver.store import Change

MAX_QUEUED = 4096
"""Events a watcher may lag behind in memory; then it goes on from the change log."""


class Event:
    """A change with its renderings. ``form`` names a rendering of the object."""

    __slots__ = ("_lines", "change")

    def __init__(self, change: Change) -> None:
        self.change = change
        self._lines: dict[tuple[str, str], bytes] = {}

    def line(self, kind: str, form: str, render: Callable[[bytes], bytes]) -> bytes:
        """Return the watch line of type ``kind`` (ADDED ...) in a form."""
        line = self._lines.get((kind, form))
        if line is None:
            line = self._lines[kind, form] = render_line(kind, render(self.change.body))
        return line


def render_line(kind: str, body: bytes) -> bytes:
    """Return one line of a watch stream (meta/v1 WatchEvent)."""
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), body)


def render_bookmark(api_version: str, kind: str, version: int, *, initial_end: bool) -> bytes:
    """Return a BOOKMARK line; ``initial_end`` marks the end of a streaming list."""
    meta: dict[str, object] = {"resourceVersion": str(version), "creationTimestamp": None}
    if initial_end:
        meta["annotations"] = {"k8s.io/initial-events-end": "true"}
    obj = {"kind": kind, "apiVersion": api_version, "metadata": meta}
    return render_line("BOOKMARK", encoding.encode(obj))


Topic = tuple[str, str | None, str | None]


class Subscription:
    """One watcher's events since it subscribed, in order."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.behind = False
        """More happened than was kept: read the change log, then go on."""
        self._events: deque[Event] = deque()
        self._wake = asyncio.Event()

    @property
    def is_idle(self) -> bool:
        """Whether every event so far was taken."""
        return not self._events and not self.behind

    def push(self, event: Event) -> None:
        """Add an event."""
        if len(self._events) >= MAX_QUEUED:
            self._events.clear()
            self.behind = True
        if not self.behind:
            self._events.append(event)
        self._wake.set()

    def wake(self) -> None:
        """End the present or next `wait` without an event."""
        self._wake.set()

    async def wait(self, timeout_s: float) -> None:
        """Return when something came or woke it since the last `take`, or after a time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            return

    def take(self) -> list[Event]:
        """Return and forget the queued events."""
        self._wake.clear()
        events = list(self._events)
        self._events.clear()
        return events


class Hub:
    """Subscriptions by topic, and listeners that hear of everything."""

    def __init__(self, version: int) -> None:
        self.version = version
        """The last published version."""
        self.closed = False
        self._topics: dict[Topic, set[Subscription]] = {}
        self._listeners: list[Callable[[Change], None]] = []

    def listen(self, listener: Callable[[Change], None]) -> None:
        """Call a function for every change; it must be cheap and not raise."""
        self._listeners.append(listener)

    def subscribe(
        self, resource: str, namespace: str | None = None, name: str | None = None
    ) -> Subscription:
        """Start queueing the events of a resource, of one namespace, of one object."""
        subscription = Subscription((resource, namespace, name))
        self._topics.setdefault(subscription.topic, set()).add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop."""
        watchers = self._topics.get(subscription.topic, set())
        watchers.discard(subscription)
        if not watchers:
            self._topics.pop(subscription.topic, None)

    def publish(self, changes: Iterable[Change]) -> None:
        """Hand out committed changes, in order."""
        for change in changes:
            for listener in self._listeners:
                listener(change)
            resource, namespace, name = change.key
            event = Event(change)
            for topic in (
                (resource, None, None),
                (resource, namespace, None),
                (resource, None, name),
                (resource, namespace, name),
            ):
                for subscription in self._topics.get(topic, ()):
                    subscription.push(event)
            self.version = change.version

    def close(self) -> None:
        """End all watches."""
        self.closed = True
        for watchers in self._topics.values():
            for subscription in watchers:
                subscription.wake()
