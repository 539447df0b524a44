"""A token bucket for each peer address, in bounded memory. Pure: time is handed in."""

from collections import OrderedDict

MAX_PEERS = 4096


class RateLimit:
    """Lets each peer do ``rate_per_s`` things a second, and ``burst`` at once.

    Times are seconds that never go back. With more than ``peers`` peers the one unseen for
    longest is forgotten, that is: gets a full bucket.
    """

    def __init__(self, rate_per_s: float, burst: float, *, peers: int = MAX_PEERS) -> None:
        self._rate_per_s, self._burst, self._most = rate_per_s, burst, peers
        self._peers: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def left(self, peer: str, now_s: float) -> float:
        """Return how many things the peer may do at once now."""
        left, then_s = self._peers.get(peer, (self._burst, now_s))
        return min(self._burst, left + (now_s - then_s) * self._rate_per_s)

    def take(self, peer: str, now_s: float) -> bool:
        """Return whether the peer may do one more thing now, and count it when it may."""
        left = self.left(peer, now_s)
        allowed = left >= 1
        self._peers.pop(peer, None)
        self._peers[peer] = (left - 1 if allowed else left, now_s)
        if len(self._peers) > self._most:
            self._peers.popitem(last=False)
        return allowed
