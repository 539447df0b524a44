"""RMCP+ sessions: pyghmi frames, encrypts and checks; asyncio sends, receives and waits.

pyghmi's own input and output is not used. It has one thread and one set of dictionaries for the
whole process: a packet that arrives while its session is being removed ends that thread for good
(``_io_graball`` looks a key up twice), one BMC that falls silent between RAKP 4 and Set Session
Privilege Level stops all others, and a BMC slower than its first time-out (0.5 to 1 s, not grown
by a new log-in) can never log in. So `Session` overrides the methods of pyghmi's class that
touch sockets, clocks or threads. Nothing blocks, no thread exists, sessions share nothing.
"""

import asyncio
import contextlib
import logging
import math
import struct
from collections.abc import Callable
from typing import Any, NamedTuple, Self, cast

from pyghmi import exceptions as pyghmi_exceptions
from pyghmi.ipmi.private.session import Session as PyghmiSession
from pyghmi.ipmi.private.util import get_ipmi_error

from billet_server.bmc.ipmi_commands import Command
from billet_server.bmc.ipmi_errors import Reason, SessionError, reason_of_text
from billet_server.core.terms import Credentials

log = logging.getLogger(__name__)

_CLOSE_SESSION = Command(0x06, 0x3C)
_SET_PRIVILEGE = Command(0x06, 0x3B)
MOST_USER_NAME_BYTES, MOST_PASSWORD_BYTES = 16, 20
"""IPMI 2.0, 22.28 and 22.30."""

_LOCAL_SESSION_IDS = 16
"""Distance between two log-in attempts' session ids, so that late answers match neither."""


class Answer(NamedTuple):
    """An IPMI answer: completion code and data."""

    code: int
    data: bytes


REASON_OF_EXCEPTION: dict[type[Exception], Reason] = {
    pyghmi_exceptions.PyghmiException: Reason.FAULT,
    pyghmi_exceptions.IpmiException: Reason.FAULT,
    pyghmi_exceptions.RedfishError: Reason.FAULT,
    pyghmi_exceptions.UnrecognizedCertificate: Reason.FAULT,
    pyghmi_exceptions.TemporaryError: Reason.BUSY,
    pyghmi_exceptions.InvalidParameterValue: Reason.FAULT,
    pyghmi_exceptions.BmcErrorException: Reason.FAULT,
    pyghmi_exceptions.UnsupportedFunctionality: Reason.UNSUPPORTED,
    pyghmi_exceptions.BypassGenericBehavior: Reason.FAULT,
    pyghmi_exceptions.FallbackData: Reason.FAULT,
}


def translate(error: Exception) -> SessionError:
    """A pyghmi exception as SessionError; the text decides where the class says little."""
    text = str(error) or type(error).__name__
    by_class = REASON_OF_EXCEPTION[type(error)]
    return SessionError(reason_of_text(text) if by_class == Reason.FAULT else by_class, text)


