"""Every exception that crosses a module boundary of the server.

    BilletError
    ├── ConfigError              settings or arguments are wrong; carries all faults at once
    ├── ApiError(status, reason) the Kubernetes API answered with an error
    │   ├── NotFound             404
    │   ├── Conflict             409 (also AlreadyExists)
    │   ├── Gone                 410, list again
    │   ├── Invalid              422 / 400
    │   └── Unavailable          no answer, 429, 5xx: time heals it
    │       └── NotLeading       another server has the Lease, or may have it: nothing was sent
    ├── BmcError(action)         a BMC call failed
    │   ├── BmcAddressError      the address cannot be used at all (scheme, syntax)
    │   ├── BmcUnreachable       no answer within the deadline
    │   ├── BmcAuthFailed        the credentials were refused
    │   ├── BmcUnsupported       this BMC cannot do it
    │   └── BmcRejected          the BMC answered with an error
    │       └── BmcPowerStuck    it took the command, and the power state did not change
    ├── AgentError               an agent did not do what it was asked
    └── BootError                DHCP/TFTP/HTTP boot services cannot run

Adapters translate library errors at the call with ``raise ... from``; only the engine decides
about retries. Messages are sentences: what was tried, on what, and what came back.
"""

from collections.abc import Sequence


class BilletError(Exception):
    """Root of the tree; never raised itself."""


class ConfigError(BilletError):
    """Wrong settings; ``faults`` holds one sentence for each."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


class ApiError(BilletError):
    """An answer of the Kubernetes API that is not success.

    ``status`` is the HTTP status (0: no answer), ``reason`` the Status object's reason.
    """

    def __init__(self, message: str, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class NotFound(ApiError):
    """The object or the kind does not exist."""


class Conflict(ApiError):
    """The object changed meanwhile, or exists already."""


class Gone(ApiError):
    """The resourceVersion is too old to watch from; list again."""


class Invalid(ApiError):
    """The API refused the object; the message lists the fields."""


class Unavailable(ApiError):
    """The API did not answer or asked to come back later."""


class NotLeading(Unavailable):
    """The Lease is not this server's (any more), so it did not act."""


class BmcError(BilletError):
    """A BMC call failed. ``action`` names it, e.g. "read power state".

    ``what`` is the message without the ``advice``, which says what a person should do.
    """

    def __init__(
        self, message: str, action: str = "", evidence: str = "", advice: str = ""
    ) -> None:
        super().__init__(f"{message} {advice}".rstrip())
        self.what = message
        self.action = action
        self.evidence = evidence
        self.advice = advice


class BmcAddressError(BmcError):
    """The BMC address cannot be used: unknown scheme, bad host or port."""


class BmcUnreachable(BmcError):
    """No answer within the deadline."""


class BmcAuthFailed(BmcError):
    """User name or password refused."""


class BmcUnsupported(BmcError):
    """The BMC lacks the operation."""


class BmcRejected(BmcError):
    """The BMC answered with an error of its own."""


class BmcPowerStuck(BmcRejected):
    """The BMC took the command and the power state did not change."""


class AgentError(BilletError):
    """An agent is not there, or did not take a message."""


class BootError(BilletError):
    """Boot services could not be started or died."""
