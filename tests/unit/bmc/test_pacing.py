import asyncio

import pytest

from billet_server.bmc.pacing import Pace, confirm_power
from billet_server.core.terms import PowerState
from billet_server.errors import BmcRejected

ON, OFF = PowerState.ON, PowerState.OFF


class Machine:
    """Says ``on`` from a moment on, and when it was asked."""

    def __init__(self, on_after_s):
        self.on_after_s, self.asked = on_after_s, []

    async def read(self):
        now = asyncio.get_running_loop().time()
        self.asked.append(now)
        return ON if now >= self.on_after_s else OFF


@pytest.mark.looptime
async def test_a_machine_that_is_as_wanted_costs_one_question():
    machine = Machine(0)
    await confirm_power(machine.read, ON, 60, Pace(), "bmc")
    assert machine.asked == [0]


@pytest.mark.looptime
async def test_questions_become_rarer_up_to_a_bound():
    machine = Machine(10)
    await confirm_power(machine.read, ON, 60, Pace(poll_first_s=0.5, poll_most_s=2), "bmc")
    gaps = [b - a for a, b in zip(machine.asked, machine.asked[1:], strict=False)]
    assert gaps == [0.5, 1, 2, 2, 2, 2, 2]


@pytest.mark.looptime
async def test_a_machine_that_never_changes_is_reported_with_what_it_says():
    machine = Machine(1000)
    with pytest.raises(BmcRejected, match="still off after 60 s") as caught:
        await confirm_power(machine.read, ON, 60, Pace(), "10.0.0.7:623")
    assert "10.0.0.7:623" in str(caught.value)
    assert caught.value.evidence == "power state off"
    assert asyncio.get_running_loop().time() <= 60
