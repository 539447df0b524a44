"""Whom to call next, and when."""

import pytest

from billet_agent.backoff import Backoff
from billet_agent.servers import NEXT_S, Rota


def rota(*names: str) -> Rota[str]:
    return Rota(names, Backoff(1.0, 15.0, chance=lambda: 0.0))


def test_one_server_backs_off_as_ever() -> None:
    one = rota("a")
    assert one.single
    assert [one.next_pause_s() for _ in range(6)] == [1, 2, 4, 8, 15, 15]
    assert one.current == "a"
    one.good()
    assert one.next_pause_s() == 1


def test_a_round_is_made_quickly_and_pauses_grow_between_rounds() -> None:
    three = rota("a", "b", "c")
    seen = []
    for _ in range(9):
        seen.append((three.current, three.next_pause_s()))
    assert [name for name, _ in seen] == list("abcabcabc")
    assert [pause for _, pause in seen] == [NEXT_S, NEXT_S, 1, NEXT_S, NEXT_S, 2, NEXT_S, NEXT_S, 4]


@pytest.mark.parametrize("standby_first", [True, False])
def test_while_a_standby_answers_pauses_do_not_grow(standby_first: bool) -> None:
    """A leader that died and one that stands by: the agent looks again every second."""
    two = rota("a", "b")
    pauses = []
    for number in range(40):
        is_standby = (number % 2 == 0) is standby_first
        after = 1.0 if is_standby else None
        pauses.append(two.next_pause_s(standby=is_standby, retry_after_s=after))
    assert set(pauses[::2]) == {NEXT_S}
    assert set(pauses[1::2]) == {1.0}


def test_a_lone_standby_is_asked_again_when_it_says() -> None:
    one = rota("a")
    assert [one.next_pause_s(standby=True, retry_after_s=1.0) for _ in range(5)] == [1.0] * 5


def test_a_pause_that_a_server_asks_for_is_kept() -> None:
    one = rota("a")
    assert one.next_pause_s(retry_after_s=5.0) == 5.0
