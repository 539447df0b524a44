"""Every way an API call can fail becomes an ApiError whose words say what, where and why."""

import httpx2
import pytest
from lightkube.core.exceptions import ConfigError

from billet_server import errors
from billet_server.kube.failures import from_body, translated

ATTEMPT, SERVER = 'read secrets "default/bmc"', "https://api.example:6443"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (400, errors.Invalid),
        (401, errors.ApiError),
        (403, errors.ApiError),
        (404, errors.NotFound),
        (405, errors.ApiError),
        (408, errors.Unavailable),
        (409, errors.Conflict),
        (410, errors.Gone),
        (413, errors.Invalid),
        (415, errors.Invalid),
        (422, errors.Invalid),
        (429, errors.Unavailable),
        (500, errors.Unavailable),
        (502, errors.Unavailable),
        (503, errors.Unavailable),
        (504, errors.Unavailable),
    ],
)
def test_answers(code, expected):
    body = b'{"kind":"Status","reason":"Why","message":"because","details":{"name":"bmc"}}'
    failure = from_body(ATTEMPT, SERVER, code, body)
    assert type(failure) is expected
    assert (failure.status, failure.reason) == (code, "Why")
    assert str(failure).startswith(
        f"{ATTEMPT}: the Kubernetes API at {SERVER} answered {code} Why: because"
    )


@pytest.mark.parametrize(
    ("code", "body", "words"),
    [
        (401, b'{"message":"Unauthorized"}', "check the user in the kubeconfig"),
        (403, b'{"message":"no"}', "check the roles"),
        (404, b"404 page not found", "are Billet's CRDs installed?"),
        (502, b"<html>bad gateway</html>", "answered 502: <html>bad gateway</html>"),
        (500, b"", "answered 500"),
        (500, b"\xff\xfe", "answered 500"),
        (503, b'["?"]', "answered 503"),
    ],
)
def test_answers_that_need_more_words(code, body, words):
    assert words in str(from_body(ATTEMPT, SERVER, code, body))


def test_long_pages_are_cut():
    assert len(str(from_body(ATTEMPT, SERVER, 502, b"x" * 100_000))) < 500


LIBRARY = [
    value
    for name, value in vars(httpx2).items()
    if isinstance(value, type) and issubclass(value, Exception) and not name.startswith("_")
]


def test_the_library_has_exceptions_to_map():
    assert {httpx2.ConnectError, httpx2.ReadTimeout, httpx2.StreamClosed} <= set(LIBRARY)


@pytest.mark.parametrize("exception", LIBRARY, ids=lambda one: one.__name__)
def test_every_exception_of_the_http_library_is_mapped(exception):
    raised = exception.__new__(exception)
    Exception.__init__(raised, "words of the library")
    with pytest.raises(errors.ApiError) as caught, translated(ATTEMPT, SERVER):
        raise raised
    assert ATTEMPT in str(caught.value)
    assert SERVER in str(caught.value)
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize(
    "raised", [TimeoutError(), OSError("broken"), ConfigError("exec failed"), ConnectionError()]
)
def test_what_lies_below_is_mapped(raised):
    with pytest.raises(errors.Unavailable), translated(ATTEMPT, SERVER):
        raise raised


def test_the_innermost_cause_is_told():
    with pytest.raises(errors.Unavailable, match="no route to host"), translated(ATTEMPT, SERVER):
        try:
            raise OSError("no route to host")
        except OSError as exc:
            raise httpx2.ConnectError("All connection attempts failed") from exc


def test_our_own_faults_pass_through():
    with pytest.raises(KeyError), translated(ATTEMPT, SERVER):
        raise KeyError("a bug")
