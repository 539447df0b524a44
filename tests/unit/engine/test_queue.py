"""The work queue: nothing lost, nothing twice at once, nothing early, all in virtual time."""

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billet_server.engine.queue import WorkQueue
from billet_server.memory.clock import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def queue(clock):
    return WorkQueue(clock)


async def take(queue):
    """A key that is ready at this moment."""
    async with asyncio.timeout(1):
        return await queue.get()


async def is_idle(queue, clock):
    """Whether a worker that asks now gets nothing."""
    worker = asyncio.create_task(queue.get())
    await clock.settle()
    idle = not worker.done()
    worker.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await worker
    return idle


async def test_keys_come_in_order_and_once(queue, clock):
    for key in ("a", "b", "a", "c", "b"):
        queue.add(key)
    assert len(queue) == 3
    assert [await take(queue) for _ in range(3)] == ["a", "b", "c"]
    assert queue.busy == 3
    assert await is_idle(queue, clock)


async def test_a_key_added_while_busy_comes_again_after_done(queue, clock):
    queue.add("a")
    await take(queue)
    queue.add("a")
    queue.add("a")
    assert await is_idle(queue, clock)
    queue.done("a")
    assert await take(queue) == "a"
    queue.done("a")
    assert await is_idle(queue, clock)


async def test_done_belongs_to_a_busy_key(queue):
    with pytest.raises(ValueError, match="'a'"):
        queue.done("a")


async def test_a_waiting_worker_gets_a_key_at_its_moment(queue, clock):
    worker = asyncio.create_task(queue.get())
    queue.add_after("a", 10)
    await clock.advance(9.99)
    assert not worker.done()
    await clock.advance(0.01)
    assert worker.result() == "a"
    assert queue.delayed == 0


@pytest.mark.parametrize(("first", "second", "due"), [(10, 5, 5), (5, 10, 5), (7, 7, 7)])
async def test_the_earlier_moment_wins(queue, clock, first, second, due):
    queue.add_after("a", first)
    queue.add_after("a", second)
    assert queue.delayed == 1
    await clock.advance(due - 0.5)
    assert len(queue) == 0
    await clock.advance(0.5)
    assert await take(queue) == "a"
    queue.done("a")
    await clock.advance(60)
    assert len(queue) == 0


async def test_now_wins_over_every_moment(queue, clock):
    queue.add_after("a", 10)
    queue.add("a")
    queue.add_after("a", 5)
    assert await take(queue) == "a"
    queue.done("a")
    await clock.advance(60)
    assert len(queue) == 0


async def test_a_moment_set_while_busy_holds(queue, clock):
    """What a worker does: look, set the next moment, done."""
    queue.add("a")
    await take(queue)
    queue.add_after("a", 5)
    await clock.advance(10)
    assert len(queue) == 0
    queue.done("a")
    assert await take(queue) == "a"


async def test_zero_and_less_is_now(queue):
    queue.add_after("a", 0)
    queue.add_after("b", -3)
    assert len(queue) == 2


async def test_forget_drops_the_moment_but_not_a_change(queue, clock):
    queue.add_after("a", 5)
    queue.forget("a")
    queue.forget("unknown")
    queue.add("b")
    queue.forget("b")
    await clock.advance(10)
    assert [await take(queue)] == ["b"]
    assert len(queue) == 0


async def test_an_earlier_moment_re_arms_the_one_timer(queue, clock):
    for number in range(100):
        queue.add_after(number, 1000 - number)
        await clock.settle()
        assert clock.sleepers == 1
    await clock.advance(901)
    assert len(queue) == 1
    assert await take(queue) == 99


async def test_close_stops_the_timer(queue, clock):
    queue.add_after("a", 5)
    await clock.settle()
    queue.close()
    await clock.settle()
    assert clock.sleepers == 0


async def test_outdated_moments_do_not_pile_up(queue):
    for number in range(10_000):
        queue.add_after("a", 3600 - number * 0.1)
        queue.add_after("b", 50)
        queue.forget("b")
    assert len(queue._heap) < 200


async def test_a_cancelled_worker_passes_its_wake_up_on(queue, clock):
    first, second = (asyncio.create_task(queue.get()) for _ in range(2))
    await clock.settle()
    queue.add("a")
    first.cancel()
    await clock.settle()
    assert second.result() == "a"


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "after", "forget", "pass"]),
        st.integers(0, 4),
        st.floats(0, 20, allow_nan=False),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(ACTIONS, st.integers(1, 3), st.lists(st.floats(0, 3), min_size=1, max_size=5))
def test_never_lost_never_at_once(actions, workers, work_s):
    """Whatever is added is looked at after it was added, by one worker at a time."""

    async def main():
        clock = ManualClock()
        queue = WorkQueue(clock)
        busy, starts = set(), []

        async def work(number):
            while True:
                key = await queue.get()
                assert key not in busy
                busy.add(key)
                starts.append((clock.monotonic(), key))
                await clock.sleep(work_s[len(starts) % len(work_s)])
                busy.discard(key)
                queue.done(key)

        tasks = [asyncio.create_task(work(number)) for number in range(workers)]
        wanted = []  # (key, whether now, starts so far)
        for action, key, seconds in actions:
            if action == "add":
                queue.add(key)
                wanted.append((key, True, len(starts)))
            elif action == "after":
                queue.add_after(key, seconds)
                wanted.append((key, False, len(starts)))
            elif action == "forget":
                queue.forget(key)
                wanted = [one for one in wanted if one[0] != key or one[1]]
            else:
                await clock.advance(seconds)
        await clock.advance(300)
        for task in tasks:
            assert not task.done()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for key, _, since in wanted:
            assert any(one == key for _, one in starts[since:]), (key, starts)
        assert (len(queue), queue.busy, queue.delayed) == (0, 0, 0)

    asyncio.run(main())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.01, 100)), min_size=1, max_size=30))
def test_each_key_comes_at_its_earliest_moment(moments):
    async def main():
        clock = ManualClock()
        queue = WorkQueue(clock)
        for key, seconds in moments:
            queue.add_after(key, seconds)
        seen = {}

        async def work():
            while True:
                key = await queue.get()
                assert key not in seen
                seen[key] = clock.monotonic()
                queue.done(key)

        task = asyncio.create_task(work())
        await clock.advance(101)
        task.cancel()
        earliest = {}
        for key, seconds in moments:
            earliest[key] = min(seconds, earliest.get(key, seconds))
        assert seen == pytest.approx(earliest)

    asyncio.run(main())
