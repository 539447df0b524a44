"""The one-time token of a boot: who the kernel line was made for, and proof that we made it.

``b1.<claims>.<mac>`` where claims is base64url of ``host_uid|mac|nonce`` and mac is base64url
of HMAC-SHA256 (RFC 2104) over the whole of it. Nothing is stored, so a restarted server, or
another replica with the same key, reads it as well. That only one agent may use it is the
directory's part: it binds a nonce to the first agent that shows it.
"""

import base64
import binascii
import hashlib
import hmac
import re
from typing import NamedTuple

PREFIX = "b1"
MAX_TOKEN_CHARS = 320
MIN_KEY_BYTES = 16

_DOMAIN = b"billet agent token 1\n"
_UID = re.compile(r"[A-Za-z0-9-]{1,64}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_NONCE = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Claim(NamedTuple):
    """What a genuine token says: the host's UID, its boot MAC and the boot nonce."""

    host_uid: str
    mac: str
    nonce: str


def mint(key: bytes, host_uid: str, mac: str, nonce: str) -> str:
    """Return the token, at most `MAX_TOKEN_CHARS` of ``[A-Za-z0-9._-]``.

    ``key`` has at least 16 bytes; ``host_uid`` and ``nonce`` at most 64 characters each;
    ``mac`` is lower case with colons. Raises ValueError for anything else.
    """
    if len(key) < MIN_KEY_BYTES:
        raise ValueError(f"token key has {len(key)} bytes, needs at least {MIN_KEY_BYTES}")
    if not (_UID.fullmatch(host_uid) and _MAC.fullmatch(mac) and _NONCE.fullmatch(nonce)):
        raise ValueError(f"cannot make a token for uid {host_uid!r}, MAC {mac!r}, nonce {nonce!r}")
    claims = f"{PREFIX}." + _encode(f"{host_uid}|{mac}|{nonce}".encode())
    proof = hmac.new(key, _DOMAIN + claims.encode(), hashlib.sha256).digest()
    return f"{claims}.{_encode(proof)}"


def read(key: bytes, token: str) -> Claim | None:
    """Return what a token says when it was minted with ``key``, else None; never raises."""
    if len(token) > MAX_TOKEN_CHARS or not token.isascii():
        return None
    parts = token.split(".")
    if len(parts) != 3 or parts[0] != PREFIX:
        return None
    try:
        host_uid, mac, nonce = _decode(parts[1]).decode("ascii").split("|")
        # Minting again and comparing whole tokens leaves no second spelling of a token.
        expected = mint(key, host_uid, mac, nonce)
    except (ValueError, binascii.Error):
        return None
    if not hmac.compare_digest(expected.encode(), token.encode()):
        return None
    return Claim(host_uid, mac, nonce)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
