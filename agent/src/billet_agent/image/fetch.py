"""Fetching over HTTP in a thread: deadlines, redirects, mirrors, going on where it broke off."""

import contextlib
import http.client
import time
from base64 import b64encode
from collections.abc import Callable
from typing import NamedTuple, Protocol
from urllib.parse import unquote, urljoin, urlsplit

from billet_agent.image.wire import Broken, Clock, connect, get, read_some, start_of
from billet_agent.plan.bucket import TokenBucket
from billet_agent.plan.mirrors import Mirrors
from billet_agent.plan.transfer import (
    Again,
    Answer,
    Asked,
    Refused,
    Resume,
    Validator,
    judge,
)
from billet_agent.plan.urls import check_redirect, check_url, show_url
from billet_agent.problems import JobFailed, failure, show_bytes

_CHUNK = 256 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_AGENT = "billet-agent"


class Patience(NamedTuple):
    """How long and how often: seconds to connect and without a byte, tries in a row, redirects.

    A try that came further, where the server can resume, counts afresh; ``most_tries`` ends it
    in any case. The n-th pause in a row is ``pause_s`` times 2^(n-1); see `Mirrors` for several
    servers.
    """

    connect_s: float = 30.0
    stall_s: float = 60.0
    tries: int = 5
    most_tries: int = 50
    pause_s: float = 1.0
    redirects: int = 5


class Sink(Protocol):
    """Where the bytes go."""

    def begin(self, total_bytes: int | None) -> None:
        """Start, or start over, from byte 0 of ``total_bytes`` (None: not announced)."""

    def write(self, data: memoryview) -> None:
        """Take the next bytes; the view is only valid during the call."""


class Waiter(Protocol):
    """Cancellation, pauses and progress of the job that fetches; `JobContext` is one."""

    def check(self) -> None:
        """Raise when the job is cancelled."""

    def pause(self, seconds: float) -> None:
        """Wait unless cancelled."""

    def expect(self, total_bytes: int | None) -> None:
        """Learn the size."""

    def advance(self, done_bytes: int) -> None:
        """Learn how far it is."""


class _Dead(Exception):
    """One server will not give the file; ``failed`` says why."""

    def __init__(self, failed: JobFailed) -> None:
        super().__init__(failed.problem.message)
        self.failed = failed


class NoRanges(Exception):
    """A server gives no part of the file; the text says which part was wanted."""


class _Enough(Exception):
    """All that was wanted has come."""


class _Part:
    """Takes the bytes of a range, then raises _Enough."""

    def __init__(self, start: int, end: int) -> None:
        self._start, self._end = start, end
        self.data = bytearray()

    def begin(self, total_bytes: int | None) -> None:
        """Accept a start over only where the range is the file's start."""
        if self._start:
            raise NoRanges(
                f"bytes {self._start} to {self._end} of {total_bytes} are needed once more, and "
                "the server gives no ranges"
            )
        self.data.clear()

    def write(self, data: memoryview) -> None:
        """Take the next bytes."""
        self.data += data[: self._end - self._start - len(self.data)]
        if len(self.data) == self._end - self._start:
            raise _Enough


class _Aside:
    """A waiter whose progress is that of something else."""

    def __init__(self, waiter: Waiter) -> None:
        self.check, self.pause = waiter.check, waiter.pause

    def expect(self, total_bytes: int | None) -> None:
        """Say nothing."""

    def advance(self, done_bytes: int) -> None:
        """Say nothing."""


