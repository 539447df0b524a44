"""Who holds a place and who waits for one: the claims of all hosts, in order, kept up to date.

Nothing here is remembered beyond what the objects say, but the beginnings that are not written
yet (`Limits.reserve`). Every change costs O(log n) comparisons and wakes at most as many hosts
as there are places free; nobody else's status is touched.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from billet_server.core.capacity import Claim, Operation, Seat, Seats
from billet_server.core.seen import Rules
from billet_server.core.terms import HostKey
from billet_server.ports import Clock

PATIENCE_S: Final = 60.0
"""A host that was told of its place and has not come is overtaken after this time."""

_FREE: Final = Seat()


class _Entry(NamedTuple):
    """A place in a queue: first come, first served; in one second by name."""

    since: str
    key: HostKey


class _Queue:
    """One operation: who is at it and who waits."""

    def __init__(self, operation: Operation, limit: int) -> None:
        self.operation, self.limit = operation, limit
        self.held: set[HostKey] = set()
        self.waiting: list[_Entry] = []
        self.called: dict[HostKey, tuple[_Entry, float]] = {}
        """Who was told that there is a place, and when."""

    @property
    def free(self) -> int:
        return self.limit - len(self.held)

    def enter(self, claim: Claim, key: HostKey) -> None:
        if claim.held:
            self.held.add(key)
        elif self.limit > 0:
            insort(self.waiting, _Entry(claim.since, key))

    def leave(self, claim: Claim, key: HostKey) -> None:
        if claim.held or self.limit <= 0:
            self.held.discard(key)
            return
        entry = _Entry(claim.since, key)
        del self.waiting[bisect_left(self.waiting, entry)]
        self.called.pop(key, None)

    def seat(self, entry: _Entry | None, now_s: float) -> Seat:
        """Return the seat of who waits (entry) or of a newcomer, who stands behind all."""
        ahead = len(self.waiting) if entry is None else bisect_left(self.waiting, entry)
        overtaken = sum(
            1
            for other, called_s in self.called.values()
            if now_s - called_s > PATIENCE_S and (entry is None or other < entry)
        )
        granted = ahead - overtaken < self.free
        if entry is not None and not granted:
            self.called.pop(entry.key, None)
        return Seat(granted, ahead + 1, self.limit)


class Limits:
    """The places of `Rules`. ``wake`` has a host looked at: its place is there."""

    def __init__(self, rules: Rules, clock: Clock, wake: Callable[[HostKey], None]) -> None:
        self._clock, self._wake = clock, wake
        maxima = {
            Operation.INSPECT: rules.max_inspecting,
            Operation.PROVISION: rules.max_provisioning,
            Operation.CLEAN: rules.max_cleaning,
        }
        self._queues = {name: _Queue(name, most) for name, most in maxima.items()}
        self._written: dict[HostKey, Claim] = {}
        self._reserved: dict[HostKey, Claim] = {}
        self._entered: dict[HostKey, Claim] = {}

    @property
    def maxima(self) -> Mapping[Operation, int]:
        """The limits; 0 is none."""
        return {name: queue.limit for name, queue in self._queues.items()}

    def in_use(self, operation: Operation) -> int:
        """Return how many hosts are at it."""
        return len(self._queues[operation].held)

    def waiting(self, operation: Operation) -> int:
        """Return how many hosts wait for a place."""
        return len(self._queues[operation].waiting)

    def observe(self, key: HostKey, claim: Claim | None) -> None:
        """Take in what a host's object says now; None: nothing, or it is gone."""
        if claim is None:
            self._written.pop(key, None)
        else:
            self._written[key] = claim
        self._settle(key)

    def seats(self, key: HostKey) -> Seats:
        """Return what a host may begin now; `reserve` before anything else is asked."""
        own, now_s = self._entered.get(key), self._clock.monotonic()
        found = []
        for name in (Operation.INSPECT, Operation.PROVISION, Operation.CLEAN):
            queue = self._queues[name]
            if queue.limit <= 0:
                found.append(_FREE)
                continue
            waits = own is not None and own.operation is name and not own.held
            entry = _Entry(own.since, key) if own is not None and waits else None
            found.append(queue.seat(entry, now_s))
        return Seats(*found)

    def reserve(self, key: HostKey, claim: Claim | None) -> None:
        """Count a place that was decided on until `observe` hears of it from the API."""
        if claim is not None and claim.held and self._entered.get(key) != claim:
            self._reserved[key] = claim
            self._settle(key)

    def end_reservation(self, key: HostKey) -> None:
        """Go by the object alone again: the write has ended, well or badly."""
        if self._reserved.pop(key, None) is not None:
            self._settle(key)

    def _settle(self, key: HostKey) -> None:
        new = self._reserved.get(key) or self._written.get(key)
        old = self._entered.get(key)
        if new == old:
            return
        if old is not None:
            self._queues[old.operation].leave(old, key)
            del self._entered[key]
        if new is not None:
            self._queues[new.operation].enter(new, key)
            self._entered[key] = new
        for changed in {each.operation for each in (old, new) if each is not None}:
            self._call(self._queues[changed])

    def _call(self, queue: _Queue) -> None:
        """Tell those whose turn it is, once."""
        for entry in queue.waiting[: max(0, queue.free)]:
            if entry.key not in queue.called:
                queue.called[entry.key] = entry, self._clock.monotonic()
                self._wake(entry.key)
