"""Machines that wait for a host, in the order in which they began to."""

from typing import Final

from billet_server.core.claimable import CLAIMABLE, labels_of, obstacle_of
from billet_server.core.labels import Selector, matches
from billet_server.core.terms import HostKey
from billet_server.engine import indexes
from billet_server.engine.queue import WorkQueue
from billet_server.ports import Clock, Object

SURVEY_S: Final = 60.0
"""So old may be what a waiting Machine says of the hosts."""


class Waiters:
    """Calls one Machine for each host that becomes claimable, by adding it to the queue."""

    def __init__(self, queue: WorkQueue[HostKey], clock: Clock) -> None:
        self._queue, self._clock = queue, clock
        self._waiting: dict[str, dict[HostKey, Selector]] = {}
        self._called: dict[HostKey, HostKey] = {}
        self._stale_until_s: dict[str, float] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def clear(self) -> None:
        """Forget all: every Machine is about to be looked at."""
        self._waiting.clear()
        self._called.clear()
        self._stale_until_s.clear()

    def add(self, key: HostKey, selector: Selector) -> None:
        """Note that a Machine waits; its place in the order stays."""
        self._waiting.setdefault(key.namespace, {})[key] = selector
        left_s = self._stale_until_s.get(key.namespace, 0.0) - self._clock.monotonic()
        if left_s > 0:
            # Being looked at took the moment away that `_refresh` had set.
            self._queue.add_after(key, left_s)

    def remove(self, key: HostKey) -> None:
        """Note that a Machine does not wait (any more)."""
        waiting = self._waiting.get(key.namespace, {})
        waiting.pop(key, None)
        if not waiting:
            self._waiting.pop(key.namespace, None)

    def called_for(self, key: HostKey) -> HostKey | None:
        """Return the host that a Machine was called for, once, when its pass has ended."""
        return self._called.pop(key, None)

    def host_changed(self, old: Object | None, new: Object | None) -> None:
        """Take one change of a host."""
        before = None if old is None else obstacle_of(old)
        after = None if new is None else obstacle_of(new)
        obj = new if new is not None else old
        if obj is None or indexes.key_of(obj).namespace not in self._waiting:
            return
        if new is not None and after == CLAIMABLE:
            # Also one that was claimable before: its labels, or whoever was called, may differ.
            self.offer(new)
        if before != after:
            self._refresh(indexes.key_of(obj).namespace)

    def waits(self, key: HostKey) -> bool:
        """Whether a Machine waits."""
        return key in self._waiting.get(key.namespace, {})

    def offer(self, host: Object, *, after_s: float = 0.0) -> None:
        """Call the Machine that has waited longest of those that the host would do for."""
        if obstacle_of(host) != CLAIMABLE:
            return
        key, labels = indexes.key_of(host), labels_of(host)
        for machine, selector in self._waiting.get(key.namespace, {}).items():
            if machine not in self._called and matches(selector, labels):
                if not after_s:
                    self._called[machine] = key
                self._queue.add_after(machine, after_s)
                return

    def _refresh(self, namespace: str) -> None:
        now_s = self._clock.monotonic()
        if now_s < self._stale_until_s.get(namespace, now_s):
            return
        self._stale_until_s[namespace] = now_s + SURVEY_S
        for key in self._waiting[namespace]:
            self._queue.add_after(key, SURVEY_S)
