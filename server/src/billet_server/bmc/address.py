"""BMC addresses (Metal3 ``spec.bmc.address``) as data. Pure: no name is looked up.

Forms: ``ipmi://host[:port]``, ``libvirt://host:port`` (IPMI to a virtual BMC), bare ``host`` or
``host:port`` (IPMI), ``redfish://host[:port][/redfish/v1/Systems/x]`` (https),
``redfish+http://…``, ``redfish+https://…``; the ``//`` may be left out, IPv6 stands in brackets.
"""

import ipaddress
import re
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from billet_server.errors import BmcAddressError

PRIVILEGE_LEVELS = {"CALLBACK": 1, "USER": 2, "OPERATOR": 3, "ADMINISTRATOR": 4}
"""``?privilegelevel=`` words and their IPMI numbers (IPMI 2.0 table 22-28)."""

SCHEMES = ("ipmi", "libvirt", "redfish", "redfish+http", "redfish+https")
METAL3_ONLY = frozenset(
    name + transport
    for name in ("idrac", "idrac-redfish", "idrac-virtualmedia", "redfish-virtualmedia",
                 "redfish-uefihttp", "ilo4", "ilo4-virtualmedia", "ilo5", "ilo5-redfish",
                 "ilo5-virtualmedia", "irmc", "ibmc")
    for transport in ("", "+http", "+https")
)  # fmt: skip
"""Schemes Metal3 has or had and Billet lacks: named, so that the message can say so."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")


class BmcAddress(NamedTuple):
    """A parsed address. ``host`` has no brackets; ``system_path`` "" means the only system."""

    driver: Literal["ipmi", "redfish"]
    scheme: str
    host: str
    port: int
    tls: bool = False
    system_path: str = ""
    privilege_level: str = "ADMINISTRATOR"

    @property
    def endpoint(self) -> str:
        """``host:port`` with brackets where needed: one BMC's name in messages and its lane."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """The Redfish service's URL without a path."""
        return f"{'https' if self.tls else 'http'}://{self.endpoint}"


def parse_address(text: str) -> BmcAddress:
    """``text`` as a BmcAddress. Raises BmcAddressError with the reason and the known forms.

    >>> parse_address("ipmi://[fd00::7]:6230").endpoint
    '[fd00::7]:6230'
    """
    scheme, rest = _split_scheme(text.strip())
    if scheme not in SCHEMES:
        raise BmcAddressError(_unknown_scheme(scheme), "read the BMC address")
    try:
        parts = urlsplit("//" + rest)
    except ValueError as error:
        raise _malformed(scheme, str(error)) from error
    if "@" in parts.netloc:  # never echoed: it may hold a password
        raise _malformed(scheme, "user name and password belong in the Secret, not in the address")
    host, port = _host_and_port(scheme, parts.netloc)
    if scheme.startswith("redfish"):
        tls = scheme != "redfish+http"
        path = _system_path(scheme, parts.path, parts.query)
        return BmcAddress("redfish", scheme, host, port or (443 if tls else 80), tls, path)
    if parts.path not in ("", "/"):
        raise _malformed(scheme, f"an IPMI address has no path, but there is {parts.path!r}")
    level = _privilege_level(scheme, parts.query)
    return BmcAddress("ipmi", scheme, host, port or 623, privilege_level=level)


def _split_scheme(text: str) -> tuple[str, str]:
    """(scheme, what follows ``scheme://``); a bare host is IPMI."""
    if not text:
        raise BmcAddressError(f"The BMC address is empty. {_known()}", "read the BMC address")
    scheme, separator, rest = text.partition("://")
    if separator:
        return scheme.lower(), rest
    first, separator, rest = text.partition(":")
    if not separator or text.startswith("[") or rest.partition("?")[0].isdigit():
        return "ipmi", text
    if _is_ipv6(text):
        return "ipmi", f"[{text}]"
    if _SCHEME.fullmatch(first) and not rest[:1].isdigit():
        return first.lower(), rest
    if first.lower() in {*SCHEMES, *METAL3_ONLY}:
        return first.lower(), rest
    return "ipmi", text


def _host_and_port(scheme: str, netloc: str) -> tuple[str, int | None]:
    if netloc.startswith("["):
        host, _, tail = netloc[1:].partition("]")
        if not _is_ipv6(host):
            raise _malformed(scheme, f"{host!r} in brackets is not an IPv6 address")
    else:
        host, colon, digits = netloc.partition(":")
        tail = colon + digits
        if not _HOST_NAME.fullmatch(host) or len(host) > 253:
            raise _malformed(scheme, f"{host!r} is not a host name or IP address")
    if tail in ("", ":"):
        return host, None
    digits = tail[1:]
    if not (tail[0] == ":" and digits.isascii() and digits.isdigit() and 0 < int(digits) < 65536):
        raise _malformed(scheme, f"{digits!r} is not a port (1 to 65535)")
    return host, int(digits)


def _system_path(scheme: str, path: str, query: str) -> str:
    if query:
        raise _malformed(scheme, "a Redfish address has no options after '?'")
    path = path.rstrip("/")
    if not _PATH.fullmatch(path) or "/.." in path:
        raise _malformed(scheme, f"{path!r} is not the path of a Redfish system")
    return "" if path in ("", "/redfish", "/redfish/v1") else path


def _privilege_level(scheme: str, query: str) -> str:
    level = "ADMINISTRATOR"
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name.lower() != "privilegelevel" or value.upper() not in PRIVILEGE_LEVELS:
            known = ", ".join(PRIVILEGE_LEVELS)
            raise _malformed(scheme, f"?{name}={value} is not ?privilegelevel= with one of {known}")
        level = value.upper()
    return level


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _known() -> str:
    schemes = ", ".join(f"{scheme}://" for scheme in SCHEMES)
    return f"Known schemes: {schemes}; a bare host or host:port means ipmi://."


def _unknown_scheme(scheme: str) -> str:
    if scheme in METAL3_ONLY:
        return f"The BMC scheme {scheme}:// of Metal3 is not supported yet. {_known()}"
    return f"The BMC address has the unknown scheme {scheme!r}. {_known()}"


def _malformed(scheme: str, reason: str) -> BmcAddressError:
    return BmcAddressError(
        f"The {scheme}:// BMC address cannot be used: {reason}. {_known()}", "read the BMC address"
    )
