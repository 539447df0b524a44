"""The Lease over the API twin, in virtual time."""

import asyncio
import contextlib
from datetime import timedelta

import pytest

from billet_server import errors
from billet_server.core.lease import Terms
from billet_server.engine.fence import FencedAgents, FencedKube
from billet_server.engine.leader import LEASE_NAME, Leader, Phase, ensure_namespace
from billet_server.memory.agents import MemoryAgents
from billet_server.memory.clock import ManualClock
from billet_server.memory.kube import MemoryKube
from billet_server.ports import CONFIG_MAP, LEASE, NAMESPACE
from billet_wire import HandOver, Job

NS = "billet-system"


class Stage:
    """Candidates on one API and one clock; each notes when it works."""

    def __init__(self):
        self.clock = ManualClock()
        self.api = MemoryKube(clock=self.clock, namespaces=(NS,))
        self.phases = {}
        self.working = []
        self._tasks = {}

    async def join(self, name, **terms):
        phases = self.phases[name] = []
        leader = Leader(self.api, self.clock, Terms(name, **terms), NS, on_phase=phases.append)

        async def work():
            self.working.append(name)
            try:
                await asyncio.Event().wait()
            finally:
                self.working.remove(name)

        self._tasks[name] = [
            asyncio.create_task(leader.run()),
            asyncio.create_task(leader.lead(work)),
        ]
        await self.clock.settle()
        return leader

    async def kill(self, name):
        tasks = self._tasks.pop(name)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def lease(self):
        return (await self.api.get(LEASE, NS, LEASE_NAME))["spec"]

    async def close(self):
        for name in list(self._tasks):
            await self.kill(name)


@pytest.fixture
async def stage():
    async with contextlib.AsyncExitStack() as stack:
        made = Stage()
        stack.push_async_callback(made.close)
        yield made


async def test_alone_it_leads_at_once_and_goes_on(stage):
    leader = await stage.join("a")
    assert leader.leading
    assert stage.working == ["a"]
    before = await stage.lease()
    await stage.clock.advance(600)
    assert leader.leading
    after = await stage.lease()
    assert after["renewTime"] > before["renewTime"]
    assert after["acquireTime"] == before["acquireTime"]
    assert after["leaseTransitions"] == 0
    assert stage.phases["a"] == [Phase.LEADING]


async def test_the_second_says_so_and_waits(stage):
    await stage.join("a")
    second = await stage.join("b")
    await stage.clock.advance(600)
    assert second.phase is Phase.STANDBY
    assert "waiting for the lease held by a (billet-system/billet)" in second.describe()
    assert stage.working == ["a"]
    with pytest.raises(errors.NotLeading, match="b may not act: waiting for the lease"):
        second.check()


async def test_a_dead_leader_is_followed_within_its_lease(stage):
    await stage.join("a")
    second = await stage.join("b")
    await stage.clock.advance(60)
    await stage.kill("a")
    died = stage.clock.monotonic()
    await stage.clock.run_until(lambda: second.leading)
    assert stage.clock.monotonic() - died <= 15.1
    assert stage.working == ["b"]
    assert (await stage.lease())["leaseTransitions"] == 1


async def test_who_leaves_in_good_order_is_followed_at_once(stage):
    first = await stage.join("a")
    second = await stage.join("b")
    await stage.clock.advance(60)
    await stage.kill("a")
    await first.release()
    assert not first.leading
    assert (await stage.lease())["holderIdentity"] == ""
    await stage.clock.advance(2.1)
    assert second.leading


async def test_a_standby_that_leaves_disturbs_nobody(stage):
    first = await stage.join("a")
    second = await stage.join("b")
    await stage.kill("b")
    await second.release()
    await stage.clock.advance(60)
    assert first.leading
    assert (await stage.lease())["holderIdentity"] == "a"


async def test_the_same_server_started_again_need_not_wait(stage):
    await stage.join("a")
    await stage.kill("a")
    again = await stage.join("a")
    assert again.leading


async def test_without_the_api_it_stops_before_anybody_else_may_begin(stage):
    first = await stage.join("a")
    await stage.join("b")
    await stage.clock.advance(60)
    stage.api.unavailable = True
    lost = stage.clock.monotonic()
    await stage.clock.run_until(lambda: not first.leading)
    assert stage.clock.monotonic() - lost <= 10.1
    await stage.clock.advance(1)
    assert first.phase is Phase.UNSURE
    assert stage.working == []
    with pytest.raises(errors.NotLeading, match="could not be renewed in time"):
        first.check()


