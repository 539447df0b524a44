"""A simulated IPMI BMC: pyghmi's `Bmc` class answers, asyncio listens, a MachineControl obeys.

pyghmi's server is corrected where it cannot serve its own client or lies about failures:

- cipher suite 17 (SHA-256) is refused with RMCP+ status 0x11, so that clients come back with 3;
- an unknown user gets status 0x0d in RAKP 2, a wrong password 0x0f in RAKP 4 (it kept silent);
- boot flags are kept as the raw bytes a client wrote (it dropped UEFI and persistence);
- packets come from an asyncio socket instead of pyghmi's process-wide thread, so that several
  BMCs can live in one process and machine calls need no thread.

``python -m billet_lab.bmc ipmi`` runs one with a machine in memory.
"""

import asyncio
import contextlib
import hmac
import logging
import struct
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, cast

from pyghmi.ipmi.bmc import Bmc
from pyghmi.ipmi.private import constants
from pyghmi.ipmi.private.serversession import ServerSession
from pyghmi.ipmi.private.session import Session

from billet_lab.control import BootTarget, MachineControl
from billet_lab.faults import Faults

log = logging.getLogger(__name__)

_NO_CIPHER_SUITE, _UNKNOWN_NAME, _WRONG_INTEGRITY = 0x11, 0x0D, 0x0F
_RAKP2, _RAKP4 = constants.payload_types["rakp2"], constants.payload_types["rakp4"]
_MOST_SESSIONS, _SESSION_IDLE_S = 64, 60.0
_TARGETS = {
    0x00: BootTarget.NONE, 0x04: BootTarget.PXE, 0x08: BootTarget.HDD,
    0x14: BootTarget.CD, 0x18: BootTarget.BIOS_SETUP,
}  # fmt: skip
_SELECTORS = {target: selector for selector, target in _TARGETS.items()}
_VALID, _PERSISTENT, _EFI = 0x80, 0x40, 0x20

Peer = tuple[Any, ...]


class _Client(ServerSession):  # type: ignore[misc]
    """The BMC's side of one client's session."""

    heard_at = 0.0
    clientpriv = 0
    managedsessionid = b"\x00" * 4

    def create_open_session_response(self, request: bytes) -> bytearray:
        """Open Session Response (IPMI 2.0 table 13-10); only cipher suite 3 is on offer."""
        wanted = tuple(request[start + 4] for start in (8, 16, 24)) if len(request) >= 32 else ()
        if wanted != (1, 1, 1):
            return bytearray([request[0], _NO_CIPHER_SUITE, 0, 0]) + bytearray(request[4:8])
        self.kg = self.bmc.kg
        response: bytearray = super().create_open_session_response(request)
        return response

    def _got_rakp1(self, data: bytearray) -> None:
        name = bytes(data[28 : 28 + data[27]]).decode("utf-8", "replace")
        if self.authdata.get(name) is None:
            refusal = bytearray([data[0], _UNKNOWN_NAME, 0, 0]) + self.clientsessionid
            self.send_payload(refusal, _RAKP2, retry=False)
            return
        super()._got_rakp1(data[: 28 + data[27]])

    def _got_rakp3(self, data: bytearray) -> None:
        proof = self.Rc + self.clientsessionid + bytes([self.rolem, len(self.username)])
        expected = hmac.new(self.kuid, bytes(proof) + self.username, self.currhashlib).digest()
        if data[1] == 0 and not hmac.compare_digest(expected, bytes(data[8:28])):
            refusal = bytearray([data[0], _WRONG_INTEGRITY, 0, 0]) + self.clientsessionid
            self.send_payload(refusal, _RAKP4, retry=False)
            return
        super()._got_rakp3(data)

    def handle_client_request(self, request: dict[str, Any]) -> None:
        """Set Session Privilege Level within the BMC's limit; the rest is pyghmi's."""
        if (request["netfn"], request["command"]) == (0x06, 0x3B):
            wanted = request["data"][0] & 0x0F
            if wanted > min(self.maxpriv, self.bmc.most_privilege):
                self.send_ipmi_response(code=0x81)
                return
        super().handle_client_request(request)

    def close_server_session(self) -> None:
        """Forget the client that logged out."""
        self.bmc.forget(self.sockaddr)

    def _xmit_packet(self, retry: bool = True, delay_xmit: Any = None, timeout: Any = None) -> None:  # noqa: ARG002
        if self.sequencenumber:
            self.sequencenumber += 1
        self.bmc.send(bytes(self.netpacket), self.sockaddr)


