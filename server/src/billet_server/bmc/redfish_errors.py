"""What went wrong with a Redfish BMC: reasons for the driver, messages for people. Pure."""

import enum
from typing import NamedTuple

from billet_server.bmc.address import BmcAddress
from billet_server.errors import (
    BmcAddressError,
    BmcAuthFailed,
    BmcError,
    BmcRejected,
    BmcUnreachable,
    BmcUnsupported,
)


class Reason(enum.Enum):
    """Why a call failed."""

    UNREACHABLE = "no connection, or it broke, or no answer in time"
    AUTH = "401 or 403"
    NOT_FOUND = "404"
    AMBIGUOUS = "no system path given, and not exactly one system"
    UNSUPPORTED = "the system does not offer it"
    REFUSED = "another 4xx"
    SERVER_ERROR = "5xx"
    MALFORMED = "an answer that is not Redfish"
    FAULT = "anything else"


class Failure(NamedTuple):
    """A reason, the library's or the BMC's words, the HTTP status (0: none)."""

    reason: Reason
    text: str
    status: int = 0


class Attempt(NamedTuple):
    """What was tried, for messages. It has no password, so no message can."""

    address: BmcAddress
    username: str
    action: str

    def could_not(self) -> str:
        """How every message begins."""
        return f"Could not {self.action} through the Redfish BMC at {self.address.endpoint}"

    def advice(self) -> str:
        """How most messages end."""
        insecure = "-k " if self.address.tls else ""
        return f"Try: curl {insecure}-u {self.username} {self._url()}"

    def _url(self) -> str:
        return self.address.base_url + (self.address.system_path or "/redfish/v1/Systems")

    def error(self, failure: Failure) -> BmcError:
        """A failure as the server's error."""
        kind, sentence, hint = self._explain(failure)
        advice = f"{hint} {self.advice()}".strip()
        return kind(f"{self.could_not()}: {sentence}.", self.action, failure.text, advice)

    def _explain(self, failure: Failure) -> tuple[type[BmcError], str, str]:
        text = failure.text.rstrip(".")
        match failure.reason:
            case Reason.UNREACHABLE:
                return BmcUnreachable, *self._unreachable(text)
            case Reason.AUTH:
                return (
                    BmcAuthFailed,
                    f"it refused user {self.username!r} ({text})",
                    "Correct username and password in the Secret; the host goes on by itself.",
                )
            case Reason.NOT_FOUND:
                path = self.address.system_path or "none is given"
                return BmcRejected, text, f"Check the system's path in the BMC address ({path})."
            case Reason.AMBIGUOUS:
                url = f"{self.address.scheme}://{self.address.endpoint}/redfish/v1/Systems/…"
                return BmcAddressError, text, f"Put the path of one into the BMC address: {url}."
            case Reason.UNSUPPORTED:
                return BmcUnsupported, text, "Use another driver in spec.bmc.address."
            case Reason.MALFORMED:
                sentence = f"its answer is not what Redfish says it should be: {text}"
                return BmcRejected, sentence, "Newer BMC firmware may help."
            case Reason.REFUSED | Reason.SERVER_ERROR | Reason.FAULT:
                hint = "Look at the BMC's own log; a BMC reset often helps."
                return BmcRejected, f"it answered {text}", hint

    def _unreachable(self, text: str) -> tuple[str, str]:
        where = f"TCP {self.address.endpoint}"
        if "CERTIFICATE_VERIFY_FAILED" in text:
            hint = "Give its CA to the server (--redfish-ca), or set "
            hint += "bmc.disableCertificateVerification on the host."
            return f"its TLS certificate is not trusted ({_cause(text)})", hint
        if "SSLError" in text or "WRONG_VERSION_NUMBER" in text:
            return (
                f"{where} does not speak TLS as expected ({_cause(text)})",
                "Check scheme and port.",
            )
        return (
            f"no answer on {where} ({_cause(text)})",
            "Check the address, the port, and that no firewall is in the way.",
        )

    def too_slow(self, within_s: float) -> BmcError:
        """The whole call took too long."""
        return BmcUnreachable(
            f"{self.could_not()}: the call was not done within {within_s:g} s.",
            self.action,
            "",
            f"It may be overloaded; if this goes on, reset the BMC itself. {self.advice()}",
        )


_CAUSES = (
    ("CERTIFICATE_VERIFY_FAILED", "certificate verify failed"),
    ("Connection refused", "connection refused"),
    ("Name or service not known", "the name does not resolve"),
    ("Temporary failure in name resolution", "the name does not resolve now"),
    ("No route to host", "no route to host"),
    ("Network is unreachable", "network is unreachable"),
    ("Connection reset", "connection reset"),
    ("RemoteDisconnected", "it closed the connection without an answer"),
    ("Remote end closed", "it closed the connection without an answer"),
    ("ConnectTimeout", "no connection in time"),
    ("connect timeout", "no connection in time"),
    ("Read timed out", "connected, but no answer in time"),
    ("WRONG_VERSION_NUMBER", "it answered something that is not TLS"),
)


def _cause(text: str) -> str:
    """The cause inside urllib3's nested wording."""
    known = next((words for mark, words in _CAUSES if mark in text), None)
    return known or text.rpartition("Error: ")[2][:300]