async def test_a_lone_server_goes_on_when_the_api_is_back(stage):
    leader = await stage.join("a")
    stage.api.unavailable = True
    await stage.clock.advance(300)
    stage.api.unavailable = False
    await stage.clock.advance(2)
    assert leader.leading
    assert stage.working == ["a"]
    assert stage.phases["a"] == [Phase.LEADING, Phase.UNSURE, Phase.LEADING]


async def test_a_leader_that_slept_through_its_lease_stands_by(stage):
    """Its tasks stand still (as under SIGSTOP), the other takes over, then it goes on."""
    first = await stage.join("a")
    second = await stage.join("b")
    await stage.kill("a")  # the process is stopped: nothing of it runs
    await stage.clock.run_until(lambda: second.leading)
    with pytest.raises(errors.NotLeading):
        first.check()  # the first thing it would do when it goes on
    going_on = asyncio.create_task(first.run())
    await stage.clock.settle()
    assert first.phase is Phase.STANDBY
    assert second.leading
    going_on.cancel()
    await asyncio.gather(going_on, return_exceptions=True)


async def test_a_machine_that_was_suspended_acts_only_after_renewing(stage):
    leader = await stage.join("a")
    stage.clock._start += timedelta(seconds=60)
    assert not leader.leading, "the monotonic clock stood still, the wall clock did not"
    await stage.clock.advance(2.1)
    assert leader.leading


async def test_a_lease_that_another_took_by_hand_is_let_go(stage):
    leader = await stage.join("a")
    await stage.api.patch(LEASE, NS, LEASE_NAME, {"spec": {"holderIdentity": "z"}})
    await stage.clock.advance(2.1)
    assert leader.phase is Phase.STANDBY
    assert stage.working == []
    await stage.clock.advance(15)
    assert leader.leading


async def test_a_deleted_lease_is_made_again(stage):
    leader = await stage.join("a")
    second = await stage.join("b")
    await stage.clock.advance(5)
    await stage.api.delete(LEASE, NS, LEASE_NAME)
    for _ in range(60):
        await stage.clock.advance(0.5)
        assert len(stage.working) <= 1
    assert leader.leading != second.leading
    assert (await stage.lease())["holderIdentity"] in "ab"


async def test_what_the_work_raises_ends_the_leader(stage):
    leader = await stage.join("a")

    async def work():
        raise errors.BootError("no DHCP")

    with pytest.raises(ExceptionGroup) as caught:
        await leader.lead(work)
    assert caught.value.subgroup(errors.BootError)


async def test_the_fence_lets_read_and_nothing_else(stage):
    await stage.join("a")
    standby = await stage.join("b")
    api = FencedKube(stage.api, standby.check)
    await api.get(LEASE, NS, LEASE_NAME)
    await api.list(LEASE)
    obj = {"metadata": {"name": "x", "namespace": NS}}
    for call in (
        lambda: api.create(CONFIG_MAP, obj),
        lambda: api.patch(CONFIG_MAP, NS, "x", {}),
        lambda: api.replace(CONFIG_MAP, obj),
        lambda: api.delete(CONFIG_MAP, NS, "x"),
    ):
        with pytest.raises(errors.NotLeading):
            await call()
    agents = FencedAgents(MemoryAgents(None), standby.check)
    with pytest.raises(errors.NotLeading):
        await agents.run_job("uid", Job("hand-over/1", HandOver()))
    with pytest.raises(errors.NotLeading):
        await agents.cancel_job("uid", "hand-over/1")
    assert agents.view("uid") is None
    await agents.forget("uid")


async def test_the_namespace_is_made_once():
    api = MemoryKube()
    await ensure_namespace(api, NS)
    await ensure_namespace(api, NS)
    assert await api.get(NAMESPACE, "", NS)


async def test_a_namespace_that_is_missing_is_made(stage):
    api = MemoryKube(clock=stage.clock)
    leader = Leader(api, stage.clock, Terms("a"), NS)
    running = asyncio.create_task(leader.run())
    await stage.clock.advance(2)
    assert leader.leading
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
