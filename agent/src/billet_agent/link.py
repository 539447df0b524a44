"""The agent's side of the link: dial, say hello, stay; when it breaks, dial again for ever."""

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Callable
from typing import NoReturn

import aiohttp

from billet_agent.backoff import Backoff
from billet_agent.outbox import Outbox
from billet_agent.servers import Rota
from billet_agent.settings import Settings, link_url
from billet_agent.trust import HostClock, TrustError, WallClock, trust_server
from billet_wire import (
    MAX_MESSAGE_BYTES,
    STANDBY,
    Goodbye,
    Hello,
    Refused,
    ServerMessage,
    Welcome,
    WireError,
    decode_server,
    encode,
)

log = logging.getLogger("billet.link")

CONNECT_S, CONNECT_NEXT_S = 20.0, 6.0
"""How long a server may take to answer the call; and where there is another one to call."""

WELCOME_S = 30.0
SILENT_PINGS = 3
TICK_S = 1.0
"""Progress and log lines are sent this often."""

STEADY_S = 30.0
"""A session that lasted so long was a good one: the next pause is short again."""


NO_NETWORK_S = 0.5
"""The pause while this machine has no network: its tries cost nobody anything."""


class LinkError(Exception):
    """The link is down; the text says why, ``retry_after_s`` when the server wants a pause.

    ``local``: the machine has no network yet; ``standby``: another server is to be called.
    """

    def __init__(
        self,
        text: str,
        retry_after_s: float | None = None,
        *,
        local: bool = False,
        standby: bool = False,
    ) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s
        self.local, self.standby = local, standby


