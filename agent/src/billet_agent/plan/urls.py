"""Which URLs an image may come from, and how they are shown."""

import ipaddress
from urllib.parse import SplitResult, urlsplit, urlunsplit

from billet_agent.problems import failure


def check_url(url: str) -> SplitResult:
    """Return the parts of an http(s) URL. Raises JobFailed image-unsupported for any other."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or any(ord(char) <= 32 or ord(char) == 127 for char in url):
        raise failure("image-unsupported", f"{url!r} is not an http:// or https:// URL")
    return parts


def check_redirect(origin: str, target: str, first: str) -> None:
    """Refuse redirects to other schemes, from https to http, and to the machine's own or
    link-local addresses (unless the first URL was such a one itself).
    """
    parts = check_url(target)
    if urlsplit(origin).scheme == "https" and parts.scheme == "http":
        raise failure(
            "image-fetch", f"{show_url(origin)} redirects from https to {show_url(target)}"
        )
    if _is_near(parts.hostname) and not _is_near(urlsplit(first).hostname):
        raise failure(
            "image-fetch",
            f"{show_url(origin)} redirects to {show_url(target)}, an address of this machine or "
            "link",
        )


def show_url(url: str) -> str:
    """Return the URL without a password."""
    parts = urlsplit(url)
    if parts.username is None:
        return url
    return urlunsplit(parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]))


def _is_near(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return False
    return address.is_loopback or address.is_link_local
