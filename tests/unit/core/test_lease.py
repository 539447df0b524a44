"""Who may act: each decision, and a simulation of clocks, delays and stops between candidates."""

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billet_server.core import lease
from billet_server.core.lease import Create, Moment, Record, Renew, Take, Terms, View, Wait

NOW = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)
ME = Terms("me")


def record(holder="other", version="7", **more) -> Record:
    return Record(holder, more.pop("duration_s", 15.0), more.pop("transitions", 3), version, **more)


# decisions


def test_without_a_lease_one_is_made():
    assert lease.decide(View(), ME, 0.0) == Create()


def test_a_free_lease_is_taken_at_once():
    free = record("")
    assert lease.decide(View(free, 100.0, missing=False), ME, 100.0) == Take(free)


def test_ones_own_lease_is_renewed_even_after_its_time():
    mine = record("me")
    assert lease.decide(View(mine, 0.0, missing=False), ME, 1000.0) == Renew(mine)


@pytest.mark.parametrize(("now", "left"), [(100.0, 15.0), (114.9, 0.1)])
def test_anothers_lease_is_waited_for_from_when_it_was_seen(now, left):
    decision = lease.decide(View(record(), 100.0, missing=False), ME, now)
    assert isinstance(decision, Wait)
    assert decision.holder == "other"
    assert decision.seconds == pytest.approx(left)


def test_a_lease_that_stood_still_for_its_own_duration_is_taken():
    old = record(duration_s=40.0)
    assert isinstance(lease.decide(View(old, 100.0, missing=False), ME, 139.0), Wait)
    assert lease.decide(View(old, 100.0, missing=False), ME, 140.0) == Take(old)


def test_a_deleted_lease_is_made_anew_only_when_its_holder_has_stopped():
    seen = lease.observe(View(), record(), 100.0)
    gone = lease.observe(seen, None, 101.0)
    assert lease.decide(gone, ME, 110.0) == Wait("other", 5.0)
    assert lease.decide(gone, ME, 115.0) == Create()


def test_only_a_new_version_starts_the_time_anew():
    first = lease.observe(View(), record(version="7", renewed="2030-01-01T00:00:00.000000Z"), 10.0)
    again = lease.observe(first, record(version="7"), 20.0)
    assert again.still_since_s == 10.0
    newer = lease.observe(again, record(version="8", renewed="1970-01-01T00:00:00.000000Z"), 25.0)
    assert newer.still_since_s == 25.0


# acting


@pytest.mark.parametrize(
    ("monotonic", "wall", "may"),
    [(9.9, 9.9, True), (10.0, 0.0, False), (0.0, 10.0, False), (5.0, -3600.0, True)],
)
def test_acting_ends_by_whichever_clock_is_ahead(monotonic, wall, may):
    held, now = Moment(50.0, 1e9), Moment(50.0 + monotonic, 1e9 + wall)
    assert lease.may_act(held, now, ME) is may
    assert (lease.act_left_s(held, now, ME) > 0) is may


def test_who_never_held_it_never_acts():
    assert not lease.may_act(None, Moment(0.0, 0.0), ME)


# the object


def test_what_is_written_is_read_again():
    spec = lease.render_spec(Take(record(transitions=3)), ME, NOW)
    assert spec == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "acquireTime": "2026-01-01T12:00:00.250000Z",
        "renewTime": "2026-01-01T12:00:00.250000Z",
        "leaseTransitions": 4,
    }
    read = lease.parse_lease({"metadata": {"resourceVersion": "9"}, "spec": spec})
    assert (read.holder, read.duration_s, read.transitions, read.version) == ("me", 15.0, 4, "9")


def test_a_renewal_always_changes_something():
    renewed = "2026-01-01T12:00:00.250000Z"
    spec = lease.render_spec(Renew(record("me", renewed=renewed)), ME, NOW)
    assert spec["renewTime"] == "2026-01-01T12:00:00.250001Z"
    assert "acquireTime" not in spec
    odd = lease.render_spec(Renew(record("me", renewed="tomorrow")), ME, NOW)
    assert odd["renewTime"] == "2026-01-01T12:00:00.250000Z"


@pytest.mark.parametrize(
    "spec",
    [None, {}, {"holderIdentity": None, "leaseDurationSeconds": "x", "leaseTransitions": True}],
)
def test_odd_leases_are_free_and_last_as_usual(spec):
    read = lease.parse_lease({"metadata": {"resourceVersion": "1"}, "spec": spec})
    assert read == Record("", 15.0, 0, "1")


# the promise: never two at once


