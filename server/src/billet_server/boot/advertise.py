"""Answers IPv6 router solicitations with "there is no router here".

iPXE configures IPv4 and IPv6 together and waits about 13 seconds for a router advertisement
(RFC 4861) on a link that has none. The answer sent here has router lifetime 0 and no prefix:
nobody gets an address or a route from it, and real routers on the link are not disturbed. Kept
apart from dnsmasq, which advertises only where the interface has a routable IPv6 prefix.
"""

import asyncio
import contextlib
import logging
import socket
import struct

log = logging.getLogger(__name__)

ALL_NODES, ALL_ROUTERS = "ff02::1", "ff02::2"
SOLICITATION, ADVERTISEMENT = 133, 134
LEAST_INTERVAL_S = 0.25

_ICMP6_FILTER = 1
_HOP_LIMIT = 255
_SOURCE_LINK_LAYER = 1


def render_advertisement(mac: bytes) -> bytes:
    """Return an ICMPv6 router advertisement with lifetime 0 (the kernel fills the checksum).

    RFC 4861 section 4.2: type, code, checksum, hop limit 0 (unspecified), flags 0, router
    lifetime, reachable and retransmission time 0 (unspecified); then option 1, our address.
    """
    header = struct.pack("!BBHBBHII", ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0)
    return header + struct.pack("!BB6s", _SOURCE_LINK_LAYER, 1, mac)


def is_solicitation(packet: bytes) -> bool:
    """Return whether an ICMPv6 message is a router solicitation (type 133, code 0)."""
    return len(packet) >= 8 and packet[0] == SOLICITATION and packet[1] == 0


class Advertiser:
    """Listens for router solicitations on one interface. Needs CAP_NET_RAW."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._socket: socket.socket | None = None
        self._packet = b""
        self._quiet_until_s = 0.0
        self.answered = 0

    def start(self) -> None:
        """Begin to answer. Where IPv6 is off, says so in the log and does nothing."""
        try:
            self._socket = self._open()
        except OSError as error:
            log.warning(
                "cannot answer IPv6 router solicitations on %s (%s): iPXE will wait 13 s longer",
                self._interface,
                error.strerror,
            )
            return
        asyncio.get_running_loop().add_reader(self._socket, self._readable)

    def stop(self) -> None:
        """Stop answering."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _open(self) -> socket.socket:
        index = socket.if_nametoindex(self._interface)
        endpoint = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        try:
            endpoint.setblocking(False)
            name = self._interface.encode()
            endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
            # RFC 3542: a set bit blocks a type.
            wanted = [0xFFFFFFFF] * 8
            wanted[SOLICITATION >> 5] &= ~(1 << (SOLICITATION & 31))
            endpoint.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("@8I", *wanted))
            group = socket.inet_pton(socket.AF_INET6, ALL_ROUTERS) + struct.pack("@I", index)
            endpoint.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
            endpoint.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOP_LIMIT)
            endpoint.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            self._packet = render_advertisement(_hardware_address(self._interface))
        except OSError:
            endpoint.close()
            raise
        return endpoint

    def _readable(self) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = self._socket.recv(2048)
                if is_solicitation(packet):
                    self._answer()

    def _answer(self) -> None:
        # One advertisement serves everybody on the link, so a flood gets four a second.
        now_s = asyncio.get_running_loop().time()
        if self._socket is None or now_s < self._quiet_until_s:
            return
        try:
            self._socket.sendto(self._packet, (ALL_NODES, 0))
            self.answered += 1
            self._quiet_until_s = now_s + LEAST_INTERVAL_S
        except OSError as error:
            # A link-local address is not usable in its first second (RFC 4862); iPXE asks again.
            log.info("cannot send an advertisement on %s: %s", self._interface, error.strerror)


def _hardware_address(interface: str) -> bytes:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as endpoint:
        endpoint.bind((interface, 0))
        address: bytes = endpoint.getsockname()[4]
    return address[:6].ljust(6, b"\0")