class IpmiBmc(Bmc, asyncio.DatagramProtocol):  # type: ignore[misc]
    """One BMC for one machine, as the protocol of a UDP endpoint."""

    def __init__(
        self, machine: MachineControl, username: str, password: str, faults: Callable[[], Faults]
    ) -> None:
        self._machine, self._faults = machine, faults
        self._clients: dict[Peer, _Client] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._boot_flags = bytes(5)
        self.most_privilege = 4
        self.uuid = uuid.UUID(machine.uuid)
        self.authdata = {username: password}
        self.kg: bytes | None = None
        self.authcap = struct.pack("9B", 0, 1, 0x80, 0x04, 0x02, 0, 0, 0, 0)
        self.revision = self.deviceid = self.additionaldevices = self.mfgid = self.prodid = 0
        self.firmwaremajor, self.firmwareminor, self.ipmiversion, self.port = 1, 0, 2, 0

    # packets

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Peer) -> None:
        """Answer a packet, now or after the time the ``bmc_slow_s`` switch says."""
        faults = self._faults()
        if faults.bmc_dead:
            return
        self._loop.call_later(faults.bmc_slow_s, self._handle, bytearray(data), addr)

    def send(self, packet: bytes, peer: Peer) -> None:
        """Send, unless the BMC died meanwhile."""
        if not self._faults().bmc_dead and not self._transport.is_closing():
            self._transport.sendto(packet, peer)

    def forget(self, peer: Peer) -> None:
        """Drop a client's session."""
        self._clients.pop(peer, None)

    def _handle(self, packet: bytearray, peer: Peer) -> None:
        if len(packet) < 16 or packet[0] != 6 or packet[2:4] != b"\xff\x07":
            return
        client = self._clients.get(peer)
        try:
            if packet[4] == 6 and packet[5] & 0x3F == 0x10:
                self._open(packet, peer)
            elif packet[4] == 6 and client and (packet[5] & 0x3F or any(packet[6:10])):
                client.heard_at = self._loop.time()
                client._handle_ipmi_packet(packet, qent=(packet, None, None))  # noqa: SLF001
            else:
                self.sessionless_data(packet, peer)
        except (ValueError, IndexError, KeyError, AttributeError, struct.error) as error:
            log.info("%s: dropped a malformed packet from %s: %r", self._machine.name, peer, error)

    def _open(self, packet: bytearray, peer: Peer) -> None:
        now = self._loop.time()
        for known, client in list(self._clients.items()):
            if now - client.heard_at > _SESSION_IDLE_S or len(self._clients) >= _MOST_SESSIONS:
                self.forget(known)
        client = _Client(self.authdata, None, peer, _NoSocket(self), packet[16:], self.uuid, self)
        client.heard_at = now
        self._clients[peer] = client
        Session.bmc_handlers.pop(peer, None)  # pyghmi's process-wide register is not used

    @property
    def serversocket(self) -> "_NoSocket":
        """What pyghmi's sessionless answers are sent through."""
        return _NoSocket(self)

    # commands

    def handle_raw_request(self, request: dict[str, Any], session: _Client) -> None:
        """One authenticated command (appendix G's network functions and numbers)."""
        key, data = (request["netfn"], request["command"]), bytes(request["data"])
        if key == (0x00, 0x02) and data:
            self._start(self._control(data[0], session))
        elif key == (0x00, 0x08) and data:
            self._start(self._set_boot_option(data, session))
        elif key == (0x00, 0x09) and data:
            self._get_boot_option(data[0], session)
        elif key == (0x06, 0x38):
            session.send_ipmi_response(data=list(self.authcap[1:]))
        else:
            super().handle_raw_request(request, session)

    def cold_reset(self) -> int:
        """Forget every session, as a BMC that restarts does."""
        self._loop.call_soon(self._clients.clear)
        return 0

    def get_system_guid(self) -> uuid.UUID:
        """The machine's UUID."""
        return self.uuid

    def get_power_state(self) -> str:
        """``on`` or ``off``; the opposite under the ``wrong_power_state`` switch."""
        return "on" if self._machine.powered_on != self._faults().wrong_power_state else "off"

    async def _control(self, directive: int, session: _Client) -> None:
        """Chassis Control (28.3)."""
        machine = self._machine
        action = {
            0: machine.power_off, 1: machine.power_on, 2: machine.reset,
            3: machine.reset, 5: machine.soft_off,
        }.get(directive)  # fmt: skip
        if action is None:
            session.send_ipmi_response(code=0xCC)
        elif directive in (2, 3) and not machine.powered_on:
            session.send_ipmi_response(code=0xD5)
        else:
            await action()
            session.send_ipmi_response()

    async def _set_boot_option(self, data: bytes, session: _Client) -> None:
        """Set System Boot Options (28.12): 5 sets the flags, 0, 3 and 4 are accepted."""
        parameter = data[0] & 0x7F
        if parameter in (0, 3, 4):
            session.send_ipmi_response()
            return
        if parameter != 5 or len(data) < 6:
            session.send_ipmi_response(code=0x80 if parameter != 5 else 0xC7)
            return
        target = _TARGETS.get(data[2] & 0x3C)
        if target is None:
            session.send_ipmi_response(code=0xCC)
            return
        if not data[1] & _VALID:
            target = BootTarget.NONE
        if not self._faults().ignore_boot_override:
            await self._machine.set_boot(target, persistent=bool(data[1] & _PERSISTENT))
        self._boot_flags = data[1:6]
        session.send_ipmi_response()

    def _get_boot_option(self, selector: int, session: _Client) -> None:
        """Get System Boot Options (28.13): the flags as written until a boot has used them up."""
        if selector & 0x7F != 5:
            session.send_ipmi_response(code=0x80)
            return
        flags = bytearray(self._boot_flags)
        target, persistent = self._machine.boot_override
        if self._faults().ignore_boot_override:
            pass
        elif target is BootTarget.NONE:
            flags = bytearray([flags[0] & _EFI, 0, 0, 0, 0])
        else:
            flags[0] = _VALID | (_PERSISTENT if persistent else 0) | (flags[0] & _EFI)
            flags[1] = _SELECTORS[target]
        session.send_ipmi_response(data=[1, 5, *flags])

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(self._guard(work), name=f"ipmi-bmc {self._machine.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (OSError, RuntimeError):
            log.exception("%s: the machine did not obey", self._machine.name)

    async def close(self) -> None:
        """Stop answering and give up commands under way."""
        self._transport.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _NoSocket:
    """The two socket methods pyghmi calls to answer a packet without a session."""

    def __init__(self, bmc: IpmiBmc) -> None:
        self._bmc = bmc

    def setblocking(self, _flag: int) -> None:
        """Nothing to do: the endpoint never blocks."""

    def sendto(self, packet: bytes, peer: Peer) -> None:
        """Send through the BMC."""
        self._bmc.send(bytes(packet), peer)


async def serve(
    machine: MachineControl,
    *,
    host: str,
    port: int,
    username: str,
    password: str,
    faults: Callable[[], Faults],
    ready: Callable[[int], None] = lambda _port: None,
) -> None:
    """Be the machine's BMC on UDP ``host:port`` until cancelled.

    ``ready`` gets the port once it listens (port 0 takes a free one). Raises OSError when the
    port cannot be had.
    """
    loop = asyncio.get_running_loop()
    transport, bmc = await loop.create_datagram_endpoint(
        lambda: IpmiBmc(machine, username, password, faults), local_addr=(host, port)
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(bmc.close)
        ready(transport.get_extra_info("sockname")[1])
        await asyncio.Event().wait()
