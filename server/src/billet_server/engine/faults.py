"""Exceptions of adapters as problems on a host."""

from billet_server import errors
from billet_server.core.problems import Fault
from billet_server.core.terms import HostKey

_PROBLEMS: tuple[tuple[type[errors.BilletError], str], ...] = (
    (errors.BmcAddressError, "bmc-address"),
    (errors.BmcUnreachable, "bmc-unreachable"),
    (errors.BmcAuthFailed, "bmc-auth"),
    (errors.BmcUnsupported, "bmc-unsupported"),
    (errors.BmcPowerStuck, "power-stuck"),
    (errors.BmcRejected, "bmc-rejected"),
    (errors.BmcError, "bmc-rejected"),
    (errors.AgentError, "agent-gone"),
)


def fault_of(error: errors.BilletError, host: HostKey) -> Fault:
    """Return the problem that an adapter's error is; the message names the host."""
    for kind, problem in _PROBLEMS:
        if isinstance(error, kind):
            if isinstance(error, errors.BmcError):
                text = f"{host}: {error.what.rstrip('.')}"
                return Fault(problem, text, error.evidence, error.advice or None)
            return Fault(problem, f"{host}: {error}")
    return Fault("internal", f"{host}: {error}")
