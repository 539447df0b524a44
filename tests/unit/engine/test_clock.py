"""Time: the machine's, and the tests' own."""

import asyncio
from datetime import UTC, timedelta

import pytest

from billet_server.engine.clock import SystemClock
from billet_server.memory.clock import ManualClock


async def test_the_machines_clock():
    clock = SystemClock()
    assert clock.now().tzinfo is UTC
    before = clock.monotonic()
    await clock.sleep(0)
    assert clock.monotonic() >= before


async def test_sleepers_wake_in_the_order_of_their_times():
    clock, woken = ManualClock(), []
    start = clock.now()

    async def sleeper(seconds):
        await clock.sleep(seconds)
        woken.append((seconds, clock.monotonic(), clock.now() - start))

    tasks = [asyncio.create_task(sleeper(seconds)) for seconds in (3, 1, 2, 1, 9)]
    await clock.advance(5)
    assert woken == [(s, s, timedelta(seconds=s)) for s in (1, 1, 2, 3)]
    assert (clock.monotonic(), clock.sleepers) == (5, 1)
    await clock.advance(4)
    assert woken[-1][0] == 9
    await asyncio.gather(*tasks)


async def test_sleeps_within_an_advance_are_in_time_too():
    clock, ticks = ManualClock(), []

    async def ticker():
        while True:
            await clock.sleep(2)
            ticks.append(clock.monotonic())

    task = asyncio.create_task(ticker())
    await clock.advance(7)
    assert ticks == [2, 4, 6]
    task.cancel()
    await clock.settle()
    assert clock.sleepers == 0


async def test_run_until_jumps_to_the_moment():
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep(1234))
    await clock.run_until(task.done)
    assert clock.monotonic() == 1234
    with pytest.raises(TimeoutError):
        await clock.run_until(lambda: False)
    task = asyncio.create_task(clock.sleep(50))
    with pytest.raises(TimeoutError):
        await clock.run_until(task.done, limit_s=49)
    task.cancel()
