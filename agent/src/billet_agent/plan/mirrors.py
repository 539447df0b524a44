"""Which of several servers of one file is asked next, how soon, and when it is given up."""

_LONGEST_PAUSE_S = 60.0
_LONGEST_RETRY_AFTER_S = 600.0


class Mirrors:
    """The URLs that are left, the one in use, and how many tries failed in a row.

    The first URL is asked first. A server that came further is asked again; one that did not
    gives way to the next, and when all of them failed since then there is a pause: the n-th is
    ``pause_s`` times 2^(n-1), at least what the servers asked for by Retry-After. It ends after
    ``tries`` such rounds in a row, and after ``most_tries`` failures in any case.
    """

    def __init__(
        self, urls: tuple[str, ...], tries: int = 5, most_tries: int = 50, pause_s: float = 1.0
    ) -> None:
        self._urls = list(dict.fromkeys(urls))
        self._tries = tries
        self._most_tries = most_tries
        self._pause_s = pause_s
        self._at = 0
        self._row = 0
        self._asked_wait_s = 0.0
        self.failures = 0

    @property
    def url(self) -> str:
        """Return the URL to ask now."""
        return self._urls[self._at]

    @property
    def count(self) -> int:
        """Return how many are left."""
        return len(self._urls)

    def broke(
        self, *, further: bool, stalled: bool = False, wait_s: float | None = None
    ) -> float | None:
        """Note a failed try; return the pause in seconds before the next, None to give up.

        ``further``: more of the file is there than ever before; ``stalled``: the server was
        silent, so it gives way to the next even then.
        """
        self.failures += 1
        self._row = 1 if further else self._row + 1
        self._asked_wait_s = max(self._asked_wait_s, wait_s or 0.0)
        if self._row >= self._tries * self.count or self.failures >= self._most_tries:
            return None
        if not further or stalled:
            self._at = (self._at + 1) % self.count
        if further and not (stalled and self.count > 1):
            return self._pause(1)
        if self._row % self.count:
            return 0.0
        return self._pause(self._row // self.count)

    def drop(self) -> bool:
        """Take the URL in use off the list for good; tell whether another is left."""
        del self._urls[self._at]
        if self._urls:
            self._at %= len(self._urls)
        return bool(self._urls)

    def _pause(self, round_: int) -> float:
        asked, self._asked_wait_s = self._asked_wait_s, 0.0
        own = min(self._pause_s * 2.0 ** min(round_ - 1, 16), _LONGEST_PAUSE_S)
        return max(own, min(asked, _LONGEST_RETRY_AFTER_S))
