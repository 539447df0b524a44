"""The grammar of a BMC address (Metal3 ``spec.bmc.address``), and what is wrong with one.

Admission, the engine and the drivers (`billet_server.bmc.address`) all read it here:
``ipmi://host[:port]``, ``libvirt://…``, ``redfish[+http|+https]://host[:port][/path]``, the last
also as ``idrac-redfish`` and ``ilo5-redfish``, and a bare host, which means ipmi. IPv6 addresses
stand in brackets.
"""

import ipaddress
import re
from urllib.parse import SplitResult, parse_qsl, urlsplit

SCHEMES = ("ipmi", "libvirt", "redfish", "redfish+http", "redfish+https")

ALIASES = {
    name + transport: "redfish" + transport
    for name in ("idrac-redfish", "ilo5-redfish")
    for transport in ("", "+http", "+https")
}
"""Metal3's names for plain Redfish with network boot."""

_BY_NETWORK = "use redfish:// and network boot"
METAL3_ONLY = {
    name + transport: advice
    for name, advice in (
        ("idrac", "use redfish:// (iDRAC 8 and later) or ipmi://"),
        ("idrac-virtualmedia", _BY_NETWORK),
        ("redfish-virtualmedia", _BY_NETWORK),
        ("redfish-uefihttp", _BY_NETWORK),
        ("ilo4", "use ipmi://"),
        ("ilo4-virtualmedia", "use ipmi://"),
        ("ilo5", "use redfish:// or ipmi://"),
        ("ilo5-virtualmedia", _BY_NETWORK),
        ("irmc", "use redfish:// or ipmi://"),
        ("ibmc", "use redfish:// or ipmi://"),
    )
    for transport in ("", "+http", "+https")
}
"""Schemes Metal3 has or had and Billet lacks, and what reaches the same machine instead."""

PRIVILEGE_LEVELS = {"CALLBACK": 1, "USER": 2, "OPERATOR": 3, "ADMINISTRATOR": 4}
"""``?privilegelevel=`` words and their IPMI numbers (IPMI 2.0 table 22-28)."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")
_KNOWN = "supported are " + ", ".join(f"{scheme}://" for scheme in SCHEMES)


def split_scheme(address: str) -> tuple[str, str]:
    """Return (scheme, what follows ``scheme://``); a bare host is ipmi, an alias what it means."""
    scheme, rest = _split(address.strip())
    return ALIASES.get(scheme, scheme), rest


def _split(text: str) -> tuple[str, str]:
    scheme, separator, rest = text.partition("://")
    if separator:
        return scheme.lower(), rest
    first, separator, rest = text.partition(":")
    if not separator or text.startswith("[") or rest.partition("?")[0].isdigit():
        return "ipmi", text
    if is_ipv6(text):
        return "ipmi", f"[{text}]"
    looks_like_scheme = bool(_SCHEME.fullmatch(first)) and not rest[:1].isdigit()
    if looks_like_scheme or first.lower() in {*SCHEMES, *ALIASES, *METAL3_ONLY}:
        return first.lower(), rest
    return "ipmi", text


def address_fault(address: str) -> str:
    """Return what is wrong with a BMC address as a sentence, "" when nothing is."""
    scheme, rest = split_scheme(address)
    if scheme not in SCHEMES:
        if scheme in METAL3_ONLY:
            text = f"the BMC scheme {scheme}:// of Metal3 is not supported yet"
            return f"{text}: {METAL3_ONLY[scheme]}; {_KNOWN}"
        return f"unknown BMC scheme {scheme}://; {_KNOWN}"
    try:
        parts = urlsplit("//" + rest)
    except ValueError:
        return "the host is malformed; an IPv6 address stands in brackets, like ipmi://[fd00::7]"
    if "@" in parts.netloc:
        return "user name and password belong in the Secret, not in the address"
    return _netloc_fault(parts.netloc) or (
        _redfish_fault(parts) if scheme.startswith("redfish") else _ipmi_fault(parts)
    )


def machine_key(address: str) -> str:
    """Return what two addresses of one machine's BMC have in common, "" for none.

    Case, default ports and slashes at the end do not tell machines apart. IPMI and Redfish of
    one BMC look like two machines.
    """
    scheme, rest = split_scheme(address)
    if not address.strip() or address_fault(address):
        return ""
    parts = urlsplit("//" + rest)
    host = (parts.hostname or "").rstrip(".")
    if scheme.startswith("redfish"):
        port = parts.port or (80 if scheme == "redfish+http" else 443)
        return f"redfish {host} {port} {parts.path.rstrip('/')}"
    return f"ipmi {host} {parts.port or 623}"


def is_ipv6(text: str) -> bool:
    """Return whether the text is an IPv6 address."""
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _netloc_fault(netloc: str) -> str:
    if netloc.startswith("["):
        host, _, tail = netloc[1:].partition("]")
        if not is_ipv6(host):
            return f"{host!r} in brackets is not an IPv6 address"
    else:
        host, colon, digits = netloc.partition(":")
        tail = colon + digits
        if not host:
            return "there is no host"
        if not _HOST_NAME.fullmatch(host) or len(host) > 253:
            return f"{host!r} is not a host name or an IP address"
    if tail in ("", ":"):
        return ""
    digits = tail[1:]
    if tail[0] == ":" and digits.isascii() and digits.isdigit() and 0 < int(digits) < 65536:
        return ""
    return f"{digits!r} is not a port (1 to 65535)"


def _redfish_fault(parts: SplitResult) -> str:
    if parts.query:
        return "a Redfish address has no options after '?'"
    path = parts.path.rstrip("/")
    if not _PATH.fullmatch(path) or "/.." in path:
        return f"{path!r} is not the path of a Redfish system"
    return ""


def _ipmi_fault(parts: SplitResult) -> str:
    if parts.path not in ("", "/"):
        return f"an IPMI address has no path, but there is {parts.path!r}"
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name.lower() != "privilegelevel" or value.upper() not in PRIVILEGE_LEVELS:
            known = ", ".join(PRIVILEGE_LEVELS)
            return f"?{name}={value} is not ?privilegelevel= with one of {known}"
    return ""
