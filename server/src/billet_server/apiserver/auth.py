"""Who may use the API: whoever holds the token of the state directory."""

import hmac
import secrets
from pathlib import Path

from billet_server import pki
from billet_server.core.terms import Secret

OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/version"})
"""What probes may see without a token; nothing of it is secret."""


def ensure_token(path: Path) -> Secret:
    """Return the token in a file (mode 0600), making it on first use."""
    if path.exists() and (text := path.read_text().strip()):
        return Secret(text)
    token = Secret(secrets.token_urlsafe(32))
    pki.write_private(path, token.reveal().encode() + b"\n")
    return token


def is_authorized(header: str, token: Secret) -> bool:
    """Whether an Authorization header carries the token; the time taken tells nothing of it."""
    scheme, _, given = header.partition(" ")
    same = hmac.compare_digest(given.strip().encode(errors="replace"), token.reveal().encode())
    return scheme.lower() == "bearer" and same
