import asyncio
import subprocess
import sys
import threading

import pytest

from billet_server.bmc.blocking import BlockingPool


async def test_results_and_errors_come_back():
    pool = BlockingPool(2)
    assert await pool.run(lambda: 7, 5) == 7
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 // 0, 5)


async def test_no_more_threads_than_places_even_after_a_deadline():
    pool, go = BlockingPool(1), threading.Event()
    with pytest.raises(TimeoutError):
        await pool.run(lambda: go.wait(10), 0.05)
    waiting = asyncio.create_task(pool.run(lambda: "second", 5))
    await asyncio.sleep(0.05)
    assert not waiting.done(), "the first one's thread still has the only place"
    go.set()
    assert await waiting == "second"


async def test_a_cancelled_call_frees_its_place_when_its_thread_ends():
    pool, go = BlockingPool(1), threading.Event()
    task = asyncio.create_task(pool.run(lambda: go.wait(10), 5))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    assert await pool.run(lambda: 1, 5) == 1


def test_a_stuck_thread_does_not_hold_up_the_exit():
    program = (
        "import asyncio, contextlib, time\n"
        "from billet_server.bmc.blocking import BlockingPool\n"
        "async def main():\n"
        "    with contextlib.suppress(TimeoutError):\n"
        "        await BlockingPool(1).run(lambda: time.sleep(100), 0.05)\n"
        "asyncio.run(main())\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=20, check=False).returncode == 0
