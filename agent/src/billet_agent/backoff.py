"""Pauses between tries: doubling, capped, with jitter so that a rack does not call in step."""

import random
from collections.abc import Callable


class Backoff:
    """Yields pauses in seconds: first, twice that, ... up to ``cap_s``, each less 0 to 25 %."""

    def __init__(
        self,
        first_s: float = 1.0,
        cap_s: float = 15.0,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._first_s = first_s
        self._cap_s = cap_s
        self._chance = chance
        self._tries = 0

    def reset(self) -> None:
        """Start again with the first pause."""
        self._tries = 0

    def next_s(self) -> float:
        """Return the next pause."""
        pause = min(self._cap_s, self._first_s * 2 ** min(self._tries, 30))
        self._tries += 1
        return float(pause * (1 - 0.25 * self._chance()))
