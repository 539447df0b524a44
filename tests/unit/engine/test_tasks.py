"""Guarded tasks: they come back, they say why, and they can be cancelled."""

import asyncio
import logging

import pytest

from billet_server.engine.tasks import guarded
from billet_server.memory.clock import ManualClock

log = logging.getLogger("billet.test")


async def test_a_task_that_raises_starts_again_after_growing_pauses(caplog):
    clock, starts, failures = ManualClock(), [], []

    async def work():
        starts.append(clock.monotonic())
        raise ValueError("broken pipe dream")

    task = asyncio.create_task(
        guarded("boot-http", work, log, clock, on_failure=lambda *seen: failures.append(seen))
    )
    await clock.advance(130)
    assert starts == [0, 1, 3, 7, 15, 31, 63, 123]
    assert [name for name, _ in failures] == ["boot-http"] * 8
    assert isinstance(failures[0][1], ValueError)
    assert "task boot-http failed" in caplog.text
    assert "broken pipe dream" in caplog.text
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_that_ends_is_an_error_too(caplog):
    clock, starts, failures = ManualClock(), [], []

    async def work():
        starts.append(clock.monotonic())

    task = asyncio.create_task(
        guarded("informer", work, log, clock, on_failure=lambda *seen: failures.append(seen))
    )
    await clock.advance(1)
    assert starts == [0, 1]
    assert failures[0] == ("informer", None)
    assert "task informer ended" in caplog.text
    task.cancel()


async def test_the_pause_starts_over_after_a_long_run():
    clock, starts = ManualClock(), []

    async def work():
        starts.append(clock.monotonic())
        await clock.sleep(100 if len(starts) == 4 else 0)
        raise ValueError

    task = asyncio.create_task(guarded("gateway", work, log, clock))
    await clock.advance(110)
    assert starts[:5] == [0, 1, 3, 7, 108]
    task.cancel()


async def test_cancelling_ends_the_work_as_well():
    clock, ended = ManualClock(), []

    async def work():
        try:
            await clock.sleep(1000)
        finally:
            ended.append(True)

    task = asyncio.create_task(guarded("gateway", work, log, clock))
    await clock.advance(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]