@dataclass
class Candidate:
    """A server in true time: its clock's offset and rate, and what it has under way."""

    name: str
    offset_s: float
    rate: float
    view: View = View()
    held: Moment | None = None
    leads: bool = False
    busy_until: float = 0.0

    @property
    def terms(self) -> Terms:
        return Terms(self.name)

    def clock(self, true_s: float) -> float:
        return self.offset_s + true_s * self.rate

    def acts(self, true_s: float) -> bool:
        local = self.clock(true_s)
        return self.leads and lease.may_act(self.held, Moment(local, local), self.terms)


class Api:
    """The Lease with its versions."""

    def __init__(self) -> None:
        self.spec: dict | None = None
        self.version = 0

    def read(self) -> Record | None:
        if self.spec is None:
            return None
        meta = {"resourceVersion": str(self.version)}
        return lease.parse_lease({"metadata": meta, "spec": self.spec})

    def write(self, decision, spec) -> bool:
        now = self.read()
        known = None if isinstance(decision, Create) else decision.record.version
        if (now.version if now else None) != known:
            return False
        self.spec = {**(self.spec or {}), **spec}
        self.version += 1
        return True


moves = st.tuples(
    st.integers(0, 2),  # who
    st.sampled_from([0.3, 2.0, 4.9, 7.5]),  # true seconds that pass before
    st.floats(0.0, 4.0),  # until the request arrives
    st.floats(0.0, 4.0),  # until the answer is there
    st.sampled_from(["fine", "fine", "fine", "answer lost", "never arrives", "stopped", "release"]),
)


@settings(max_examples=150, deadline=None)
@given(
    rates=st.lists(st.floats(0.9, 1.09), min_size=3, max_size=3),
    offsets=st.lists(st.floats(0.0, 1e6), min_size=3, max_size=3),
    story=st.lists(moves, min_size=20, max_size=80),
)
def test_never_two_act_at_once(rates, offsets, story):
    """Clocks a tenth fast or slow, any offset, slow and lost requests, stopped processes."""
    api, now, pending = Api(), 0.0, []
    group = [Candidate(f"c{n}", offsets[n], rates[n]) for n in range(3)]

    def look():
        acting = [one.name for one in group if one.acts(now)]
        assert len(acting) <= 1, (acting, now)

    def pass_until(end):
        nonlocal now
        while due := [each for each in pending if each[0] <= end]:
            first = min(due, key=lambda each: each[0])
            pending.remove(first)
            now = max(now, first[0])
            look()
            first[1]()
            look()
        now = end
        look()

    def send(one, decision, arrives, answered, fate):
        sent = one.clock(now)
        spec = lease.render_spec(decision, one.terms, NOW)
        taken = []

        def arrive():
            if fate != "never arrives" and api.write(decision, spec):
                taken.append(api.read())

        def answer():
            if fate == "fine" and taken:
                one.view = lease.observe(one.view, taken[0], one.clock(now))
                one.held, one.leads = Moment(sent, sent), True

        pending.append((arrives, arrive))
        pending.append((answered, answer))

    for who, gap, there, back, fate in story:
        pass_until(now + gap)
        one = group[who]
        if one.busy_until > now:
            continue
        one.view = lease.observe(one.view, api.read(), one.clock(now))
        decision = lease.decide(one.view, one.terms, one.clock(now))
        if isinstance(decision, Wait):
            one.leads = False
        elif fate == "stopped":
            one.busy_until = now + 30.0  # decided, then nothing runs, then it sends
            pending.append((now + 30.0, lambda one=one, d=decision: send(one, d, now, now, "fine")))
        elif fate == "release":
            if one.leads and isinstance(decision, Renew):
                one.leads = False
                api.write(decision, lease.render_release(NOW))
        else:
            one.busy_until = now + there + back
            send(one, decision, now + there, now + there + back, fate)
    pass_until(now + 100.0)


def test_the_simulation_can_fail(monkeypatch):
    """With a holder that acts for longer than the others wait, two do act at once."""
    monkeypatch.setattr(lease, "ACT_SHARE", 3.0)
    one, two = Candidate("a", 0.0, 1.0), Candidate("b", 0.0, 1.0)
    api = Api()
    assert api.write(Create(), lease.render_spec(Create(), one.terms, NOW))
    one.held, one.leads = Moment(0.0, 0.0), True
    two.view = lease.observe(two.view, api.read(), 0.0)
    decision = lease.decide(two.view, two.terms, 15.0)
    assert api.write(decision, lease.render_spec(decision, two.terms, NOW))
    two.held, two.leads = Moment(15.0, 15.0), True
    assert one.acts(16.0)
    assert two.acts(16.0)
