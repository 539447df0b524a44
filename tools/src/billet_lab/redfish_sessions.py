"""Who may use a simulated Redfish service: sessions with tokens, and basic authentication."""

import base64
import binascii
import hmac
import secrets
import time
from typing import NamedTuple

SESSION_TIMEOUT_S = 300.0
MOST_SESSIONS = 64


class _Session(NamedTuple):
    token: str
    used_at: float


class Sessions:
    """The open sessions of one service with one user."""

    def __init__(self, username: str, password: str) -> None:
        self.username, self._password = username, password
        self._open: dict[str, _Session] = {}
        self._count = 0

    def check(self, username: str, password: str) -> bool:
        """Whether these are the user's credentials."""
        same_user = hmac.compare_digest(username.encode(), self.username.encode())
        return same_user & hmac.compare_digest(password.encode(), self._password.encode())

    def allows(self, token: str | None, authorization: str | None) -> bool:
        """Whether ``X-Auth-Token`` or ``Authorization: Basic`` of a request is good."""
        if token is not None:
            return self._use(token)
        scheme, _, encoded = (authorization or "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            username, colon, password = base64.b64decode(encoded).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        return bool(colon) and self.check(username, password)

    def begin(self) -> tuple[str, str] | None:
        """A new session's (number, token); None when all places are taken."""
        self._expire()
        if len(self._open) >= MOST_SESSIONS:
            return None
        self._count += 1
        number, token = str(self._count), secrets.token_hex(16)
        self._open[number] = _Session(token, time.monotonic())
        return number, token

    def end(self, number: str) -> bool:
        """Close a session; whether there was one."""
        return self._open.pop(number, None) is not None

    def numbers(self) -> list[str]:
        """The open sessions."""
        self._expire()
        return list(self._open)

    def _use(self, token: str) -> bool:
        self._expire()
        for number, session in self._open.items():
            if hmac.compare_digest(token.encode(), session.token.encode()):
                self._open[number] = session._replace(used_at=time.monotonic())
                return True
        return False

    def _expire(self) -> None:
        oldest = time.monotonic() - SESSION_TIMEOUT_S
        for number in [n for n, session in self._open.items() if session.used_at < oldest]:
            del self._open[number]
