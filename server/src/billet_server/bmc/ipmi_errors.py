"""What went wrong with an IPMI session: reasons for the driver, messages for people. Pure."""

import enum
from typing import NamedTuple

from billet_server.bmc import ipmi_commands as commands
from billet_server.bmc.address import BmcAddress
from billet_server.errors import (
    BmcAuthFailed,
    BmcError,
    BmcRejected,
    BmcUnreachable,
    BmcUnsupported,
)


class Reason(enum.Enum):
    """Why a session failed."""

    SILENT = "no packet came back"
    REFUSED = "ICMP: nothing listens, or nothing is there"
    AUTH = "user name or password refused"
    PRIVILEGE = "the user may not have the privilege level asked for"
    BUSY = "no session free, or not ready yet"
    UNSUPPORTED = "the BMC cannot"
    FAULT = "anything else"


class SessionError(Exception):
    """A session could not be opened, or broke; ``text`` is the library's wording."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


LOGIN_TEXTS: tuple[tuple[str, Reason], ...] = (
    ("Incorrect password", Reason.AUTH),
    ("Unauthorized name", Reason.AUTH),
    ("Invalid user name", Reason.AUTH),
    ("Null user disabled", Reason.AUTH),
    ("Invalid username length", Reason.AUTH),
    ("Username too long", Reason.AUTH),
    ("Password is too long", Reason.AUTH),
    ("Invalid integrity check value", Reason.AUTH),
    ("Invalid RAKP4 integrity code", Reason.AUTH),
    ("Unauthorized role or privilege", Reason.PRIVILEGE),
    ("Invalid role", Reason.PRIVILEGE),
    ("requesting privelege level", Reason.PRIVILEGE),
    ("Insufficient resources", Reason.BUSY),
    ("No available login slots", Reason.BUSY),
    ("No slot available", Reason.BUSY),
    ("No Cipher suite match", Reason.UNSUPPORTED),
    ("Invalid authentication algorithm", Reason.UNSUPPORTED),
    ("MD5 required", Reason.UNSUPPORTED),
    ("timeout", Reason.SILENT),
)
"""How pyghmi words a failed log-in (RMCP+ status codes, IPMI 2.0 table 13-15), to a reason."""


def reason_of_text(text: str) -> Reason:
    """The reason for a log-in error in pyghmi's words; FAULT when it is none we know."""
    return next((reason for words, reason in LOGIN_TEXTS if words in text), Reason.FAULT)


class Attempt(NamedTuple):
    """What was tried, for messages. It has no password, so no message can."""

    address: BmcAddress
    username: str
    action: str

    def could_not(self) -> str:
        """How every message begins."""
        return f"Could not {self.action} through the IPMI BMC at {self.address.endpoint}"

    def advice(self) -> str:
        """How every message about a BMC that answers wrongly ends."""
        host, port = self.address.host, self.address.port
        return f"Try: ipmitool -I lanplus -H {host} -p {port} -U {self.username} -a chassis status"

    def session_error(self, error: SessionError) -> BmcError:
        """A failed session as the server's error."""
        kind, sentence, hint = self._explain(error)
        advice = f"{hint} {self.advice()}".strip()
        return kind(f"{self.could_not()}: {sentence}.", self.action, error.text, advice)

    def _explain(self, error: SessionError) -> tuple[type[BmcError], str, str]:
        text, where = error.text, self.address.endpoint
        match error.reason:
            case Reason.SILENT:
                silence = text.replace("no answer", f"no answer on UDP {where}")
                hint = "Check the address, that IPMI over LAN is enabled, and that no firewall "
                return BmcUnreachable, silence, hint + "drops UDP."
            case Reason.REFUSED:
                return (
                    BmcUnreachable,
                    f"nothing listens on UDP {where} ({text})",
                    "Check the port and that IPMI over LAN is enabled.",
                )
            case Reason.AUTH:
                return (
                    BmcAuthFailed,
                    f"it refused user {self.username!r} ({text})",
                    "Correct username and password in the Secret; the host goes on by itself.",
                )
            case Reason.PRIVILEGE:
                level = self.address.privilege_level
                hint = "Raise the user's level on the BMC, or add ?privilegelevel=OPERATOR to the "
                sentence = f"it refused user {self.username!r} the level {level} ({text})"
                return BmcAuthFailed, sentence, hint + "address."
            case Reason.BUSY:
                return BmcRejected, text, "Close other sessions, or wait until it is ready."
            case Reason.UNSUPPORTED:
                return BmcUnsupported, text, "Use another driver in spec.bmc.address."
            case Reason.FAULT:
                return BmcRejected, text, "Look at the BMC's own log; a BMC reset often helps."

    def code_error(self, code: int) -> BmcError:
        """A completion code other than 0 as the server's error."""
        words = commands.describe_code(code)
        message = f"{self.could_not()}: it answered {words}."
        if code == commands.PRIVILEGE_CODE:
            advice = f"User {self.username!r} needs more rights on the BMC."
            return BmcAuthFailed(message, self.action, words, advice)
        kind = BmcUnsupported if code in commands.UNSUPPORTED_CODES else BmcRejected
        return kind(message, self.action, words)

    def no_way(self, error: OSError) -> BmcError:
        """The name does not resolve, or there is no route."""
        words = error.strerror or str(error)
        return BmcUnreachable(
            f"{self.could_not()}: {words}.",
            self.action,
            words,
            "Check the BMC's name or address, DNS and the route.",
        )

    def too_slow(self, within_s: float) -> BmcError:
        """It answers, but the whole call took too long."""
        return BmcUnreachable(
            f"{self.could_not()}: it answers, but the call was not done within {within_s:g} s.",
            self.action,
            "",
            "It may be overloaded; if this goes on, reset the BMC itself.",
        )