class Fetch:
    """One resource on its way into a sink, from the first of several servers that gives it.

    ``mirrors`` are further URLs of the same file, ``rate_bytes_s`` a limit of the bandwidth.
    """

    def __init__(
        self,
        url: str,
        sink: Sink,
        waiter: Waiter,
        patience: Patience = Patience(),  # noqa: B008 - immutable
        log: Callable[[str], None] = lambda _: None,
        *,
        mirrors: tuple[str, ...] = (),
        rate_bytes_s: int | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._urls = (url, *mirrors)
        self._sink = sink
        self._waiter = waiter
        self._patience = patience
        self._log = log
        self._clock = clock
        self._bucket = TokenBucket(rate_bytes_s, clock()) if rate_bytes_s else None
        self._mirrors = Mirrors(self._urls, patience.tries, patience.most_tries, patience.pause_s)
        self._mixes = True
        self._until: int | None = None
        self._offset = self._furthest = 0
        self._total: int | None = None
        self._validators: dict[str, Validator] = {}
        self._used: list[str] = []
        self._faults: list[str] = []

    @property
    def used(self) -> str:
        """Return for people where the bytes came from."""
        return " and ".join(map(show_url, self._used)) or show_url(self._urls[0])

    def run(self, prove: Callable[[], JobFailed | None] = lambda: None) -> int:
        """Fetch everything; return the number of bytes.

        ``prove`` looks at what came; what it finds wrong is fetched anew from another server, or
        from one alone where it came from several, and raised when none is left. Raises
        JobFailed image-fetch, image-short, and the sink's.
        """
        for url in self._urls:
            check_url(url)
        while True:
            self._all()
            wrong = prove()
            if wrong is None:
                return self._offset
            self._distrust(wrong)

    def again(self, start: int, end: int) -> bytes:
        """After `run`: return the bytes from ``start`` to ``end`` once more.

        They come from the server that was used last, and need not be the same: the caller has to
        prove them. Raises NoRanges, JobFailed image-fetch.
        """
        part = _Part(start, end)
        url = self._mirrors.url
        other = Fetch(url, part, _Aside(self._waiter), self._patience, self._log, clock=self._clock)
        other._bucket = self._bucket
        other._offset = other._furthest = start
        other._total, other._until, other._used = self._total, end, [url]
        other._validators = dict(self._validators)
        try:
            other._all()
        except _Enough:
            return bytes(part.data)
        raise failure(
            "image-fetch",
            f"{show_url(url)} gave {len(part.data)} bytes where {end - start} were wanted again",
        )

    def _all(self) -> None:
        while True:
            self._waiter.check()
            try:
                self._once()
                return
            except Broken as error:
                self._rest(self._broke(error))
            except _Dead as error:
                self._drop(error.failed)

    def _rest(self, seconds: float) -> None:
        """Pause, showing meanwhile that nothing comes."""
        while seconds > 0:
            self._waiter.pause(min(seconds, 1.0))
            seconds -= 1.0
            self._tick()

    def _broke(self, error: Broken) -> float:
        """Return the pause before the next try. Raises JobFailed when there is none."""
        url, mirrors = self._mirrors.url, self._mirrors
        further = self._offset > self._furthest and self._resumes()
        self._furthest = max(self._furthest, self._offset)
        reason = str(error)
        shown = reason if show_url(url) in reason else f"{show_url(url)}: {reason}"
        pause = mirrors.broke(further=further, stalled=error.stalled, wait_s=error.wait_s)
        if pause is None:
            raise self._given_up(error, shown)
        if error.afresh:
            self._offset = 0
        there = f" after {show_bytes(self._offset)}" if self._offset else ""
        where = "" if mirrors.url == url else f" from {show_url(mirrors.url)}"
        self._log(f"{shown}{there}; next try{where} in {pause:.0f} s")
        self._faults.append(shown)
        return pause

    def _drop(self, failed: JobFailed) -> None:
        """Go on with another server after one that will not give the file."""
        gone = self._mirrors.url
        self._faults.append(failed.problem.message)
        if not self._mirrors.drop():
            if len(self._urls) == 1:
                raise failed
            raise failure(
                "image-fetch",
                f"none of {len(self._urls)} servers gives {show_url(self._urls[0])}; the last: "
                f"{failed.problem.message}",
                evidence="\n".join(self._faults[-20:]),
            )
        self._validators.pop(gone, None)
        self._log(f"{failed.problem.message}; now from {show_url(self._mirrors.url)}")

    def _distrust(self, wrong: JobFailed) -> None:
        """What came is not what was wanted: fetch it anew. Raises it where that is no use."""
        self._faults.append(wrong.problem.message)
        if len(self._used) > 1 and self._mixes:
            self._mixes = False
            words = "it came from several servers: starts over, from one alone"
        else:
            if not self._mirrors.drop():
                raise wrong
            words = f"starts over from {show_url(self._mirrors.url)}"
        self._log(f"{wrong.problem.message}; {words}")
        self._offset = self._furthest = 0

    def _given_up(self, error: Broken, shown: str) -> JobFailed:
        url, times = show_url(self._urls[0]), self._mirrors.failures
        earlier = "\n".join(self._faults[-20:])
        if error.short and self._total is not None:
            return failure(
                "image-short",
                f"{show_url(self._mirrors.url)} ended after {show_bytes(self._offset)} of the "
                f"announced {show_bytes(self._total)}, {times} times",
                evidence=f"{error}\n{earlier}",
            )
        others = len(self._urls) - 1
        name = f"{url} and {others} mirror{'s' * (others > 1)}" if others else url
        return failure(
            "image-fetch",
            f"{name} could not be fetched in {times} tries: {shown if others else error}",
            evidence=f"{show_bytes(self._offset)} had arrived\n{earlier}",
        )

    def _resumes(self) -> bool:
        """Tell whether the server in use gave what a later answer of its can be compared with."""
        validator = self._validators.get(self._mirrors.url)
        return validator is not None and bool(validator.header)

    def _once(self) -> None:
        try:
            connection, response, url = self._follow()
        except JobFailed as error:
            raise _Dead(error) from error
        with contextlib.closing(connection), response:
            self._accept(response, url)
            self._drain(response)

    def _asked(self) -> Asked:
        """Decide from where to ask: the rest where that can be told to be of the same file."""
        url = self._mirrors.url
        own = self._validators.get(url)
        if not self._offset:
            return Asked()
        if not self._mixes and self._used != [url]:
            return Asked()
        if own is not None:
            return Asked(self._offset, self._total, own) if own.header else Asked()
        return Asked() if self._total is None else Asked(self._offset, self._total)

    def _follow(self) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse, str]:
        first = url = self._mirrors.url
        self._request = self._asked()
        seen = [show_url(url)]
        for _ in range(self._patience.redirects + 1):
            connection = connect(url, self._patience, self._tick, self._clock)
            try:
                response = get(connection, url, self._headers(url, first), self._patience)
            except BaseException:
                connection.close()
                raise
            location = response.getheader("Location")
            if response.status not in _REDIRECTS or not location:
                return connection, response, url
            response.close()
            connection.close()
            target = urljoin(url, location)
            check_redirect(url, target, first)
            url = target
            seen.append(show_url(url))
        raise failure(
            "image-fetch",
            f"{seen[0]} redirects more than {self._patience.redirects} times",
            evidence="\n".join(seen),
        )

    def _tick(self) -> None:
        """Look around while nothing arrives; the server takes a job without news for dead."""
        self._waiter.check()
        self._waiter.advance(self._offset)

    def _headers(self, url: str, first: str) -> dict[str, str]:
        parts = urlsplit(url)
        headers = {"User-Agent": _AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
        if parts.username is not None and parts.hostname == urlsplit(first).hostname:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        if self._request.offset:
            last = "" if self._until is None else self._until - 1
            headers["Range"] = f"bytes={self._request.offset}-{last}"
            if self._request.validator is not None:
                headers["If-Range"] = self._request.validator.header
        return headers

    def _accept(self, response: http.client.HTTPResponse, url: str) -> None:
        verdict = judge(self._request, _answer(response))
        source = self._mirrors.url
        if isinstance(verdict, Again):
            raise self._again(verdict, source, show_url(url))
        if isinstance(verdict, Refused):
            words = f"{show_url(url)} {verdict.reason}"
            raise _Dead(failure("image-fetch", words, evidence=start_of(response)))
        self._validators[source] = verdict.validator
        self._total = verdict.total_bytes
        if isinstance(verdict, Resume):
            if source not in self._used:
                self._used.append(source)
            return
        if self._offset:
            self._log(
                f"{show_url(url)} gives no part of the file, or it has changed: starts over, "
                f"{show_bytes(self._offset)} are fetched again"
            )
        self._offset, self._used = 0, [source]
        self._sink.begin(self._total)
        self._waiter.expect(self._total)

    def _again(self, verdict: Again, source: str, shown: str) -> Broken:
        words = f"{shown} {verdict.reason}"
        afresh = verdict.afresh
        if afresh and self._request.offset and self._request.validator is None:
            # What other servers gave is kept for them; this one is next asked for all of it.
            self._validators[source], afresh = Validator(), False
        elif afresh:
            self._log(f"{words}: starts over")
        return Broken(words, afresh=afresh, wait_s=verdict.wait_s)

    def _drain(self, response: http.client.HTTPResponse) -> None:
        buffer = memoryview(bytearray(_CHUNK))
        if self._bucket is not None:
            buffer = buffer[: self._bucket.burst_bytes]
        while count := read_some(response, buffer):
            self._waiter.check()
            if self._total is not None and self._offset + count > self._total:
                raise Broken(f"more came than the announced {self._total} bytes", afresh=True)
            self._sink.write(buffer[:count])
            self._offset += count
            self._waiter.advance(self._offset)
            if self._bucket is not None:
                self._waiter.pause(self._bucket.take(count, self._clock()))
        if self._total is not None and self._offset < self._total:
            raise Broken("the connection was closed early", short=True)


class TextSink:
    """Keeps a small text, up to a limit of bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._data = bytearray()

    def begin(self, total_bytes: int | None) -> None:
        """Start over; too big an announcement is refused at once."""
        self._data.clear()
        self._check(total_bytes or 0)

    def write(self, data: memoryview) -> None:
        """Append."""
        self._check(len(self._data) + len(data))
        self._data += data

    @property
    def text(self) -> str:
        """Return what came, as text."""
        return self._data.decode(errors="replace")

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise failure(
                "checksum-file",
                f"the sum file is bigger than {show_bytes(self._limit)}: is it the image itself?",
            )


def _answer(response: http.client.HTTPResponse) -> Answer:
    def header(name: str) -> str:
        return response.getheader(name, "").strip()

    return Answer(
        status=response.status,
        reason=response.reason,
        length=response.length,
        content_range=header("Content-Range"),
        etag=header("ETag"),
        modified=header("Last-Modified"),
        encoding=header("Content-Encoding"),
        retry_after=header("Retry-After"),
        date=header("Date"),
    )
