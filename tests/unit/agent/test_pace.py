"""Rates and times left: an average over the last seconds that is never absurd."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billet_agent.jobs.context import JobContext
from billet_agent.plan.pace import Pace
from billet_wire import Progress


def paced(*readings: tuple[float, int]) -> Pace:
    pace = Pace(0.0)
    for now, done in readings:
        pace.note(done, now)
    return pace


@pytest.mark.parametrize(
    ("readings", "rate", "eta"),
    [
        ([], None, None),
        ([(0.1, 50)], None, None),
        ([(0.5, 50)], 100.0, 9.5),
        ([(1.0, 100), (2.0, 300)], 150.0, 700 / 150),
        ([(1.0, 100), (1.0, 900)], 900.0, 100 / 900),
        ([(1.0, 0)], 0.0, None),
        ([(5.0, 500), (14.0, 500), (15.0, 500)], 0.0, None),
        ([(5.0, 500), (10.0, 500)], 50.0, 10.0),
        ([(5.0, 500), (6.0, 0)], None, None),
        ([(5.0, 500), (6.0, 0), (7.0, 10)], 10.0, 99.0),
        ([(1.0, 1000)], 1000.0, 0.0),
        ([(1.0, 1500)], 1500.0, 0.0),
        ([(9.0, 0), (10.0, 1)], 0.1, 9990.0),
    ],
)
def test_pace(readings: list[tuple[float, int]], rate: float | None, eta: float | None) -> None:
    pace = paced(*readings)
    assert pace.rate_s == (None if rate is None else pytest.approx(rate))
    assert pace.eta_s(1000) == (None if eta is None else pytest.approx(eta))
    assert pace.eta_s(None) is None


def test_a_time_longer_than_a_week_is_no_answer() -> None:
    assert paced((1.0, 1)).eta_s(86400 * 7 + 1) == 86400 * 7
    assert paced((1.0, 1)).eta_s(86400 * 7 + 2) is None


@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 10**9)), min_size=1, max_size=80),
    st.integers(0, 10**12),
)
def test_a_rate_lies_between_the_slowest_and_the_fastest(
    steps: list[tuple[float, int]], total: int
) -> None:
    pace, now, done = Pace(0.0), 0.0, 0
    for span, count in steps:
        now, done = now + span, done + count
        pace.note(done, now)
        rate, eta = pace.rate_s, pace.eta_s(total)
        if rate is not None:
            assert 0 <= rate <= done / 0.5
        if eta is not None:
            assert 0 <= eta <= 7 * 86400


def test_the_last_report_of_a_step_has_no_spike() -> None:
    seen: list[Progress] = []
    now = [0.0]
    context = JobContext(seen.append, clock=lambda: now[0])
    with context.step("fetch"):
        context.expect(1_000_000)
        for tenth in range(1, 11):
            now[0] = tenth / 10
            context.advance(tenth * 100_000 - 1)
        now[0] += 1e-9
        context.advance(1_000_000)
    assert seen[-1].percent == 100
    assert seen[-1].rate_bytes_s == pytest.approx(1_000_000)
    assert seen[-1].eta_s == 0


def test_silence_shows() -> None:
    seen: list[Progress] = []
    now = [0.0]
    context = JobContext(seen.append, clock=lambda: now[0])
    with context.step("fetch"):
        now[0] = 100.0  # what came before the first byte is not counted
        context.expect(1000)
        for second in range(1, 30):
            now[0] += 1
            context.advance(min(second * 100, 500))
    rates = [progress.rate_bytes_s for progress in seen if progress.done_bytes]
    assert rates[0] == 100
    assert rates[-1] == 0
    assert seen[-1].eta_s is None
    assert rates == sorted(rates, reverse=True)  # type: ignore[type-var]
