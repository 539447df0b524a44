"""What a Kubernetes API's bad answers and broken connections become: `errors.ApiError`.

Every message says what was tried, where, and what came back; `tests/unit/kube` holds that
each exception of the HTTP library is covered.
"""

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any, Final

import httpx2
import msgspec
from lightkube.core.exceptions import ConfigError as LightkubeConfigError

from billet_server import errors

_CLASSES: Final[dict[int, type[errors.ApiError]]] = {
    400: errors.Invalid,
    404: errors.NotFound,
    408: errors.Unavailable,
    409: errors.Conflict,
    410: errors.Gone,
    413: errors.Invalid,
    415: errors.Invalid,
    422: errors.Invalid,
    429: errors.Unavailable,
}
_ADVICE: Final[dict[int, str]] = {
    401: "the credentials were refused; check the user in the kubeconfig",
    403: "this user may not do that; check the roles bound to it",
}
_EXCERPT_CHARACTERS: Final = 300


def from_status(attempt: str, server: str, code: int, status: Any) -> errors.ApiError:
    """Return the error for a ``Status`` object, or for whatever else came as the body."""
    reason = message = ""
    details: Any = None
    if isinstance(status, dict):
        reason = str(status.get("reason") or "")
        message = str(status.get("message") or "")
        details = status.get("details")
    elif status:
        message = str(status)[:_EXCERPT_CHARACTERS].strip()
    text = f"{attempt}: the Kubernetes API at {server} answered {code} {reason}".rstrip()
    if message:
        text += f": {message}"
    if code in _ADVICE:
        text += f" ({_ADVICE[code]})"
    elif code == 404 and not details:
        text += " (the kind is not served; are Billet's CRDs installed?)"
    cls = _CLASSES.get(code, errors.Unavailable if code >= 500 else errors.ApiError)
    return cls(text, code, reason)


def from_body(attempt: str, server: str, code: int, body: bytes) -> errors.ApiError:
    """Return the error for an answer that is not success."""
    status: Any
    try:
        status = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        status = body.decode(errors="replace")
    return from_status(attempt, server, code, status)


@contextlib.contextmanager
def translated(attempt: str, server: str) -> Iterator[None]:
    """Turn what the HTTP library, its authentication and deadlines raise into ApiErrors."""
    where = f"{attempt}: the Kubernetes API at {server}"
    try:
        yield
    except TimeoutError as exc:
        raise errors.Unavailable(f"{where} did not answer in time") from exc
    except httpx2.TimeoutException as exc:
        raise errors.Unavailable(f"{where} did not answer in time ({_named(exc)})") from exc
    except httpx2.HTTPError as exc:
        raise errors.Unavailable(f"{where} cannot be reached: {_named(exc)}") from exc
    except (httpx2.InvalidURL, httpx2.StreamError, httpx2.CookieConflict) as exc:
        raise errors.ApiError(f"{where} cannot be used: {_named(exc)}") from exc
    except LightkubeConfigError as exc:
        raise errors.Unavailable(f"{where} was not asked, no credentials: {exc}") from exc
    except OSError as exc:
        raise errors.Unavailable(f"{where} cannot be reached: {_named(exc)}") from exc
    except msgspec.DecodeError as exc:
        raise errors.Unavailable(f"{where} answered what is not JSON: {exc}") from exc


def _named(exc: BaseException) -> str:
    """Return an exception's words with the innermost cause, which says most."""
    cause: BaseException = exc
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    words = str(exc) or type(exc).__name__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message}"
    return words if str(cause) in words else f"{words} ({cause or type(cause).__name__})"
