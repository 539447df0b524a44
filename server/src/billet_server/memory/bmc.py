"""The in-memory twin of `ports.Bmcs`: scripted machines, injected failures, records of it all."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from billet_server.core.bmcaddress import address_fault
from billet_server.core.terms import BootDevice, BootMode, PowerState
from billet_server.errors import (
    BmcAddressError,
    BmcAuthFailed,
    BmcError,
    BmcRejected,
    BmcUnreachable,
    BmcUnsupported,
)
from billet_server.ports import Bmc, BmcTarget


class BootChoice(NamedTuple):
    """A boot override that was set."""

    device: BootDevice
    mode: BootMode | None = None
    persistent: bool = False


class MemoryMachine:
    """One machine with its BMC. Tests read and write its attributes at any time.

    ``power``, ``override``: the machine's state. ``boots``: what each power-on booted (None: no
    override). ``calls``: names of the calls its BMC got. ``on_boot`` is called after each boot.

    Failures: ``unreachable``, ``hang`` (answers until the call after the next n, then none: see
    `MemoryBmcs.answer_s`), ``failures`` (raised by the next calls, one each, None lets one
    pass), ``soft_off_works``/``soft_off_known``/``soft_cycle_known``, ``ignores_override``,
    ``stuck_power``.
    ``delay_s`` passes before each answer, ``power_delay_s`` until a power change is done.
    """

    def __init__(
        self,
        address: str,
        username: str = "admin",
        password: str = "password",  # noqa: S107
    ) -> None:
        self.address, self.username, self.password = address, username, password
        self.power = PowerState.OFF
        self.override: BootChoice | None = None
        self.boots: list[BootChoice | None] = []
        self.calls: list[str] = []
        self.on_boot: Callable[[BootChoice | None], None] = lambda _: None
        self.unreachable = False
        self.hang: int | None = None
        self.failures: deque[BmcError | None] = deque()
        self.soft_off_works = self.soft_off_known = True
        self.soft_cycle_known = False
        self.ignores_override = self.stuck_power = False
        self.delay_s = self.power_delay_s = 0.0
        self.open_sessions = 0

    def boot(self) -> None:
        """Boot as its firmware does, using up a one-time override."""
        choice = None if self.ignores_override else self.override
        if choice is None or not choice.persistent:
            self.override = None
        self.boots.append(choice)
        self.on_boot(choice)


class MemoryBmcs:
    """`ports.Bmcs` for scripted machines. An address without a machine is unreachable."""

    def __init__(
        self,
        machines: Iterable[MemoryMachine] = (),
        *,
        answer_s: float = 5.0,
        power_s: float = 60.0,
        soft_off_s: float = 180.0,
        permit: Callable[[], None] = lambda: None,
    ) -> None:
        self.machines = {machine.address: machine for machine in machines}
        self.answer_s, self.power_s, self.soft_off_s = answer_s, power_s, soft_off_s
        self.permit = permit
        self.opened: list[BmcTarget] = []
        self._lanes: dict[str, asyncio.Lock] = {}

    def add(self, machine: MemoryMachine) -> MemoryMachine:
        """Add a machine and return it."""
        self.machines[machine.address] = machine
        return machine

    def open(self, target: BmcTarget) -> Bmc:
        """Return a driver. Raises BmcAddressError for a scheme no driver has."""
        if fault := address_fault(target.address):
            raise BmcAddressError(
                f"The BMC address cannot be used: {fault}", "read the BMC address"
            )
        self.opened.append(target)
        lane = self._lanes.setdefault(target.address, asyncio.Lock())
        return MemoryBmc(self, target, lane)

    async def close(self) -> None:
        """Log out everywhere."""
        for machine in self.machines.values():
            machine.open_sessions = 0


class MemoryBmc:
    """`ports.Bmc` for one scripted machine."""

    def __init__(self, bmcs: MemoryBmcs, target: BmcTarget, lane: asyncio.Lock) -> None:
        self._bmcs, self._target, self._lane = bmcs, target, lane
        self._logged_in: MemoryMachine | None = None

    async def power_state(self) -> PowerState:
        """Return the scripted power."""
        return (await self._call("power_state")).power

    async def power_on(self) -> None:
        """Switch on and boot."""
        machine = await self._call("power_on")
        if machine.power is not PowerState.ON:
            await self._change(machine, PowerState.ON, self._bmcs.power_s)
            machine.boot()

    async def power_off(self, *, soft: bool = False) -> None:
        """Switch off."""
        machine = await self._call("soft_off" if soft else "power_off")
        if machine.power is PowerState.OFF:
            return
        if soft and not machine.soft_off_known:
            raise BmcUnsupported(f"BMC {machine.address} cannot shut down softly", "soft off")
        if soft and not machine.soft_off_works:
            await asyncio.sleep(self._bmcs.soft_off_s)
            raise self._still(machine, self._bmcs.soft_off_s)
        await self._change(machine, PowerState.OFF, self._bmcs.power_s)

    async def power_cycle(self, *, soft: bool = False) -> None:
        """Boot anew without being off in between."""
        machine = await self._call("soft_cycle" if soft else "power_cycle")
        if soft and not machine.soft_cycle_known:
            raise BmcUnsupported(f"BMC {machine.address} cannot restart softly", "soft cycle")
        await self._change(machine, PowerState.ON, self._bmcs.power_s)
        machine.boot()

    async def set_boot_device(
        self, device: BootDevice, *, mode: BootMode | None = None, persistent: bool = False
    ) -> None:
        """Record the override."""
        machine = await self._call(f"boot {device}")
        machine.override = BootChoice(device, mode, persistent)

    async def close(self) -> None:
        """Log out."""
        if self._logged_in is not None:
            self._logged_in.open_sessions -= 1
            self._logged_in = None

    async def _call(self, name: str) -> MemoryMachine:
        """One command: in its lane, with every failure that is switched on."""
        async with self._lane:
            self._bmcs.permit()
            machine = self._bmcs.machines.get(self._target.address)
            if machine is None or machine.unreachable:
                raise await self._silence(name)
            if machine.hang is not None:
                machine.hang -= 1
                if machine.hang < 0:
                    raise await self._silence(name)
            await asyncio.sleep(machine.delay_s)
            machine.calls.append(name)
            user, password = self._target.credentials
            if (user, password.reveal()) != (machine.username, machine.password):
                message = f"BMC {machine.address} refused user {user!r}"
                raise BmcAuthFailed(message, name, "wrong user name or password")
            failure = machine.failures.popleft() if machine.failures else None
            if failure is not None:
                raise failure
            if self._logged_in is None:
                self._logged_in = machine
                machine.open_sessions += 1
            return machine

    async def _change(self, machine: MemoryMachine, power: PowerState, within_s: float) -> None:
        delay_s = within_s if machine.stuck_power else min(machine.power_delay_s, within_s)
        await asyncio.sleep(delay_s)
        if machine.stuck_power or machine.power_delay_s > within_s:
            raise self._still(machine, within_s)
        machine.power = power

    async def _silence(self, name: str) -> BmcError:
        await asyncio.sleep(self._bmcs.answer_s)
        answer_s, address = self._bmcs.answer_s, self._target.address
        message = f"Could not {name}: no answer from BMC {address} within {answer_s:g} s"
        return BmcUnreachable(message, name, "no answer")

    def _still(self, machine: MemoryMachine, within_s: float) -> BmcError:
        message = f"BMC {machine.address}: still {machine.power} after {within_s:g} s"
        return BmcRejected(message, "change power", f"power state {machine.power}")
