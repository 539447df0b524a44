"""Places for operations: never more beginnings than the limit, first come first served."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billet_server.core.capacity import Claim, Operation
from billet_server.core.seen import Rules
from billet_server.core.terms import HostKey
from billet_server.engine.limits import PATIENCE_S, Limits
from billet_server.memory.clock import ManualClock

PROVISION = Operation.PROVISION
HELD = Claim(PROVISION, held=True)


def key(number):
    return HostKey("metal3", f"node{number:05}")


def waits(second, operation=PROVISION):
    return Claim(operation, held=False, since=f"2026-01-01T{second // 3600:02}:00:{second:05}Z")


class Desk:
    """Limits with a record of whom it called."""

    def __init__(self, limit=2):
        self.clock, self.called = ManualClock(), []
        rules = Rules(max_inspecting=limit, max_provisioning=limit, max_cleaning=limit)
        self.limits = Limits(rules, self.clock, self.called.append)

    def says(self, number, claim):
        self.limits.observe(key(number), claim)

    def seat(self, number):
        return self.limits.seats(key(number)).provision

    def news(self):
        called, self.called[:] = [each.name for each in self.called], []
        return called


def test_a_newcomer_is_let_in_while_there_is_a_place():
    desk = Desk()
    assert desk.seat(1).granted
    desk.says(1, HELD)
    assert desk.seat(2).granted
    desk.says(2, HELD)
    assert desk.seat(3) == (False, 1, 2)
    assert desk.limits.in_use(PROVISION) == 2


def test_a_newcomer_stands_behind_those_who_wait_though_a_place_is_free():
    desk = Desk(limit=1)
    desk.says(1, waits(5))
    assert desk.seat(1) == (True, 1, 1)
    assert desk.seat(2) == (False, 2, 1)


def test_the_longest_waiting_is_called_once_and_nobody_else():
    desk = Desk()
    for number in (1, 2):
        desk.says(number, HELD)
    for number, since in ((5, 30), (6, 10), (7, 20)):
        desk.says(number, waits(since))
    assert desk.news() == []
    desk.says(1, None)
    assert desk.news() == ["node00006"]
    assert [desk.seat(number)[:2] for number in (6, 7, 5)] == [(True, 1), (False, 2), (False, 3)]
    desk.says(6, HELD)
    assert desk.news() == []
    desk.says(2, Claim(Operation.CLEAN, held=True))
    assert desk.news() == ["node00007"]


def test_of_one_second_the_names_decide_whatever_the_order_of_arrival():
    desk = Desk(limit=1)
    for number in (3, 1, 2):
        desk.says(number, waits(5))
    assert [desk.seat(number).position for number in (1, 2, 3)] == [1, 2, 3]


def test_a_place_that_is_only_decided_on_counts():
    desk = Desk(limit=1)
    desk.says(1, waits(1))
    desk.says(2, waits(2))
    desk.limits.reserve(key(1), HELD)
    assert desk.limits.in_use(PROVISION) == 1
    assert not desk.seat(2).granted
    assert desk.seat(2).position == 1
    desk.says(1, waits(1))  # an older state of the object comes by while it is written
    assert not desk.seat(2).granted
    desk.says(1, HELD)
    desk.limits.end_reservation(key(1))
    assert desk.limits.in_use(PROVISION) == 1
    assert not desk.seat(2).granted


def test_a_write_that_failed_gives_the_place_back_and_keeps_the_turn():
    desk = Desk(limit=1)
    desk.says(1, waits(1))
    desk.says(2, waits(2))
    desk.limits.reserve(key(1), HELD)
    desk.news()
    desk.limits.end_reservation(key(1))
    assert desk.limits.in_use(PROVISION) == 0
    assert desk.seat(1).granted
    assert not desk.seat(2).granted
    assert desk.news() == ["node00001"]


def test_what_goes_on_without_a_place_counts():
    desk = Desk(limit=1)
    for number in (1, 2, 3):
        desk.says(number, HELD)
    desk.says(4, waits(1))
    desk.says(1, None)
    desk.says(2, None)
    assert desk.news() == []
    assert not desk.seat(4).granted
    desk.says(3, None)
    assert desk.news() == ["node00004"]


async def test_who_does_not_come_is_overtaken_but_not_forgotten():
    desk = Desk(limit=1)
    desk.says(1, waits(1))
    desk.says(2, waits(2))
    assert desk.news() == ["node00001"]
    assert not desk.seat(2).granted
    await desk.clock.advance(PATIENCE_S + 1)
    assert desk.seat(2).granted
    desk.says(2, HELD)
    assert not desk.seat(1).granted
    desk.says(2, None)
    assert desk.news() == ["node00001"]
    assert desk.seat(1).granted


def test_operations_do_not_take_places_of_one_another():
    desk = Desk(limit=1)
    desk.says(1, Claim(Operation.INSPECT, held=True))
    desk.says(2, Claim(Operation.CLEAN, held=True))
    seats = desk.limits.seats(key(3))
    assert (seats.inspect.granted, seats.provision.granted, seats.clean.granted) == (
        False,
        True,
        False,
    )


def test_without_a_limit_nobody_waits():
    desk = Desk(limit=0)
    for number in range(50):
        desk.says(number, HELD)
    desk.says(60, waits(1))  # written while there was a limit
    assert desk.seat(60).granted
    assert desk.seat(61).granted
    assert desk.limits.waiting(PROVISION) == 0
    desk.says(60, HELD)
    desk.says(60, None)
    assert desk.limits.in_use(PROVISION) == 50


def test_a_change_wakes_as_many_as_there_are_places_of_ten_thousand():
    desk = Desk(limit=20)
    for number in range(20):
        desk.says(number, HELD)
    numbers = list(range(20, 10_020))
    random.Random(1).shuffle(numbers)
    for number in numbers:
        desk.says(number, waits(number))
    assert desk.news() == []
    for number in range(3):
        desk.says(number, None)
    assert desk.news() == [f"node{number:05}" for number in (20, 21, 22)]


class Shop:
    """Hosts that want, begin, end, fail and vanish; a server that is killed now and then.

    ``written`` is all that survives: what each object says.
    """

    def __init__(self, limit):
        self.limit, self.second = limit, 0
        self.written: dict[int, Claim] = {}
        self.came: dict[int, int] = {}
        self.begun: list[int] = []
        self.clock = ManualClock()
        self.restart()

    def restart(self):
        rules = Rules(max_provisioning=self.limit)
        self.ready = []
        self.limits = Limits(rules, self.clock, lambda each: self.ready.append(int(each.name[4:])))
        for number, claim in self.written.items():
            self.limits.observe(key(number), claim)

    def write(self, number, claim):
        if claim is None:
            self.written.pop(number, None)
        else:
            self.written[number] = claim
        self.limits.observe(key(number), claim)

    def want(self, number, *, fails=False):
        """One pass over a host that wants a place: as `reconcile` does it."""
        mine = self.written.get(number)
        if mine == HELD:
            return
        self.second += 1
        seat = self.limits.seats(key(number)).provision
        if not seat.granted:
            if mine is None:
                self.came[number] = self.second
                self.write(number, waits(self.second))
            return
        self.limits.reserve(key(number), HELD)
        assert self.limits.in_use(PROVISION) <= self.limit
        if not fails:
            earlier = [n for n, claim in self.written.items() if claim != HELD and n != number]
            before = self.came.get(number, self.second)
            overtakes = [n for n in earlier if self.came[n] < before]
            free = self.limit - sum(claim == HELD for claim in self.written.values())
            assert len(overtakes) < free, "somebody who came earlier was passed over"
            self.begun.append(number)
            self.write(number, HELD)
        self.limits.end_reservation(key(number))

    def end(self, number):
        if self.written.get(number) == HELD:
            self.write(number, None)

    def check(self):
        held = sum(claim == HELD for claim in self.written.values())
        assert held <= self.limit
        assert self.limits.in_use(PROVISION) == held
        assert self.limits.waiting(PROVISION) == len(self.written) - held


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["want", "want", "want", "end", "fail", "vanish", "restart", "turn"]),
        st.integers(0, 11),
    ),
    max_size=120,
)


@settings(max_examples=150, deadline=None)
@given(limit=st.integers(1, 4), actions=ACTIONS)
def test_never_more_than_the_limit_in_order_and_everybody_in_the_end(limit, actions):
    shop = Shop(limit)
    for action, number in actions:
        match action:
            case "want":
                shop.want(number)
            case "fail":
                shop.want(number, fails=True)
            case "end":
                shop.end(number)
            case "vanish":
                shop.write(number, None)
            case "restart":
                shop.restart()
            case "turn":
                for called in shop.ready[:]:
                    if called in shop.written:
                        shop.want(called)
                shop.ready.clear()
        shop.check()
    # Faults have stopped: being called is enough, nobody has to ask on his own account.
    left = [number for number, claim in shop.written.items() if claim != HELD]
    shop.restart()
    for _ in range(60):
        for number in [n for n, claim in shop.written.items() if claim == HELD]:
            shop.end(number)
        called, shop.ready = shop.ready, []
        for number in called:
            if number in shop.written:
                shop.want(number)
        shop.check()
    assert not shop.written
    assert set(left) <= set(shop.begun)


@pytest.mark.parametrize("limit", [1, 3])
def test_a_restart_keeps_the_order(limit):
    shop = Shop(limit)
    for number in (9, 4, 7, 2, 8, 1):
        shop.want(number)
    waiting = [n for n in (9, 4, 7, 2, 8, 1) if shop.written[n] != HELD]
    shop.restart()
    begun = len(shop.begun)
    while any(claim != HELD for claim in shop.written.values()):
        for number in [n for n, claim in shop.written.items() if claim == HELD]:
            shop.end(number)
        called, shop.ready = shop.ready, []
        for number in called:
            shop.want(number)
    assert shop.begun[begun:] == waiting
