import inspect
import json

import pytest
import requests
from sushy import exceptions

from billet_server import errors
from billet_server.bmc.address import parse_address
from billet_server.bmc.redfish import REASON_OF_EXCEPTION, translate
from billet_server.bmc.redfish_errors import Attempt, Failure, Reason

ATTEMPT = Attempt(parse_address("redfish://bmc/redfish/v1/Systems/1"), "root", "read the power")
CLASSES = [
    value
    for value in vars(exceptions).values()
    if inspect.isclass(value) and issubclass(value, Exception)
]


def response(status, body):
    answer = requests.Response()
    answer.status_code = status
    answer._content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return answer


@pytest.mark.parametrize("kind", CLASSES)
def test_every_sushy_exception_becomes_a_bmc_error(kind):
    if issubclass(kind, exceptions.HTTPError):
        error = kind("GET", "https://bmc/x", response(418, {"error": {"message": "teapot"}}))
    else:
        error = kind("some text")
    assert isinstance(ATTEMPT.error(translate(error)), errors.BmcError)


def test_no_exception_is_mapped_that_sushy_has_not():
    assert set(REASON_OF_EXCEPTION) == set(CLASSES)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>no JSON</html>", "HTTP 400"),
        ({"error": {"message": "short"}}, "HTTP 400: short"),
        ({"error": {"message": "short", "@Message.ExtendedInfo": [
            {"Message": "telling", "Severity": "Critical"}]}}, "HTTP 400: telling"),
        ({"error": {"@Message.ExtendedInfo": [{"Message": "mild"}]}}, "HTTP 400: mild"),
        ({"error": {"@Message.ExtendedInfo": {"Message": "not a list"}}}, "HTTP 400: not a list"),
    ],
)  # fmt: skip
def test_the_bmcs_own_words_are_kept(body, words):
    failure = translate(exceptions.BadRequestError("POST", "https://bmc/x", response(400, body)))
    assert failure == Failure(Reason.REFUSED, words, 400)


REFUSED = "... Failed to establish a new connection: [Errno 111] Connection refused"
NOT_TLS = "[SSL: WRONG_VERSION_NUMBER] wrong version number"
UNTRUSTED = "SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] x"


@pytest.mark.parametrize(
    ("failure", "kind", "words"),
    [
        (Failure(Reason.UNREACHABLE, REFUSED), errors.BmcUnreachable, "(connection refused)"),
        (Failure(Reason.UNREACHABLE, "Error: odd"), errors.BmcUnreachable, "(odd)"),
        (Failure(Reason.UNREACHABLE, UNTRUSTED), errors.BmcUnreachable, "is not trusted"),
        (Failure(Reason.UNREACHABLE, NOT_TLS), errors.BmcUnreachable, "does not speak TLS"),
        (Failure(Reason.AUTH, "HTTP 401"), errors.BmcAuthFailed, "refused user 'root' (HTTP 401)"),
        (Failure(Reason.NOT_FOUND, "HTTP 404"), errors.BmcRejected, "(/redfish/v1/Systems/1)"),
        (Failure(Reason.AMBIGUOUS, "it has 2"), errors.BmcAddressError, "redfish://bmc:443/redfish"),
        (Failure(Reason.UNSUPPORTED, "it cannot x."), errors.BmcUnsupported, "it cannot x. Use"),
        (Failure(Reason.REFUSED, "HTTP 409"), errors.BmcRejected, "it answered HTTP 409."),
        (Failure(Reason.SERVER_ERROR, "HTTP 503"), errors.BmcRejected, "it answered HTTP 503."),
        (Failure(Reason.MALFORMED, "KeyError"), errors.BmcRejected, "not what Redfish says"),
        (Failure(Reason.FAULT, "x"), errors.BmcRejected, "it answered x."),
    ],
)  # fmt: skip
def test_messages_say_what_where_and_what_next(failure, kind, words):
    error = ATTEMPT.error(failure)
    assert type(error) is kind
    assert words in str(error)
    assert str(error).startswith("Could not read the power through the Redfish BMC at bmc:443: ")
    assert "curl -k -u root https://bmc:443/redfish/v1/Systems/1" in str(error)
