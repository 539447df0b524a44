"""The agent's settings: from the kernel line, or from flags of the same meaning.

On the kernel line (``/proc/cmdline``)::

    billet.server=HOST:PORT       the agent gateway, dialled as wss://HOST:PORT/agent/v1/link;
                                  several, one for each replica, are divided by commas
    billet.ca=sha256:HEX          fingerprint of the server's CA certificate (of its DER form)
    billet.ca-url=http://...      where that certificate is fetched; it must match billet.ca;
                                  several, in the order of the servers, are divided by commas
    billet.token=TEXT             one-time proof that the server booted this machine
    BOOTIF=01-aa-bb-cc-dd-ee-ff   the interface the firmware booted from (optional)
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

LINK_PATH = "/agent/v1/link"
_BOOTIF = re.compile(r"(?:[0-9a-f]{2}[-:])?((?:[0-9a-f]{2}[-:]){5}[0-9a-f]{2})")


class SettingsError(ValueError):
    """Wrong settings; ``faults`` holds one sentence for each, all at once."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


class Address(NamedTuple):
    """Host name or IP address, and port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True)
class Settings:
    """What the agent needs to know; the token does not show in its representation.

    ``ca_sha256`` is 64 lower-case hex digits, ``boot_mac`` lower case with colons or None.
    """

    server: Address
    ca_sha256: str
    ca_url: str
    token: str = field(repr=False)
    boot_mac: str | None = None
    other_servers: tuple[Address, ...] = ()
    other_ca_urls: tuple[str, ...] = ()

    @property
    def servers(self) -> tuple[Address, ...]:
        """Return every server, the first to call first."""
        return (self.server, *self.other_servers)

    def ca_url_of(self, number: int) -> str:
        """Return where a server's CA is fetched, by the server's place in the list."""
        urls = (self.ca_url, *self.other_ca_urls)
        return urls[number % len(urls)]


def link_url(server: Address) -> str:
    """Return the URL of a server's WebSocket."""
    return f"wss://{server}{LINK_PATH}"


def read_cmdline(text: str) -> dict[str, str]:
    """Return the ``key=value`` words of a kernel line; of a repeated key the last one holds."""
    found: dict[str, str] = {}
    for word in text.split():
        key, sign, value = word.partition("=")
        if sign:
            found[key] = value
    return found


def parse_settings(values: Mapping[str, str]) -> Settings:
    """Check the values of `read_cmdline`. Raises SettingsError with every fault."""
    faults: list[str] = []
    servers = [
        _server(each, faults) for each in dict.fromkeys(values.get("billet.server", "").split(","))
    ]
    fingerprint = _fingerprint(values.get("billet.ca", ""), faults)
    ca_urls = [
        _ca_url(each, faults) for each in dict.fromkeys(values.get("billet.ca-url", "").split(","))
    ]
    token = values.get("billet.token", "")
    if not token:
        faults.append("billet.token is missing: the server puts it on the kernel line")
    boot_mac = _boot_mac(values.get("BOOTIF", ""), faults)
    found = [server for server in servers if server is not None]
    if faults or not found:
        raise SettingsError(faults)
    return Settings(
        found[0], fingerprint, ca_urls[0], token, boot_mac, tuple(found[1:]), tuple(ca_urls[1:])
    )


def _server(value: str, faults: list[str]) -> Address | None:
    if not value:
        faults.append("billet.server is missing: HOST:PORT of the server's agent gateway")
        return None
    try:
        parts = urlsplit(f"//{value}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port or parts.netloc != value or parts.username is not None:
        faults.append(f"billet.server={value} is not HOST:PORT")
        return None
    return Address(host, port)


def _fingerprint(value: str, faults: list[str]) -> str:
    if not value:
        faults.append("billet.ca is missing: sha256:HEX of the server's CA certificate")
        return ""
    kind, _, digest = value.partition(":")
    if kind.lower() != "sha256" or not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        faults.append(f"billet.ca={value} is not sha256: and 64 hex digits")
    return digest.lower()


def _ca_url(value: str, faults: list[str]) -> str:
    if not value:
        faults.append("billet.ca-url is missing: where the server's CA certificate is fetched")
        return ""
    try:
        parts = urlsplit(value)
        good = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        faults.append(f"billet.ca-url={value} is not an http:// URL")
    return value


def _boot_mac(value: str, faults: list[str]) -> str | None:
    if not value:
        return None
    match = _BOOTIF.fullmatch(value.lower())
    if not match:
        faults.append(f"BOOTIF={value} is not a MAC address")
        return None
    return match[1].replace("-", ":")
