"""A machine's first question, without a machine: run by test_dhcp through ``ip netns exec``.

Arguments: interface, and JSON with arch (option 93), vendor (option 60), ipxe (bool), tftp
(whether to fetch the file named), proxy (the address of a proxyDHCP server to ask at port 4011
as UEFI does when it has an address, or ""). Writes JSON: file, next server, options (code to
hex) and the size of the file fetched.
"""

import json
import os
import socket
import struct
import sys

MAC = bytes.fromhex("525400aa0009")
OWN_ADDRESS = "172.22.0.3"
COOKIE = bytes.fromhex("63825363")
DEADLINE_S = 10.0


def option(code: int, value: bytes) -> bytes:
    return bytes([code, len(value)]) + value


def question(given: dict) -> bytes:
    """A DHCPDISCOVER, or a DHCPREQUEST to a proxy (RFC 2131), with the options of RFC 4578."""
    flags, ciaddr, kind = 0x8000, bytes(4), 1
    if given["proxy"]:
        flags, ciaddr, kind = 0, socket.inet_aton(OWN_ADDRESS), 3
    fixed = struct.pack("!BBBB4sHH", 1, 1, 6, 0, os.urandom(4), 0, flags)
    fixed += ciaddr + bytes(12) + MAC.ljust(16, b"\0") + bytes(192)
    options = option(53, bytes([kind])) + option(60, given["vendor"].encode())
    options += option(93, struct.pack("!H", given["arch"])) + option(94, b"\1\2\1")
    options += option(97, bytes(17)) + option(55, bytes([1, 3, 6, 43, 54, 60, 66, 67, 97, 175]))
    if given["ipxe"]:
        options += option(77, b"iPXE") + option(175, option(19, b"\1"))
    return fixed + COOKIE + options + b"\xff"


def parse_options(packet: bytes) -> dict[int, bytes]:
    options, at = {}, 240
    while at < len(packet) and packet[at] != 255:
        if packet[at] == 0:
            at += 1
            continue
        code, length = packet[at], packet[at + 1]
        options[code] = packet[at + 2 : at + 2 + length]
        at += 2 + length
    return options


def fetch_size(server: str, name: str) -> int:
    """Fetch a file by TFTP in octet mode (RFC 1350) and return its size."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        endpoint.settimeout(DEADLINE_S)
        endpoint.sendto(b"\0\1" + name.encode() + b"\0octet\0", (server, 69))
        size, length = 0, 512
        while length == 512:
            packet, peer = endpoint.recvfrom(2048)
            assert packet[:2] == b"\0\3", packet
            endpoint.sendto(b"\0\4" + packet[2:4], peer)
            length = len(packet) - 4
            size += length
        return size


def main(interface: str, given: dict) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        endpoint.settimeout(DEADLINE_S)
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        endpoint.bind(("", 68))
        server = (given["proxy"], 4011) if given["proxy"] else ("255.255.255.255", 67)
        endpoint.sendto(question(given), server)
        offer = endpoint.recv(2048)
    name = offer[108:236].rstrip(b"\0").decode()
    server = socket.inet_ntoa(offer[20:24])
    answer = {
        "file": name,
        "server": server,
        "address": socket.inet_ntoa(offer[16:20]),
        "options": {code: value.hex() for code, value in parse_options(offer).items()},
        "size": fetch_size(server, name) if given["tftp"] else None,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
