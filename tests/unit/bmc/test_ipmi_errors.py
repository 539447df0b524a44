import inspect

import pytest
from pyghmi import exceptions
from pyghmi.ipmi.private import constants

from billet_server import errors
from billet_server.bmc.address import parse_address
from billet_server.bmc.ipmi import REASON_OF_EXCEPTION, translate
from billet_server.bmc.ipmi_errors import Attempt, Reason, SessionError, reason_of_text

ATTEMPT = Attempt(parse_address("ipmi://10.0.0.7:6230"), "root", "switch the machine on")

CLASSES = [
    value
    for value in vars(exceptions).values()
    if inspect.isclass(value) and issubclass(value, Exception)
]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_pyghmi_exception_becomes_a_bmc_error(kind):
    error = kind({}) if kind is exceptions.FallbackData else kind("some text")
    assert isinstance(ATTEMPT.session_error(translate(error)), errors.BmcError)


def test_no_exception_is_mapped_that_pyghmi_has_not():
    assert set(REASON_OF_EXCEPTION) == set(CLASSES)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (0x01, Reason.BUSY),
        (0x0B, Reason.BUSY),
        (0x04, Reason.UNSUPPORTED),
        (0x11, Reason.UNSUPPORTED),
        (0x09, Reason.PRIVILEGE),
        (0x0A, Reason.PRIVILEGE),
        (0x0C, Reason.AUTH),
        (0x0D, Reason.AUTH),
        (0x0F, Reason.AUTH),
        (0x12, Reason.FAULT),
    ],
)
def test_rmcp_status_codes_in_pyghmis_words(code, reason):
    assert reason_of_text(f"{constants.rmcp_codes[code]} in RAKP2") is reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Incorrect password provided", Reason.AUTH),
        ("Invalid RAKP4 integrity code (wrong Kg?)", Reason.AUTH),
        ("Username too long for IPMI, must not exceed 16", Reason.AUTH),
        ("timeout", Reason.SILENT),
        ("x while requesting privelege level 4", Reason.PRIVILEGE),
    ],
)
def test_login_failures_in_pyghmis_words(text, reason):
    assert reason_of_text(text) is reason


@pytest.mark.parametrize(
    ("reason", "kind", "words"),
    [
        (Reason.SILENT, errors.BmcUnreachable, "no answer on UDP 10.0.0.7:6230 within 5 s"),
        (Reason.REFUSED, errors.BmcUnreachable, "nothing listens on UDP 10.0.0.7:6230"),
        (Reason.AUTH, errors.BmcAuthFailed, "refused user 'root'"),
        (Reason.PRIVILEGE, errors.BmcAuthFailed, "?privilegelevel=OPERATOR"),
        (Reason.BUSY, errors.BmcRejected, "no answer within 5 s"),
        (Reason.UNSUPPORTED, errors.BmcUnsupported, "no answer within 5 s"),
        (Reason.FAULT, errors.BmcRejected, "no answer within 5 s"),
    ],
)
def test_messages_say_what_where_and_what_next(reason, kind, words):
    error = ATTEMPT.session_error(SessionError(reason, "no answer within 5 s"))
    assert type(error) is kind
    assert words in str(error)
    assert str(error).startswith("Could not switch the machine on through the IPMI BMC at 10.0.0.7")
    assert "ipmitool -I lanplus -H 10.0.0.7 -p 6230 -U root -a chassis status" in str(error)
    assert error.action == "switch the machine on"
    assert error.evidence == "no answer within 5 s"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0xC1, errors.BmcUnsupported),
        (0xD5, errors.BmcUnsupported),
        (0xD4, errors.BmcAuthFailed),
        (0xC0, errors.BmcRejected),
        (0xCC, errors.BmcRejected),
    ],
)
def test_completion_codes(code, kind):
    error = ATTEMPT.code_error(code)
    assert type(error) is kind
    assert f"0x{code:02x}" in str(error)
