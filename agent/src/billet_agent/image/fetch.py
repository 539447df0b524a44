"""Fetching over HTTP in a thread: deadlines, redirects, and going on where it broke off."""

import contextlib
import http.client
import ipaddress
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable
from typing import NamedTuple, Protocol
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

from billet_agent.problems import JobFailed, failure, show_bytes

_CHUNK = 256 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_AGENT = "billet-agent"


class Patience(NamedTuple):
    """How long and how often: seconds to connect and without a byte, tries in a row, redirects.

    A try that came further, where the server can resume, counts afresh; ``most_tries`` ends it
    in any case. The n-th pause in a row is ``pause_s`` times 2^(n-1).
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


class _Broken(Exception):
    """The connection failed in a way that another try may mend."""

    def __init__(self, reason: str, *, short: bool = False) -> None:
        super().__init__(reason)
        self.short = short


class Fetch:
    """One resource on its way into a sink."""

    def __init__(
        self,
        url: str,
        sink: Sink,
        waiter: Waiter,
        patience: Patience = Patience(),  # noqa: B008 - immutable
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._url = url
        self._sink = sink
        self._waiter = waiter
        self._patience = patience
        self._log = log
        self._offset = 0
        self._total: int | None = None
        self._validator: str | None = None
        self._begun = False

    def run(self) -> int:
        """Fetch everything; return the number of bytes. Raises JobFailed image-fetch/-short."""
        check_url(self._url)
        patience = self._patience
        row, best = 0, 0
        for attempt in range(1, patience.most_tries + 1):
            self._waiter.check()
            try:
                self._once()
                return self._offset
            except _Broken as error:
                resumes = self._validator is not None and self._offset > best
                row = 1 if resumes else row + 1
                best = max(best, self._offset)
                if row >= patience.tries or attempt == patience.most_tries:
                    raise self._given_up(error, attempt) from error
                pause = patience.pause_s * 2 ** (row - 1)
                self._log(f"{show_url(self._url)}: {error}; next try in {pause:.0f} s")
                self._waiter.pause(pause)
        raise AssertionError("unreachable: the last try raises")

    def _given_up(self, error: _Broken, attempt: int) -> JobFailed:
        url = show_url(self._url)
        if error.short and self._total is not None:
            return failure(
                "image-short",
                f"{url} ended after {show_bytes(self._offset)} of the announced "
                f"{show_bytes(self._total)}, {attempt} times",
                evidence=str(error),
            )
        return failure(
            "image-fetch",
            f"{url} could not be fetched in {attempt} tries: {error}",
            evidence=f"{show_bytes(self._offset)} had arrived",
        )

    def _once(self) -> None:
        connection, response = self._follow()
        with contextlib.closing(connection):
            self._accept(response)
            self._drain(response)

    def _follow(self) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        url, seen = self._url, [show_url(self._url)]
        for _ in range(self._patience.redirects + 1):
            connection = _connect(url, self._patience)
            try:
                response = self._request(connection, url)
            except BaseException:
                connection.close()
                raise
            location = response.getheader("Location")
            if response.status not in _REDIRECTS or not location:
                self._url_now = url
                return connection, response
            connection.close()
            target = urljoin(url, location)
            check_redirect(url, target, self._url)
            url = target
            seen.append(show_url(url))
        raise failure(
            "image-fetch",
            f"{seen[0]} redirects more than {self._patience.redirects} times",
            evidence="\n".join(seen),
        )

    def _request(
        self, connection: http.client.HTTPConnection, url: str
    ) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        headers = {"User-Agent": _AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
        if parts.username is not None and parts.hostname == urlsplit(self._url).hostname:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        if self._offset and self._validator:
            headers["Range"] = f"bytes={self._offset}-"
            headers["If-Range"] = self._validator
        path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        try:
            connection.request("GET", path, headers=headers)
            return connection.getresponse()
        except TimeoutError as error:
            wait = self._patience.stall_s
            raise _Broken(f"{show_url(url)} did not answer in {wait:.0f} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(f"{show_url(url)} broke off: {_words(error)}") from error

    def _accept(self, response: http.client.HTTPResponse) -> None:
        status = response.status
        if status == 206 and self._offset and self._resumes(response):
            return
        if status not in {200, 206, 416}:
            words = f"{show_url(self._url_now)} answered {status} {response.reason}"
            if status >= 500 or status in {408, 425, 429}:
                raise _Broken(words)
            raise failure("image-fetch", words, evidence=_start_of(response))
        if status != 200:
            self._offset, self._validator = 0, None
            raise _Broken(f"{show_url(self._url_now)} answered {status} with another range")
        encoding = response.getheader("Content-Encoding", "identity")
        if encoding != "identity":
            raise failure(
                "image-fetch",
                f"{show_url(self._url_now)} was sent with Content-Encoding {encoding}, "
                "which would hide the file's own bytes",
            )
        self._offset, self._total = 0, response.length
        tag = response.getheader("ETag", "")
        strong = tag if tag and not tag.startswith("W/") else None
        self._validator = strong or response.getheader("Last-Modified")
        self._sink.begin(self._total)
        self._waiter.expect(self._total)

    def _resumes(self, response: http.client.HTTPResponse) -> bool:
        unit, _, rest = response.getheader("Content-Range", "").partition(" ")
        span, _, total = rest.partition("/")
        if unit != "bytes" or span.partition("-")[0] != str(self._offset):
            return False
        return self._total is None or total in {"*", str(self._total)}

    def _drain(self, response: http.client.HTTPResponse) -> None:
        buffer = memoryview(bytearray(_CHUNK))
        while True:
            self._waiter.check()
            try:
                count = response.readinto(buffer)
            except TimeoutError as error:
                raise _Broken(f"no byte for {self._patience.stall_s:.0f} s") from error
            except (OSError, http.client.HTTPException) as error:
                raise _Broken(f"the connection broke off: {_words(error)}") from error
            if not count:
                break
            self._sink.write(buffer[:count])
            self._offset += count
            self._waiter.advance(self._offset)
        if self._total is not None and self._offset < self._total:
            raise _Broken("the connection was closed early", short=True)


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


def check_url(url: str) -> SplitResult:
    """Return the parts of an http(s) URL. Raises JobFailed image-unsupported for any other."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or any(ord(char) <= 32 or ord(char) == 127 for char in url):
        raise failure("image-unsupported", f"{url!r} is not an http:// or https:// URL")
    return parts


