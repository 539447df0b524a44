"""The pure parts of a download as tables: what an answer means, who is asked next, what waits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billet_agent.plan.bucket import TokenBucket
from billet_agent.plan.mirrors import Mirrors
from billet_agent.plan.transfer import (
    Again,
    Answer,
    Asked,
    Begin,
    Refused,
    Resume,
    Validator,
    judge,
    retry_after_s,
)

V1, V2 = Validator('"v1"'), Validator('"v2"')
OLD = Validator(modified="Tue, 01 Sep 2026 10:00:00 GMT")
NEW = Validator(modified="Wed, 02 Sep 2026 10:00:00 GMT")
WHOLE = Asked()
REST = Asked(40, 100, V1)
OTHERS = Asked(40, 100)
"""The rest, where the bytes so far came from another server."""


def part(span: str = "bytes 40-99/100", length: int | None = 60, **more: str) -> Answer:
    return Answer(206, "Partial Content", length, span, **more)


@pytest.mark.parametrize(
    ("asked", "answer", "verdict"),
    [
        (WHOLE, Answer(200, length=100, etag='"v1"'), Begin(100, V1)),
        (WHOLE, Answer(200), Begin(None, Validator())),
        (WHOLE, Answer(200, length=9, etag='W/"x"'), Begin(9, Validator())),
        (WHOLE, Answer(200, length=9, modified=OLD.modified), Begin(9, OLD)),
        (WHOLE, Answer(200, length=9, encoding="identity"), Begin(9, Validator())),
        (REST, Answer(200, length=100, etag='"v2"'), Begin(100, V2)),
        (REST, part(etag='"v1"'), Resume(100, V1)),
        (REST, part(), Resume(100, Validator())),
        (REST, part(length=None), Resume(100, Validator())),
        (REST, part("bytes 40-99/*"), Resume(100, Validator())),
        (Asked(40, None, V1), part(), Resume(100, Validator())),
        (Asked(40, None, V1), part("bytes 40-99/*"), Resume(None, Validator())),
        (Asked(40, 100, OLD), part(modified=OLD.modified), Resume(100, OLD)),
        (OTHERS, part(etag='"other"'), Resume(100, Validator('"other"'))),
    ],
)
def test_answers_that_are_taken(asked: Asked, answer: Answer, verdict: object) -> None:
    assert judge(asked, answer) == verdict


@pytest.mark.parametrize(
    ("asked", "answer", "words"),
    [
        (WHOLE, part("bytes 0-99/100", 100), "no part was asked for"),
        (REST, part("bytes 0-99/100", 100), "with bytes from 0, not from 40"),
        (REST, part("bytes 40-98/99", 59), "of a file of 99 bytes, not 100"),
        (REST, part("bytes 40-39/100", 0), "contradicts itself"),
        (REST, part("bytes 40-100/100", 61), "contradicts itself"),
        (REST, part(length=61), "with 61 bytes for 60"),
        (REST, part(""), "its Content-Range is ''"),
        (REST, part("bytes=40-99/100"), "its Content-Range is"),
        (REST, part("items 40-99/100"), "its Content-Range is"),
        (REST, part("bytes -40-99/100"), "its Content-Range is"),
        (REST, part("bytes 40-99/100, 100-"), "its Content-Range is"),
        (REST, part(etag='"v2"'), "has changed meanwhile"),
        (Asked(40, 100, OLD), part(modified=NEW.modified), "has changed meanwhile"),
        (OTHERS, part("bytes 40-99/*"), "of unknown length"),
        (OTHERS, part("bytes 40-199/200", 160), "of a file of 200 bytes, not 100"),
        (REST, Answer(416, "Range Not Satisfiable"), "it has no byte 40"),
    ],
)
def test_answers_after_which_it_starts_over(asked: Asked, answer: Answer, words: str) -> None:
    verdict = judge(asked, answer)
    assert isinstance(verdict, Again)
    assert verdict.afresh
    assert words in verdict.reason


@pytest.mark.parametrize(
    ("answer", "wait_s"),
    [
        (Answer(500, "Internal Server Error"), None),
        (Answer(503, retry_after="7"), 7.0),
        (Answer(429, retry_after=" 120 "), 120.0),
        (Answer(408), None),
        (Answer(425), None),
        (Answer(502, retry_after="soon"), None),
    ],
)
def test_answers_after_which_it_is_tried_again(answer: Answer, wait_s: float | None) -> None:
    for asked in (WHOLE, REST):
        verdict = judge(asked, answer)
        assert isinstance(verdict, Again)
        assert not verdict.afresh, "what is there stays there"
        assert verdict.wait_s == wait_s


@pytest.mark.parametrize(
    "answer",
    [
        *(Answer(status) for status in (204, 300, 302, 304, 400, 401, 403, 404, 405, 410, 451)),
        Answer(200, encoding="gzip"),
        part(encoding="br"),
    ],
)
def test_answers_that_end_it(answer: Answer) -> None:
    assert isinstance(judge(REST, answer), Refused)


@pytest.mark.parametrize(
    ("value", "date", "wait_s"),
    [
        ("0", "", 0.0),
        ("15", "", 15.0),
        ("Tue, 01 Sep 2026 10:00:30 GMT", "Tue, 01 Sep 2026 10:00:00 GMT", 30.0),
        ("Tue, 01 Sep 2026 09:00:00 GMT", "Tue, 01 Sep 2026 10:00:00 GMT", 0.0),
        ("Tue, 01 Sep 2026 10:00:30 GMT", "", None),
        ("-1", "", None),
        ("1.5", "", None),
        ("", "", None),
        ("٣", "", None),
        ("9" * 400, "", 999999999.0),
    ],
)
def test_retry_after(value: str, date: str, wait_s: float | None) -> None:
    assert retry_after_s(value, date) == wait_s


TEXT = st.text(alphabet=st.characters(max_codepoint=255), max_size=40)


@given(
    st.builds(Asked, st.integers(0, 200), st.none() | st.integers(0, 200), st.none() | st.just(V1)),
    st.builds(
        Answer,
        st.sampled_from([200, 206, 206, 206, 416, 429, 500, 404]),
        TEXT,
        st.none() | st.integers(0, 200),
        st.builds("bytes {}-{}/{}".format, *[st.integers(0, 200)] * 3) | TEXT,
        *[TEXT] * 5,
    ),
)
def test_only_the_rest_of_the_file_asked_for_goes_on(asked: Asked, answer: Answer) -> None:
    verdict = judge(asked, answer)
    if isinstance(verdict, Resume):
        assert answer.content_range.startswith(f"bytes {asked.offset}-")
        assert asked.offset
        assert asked.total_bytes in {None, verdict.total_bytes}
        assert asked.validator is not None or asked.total_bytes is not None


def test_one_server_pauses_longer_each_time_and_ends() -> None:
    mirrors = Mirrors(("a",), tries=5, pause_s=1)
    assert [mirrors.broke(further=False) for _ in range(5)] == [1, 2, 4, 8, None]
    assert mirrors.failures == 5


def test_coming_further_counts_afresh_but_not_for_ever() -> None:
    mirrors = Mirrors(("a",), tries=3, most_tries=10, pause_s=1)
    pauses = [mirrors.broke(further=number % 2 == 1) for number in range(10)]
    assert pauses == [1, 1, 2, 1, 2, 1, 2, 1, 2, None]


def test_mirrors_take_turns_and_pause_once_a_round() -> None:
    mirrors = Mirrors(("a", "b", "c", "a"), tries=2, pause_s=1)
    seen = []
    while (pause := mirrors.broke(further=False)) is not None:
        seen.append((pause, mirrors.url))
    assert seen == [(0, "b"), (0, "c"), (1, "a"), (0, "b"), (0, "c")]


def test_who_came_further_is_asked_again_unless_it_stalled() -> None:
    mirrors = Mirrors(("a", "b"), pause_s=1)
    assert (mirrors.broke(further=True), mirrors.url) == (1, "a")
    assert (mirrors.broke(further=True, stalled=True), mirrors.url) == (0, "b")
    alone = Mirrors(("a",), pause_s=1)
    assert (alone.broke(further=True, stalled=True), alone.url) == (1, "a")


def test_what_servers_ask_for_is_waited_within_reason() -> None:
    mirrors = Mirrors(("a", "b"), pause_s=1)
    assert mirrors.broke(further=False, wait_s=30) == 0, "another server need not wait"
    assert mirrors.broke(further=False, wait_s=5) == 30
    assert Mirrors(("a",)).broke(further=False, wait_s=1e9) == 600


def test_a_server_that_will_not_is_left_out() -> None:
    mirrors = Mirrors(("a", "b"))
    mirrors.broke(further=False)
    assert mirrors.drop()
    assert (mirrors.url, mirrors.count) == ("a", 1)
    assert not mirrors.drop()


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.booleans(), st.booleans(), st.none() | st.floats(0, 1e6)), max_size=60),
)
def test_tries_always_end_and_pauses_are_bounded(
    count: int, story: list[tuple[bool, bool, float | None]]
) -> None:
    mirrors = Mirrors(tuple(map(str, range(count))), most_tries=50)
    pauses = [
        mirrors.broke(further=further, stalled=stalled, wait_s=wait)
        for further, stalled, wait in story
    ]
    assert all(pause is None or 0 <= pause <= 600 for pause in pauses)
    assert all(pause is None for pause in pauses[49:])


@pytest.mark.parametrize(
    ("story", "waits"),
    [
        ([(0.0, 25)], [0.0]),
        ([(0.0, 125)], [1.0]),
        ([(0.0, 25), (0.0, 25)], [0.0, 0.25]),
        ([(0.0, 25), (0.25, 25)], [0.0, 0.0]),
        ([(0.0, 125), (1.0, 25)], [1.0, 0.25]),
        ([(0.0, 0), (60.0, 125)], [0.0, 1.0]),
        ([(5.0, 25), (4.0, 25), (5.0, 10)], [0.0, 0.25, 0.35]),
    ],
)
def test_bucket_of_100_bytes_a_second(story: list[tuple[float, int]], waits: list[float]) -> None:
    bucket = TokenBucket(100, 0.0)
    assert bucket.burst_bytes == 25
    assert [bucket.take(count, now) for now, count in story] == pytest.approx(waits)


@given(st.integers(1, 10**10), st.lists(st.integers(0, 10**9), min_size=1, max_size=50))
def test_who_waits_keeps_the_rate(rate: int, counts: list[int]) -> None:
    now, bucket = 0.0, TokenBucket(rate, 0.0)
    for count in counts:
        now += bucket.take(count, now)
    assert sum(counts) <= rate * (now + 0.25) * 1.000001 + 1


def test_no_rate_lets_nothing_pass() -> None:
    with pytest.raises(ValueError, match="nothing pass"):
        TokenBucket(0, 0.0)
