"""One watch: what was there, what happened since, and then what happens, as JSON lines."""

import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from typing import NamedTuple, Protocol, TypeVar

from billet_server.apiserver import encoding
from billet_server.apiserver.failure import expired, render_status
from billet_server.apiserver.lists import Scope, changed_matches
from billet_server.apiserver.store import Compacted, Store
from billet_server.apiserver.target import ListQuery
from billet_server.apiserver.watch import Event, Hub, Subscription, render_bookmark, render_line

BOOKMARK_EVERY_S = 60.0
LOG_STEP = 1000
"""Changes read from the log at a time."""

T = TypeVar("T")


class Offload(Protocol):
    """Runs a blocking call in a thread of the server's pool."""

    async def __call__(self, call: Callable[[], T]) -> T:
        """Return what the call returns."""


class Renderers(NamedTuple):
    """How to render objects: the first line of a Table stream also carries its columns."""

    form: str
    first: Callable[[bytes], bytes]
    later: Callable[[bytes], bytes]


class WatchStream:
    """Yields chunks of a watch's body until its time is over or the hub closes."""

    def __init__(
        self,
        store: Store,
        hub: Hub,
        scope: Scope,
        query: ListQuery,
        *,
        renderers: Renderers,
        offload: Offload,
        bookmark_every_s: float = BOOKMARK_EVERY_S,
    ) -> None:
        self._store, self._hub, self._scope, self._query = store, hub, scope, query
        self._renderers, self._offload = renderers, offload
        self._bookmark_every_s = bookmark_every_s
        # Without a wish the end is spread, so that clients do not all come back at once.
        self._length_s = query.timeout_s or random.uniform(1800, 3600)  # noqa: S311 - no secret
        self._version = 0
        self._is_first = True

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the stream. An ERROR event ends it when the version asked for is too old."""
        scope = self._scope
        subscription = self._hub.subscribe(scope.resource.path, scope.namespace, scope.name)
        try:
            try:
                async for chunk in self._begin():
                    yield chunk
                subscription.behind = True
                async for chunk in self._follow(subscription):
                    yield chunk
            except Compacted:
                yield self._too_old()
        finally:
            self._hub.unsubscribe(subscription)

    async def _begin(self) -> AsyncIterator[bytes]:
        """Settle where to start; without a version, the present objects come as ADDED."""
        query = self._query
        wanted = int(query.version or 0)
        if wanted and not query.initial_events:
            if not await self._offload(lambda: self._store.has_reached(wanted)):
                # A restored backup, or another server's number: only a new list helps.
                raise Compacted
            self._version = wanted
            return
        scope = self._scope
        page = await self._offload(
            lambda: self._store.page(scope.resource.path, scope.namespace, name=scope.name)
        )
        self._version = page.version
        lines = [
            self._line("ADDED", body) for body in page.bodies if scope.matches(body)
        ]  # fmt: skip
        if query.initial_events and query.bookmarks:
            lines.append(self._bookmark(None))
        for start in range(0, len(lines), 100):
            yield b"".join(lines[start : start + 100])

    async def _follow(self, subscription: Subscription) -> AsyncIterator[bytes]:
        end = time.monotonic() + self._length_s
        bookmark_at = time.monotonic() + self._bookmark_every_s
        while not self._hub.closed:
            if subscription.behind:
                async for chunk in self._catch_up(subscription):
                    yield chunk
            elif chunk := self._render(subscription.take()):
                yield chunk
            now = time.monotonic()
            if now >= end:
                break
            if now >= bookmark_at:
                bookmark_at = now + self._bookmark_every_s
                if self._query.bookmarks:
                    yield self._bookmark(subscription)
            await subscription.wait(min(end, bookmark_at) - now)
        if chunk := self._render(subscription.take()):
            yield chunk
        if self._query.bookmarks:
            yield self._bookmark(subscription)

    async def _catch_up(self, subscription: Subscription) -> AsyncIterator[bytes]:
        """Read the change log until it holds no more than the queue has."""
        scope = self._scope
        subscription.behind = False
        while True:
            changes = await self._offload(
                lambda: self._store.changes(
                    scope.resource.path, self._version, namespace=scope.namespace, limit=LOG_STEP
                )
            )
            yield self._render(Event(change) for change in changes)
            if len(changes) < LOG_STEP:
                return

    def _render(self, events: Iterable[Event]) -> bytes:
        """Return the lines of those events that are new to this watch and in its scope."""
        lines: list[bytes] = []
        for event in events:
            change, scope = event.change, self._scope
            if change.version <= self._version:
                continue
            self._version = change.version
            if scope.name is not None and change.key.name != scope.name:
                continue
            before, after = changed_matches(scope, change.old_labels, change.body)
            kind = _event_type(change.type, before=before, after=after)
            if not kind:
                continue
            if self._is_first:
                lines.append(self._line(kind, change.body))
            else:
                lines.append(event.line(kind, self._renderers.form, self._renderers.later))
        return b"".join(lines)

    def _line(self, kind: str, body: bytes) -> bytes:
        render = self._renderers.first if self._is_first else self._renderers.later
        self._is_first = False
        return render_line(kind, render(body))

    def _bookmark(self, subscription: Subscription | None) -> bytes:
        """Return a bookmark; without a subscription, the one that ends the initial events."""
        kind, version = self._scope.resource.kind, self._version
        if subscription is not None and subscription.is_idle:
            # Nothing up to there is still to be told: other resources moved the version on.
            version = max(version, self._hub.version)
        return render_bookmark(
            kind.api_version, kind.kind, version, initial_end=subscription is None
        )

    def _too_old(self) -> bytes:
        message = f"too old resource version: {self._query.version} ({self._store.version})"
        return render_line("ERROR", encoding.encode(render_status(expired(message))))


def _event_type(change: str, *, before: bool, after: bool) -> str:
    """Return what a change means to someone who sees only matching objects; "" is nothing."""
    if change == "DELETED":
        return "DELETED" if before or after else ""
    if after:
        return "MODIFIED" if before else "ADDED"
    return "DELETED" if before else ""