class Link:
    """The connection to the server; `run` keeps it up until `leave`.

    ``hello`` makes the opening afresh for each try, ``received`` gets each message, ``state``
    a line for the machine's screen at every change, ``welcomed`` the host's name.
    """

    def __init__(
        self,
        settings: Settings,
        outbox: Outbox,
        *,
        hello: Callable[[], Hello],
        received: Callable[[ServerMessage], None],
        state: Callable[[str], None],
        welcomed: Callable[[str], None] = lambda _: None,
        clock: WallClock | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._settings = settings
        self._outbox = outbox
        self._hello = hello
        self._received = received
        self._state = state
        self._welcomed = welcomed
        self._clock = clock or HostClock()
        self._rota = Rota(settings.servers, backoff or Backoff())
        self._trusted: ssl.SSLContext | None = None
        self._goodbye: Goodbye | None = None
        self._left = asyncio.Event()
        self._session: asyncio.Task[NoReturn] | None = None
        self._connected = False

    async def run(self) -> None:
        """Dial, talk, dial again; returns after `leave`."""
        while not self._left.is_set():
            started = time.monotonic()
            self._session = asyncio.create_task(self._hold(), name="link-session")
            await asyncio.wait({self._session})
            if self._goodbye is not None:
                break
            error = self._session.exception()
            if not isinstance(error, LinkError):
                raise error or RuntimeError("a session ends by an error only")
            if time.monotonic() - started > STEADY_S:
                self._rota.good()
            server, pause = self._rota.current, NO_NETWORK_S
            if not error.local:
                pause = self._rota.next_pause_s(
                    standby=error.standby, retry_after_s=error.retry_after_s
                )
            self._state(f"cannot reach server {server}: {error}; next try in {pause:.2g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._left.wait(), pause)

    async def leave(self, goodbye: Goodbye, timeout_s: float) -> None:
        """Send what waits and the goodbye if there is a connection; then `run` returns."""
        self._goodbye = goodbye
        self._outbox.urgent.set()
        if self._connected:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._left.wait(), timeout_s)
        self._left.set()
        if self._session is not None:
            self._session.cancel()
            await asyncio.wait({self._session}, timeout=timeout_s)

    async def _hold(self) -> NoReturn:
        """Dial once and talk as long as it lasts. Raises LinkError."""
        server = self._rota.current
        self._state(f"calling server {server}")
        within_s = CONNECT_S if self._rota.single else CONNECT_NEXT_S
        async with aiohttp.ClientSession() as session:
            context = await self._trust(session)
            try:
                async with asyncio.timeout(within_s):
                    socket = await session.ws_connect(
                        link_url(server),
                        ssl=context,
                        max_msg_size=MAX_MESSAGE_BYTES,
                        autoping=True,
                    )
            except ssl.SSLCertVerificationError as error:
                raise self._distrust(error) from error
            except aiohttp.ClientConnectorCertificateError as error:
                raise self._distrust(error.certificate_error) from error
            except TimeoutError as error:
                raise LinkError(f"no answer in {within_s:.0f} s") from error
            except aiohttp.WSServerHandshakeError as error:
                raise LinkError(f"it answered {error.status} {error.message}") from error
            except (aiohttp.ClientError, OSError) as error:
                raise LinkError(_words(error)) from error
            async with contextlib.aclosing(_Closing(socket)):
                await self._converse(socket)

    async def _trust(self, session: aiohttp.ClientSession) -> ssl.SSLContext:
        if self._trusted is None:
            settings = self._settings
            try:
                self._trusted, line = await trust_server(
                    session,
                    settings.ca_url_of(self._rota.number),
                    settings.ca_sha256,
                    self._clock,
                )
            except TrustError as error:
                raise LinkError(str(error), local=error.local) from error
            if line:
                log.warning("%s", line)
        return self._trusted

    def _distrust(self, error: Exception) -> LinkError:
        self._trusted = None  # fetch the CA, and with it the time, again
        words = getattr(error, "verify_message", "") or str(error)
        return LinkError(f"its certificate is not valid for the pinned CA: {words}")

    async def _converse(self, socket: aiohttp.ClientWebSocketResponse) -> NoReturn:
        self._outbox.drop_reports()
        try:
            await socket.send_str(encode(self._hello()))
            answer = await self._next(socket, WELCOME_S)
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise LinkError(_words(error)) from error
        if isinstance(answer, Refused):
            raise LinkError(
                f"it refused this machine ({answer.reason}): {answer.message}",
                answer.retry_after_s,
                standby=answer.reason == STANDBY,
            )
        if not isinstance(answer, Welcome):
            raise LinkError("it did not answer the hello with a welcome")
        self._welcomed(answer.host)
        self._state(f"connected to server {self._rota.current} as host {answer.host}")
        tasks = [
            asyncio.create_task(self._send(socket), name="link-send"),
            asyncio.create_task(_ping(socket, answer.ping_s), name="link-ping"),
        ]
        self._connected = True
        try:
            while True:
                self._received(await self._next(socket, answer.ping_s * SILENT_PINGS))
        finally:
            self._connected = False
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _next(
        self, socket: aiohttp.ClientWebSocketResponse, timeout_s: float
    ) -> ServerMessage:
        try:
            frame = await socket.receive(timeout=timeout_s)
        except TimeoutError as error:
            raise LinkError(f"it was silent for {timeout_s:.0f} s") from error
        if frame.type is aiohttp.WSMsgType.TEXT:
            try:
                return decode_server(frame.data)
            except WireError as error:
                raise LinkError(str(error)) from error
        if frame.type is aiohttp.WSMsgType.ERROR:
            raise LinkError(f"the connection broke: {frame.data}")
        reason = f": {frame.extra}" if frame.type is aiohttp.WSMsgType.CLOSE and frame.extra else ""
        raise LinkError(f"the server closed the connection{reason}")

    async def _send(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Send what waits: at once when urgent, else every second; last of all the goodbye."""
        try:
            while True:
                for message in self._outbox.take():
                    await socket.send_str(encode(message))
                if self._goodbye is not None and not self._outbox:
                    await socket.send_str(encode(self._goodbye))
                    self._left.set()
                    await socket.close()
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._outbox.urgent.wait(), TICK_S)
        except (aiohttp.ClientError, OSError, RuntimeError):
            # Reports are told again by the next hello; log lines taken from the box are lost.
            await socket.close()


class _Closing:
    """Closes a socket without hanging on a dead peer."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def aclose(self) -> None:
        with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
            async with asyncio.timeout(2):
                await self._socket.close()


async def _ping(socket: aiohttp.ClientWebSocketResponse, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        await socket.ping()


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
