"""The change history of one kind in `billet_server.memory.kube`: what watches are served from."""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator
from typing import Literal, NamedTuple

import msgspec

from billet_server import errors
from billet_server.ports import WatchEvent

EventType = Literal["ADDED", "MODIFIED", "DELETED"]


class _Entry(NamedTuple):
    version: int
    type: EventType
    namespace: str
    body: bytes


class Journal:
    """Changes of one kind in order; the oldest are dropped beyond ``length``."""

    def __init__(self, length: int, start: int) -> None:
        self._length = length
        self._entries: list[_Entry] = []
        self._dropped = 0  # entries dropped so far: index of the first one kept
        self._compacted = start  # watches may begin at this version or later
        self._changed = asyncio.Event()
        self._breaks = 0

    def append(self, version: int, event_type: EventType, namespace: str, body: bytes) -> None:
        """Record a change and wake the watches."""
        self._entries.append(_Entry(version, event_type, namespace, body))
        if len(self._entries) > 2 * self._length:
            self._drop(len(self._entries) - self._length)
        self.wake()

    def compact(self) -> None:
        """Forget all history: a watch from an older version is Gone."""
        self._drop(len(self._entries))
        self.wake()

    def break_watches(self) -> None:
        """Make every running watch raise Unavailable."""
        self._breaks += 1
        self.wake()

    def wake(self) -> None:
        """Let every watch look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def watch(self, version: int, namespace: str | None) -> AsyncIterator[WatchEvent]:
        """Yield a bookmark of where the watch begins, then the changes after ``version``."""
        if version < self._compacted:
            raise _too_old(version, self._compacted)
        breaks = self._breaks
        index = self._dropped + bisect_right(self._entries, version, key=lambda one: one.version)
        yield WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})
        while True:
            if self._breaks != breaks:
                raise errors.Unavailable("the connection broke during the watch")
            if index < self._dropped:
                raise _too_old(version, self._compacted)
            if index - self._dropped == len(self._entries):
                await self._changed.wait()
                continue
            entry = self._entries[index - self._dropped]
            index, version = index + 1, entry.version
            if namespace in (None, entry.namespace):
                yield WatchEvent(entry.type, msgspec.json.decode(entry.body))

    def _drop(self, count: int) -> None:
        if count:
            self._compacted = self._entries[count - 1].version
            del self._entries[:count]
            self._dropped += count


def _too_old(version: int, compacted: int) -> errors.Gone:
    return errors.Gone(f"too old resource version: {version} ({compacted})", 410, "Expired")
