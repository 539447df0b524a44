"""How the agent comes to trust its server: a CA fetched in the clear, proved by its fingerprint.

The kernel line pins the SHA-256 of the CA's DER certificate; what the URL serves is used only if
it is that certificate, and from then on TLS is verified in full (chain, names, times). A machine
whose clock is wrong would refuse a good certificate, so the clock follows the server's Date.
"""

import errno
import hashlib
import re
import ssl
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import NamedTuple, Protocol

import aiohttp

CLOCK_TOLERANCE_S = 60.0
_FETCH_S = 15.0
_CA_BYTES = 256 * 1024
_NO_NETWORK = {errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL}
_PEM = re.compile(
    r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----", re.ASCII
)


class TrustError(Exception):
    """The CA could not be fetched or is not the pinned one.

    ``local``: this machine has no network yet; no server was bothered.
    """

    def __init__(self, text: str, *, local: bool = False) -> None:
        super().__init__(text)
        self.local = local


class WallClock(Protocol):
    """The machine's wall clock."""

    def now(self) -> float:
        """Return seconds since 1970, UTC."""

    def set(self, seconds: float) -> None:
        """Set it. Raises OSError when this process may not."""


class HostClock:
    """The clock of this machine."""

    def now(self) -> float:
        """Return seconds since 1970, UTC."""
        return time.time()

    def set(self, seconds: float) -> None:
        """Set the kernel's real-time clock."""
        time.clock_settime(time.CLOCK_REALTIME, seconds)


class MemoryClock:
    """The twin: a clock that only remembers."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def now(self) -> float:
        """Return what was set last."""
        return self.seconds

    def set(self, seconds: float) -> None:
        """Remember."""
        self.seconds = seconds


class Fetched(NamedTuple):
    """The CA file as served: its text and the server's time (None: it did not tell)."""

    text: str
    date: float | None


async def fetch_ca(session: aiohttp.ClientSession, url: str) -> Fetched:
    """Fetch the CA file. Raises TrustError."""
    try:
        async with session.get(
            url, timeout=aiohttp.ClientTimeout(total=_FETCH_S), allow_redirects=False
        ) as answer:
            if answer.status != 200:
                raise TrustError(f"{url} answered {answer.status} {answer.reason}")
            body = await answer.content.read(_CA_BYTES)
            return Fetched(body.decode("ascii", errors="replace"), _date(answer.headers))
    except TimeoutError as error:
        raise TrustError(f"{url} did not answer in {_FETCH_S:.0f} s") from error
    except (aiohttp.ClientError, OSError) as error:
        local = isinstance(error, OSError) and error.errno in _NO_NETWORK
        raise TrustError(f"{url}: {error}", local=local) from error


def pick_pinned(text: str, sha256: str, url: str) -> str:
    """Return the PEM certificate that has the fingerprint. Raises TrustError when none has."""
    found = []
    for pem in _PEM.findall(text):
        try:
            der = ssl.PEM_cert_to_DER_cert(pem)
        except ValueError:
            continue
        digest = hashlib.sha256(der).hexdigest()
        if digest == sha256:
            return str(pem)
        found.append(f"sha256:{digest}")
    if not found:
        raise TrustError(f"{url} is no certificate; refusing to talk to this server")
    raise TrustError(
        f"the CA certificate of {url} is {' and '.join(found)}, but the kernel line pins "
        f"sha256:{sha256}; refusing to talk to this server"
    )


def follow_clock(clock: WallClock, date: float | None) -> str | None:
    """Set the clock when it is off by more than a minute; return a line about it, or None."""
    if date is None:
        return None
    off = date - clock.now()
    if abs(off) <= CLOCK_TOLERANCE_S:
        return None
    way = "ahead" if off < 0 else "behind"
    try:
        clock.set(date)
    except OSError as error:
        return f"the clock is {abs(off):.0f} s {way} and could not be set: {error}"
    return f"the clock was {abs(off):.0f} s {way}: set to the server's time"


async def trust_server(
    session: aiohttp.ClientSession, url: str, sha256: str, clock: WallClock
) -> tuple[ssl.SSLContext, str | None]:
    """Return a client context that trusts the pinned CA alone, and a line about the clock."""
    fetched = await fetch_ca(session, url)
    pem = pick_pinned(fetched.text, sha256, url)
    line = follow_clock(clock, fetched.date)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=pem)
    return context, line


def _date(headers: Mapping[str, str]) -> float | None:
    try:
        parsed = parsedate_to_datetime(headers.get("Date", ""))
    except ValueError:
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
