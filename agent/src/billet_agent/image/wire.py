"""One HTTP connection that is never silent for longer than allowed, and notices a cancel at once.

`http.client` fills its buffers with blocking reads, so that a server that sends a byte now and
then would hold a read for hours. Here each read of the socket returns what there is, and while
there is nothing, the caller's ``tick`` runs twice a second.
"""

import contextlib
import http.client
import io
import select
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast
from urllib.parse import urlunsplit

from billet_agent.plan.urls import check_url, show_url
from billet_agent.problems import failure

_TICK_S = 0.5
_SLOWEST_BYTES_S = 64
"""A body that comes more slowly than this over a whole ``stall_s`` counts as stalled."""

Clock = Callable[[], float]


class Limits(Protocol):
    """Seconds to connect and without a byte; `Patience` is one."""

    @property
    def connect_s(self) -> float:
        """Return the seconds to connect."""

    @property
    def stall_s(self) -> float:
        """Return the seconds without a byte."""


class Broken(Exception):
    """The connection failed in a way that another try may mend."""

    def __init__(
        self,
        reason: str,
        *,
        short: bool = False,
        stalled: bool = False,
        afresh: bool = False,
        wait_s: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.short = short
        self.stalled = stalled
        self.afresh = afresh
        self.wait_s = wait_s


class Stalled(TimeoutError):
    """No byte, or next to none, for as long as is allowed."""


class Wire(io.RawIOBase):
    """A socket's receiving side."""

    def __init__(
        self, sock: socket.socket, stall_s: float, tick: Callable[[], None], clock: Clock
    ) -> None:
        self._sock = sock
        # Holds the socket open as long as the answer is read, though the connection is closed.
        self._hold = sock.makefile("rb", buffering=0)
        self._stall_s = stall_s
        self._tick = tick
        self._clock = clock
        self._late: OSError | None = None
        self._window = (clock(), 0)

    def readable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Let the socket go."""
        self._hold.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        """Wait for bytes, take all that are there. Raises Stalled, OSError, the tick's own."""
        late, self._late = self._late, None
        if late is not None:
            raise late
        view = memoryview(buffer)
        filled = count = self._first(view)
        while count and filled < len(view) and self._ready():
            try:
                count = self._sock.recv_into(view[filled:])
            except TimeoutError:
                break
            except OSError as error:
                self._late = error
                break
            filled += count
        self._count(filled)
        return filled

    def _first(self, view: memoryview) -> int:
        since = self._clock()
        while True:
            try:
                return self._sock.recv_into(view)
            except TimeoutError:
                self._tick()
                if self._clock() - since >= self._stall_s:
                    raise Stalled(f"no byte for {self._stall_s:g} s") from None

    def _ready(self) -> bool:
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return True
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    def _count(self, received: int) -> None:
        """Look at each whole stretch of ``stall_s``: what came must have been worth waiting."""
        since, before = self._window
        now, count = self._clock(), before + received
        if now - since < self._stall_s:
            self._window = (since, count)
            return
        if received and count < _SLOWEST_BYTES_S * (now - since):
            raise Stalled(f"only {count} bytes in {now - since:.0f} s")
        self._window = (now, 0)


class _Response(http.client.HTTPResponse):
    """An answer that is read through a `Wire`."""

    def __init__(self, wire: Callable[[socket.socket], Wire], sock: Any, **more: Any) -> None:
        super().__init__(sock, **more)
        self.fp.close()
        self.fp = io.BufferedReader(wire(sock))


def connect(
    url: str, limits: Limits, tick: Callable[[], None], clock: Clock
) -> http.client.HTTPConnection:
    """Open a connection. Raises Broken, JobFailed (bad URL, certificate that is not trusted)."""
    parts = check_url(url)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(
            host, parts.port, timeout=limits.connect_s, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=limits.connect_s)
    try:
        connection.connect()
    except ssl.SSLCertVerificationError as error:
        connection.close()
        words = f"{show_url(url)}: the server's certificate is not trusted: {error.verify_message}"
        raise failure("image-fetch", words) from error
    except OSError as error:
        connection.close()
        raise Broken(f"{show_url(url)}: no connection: {words_of(error)}") from error
    wire = partial(Wire, stall_s=limits.stall_s, tick=tick, clock=clock)
    connection.response_class = cast("type[http.client.HTTPResponse]", partial(_Response, wire))
    return connection


def get(
    connection: http.client.HTTPConnection, url: str, headers: dict[str, str], limits: Limits
) -> http.client.HTTPResponse:
    """Send a request, return the answer when its head is there. Raises Broken."""
    parts = check_url(url)
    path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
    sock = connection.sock
    try:
        if isinstance(sock, socket.socket):
            sock.settimeout(limits.stall_s)
        connection.request("GET", path, headers=headers)
        if isinstance(sock, socket.socket):
            sock.settimeout(min(_TICK_S, limits.stall_s))
        return connection.getresponse()
    except TimeoutError as error:
        raise Broken(
            f"{show_url(url)} did not answer in {limits.stall_s:g} s", stalled=True
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise Broken(f"{show_url(url)} broke off: {words_of(error)}") from error


def read_some(response: http.client.HTTPResponse, buffer: memoryview) -> int:
    """Read what there is of a body, waiting for the first byte; 0 at its end. Raises Broken."""
    try:
        return response.readinto1(buffer)
    except Stalled as error:
        raise Broken(str(error), stalled=True) from error
    except (OSError, http.client.HTTPException) as error:
        raise Broken(f"the connection broke off: {words_of(error)}") from error


def start_of(response: http.client.HTTPResponse) -> str:
    """Return an error page's first words, as far as they come."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return response.read1(2048).decode(errors="replace")
    return ""


def words_of(error: Exception) -> str:
    """Return what an error says, or else its kind."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text)
