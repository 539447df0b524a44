"""BMC addresses (Metal3 ``spec.bmc.address``) as data. Pure: no name is looked up.

Forms: ``ipmi://host[:port]``, ``libvirt://host:port`` (IPMI to a virtual BMC), bare ``host`` or
``host:port`` (IPMI), ``redfish://host[:port][/redfish/v1/Systems/x]`` (https),
``redfish+http://…``, ``redfish+https://…``, these also as ``idrac-redfish`` and ``ilo5-redfish``;
the ``//`` may be left out, IPv6 stands in brackets.
"""

from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from billet_server.core.bmcaddress import SCHEMES, address_fault, split_scheme
from billet_server.errors import BmcAddressError


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
    fault = address_fault(text) if text.strip() else "it is empty"
    if fault:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise BmcAddressError(
            f"The BMC address cannot be used: {fault}. Known schemes: {known}; a bare host or"
            " host:port means ipmi://.",
            "read the BMC address",
        )
    scheme, rest = split_scheme(text)
    parts = urlsplit("//" + rest)
    host, port = parts.netloc.rpartition("]")[0].lstrip("["), parts.port
    host = host or parts.netloc.partition(":")[0]
    if scheme.startswith("redfish"):
        tls = scheme != "redfish+http"
        path = parts.path.rstrip("/")
        path = "" if path in ("", "/redfish", "/redfish/v1") else path
        return BmcAddress("redfish", scheme, host, port or (443 if tls else 80), tls, path)
    options = dict(parse_qsl(parts.query.lower()))
    level = options.get("privilegelevel", "administrator").upper()
    return BmcAddress("ipmi", scheme, host, port or 623, privilege_level=level)
