"""What an HTTP answer means for a download that may be part-way: go on, start over, or not."""

import re
from email.utils import parsedate_to_datetime
from typing import NamedTuple

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_TRY_AGAIN = frozenset({408, 425, 429})


class Validator(NamedTuple):
    """What tells one version of a file from another (RFC 9110 §8.8); weak tags do not."""

    etag: str = ""
    modified: str = ""

    @property
    def header(self) -> str:
        """Return the value for If-Range, empty when the server gave nothing to go by."""
        return self.etag or self.modified

    def differs(self, other: "Validator") -> bool:
        """Tell whether both name a version, and not the same one."""
        if self.etag and other.etag:
            return self.etag != other.etag
        return bool(self.modified and other.modified and self.modified != other.modified)


class Asked(NamedTuple):
    """What was asked for: all from byte ``offset``; 0 means the whole file.

    ``total_bytes`` is the file's announced length as learned so far. ``validator`` is that of
    the same server's earlier answer, None where the bytes so far came from other servers.
    """

    offset: int = 0
    total_bytes: int | None = None
    validator: Validator | None = None


class Answer(NamedTuple):
    """An answer's head: ``length`` is its body's, None where it is not announced."""

    status: int
    reason: str = ""
    length: int | None = None
    content_range: str = ""
    etag: str = ""
    modified: str = ""
    encoding: str = ""
    retry_after: str = ""
    date: str = ""

    @property
    def validator(self) -> Validator:
        """Return the strong validator."""
        strong = "" if self.etag.startswith("W/") else self.etag
        return Validator(strong, self.modified)


class Begin(NamedTuple):
    """The body is the file from its first byte."""

    total_bytes: int | None
    validator: Validator


class Resume(NamedTuple):
    """The body goes on where the bytes so far end."""

    total_bytes: int | None
    validator: Validator


class Again(NamedTuple):
    """Another try may help: from byte 0 if ``afresh``, not before ``wait_s`` if the server asks."""

    reason: str
    afresh: bool = False
    wait_s: float | None = None


class Refused(NamedTuple):
    """The server will not give the file, however often it is asked."""

    reason: str


def judge(asked: Asked, answer: Answer) -> Begin | Resume | Again | Refused:
    """Decide what to do with an answer (RFC 9110 §14, §15)."""
    status = answer.status
    words = f"answered {status} {answer.reason}".rstrip()
    if status >= 500 or status in _TRY_AGAIN:
        return Again(words, wait_s=retry_after_s(answer.retry_after, answer.date))
    if status == 416 and asked.offset:
        return Again(f"{words}: it has no byte {asked.offset}", afresh=True)
    if status not in {200, 206}:
        return Refused(words)
    if answer.encoding not in {"", "identity"}:
        return Refused(
            f"was sent with Content-Encoding {answer.encoding}, which would hide the file's own "
            "bytes"
        )
    if status == 200:
        return Begin(answer.length, answer.validator)
    fault = _part_fault(asked, answer)
    if fault:
        return Again(f"{words}, but {fault}", afresh=True)
    total = _CONTENT_RANGE.fullmatch(answer.content_range)
    known = int(total[3]) if total and total[3] != "*" else asked.total_bytes
    return Resume(known, answer.validator)


def _part_fault(asked: Asked, answer: Answer) -> str:
    """Return why a 206 is not the rest of the file that was asked for."""
    if not asked.offset:
        return "no part was asked for"
    match = _CONTENT_RANGE.fullmatch(answer.content_range.strip())
    if match is None:
        return f"its Content-Range is {answer.content_range[:80]!r}"
    first, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    if first != asked.offset:
        return f"with bytes from {first}, not from {asked.offset}"
    if asked.total_bytes is not None and total not in {None, asked.total_bytes}:
        return f"of a file of {total} bytes, not {asked.total_bytes}"
    if last < first or (total is not None and last >= total):
        return f"its Content-Range {answer.content_range[:80]!r} contradicts itself"
    if answer.length is not None and answer.length != last - first + 1:
        return f"with {answer.length} bytes for {last - first + 1}"
    if asked.validator is None:
        # Another server's tags mean nothing here: only a length that agrees speaks for it.
        return "" if total == asked.total_bytes is not None else "of a file of unknown length"
    if asked.validator.differs(answer.validator):
        return "of a file that has changed meanwhile"
    return ""


def retry_after_s(value: str, date: str = "") -> float | None:
    """Return how long a server asks to wait (RFC 9110 §10.2.3): seconds, or until a date.

    A date is compared with the server's own Date header: a ramdisk's clock may be years off.
    """
    word = value.strip()
    if word.isascii() and word.isdigit():
        return float(word[:9])
    try:
        span = parsedate_to_datetime(word) - parsedate_to_datetime(date)
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, span.total_seconds())