class Session(PyghmiSession, asyncio.DatagramProtocol):  # type: ignore[misc]
    """One RMCP+ session over its own UDP socket. Use `open_session`; one command at a time."""

    ipmicallback: Callable[[dict[str, Any]], None]

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        """A new object each time: pyghmi would hand out a session it has kept."""
        self = object.__new__(cls)
        self.forbidsock = []
        return self

    def __init__(
        self, host: str, port: int, credentials: Credentials, privilege: int, silence_s: float
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._host, self._udp_port, self._privilege = host, port, privilege
        self._credentials = credentials
        self._silence_s = silence_s
        self._transport: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pending: asyncio.Future[Any] = self._loop.create_future()
        self._resend_s = min(1.0, silence_s / 3)
        self._heard_at = self._asked_at = self._loop.time()
        self._slowest_s = 0.0
        self.logged = 0
        self.privlevel = privilege
        self._attempts = 0

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the log-in."""
        self._transport = cast(asyncio.DatagramTransport, transport)
        super().__init__(
            bmc=self._host,
            userid=self._credentials.username,
            password=self._credentials.password.reveal(),
            port=self._udp_port,
            onlogon=lambda _: None,
            privlevel=self._privilege,
            keepalive=False,
        )

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:  # noqa: ARG002
        """Hand a packet to pyghmi; what it cannot read is dropped, as the specification asks."""
        packet = bytearray(data)
        if len(packet) < 14 or packet[0] != 6 or packet[2:4] != b"\xff\x07":
            return
        self._heard_at = self._loop.time()
        self._slowest_s = max(self._slowest_s, self._heard_at - self._asked_at)
        self._resend_s = max(self._resend_s, 2 * self._slowest_s)
        self._guarded(self._handle_ipmi_packet, packet, None, (data, None, None))

    def _guarded(self, work: Callable[..., Any], *arguments: Any) -> None:
        try:
            work(*arguments)
        except (ValueError, IndexError, KeyError, struct.error) as error:
            log.debug("unreadable packet from BMC %s:%s: %r", self._host, self._udp_port, error)
        except tuple(REASON_OF_EXCEPTION) as error:
            self._fail(translate(error))

    def error_received(self, exc: Exception) -> None:
        """ICMP said that nothing listens or nothing is there."""
        self._fail(SessionError(Reason.REFUSED, getattr(exc, "strerror", "") or str(exc)))

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake whoever waits."""
        self._fail(SessionError(Reason.SILENT, str(exc or "closed")))

    async def wait(self, silence_s: float) -> Any:
        """The pending answer. Raises SessionError(SILENT) after ``silence_s`` without a packet."""
        self._heard_at = self._loop.time()
        while not self._pending.done():
            left_s = self._heard_at + silence_s - self._loop.time()
            if left_s <= 0:
                raise SessionError(Reason.SILENT, f"no answer within {silence_s:g} s{self._at()}")
            await asyncio.wait({self._pending}, timeout=left_s)
        return self._pending.result()

    async def run(self, command: Command) -> Answer:
        """Send one command and return its answer, whatever its completion code.

        A session that worked is given up sooner than a log-in: it may be the session that is
        gone and not the BMC, and a new log-in tells.
        """
        self._expect(self._loop.create_future())
        self.ipmicallback = self._answered
        self._ask(command)
        patience_s = max(0.4 * self._silence_s, 4 * self._slowest_s)
        answer: Answer = await self.wait(min(self._silence_s, patience_s))
        return answer

    def end(self) -> None:
        """Log out (without waiting for the answer) and close the socket."""
        self._stop_timer()
        if self._transport is None or self._transport.is_closing():
            return
        if self.logged:
            self.lastpayload = None
            self._ask(_CLOSE_SESSION._replace(data=struct.pack("<I", self.sessionid)), retry=False)
        self.logged = 0
        self._transport.close()

    @property
    def usable(self) -> bool:
        """Whether commands can be sent."""
        return bool(self._transport and not self._transport.is_closing() and self.logged)

    def _at(self) -> str:
        where = getattr(self, "sessioncontext", None)
        if where == "EXPECTINGRAKP2":
            return " to the user name (some BMCs do not answer when they do not know it)"
        return "" if where in (None, "ESTABLISHED") else " during log-in"

    def _ask(self, command: Command, *, retry: bool = True) -> None:
        self._asked_at = self._loop.time()
        self._send_ipmi_net_payload(*command, retry=retry)

    def _expect(self, pending: asyncio.Future[Any]) -> None:
        self._pending = pending

    def _answered(self, response: dict[str, Any]) -> None:
        self._stop_timer()
        if not self._pending.done():
            self._pending.set_result(Answer(response["code"], bytes(response["data"])))

    def _fail(self, error: SessionError) -> None:
        self._stop_timer()
        if not self._pending.done():
            self._pending.set_exception(error)
            self._pending.exception()  # nobody may be waiting any more

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send_again(self) -> None:
        self._resend_s *= 2
        self.maxtimeout = math.inf  # giving up is decided in wait()
        self._timedout()

    # pyghmi's side: the methods that would use its sockets, clock and thread

    @classmethod
    def _assignsocket(cls, server: Any = None, forbiddensockets: Any = ()) -> None:  # noqa: ARG003
        return None

    def _getmaxtimeout(self) -> float:
        return self._silence_s  # pyghmi would add up its own time-outs, here endless

    def _initsession(self) -> None:
        super()._initsession()
        self._asked_at = self._loop.time()
        self._attempts += 1
        self.localsid += self._attempts * _LOCAL_SESSION_IDS
        self.rmcptag = self._attempts * _LOCAL_SESSION_IDS % 240

    def _xmit_packet(self, retry: bool = True, delay_xmit: Any = None, timeout: Any = None) -> None:  # noqa: ARG002
        if self.sequencenumber:
            self.sequencenumber += 1
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(bytes(self.netpacket))
        self._stop_timer()
        if retry:
            self._timer = self._loop.call_later(self._resend_s, self._send_again)

    def _parse_payload(self, payload: bytearray) -> None:
        # A command sent from within the callback would be forgotten when pyghmi, after it, clears
        # the request that was answered (it clears the latest one); so callbacks come later.
        callback = self.ipmicallback

        def later(answer: dict[str, Any]) -> None:
            self._loop.call_soon(self._guarded, callback, answer)

        self.ipmicallback = later
        super()._parse_payload(payload)

    def _req_priv_level(self) -> None:
        self.logged = 1
        self.ipmicallback = self._got_priv_level
        self._ask(_SET_PRIVILEGE._replace(data=bytes([self.privlevel])))

    def _got_priv_level(self, response: dict[str, Any]) -> None:
        if response["code"] in (0x80, 0x81) and self.privlevel == 4:
            self.privlevel = 3  # logged in, but not as administrator: operator can do all we need
            self._req_priv_level()
        elif response["code"]:
            suffix = f" while requesting privelege level {self.privlevel}"
            self.onlogon({"error": get_ipmi_error(response, suffix=suffix)})
        else:
            self.logging = False
            self.onlogon({"success": True})

    def onlogon(self, parameter: dict[str, Any]) -> None:
        """End the log-in, well or not."""
        if "error" in parameter:
            text = str(parameter["error"])
            self._mark_broken(text)
            self._fail(SessionError(reason_of_text(text), text))
        else:
            self._stop_timer()
            if not self._pending.done():
                self._pending.set_result(None)

    def _mark_broken(self, error: str | None = None) -> None:
        self.lastpayload = None
        self.logging, self.broken, self.errormsg = False, True, error
        self.logged = 0


async def open_session(
    host: str, port: int, credentials: Credentials, privilege: int, silence_s: float
) -> Session:
    """Log in. Raises SessionError; OSError when the name does not resolve or has no route."""
    for what, text, most in (
        ("user names", credentials.username, MOST_USER_NAME_BYTES),
        ("passwords", credentials.password.reveal(), MOST_PASSWORD_BYTES),
    ):
        if len(text.encode()) > most:
            raise SessionError(Reason.AUTH, f"IPMI {what} have at most {most} bytes")
    loop = asyncio.get_running_loop()
    _, session = await loop.create_datagram_endpoint(
        lambda: Session(host, port, credentials, privilege, silence_s), remote_addr=(host, port)
    )
    with contextlib.ExitStack() as undo:
        undo.callback(session.end)
        await session.wait(silence_s)
        undo.pop_all()
    return session
