"""Whom to call next, and after which pause, when there are several servers (replicas).

One of them leads and lets the agent in; the others say "standby". The agent calls one after the
other, and stays with the one that let it in until that connection breaks. Pauses grow only when
nobody answers: a standby that answers means that a leader is there, or will be in a moment.
"""

from collections.abc import Sequence
from typing import Generic, TypeVar

from billet_agent.backoff import Backoff

NEXT_S = 0.3
"""The pause before the next server of a round."""

T = TypeVar("T")


class Rota(Generic[T]):
    """Servers in turn. ``backoff`` gives the pause after a round in which nobody answered."""

    def __init__(self, servers: Sequence[T], backoff: Backoff) -> None:
        self._servers, self._backoff = tuple(servers), backoff
        self._turn = self._tried = 0
        self._standby_s: float | None = None

    @property
    def number(self) -> int:
        """The place of the server to call in the list."""
        return self._turn % len(self._servers)

    @property
    def current(self) -> T:
        """The server to call."""
        return self._servers[self.number]

    @property
    def single(self) -> bool:
        """Whether there is no other server."""
        return len(self._servers) == 1

    def good(self) -> None:
        """Note that a session was a good one: the next pauses are short again."""
        self._backoff.reset()
        self._tried, self._standby_s = 0, None

    def next_pause_s(self, *, standby: bool = False, retry_after_s: float | None = None) -> float:
        """Go on to the next server after a failure; return the pause in seconds.

        ``standby``: it answered that it does not lead. ``retry_after_s``: the pause it asked for.
        """
        self._turn += 1
        self._tried += 1
        asked_s = retry_after_s or 0.0
        if standby:
            self._standby_s = max(self._standby_s or 0.0, asked_s)
        if self._tried < len(self._servers):
            return NEXT_S
        found, self._tried, self._standby_s = self._standby_s, 0, None
        if found is not None:
            return max(found, NEXT_S)
        return max(self._backoff.next_s(), asked_s)
