"""How long to wait before trying again."""

import hashlib
from datetime import timedelta


def retry_delay(count: int, seed: str, *, base_s: float = 10.0, cap_s: float = 600.0) -> timedelta:
    """Return the delay before the attempt after ``count`` failures (1 = after the first).

    Doubles from ``base_s`` up to ``cap_s``; the last quarter is jitter drawn from ``seed`` and
    ``count``, so that many hosts behind one broken switch do not come back as one.
    """
    full = min(cap_s, base_s * 2.0 ** min(max(count, 1) - 1, 30))
    return timedelta(seconds=round(full * (0.75 + 0.25 * share(seed, str(count))), 3))


def share(seed: str, purpose: str) -> float:
    """Return a number from 0 to below 1 that is always the same for seed and purpose."""
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32
