"""How long a BMC may take, and how its machine's power is changed and confirmed.

Nothing here waits a fixed time between commands: the next one goes out when the BMC has answered
the last. Only while power changes is it asked again and again, ever less often.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from billet_server.core.terms import PowerState
from billet_server.errors import BmcPowerStuck


class Pace(NamedTuple):
    """Deadlines, all in seconds.

    ``answer_s``: silence (IPMI) or no TCP/TLS connection (Redfish) that means unreachable.
    ``read_s``: one Redfish answer. ``command_s``: one call with its log-in and retries.
    ``power_s``, ``soft_off_s``: until the power state is as wanted (Metal3 gives 120 and 180).
    ``poll_first_s`` doubling to ``poll_most_s``: between looks at a changing power state.
    ``busy_pause_s``: before a busy IPMI BMC is asked again, twice that before the second time.
    ``idle_s``: without a command until the session is logged out.
    """

    answer_s: float = 5.0
    read_s: float = 20.0
    command_s: float = 45.0
    power_s: float = 60.0
    soft_off_s: float = 180.0
    poll_first_s: float = 0.1
    poll_most_s: float = 2.0
    busy_pause_s: float = 0.5
    idle_s: float = 5.0


Permit = Callable[[], None]
"""Asked right before each command, in its lane; raises what forbids it. Any thread may ask."""


def always() -> None:
    """Permit everything."""


ReadPower = Callable[[], Awaitable[PowerState]]


async def confirm_power(
    read: ReadPower, wanted: PowerState, within_s: float, pace: Pace, where: str
) -> None:
    """Ask until the state is ``wanted``. Raises BmcPowerStuck when it is not ``within_s``."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    pause_s = pace.poll_first_s
    while (state := await read()) is not wanted:
        if loop.time() + pause_s > deadline:
            raise BmcPowerStuck(
                f"BMC {where} accepted the command to switch the machine {wanted}, but it is still "
                f"{state} after {within_s:g} s.",
                f"power {wanted}",
                f"power state {state}",
                "Look at the machine's console and the BMC's log.",
            )
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, pace.poll_most_s)
