"""A token bucket: how long to wait so that a rate is kept."""

_BURST_S = 0.25


class TokenBucket:
    """Bytes may pass at ``rate_bytes_s``, up to a quarter second's worth of them at once.

    Time is whatever clock the caller has, in seconds; it may only grow.
    """

    def __init__(self, rate_bytes_s: float, now_s: float) -> None:
        if rate_bytes_s <= 0:
            raise ValueError(f"a rate of {rate_bytes_s} bytes/s lets nothing pass")
        self._rate = rate_bytes_s
        self._burst = rate_bytes_s * _BURST_S
        self._tokens = self._burst
        self._at = now_s

    @property
    def burst_bytes(self) -> int:
        """Return how many bytes to take at once at the most for an even flow; at least 1."""
        return max(1, int(self._burst))

    def take(self, count: int, now_s: float) -> float:
        """Note that ``count`` bytes passed; return how many seconds to wait before the next.

        More than there was room for is a debt that the wait pays off.
        """
        filled = self._tokens + max(0.0, now_s - self._at) * self._rate
        self._tokens = min(self._burst, filled) - count
        self._at = max(self._at, now_s)
        return max(0.0, -self._tokens / self._rate)
