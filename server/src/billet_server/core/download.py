"""How an image is to be downloaded: from which mirrors, and how fast at the most."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from billet_server.core.annotations import IMAGE_MIRRORS, IMAGE_RATE_LIMIT
from billet_server.core.problems import Fault
from billet_server.core.validation.disks import url_fault

MOST_MIRRORS: Final = 16
LEAST_RATE: Final = 64 * 1024
"""Slower, servers and proxies take the machine for dead and cut the connection."""

_RATE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)([KMG]?)", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class Download(NamedTuple):
    """Further URLs of the image, tried in turn; bytes a second, None for no limit."""

    mirrors: tuple[str, ...] = ()
    rate_bytes_s: int | None = None


def parse_rate(text: str) -> int | None:
    """Return bytes a second from ``20M``, ``512K``, ``1.5G``, plain bytes; None from ``0``.

    The suffixes are powers of 1024. Raises ValueError with what is wrong.
    """
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise ValueError("is not a number of bytes per second, like 20M (K, M, G: powers of 1024)")
    rate = int(float(match[1]) * _UNITS[match[2].lower()])
    if rate == 0 and float(match[1]) == 0:
        return None
    if rate < LEAST_RATE:
        raise ValueError("is less than 64K bytes per second; 0 is no limit")
    return rate


def parse_mirrors(text: str) -> tuple[str, ...]:
    """Return the URLs in a text, with white space between them. Raises ValueError."""
    urls = tuple(dict.fromkeys(text.split()))
    for url in urls:
        if fault := url_fault(url):
            raise ValueError(f"{url}: {fault}")
    if len(urls) > MOST_MIRRORS:
        raise ValueError(f"{len(urls)} mirrors are more than {MOST_MIRRORS}")
    return urls


def download_of(annotations: Mapping[str, str], rate_bytes_s: int | None) -> Download | Fault:
    """Read a host's annotations; ``rate_bytes_s`` is the server's limit, which one replaces."""
    mirrors: tuple[str, ...] = ()
    for key in (IMAGE_MIRRORS, IMAGE_RATE_LIMIT):
        value = annotations.get(key, "").strip()
        if not value:
            continue
        try:
            if key == IMAGE_MIRRORS:
                mirrors = parse_mirrors(value)
            else:
                rate_bytes_s = parse_rate(value)
        except ValueError as error:
            return Fault("image-unsupported", f"annotation {key} {value[:200]!r}: {error}")
    return Download(mirrors, rate_bytes_s)
