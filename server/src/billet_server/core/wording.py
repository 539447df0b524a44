"""Words and figures of others (agents, BMCs) made fit for status, logs and terminals. Pure.

Whatever a machine reports passes through here before it is written to an object: a status that
the API refuses would be refused for ever, and a control character would reach a terminal.
"""

import math
import re

MOST_NUMBER = 2**63 - 1
"""Kubernetes' integers are int64."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+")
_CONTROL_BUT_NEWLINE = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+"
)


def printable(text: str, most: int) -> str:
    """Return one line of at most ``most`` characters without control characters."""
    line = _CONTROL.sub(" ", text[: 4 * most]).strip()
    return line if len(line) <= most else line[: most - 1] + "…"


def printable_lines(text: str, most: int) -> str:
    """Return text of at most ``most`` characters; newlines stay."""
    lines = _CONTROL_BUT_NEWLINE.sub(" ", text[: 4 * most])
    return lines if len(lines) <= most else lines[: most - 1] + "…"


def whole(value: float, most: int = MOST_NUMBER) -> int:
    """Return a figure as an integer of 0 to ``most``; what is no number is 0."""
    if isinstance(value, float) and not math.isfinite(value):
        return most if value > 0 else 0
    return min(max(int(value), 0), most)
