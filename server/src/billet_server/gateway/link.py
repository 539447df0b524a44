"""One agent's WebSocket (RFC 6455) as typed messages, with limits, deadlines and a heartbeat."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

from aiohttp import WSCloseCode, WSMsgType, web

from billet_server.errors import AgentError
from billet_server.gateway.hello import check_hello
from billet_wire import (
    AgentMessage,
    Hello,
    Refused,
    ServerMessage,
    WireError,
    decode_agent,
    encode,
)

log = logging.getLogger(__name__)

HELLO_S = 10.0
PING_S = 10.0
SILENT_PINGS = 3
SEND_S = 120.0
CLOSE_S = 2.0
MAX_INBOUND_BYTES = 4 * 1024 * 1024
"""An agent's largest message is a `Hello` with an inventory: some hundred KiB."""

MAX_MESSAGES_PER_S = 500


class Link:
    """One connection. Anything wrong with it ends it; only `send` raises (AgentError)."""

    def __init__(self, peer: str, ping_s: float = PING_S) -> None:
        self.peer = peer
        self.response = web.WebSocketResponse(
            timeout=CLOSE_S, autoping=False, compress=False, max_msg_size=MAX_INBOUND_BYTES
        )
        self._ping_s = ping_s
        self._sending = asyncio.Lock()
        self._alive_s = 0.0

    async def accept(self, request: web.Request) -> None:
        """Answer the upgrade request.

        Raises HTTPException when it is none, AgentError when the agent is gone already.
        """
        try:
            await self.response.prepare(request)
        except ConnectionError as error:
            raise AgentError(f"the agent at {self.peer} left while it was greeted") from error
        self._alive_s = asyncio.get_running_loop().time()

    async def hello(self, timeout_s: float) -> Hello | None:
        """Return the opening message; None (and the reason sent) when there is no good one."""
        try:
            async with asyncio.timeout(timeout_s):
                message = await self._next()
        except TimeoutError:
            await self.refuse("no-hello", f"no hello within {timeout_s:g} s")
            return None
        except WireError as error:
            await self.refuse("malformed", str(error))
            return None
        if message is None:
            return None
        fault = "the first message is not a hello"
        if isinstance(message, Hello):
            fault = check_hello(message) or ""
            if not fault:
                return message
        await self.refuse("malformed", fault)
        return None

    async def messages(self) -> AsyncGenerator[AgentMessage | None, None]:
        """Yield messages until the connection ends; None is a sign of life without words."""
        loop = asyncio.get_running_loop()
        second, count = loop.time(), 0
        while True:
            try:
                frame = await self.response.receive(timeout=self._ping_s)
            except TimeoutError:
                if not await self._still_there():
                    return
                continue
            self._alive_s = loop.time()
            if frame.type is WSMsgType.PING:
                await self._pong(frame.data)
            if frame.type in {WSMsgType.PING, WSMsgType.PONG}:
                yield None
                continue
            if frame.type is not WSMsgType.TEXT:
                return
            try:
                yield decode_agent(frame.data)
            except WireError as error:
                log.warning("closing the connection of %s: %s", self.peer, error)
                await self.close(str(error), WSCloseCode.INVALID_TEXT)
                return
            count += 1
            if count >= MAX_MESSAGES_PER_S:
                # Whoever talks faster is read no faster; TCP makes it wait.
                await asyncio.sleep(max(0.0, second + 1 - loop.time()))
                second, count = loop.time(), 0
            else:
                await asyncio.sleep(0)

    async def send(self, message: ServerMessage) -> None:
        """Send one message. Raises AgentError when the agent does not take it."""
        text = encode(message)
        try:
            async with asyncio.timeout(SEND_S), self._sending:
                await self.response.send_str(text)
        except (OSError, RuntimeError, TimeoutError) as error:
            raise AgentError(
                f"the agent at {self.peer} did not take a message of {len(text)} bytes: "
                f"{error or type(error).__name__}; it will dial again if it lives"
            ) from error
        finally:
            self._alive_s = asyncio.get_running_loop().time()

    async def refuse(self, reason: str, message: str, retry_after_s: float | None = None) -> None:
        """Tell the agent that it is not let in, and close."""
        with contextlib.suppress(AgentError):
            await self.send(Refused(reason, message, retry_after_s))
        await self.close(reason, WSCloseCode.POLICY_VIOLATION)

    async def close(self, reason: str, code: int = WSCloseCode.OK) -> None:
        """Close the connection; never raises, takes at most two seconds."""
        if not self.response.prepared or self.response.closed:
            return
        with contextlib.suppress(OSError, RuntimeError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                # A close frame has room for 123 bytes (RFC 6455 section 5.5).
                await self.response.close(code=code, message=reason.encode()[:120])

    async def _next(self) -> AgentMessage | None:
        while True:
            frame = await self.response.receive()
            if frame.type is WSMsgType.PING:
                await self._pong(frame.data)
            elif frame.type is WSMsgType.TEXT:
                return decode_agent(frame.data)
            elif frame.type is not WSMsgType.PONG:
                return None

    async def _still_there(self) -> bool:
        silent_s = asyncio.get_running_loop().time() - self._alive_s
        # A long message on its way keeps pongs waiting behind it: `send` has its own deadline.
        if self._sending.locked():
            return True
        if silent_s > SILENT_PINGS * self._ping_s:
            log.warning("the agent at %s is silent for %.0f s: gone", self.peer, silent_s)
            return False
        with contextlib.suppress(OSError, RuntimeError, TimeoutError):
            async with asyncio.timeout(self._ping_s):
                await self.response.ping()
        return True

    async def _pong(self, data: bytes) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            await self.response.pong(data)
