"""String formats that CRD schemas may name, as checks for jsonschema-rs.

Names and meaning follow k8s.io/kube-openapi's strfmt; formats not listed here are annotations
only (``password``, ``double`` …).
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from datetime import date, datetime

_DATE_TIME = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}(([:-][0-9A-Fa-f]{2}){2})?")
_UUID = re.compile(r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}")
_DURATION = re.compile(r"-?((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))+|0")


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except (ValueError, binascii.Error):
            return False
        return True

    return check


def _date_time(text: str) -> None:
    if not _DATE_TIME.fullmatch(text):
        raise ValueError(text)
    # Python knows neither a leap second nor more than six digits of a second.
    whole = re.sub(r"\.\d+", "", text.upper()).replace(":60", ":59")
    datetime.fromisoformat(whole)


FORMATS: dict[str, Callable[[str], bool]] = {
    "byte": _parses(lambda text: base64.b64decode(text, validate=True)),
    "cidr": _parses(lambda text: ipaddress.ip_network(text, strict=False)),
    "date": _parses(date.fromisoformat),
    "date-time": _parses(_date_time),
    "duration": lambda text: bool(_DURATION.fullmatch(text)),
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "mac": lambda text: bool(_MAC.fullmatch(text)),
    "uuid": lambda text: bool(_UUID.fullmatch(text)),
}
