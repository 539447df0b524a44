"""Machines that must not be switched off are restarted; the others never are."""

import pytest

from billet_server.core.effects import NetworkBoot, PowerCycle, PowerOff, RestartFromDisk
from billet_server.core.host import parse_host
from billet_server.core.terms import Credentials, PowerState, Secret
from billet_server.engine.perform import Performer
from billet_server.errors import BmcRejected
from engine_rig import Rig

CREDENTIALS = Credentials("admin", Secret("secret"))


@pytest.fixture
async def rig():
    rig = Rig()
    rig.machine.on_boot = lambda _: None
    rig.machine.power = PowerState.ON
    rig.api.put_namespace("metal3")
    return rig


async def perform(rig: Rig, effect, **spec):
    await rig.add_host(**spec)
    performer = Performer(rig.api, rig.bmcs, rig.agents, lambda *_: None)
    return await performer.perform(effect, parse_host(await rig.host()), CREDENTIALS)


@pytest.mark.parametrize("effect", [NetworkBoot("0", None), RestartFromDisk(None)])
@pytest.mark.parametrize("never_off", [True, False])
async def test_boots_switch_off_only_where_that_is_allowed(rig, effect, never_off):
    outcome = await perform(rig, effect, online=True, disablePowerOff=never_off)
    assert (outcome.fault, outcome.power) == (None, PowerState.ON)
    assert ("power_off" in rig.machine.calls) is not never_off
    assert ("power_cycle" in rig.machine.calls) is never_off
    (boot,) = rig.machine.boots
    assert boot is not None, "the boot device was set before the machine booted"


@pytest.mark.parametrize("known", [True, False])
async def test_a_soft_restart_falls_back_to_a_reset(rig, known):
    rig.machine.soft_cycle_known = known
    outcome = await perform(rig, PowerCycle(soft=True))
    assert (outcome.fault, outcome.power) == (None, PowerState.ON)
    assert rig.machine.calls == (["soft_cycle"] if known else ["soft_cycle", "power_cycle"])
    assert len(rig.machine.boots) == 1


@pytest.mark.parametrize(("works", "known"), [(True, True), (False, True), (True, False)])
async def test_a_soft_off_that_is_ignored_or_unknown_ends_in_a_hard_one(rig, works, known):
    rig.machine.soft_off_works, rig.machine.soft_off_known = works, known
    rig.bmcs.soft_off_s = 0.01
    outcome = await perform(rig, PowerOff(soft=True))
    assert (outcome.fault, outcome.power) == (None, PowerState.OFF)
    assert rig.machine.power is PowerState.OFF
    assert ("power_off" in rig.machine.calls) is not (works and known)


async def test_a_hard_off_asks_nobody(rig):
    await perform(rig, PowerOff(soft=False))
    assert rig.machine.calls == ["power_off"]


async def test_a_refused_reset_is_a_fault(rig):
    rig.machine.failures.append(BmcRejected("no"))
    outcome = await perform(rig, PowerCycle(soft=False))
    assert outcome.fault is not None
    assert outcome.fault.problem == "bmc-rejected"
