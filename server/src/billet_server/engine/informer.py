"""A live copy of all objects of one kind: list, watch, and say what changed.

The reconciler reads its objects from here, never from the API, and hands every write's answer
back through `Informer.note_written`, so that its next look does not meet a state older than
what it just wrote. Level-triggered: after a lost watch the difference between cache and list
is announced like any other change.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Final

from billet_server import errors
from billet_server.engine.cache import Change, IndexFunction, ObjectCache, version_number
from billet_server.ports import Clock, Kind, KubeApi, Object, WatchEvent

log = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
SHORT_WATCH_S: Final = 1.0
WATCH_ATTEMPTS: Final = 2
"""Watches that may fail without a single event before the objects are listed afresh."""


class _Pause:
    """A pause that doubles at each use, with jitter so that replicas do not march in step."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._length_s = FIRST_PAUSE_S

    def reset(self) -> None:
        self._length_s = FIRST_PAUSE_S

    def next_s(self) -> float:
        length_s = self._length_s
        self._length_s = min(length_s * 2, LONGEST_PAUSE_S)
        return length_s * (0.5 + self._jitter())


OnChange = Callable[[Object | None, Object | None], None]


class Informer:
    """Cache of one kind, kept up to date by `run`.

    ``on_change(old, new)`` is called after each change of the cache (None: absent), once for
    every object when `run` begins, and must neither block nor raise: it fills a queue.
    ``namespaces`` limits what is watched to these; None: all.
    """

    def __init__(
        self,
        api: KubeApi,
        kind: Kind,
        *,
        clock: Clock,
        on_change: OnChange,
        namespaces: Sequence[str] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.kind = kind
        self.synced = asyncio.Event()
        self.last_error: errors.ApiError | None = None
        self._api = api
        self._clock = clock
        self._on_change = on_change
        self._scopes: tuple[str | None, ...] = tuple(namespaces) if namespaces else (None,)
        self._unsynced = set(self._scopes)
        self._jitter = jitter
        self._cache = ObjectCache(by_namespace=bool(namespaces))

    def __len__(self) -> int:
        return len(self._cache)

    @property
    def healthy(self) -> bool:
        """Whether everything was listed and the API answered the last call."""
        return self.synced.is_set() and self.last_error is None

    def get(self, namespace: str, name: str) -> Object | None:
        """Return the newest known state of an object, None when there is none."""
        return self._cache.get(namespace, name)

    def items(self) -> list[Object]:
        """Return all objects; O(n)."""
        return self._cache.items()

    def add_index(self, name: str, function: IndexFunction) -> None:
        """Index by the strings ``function`` finds; it must bear any object a user may write."""
        self._cache.add_index(name, function)

    def by_index(self, name: str, value: str) -> list[Object]:
        """Return the objects for which the index gave ``value``."""
        return self._cache.by_index(name, value)

    def count(self, name: str, value: str) -> int:
        """Return for how many objects the index gave ``value``."""
        return self._cache.count(name, value)

    def some(self, name: str, value: str, most: int) -> list[Object]:
        """Return at most so many of the objects for which the index gave ``value``."""
        return self._cache.some(name, value, most)

    def note_written(self, obj: Object) -> None:
        """Take the API's answer to a create, patch or replace of ours."""
        self._announce(self._cache.written(obj))

    async def catch_up(self) -> None:
        """List once: what is in the cache is then not older than this call. Raises ApiError."""
        for scope in self._scopes:
            for obj in (await self._api.list(self.kind, scope)).items:
                self.note_written(obj)

    async def run(self) -> None:
        """List and watch for ever. API errors never end it; they are in ``last_error``."""
        for obj in self._cache.items():
            self._on_change(obj, obj)
        async with asyncio.TaskGroup() as group:
            for scope in self._scopes:
                group.create_task(
                    self._follow(scope), name=f"informer-{self.kind.plural}-{scope or 'all'}"
                )

    async def _follow(self, scope: str | None) -> None:
        pause = _Pause(self._jitter)
        while True:
            try:
                version = await self._list(scope)
                await self._watch(scope, version, pause)
            except errors.Gone as exc:
                log.info("the watch of %s has to begin anew: %s", self.kind.plural, exc)
            except errors.ApiError as exc:
                self._failed(exc)
            await self._clock.sleep(pause.next_s())

    async def _list(self, scope: str | None) -> str:
        self._cache.begin_list()
        listed = await self._api.list(self.kind, scope)
        for change in self._cache.replace(listed.items, listed.resource_version, scope=scope):
            self._announce(change)
        self._reached(scope)
        return listed.resource_version

    async def _watch(self, scope: str | None, version: str, pause: "_Pause") -> None:
        """Watch on and on; raises what ends that: Gone, or the last of several failures."""
        failures = 0
        while True:
            started, accepted = self._clock.monotonic(), False
            try:
                async for event in self._api.watch(self.kind, scope, resource_version=version):
                    version = self._take(event, version, scope)
                    accepted = True
                    self._reached(scope)
            except errors.Unavailable as exc:
                self._failed(exc)
                failures = 1 if accepted else failures + 1
                if failures >= WATCH_ATTEMPTS:
                    raise
            else:
                failures = 0
            lasted = accepted and self._clock.monotonic() - started > SHORT_WATCH_S
            if lasted:
                pause.reset()
            if failures or not lasted:
                await self._clock.sleep(pause.next_s())

    def _take(self, event: WatchEvent, before: str, scope: str | None) -> str:
        version = str(event.object["metadata"]["resourceVersion"])
        if (version_number(version) or 0) < (version_number(before) or 0):
            message = f"{self.kind.plural}: version {version} came after {before}"
            raise errors.Gone(f"{message}; the API's history began anew", 410, "Expired")
        if event.type == "BOOKMARK":
            self._cache.advance(version, scope)
        else:
            self._announce(self._cache.watched(event.object, deleted=event.type == "DELETED"))
        return version

    def _announce(self, change: Change | None) -> None:
        if change is not None:
            self._on_change(*change)

    def _reached(self, scope: str | None) -> None:
        self.last_error = None
        if self._unsynced:
            self._unsynced.discard(scope)
            if not self._unsynced:
                self.synced.set()

    def _failed(self, exc: errors.ApiError) -> None:
        if self.last_error is None:
            log.warning("%s cannot be followed: %s", self.kind.plural, exc)
        self.last_error = exc
