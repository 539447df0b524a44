"""How fast a count grows and when it will be done: an average over the last seconds."""

from collections import deque

WINDOW_S = 10.0
"""Older growth does not count: after so long a silence the rate is 0."""

_LEAST_S = 0.5
_LONGEST_ETA_S = 7 * 86400.0


class Pace:
    """Takes (count, time) pairs; time is whatever monotonic clock the caller has, in seconds.

    An average over a window has no spikes from two readings that are close together, and knows
    of a stall; less than half a second of it says nothing yet.
    """

    def __init__(self, now_s: float) -> None:
        self._marks = deque([(now_s, 0)])

    def note(self, done: int, now_s: float) -> None:
        """Take a reading; a count that shrank began anew."""
        marks = self._marks
        if done < marks[-1][1]:
            marks.clear()
        marks.append((now_s, done))
        while len(marks) > 2 and marks[1][0] <= now_s - WINDOW_S:
            marks.popleft()

    @property
    def rate_s(self) -> float | None:
        """Return how much it grows in a second, None while that is not known."""
        (then, before), (now, done) = self._marks[0], self._marks[-1]
        return (done - before) / (now - then) if now - then >= _LEAST_S else None

    def eta_s(self, total: int | None) -> float | None:
        """Return in how many seconds ``total`` is reached; None: not known, or not in a week."""
        rate = self.rate_s
        if total is None or not rate or rate <= 0:
            return None
        left = max(0, total - self._marks[-1][1]) / rate
        return left if left <= _LONGEST_ETA_S else None