def check_redirect(origin: str, target: str, first: str) -> None:
    """Refuse redirects to other schemes, from https to http, and to the machine's own or
    link-local addresses (unless the first URL was such a one itself).
    """
    parts = check_url(target)
    if urlsplit(origin).scheme == "https" and parts.scheme == "http":
        raise failure(
            "image-fetch", f"{show_url(origin)} redirects from https to {show_url(target)}"
        )
    if _is_near(parts.hostname) and not _is_near(urlsplit(first).hostname):
        raise failure(
            "image-fetch",
            f"{show_url(origin)} redirects to {show_url(target)}, an address of this machine or "
            "link",
        )


def show_url(url: str) -> str:
    """Return the URL without a password."""
    parts = urlsplit(url)
    if parts.username is None:
        return url
    return urlunsplit(parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]))


def _is_near(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return False
    return address.is_loopback or address.is_link_local


def _connect(url: str, patience: Patience) -> http.client.HTTPConnection:
    parts = check_url(url)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(
            host, parts.port, timeout=patience.connect_s, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=patience.connect_s)
    try:
        connection.connect()
    except ssl.SSLCertVerificationError as error:
        connection.close()
        words = f"{show_url(url)}: the server's certificate is not trusted: {error.verify_message}"
        raise failure("image-fetch", words) from error
    except OSError as error:
        connection.close()
        raise _Broken(f"{show_url(url)}: no connection: {_words(error)}") from error
    if isinstance(connection.sock, socket.socket):
        connection.sock.settimeout(patience.stall_s)
    return connection


def _words(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text)


def _start_of(response: http.client.HTTPResponse) -> str:
    try:
        return response.read(2048).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""
