"""What a simulated BMC can do to a machine: the seam between `vm` and the BMC simulators.

`MemoryMachine` is the in-memory twin: tests and scale runs drive it by the same simulators.
"""

import asyncio
import enum
from typing import Literal, Protocol

Firmware = Literal["bios", "uefi"]


class BootTarget(enum.StrEnum):
    """Boot override a BMC can set, in Redfish's words (DSP0268 BootSourceOverrideTarget)."""

    NONE = "None"
    PXE = "Pxe"
    HDD = "Hdd"
    CD = "Cd"
    BIOS_SETUP = "BiosSetup"


class MachineControl(Protocol):
    """One machine. Methods return once the change is under way, not when it is done."""

    name: str
    uuid: str
    mac: str
    firmware: Firmware

    @property
    def powered_on(self) -> bool:
        """Whether the machine is on now."""

    @property
    def boot_override(self) -> tuple[BootTarget, bool]:
        """The pending override and whether it is persistent; (NONE, False) when there is none."""

    async def power_on(self) -> None:
        """Switch on; nothing when on already."""

    async def power_off(self) -> None:
        """Cut the power; nothing when off already."""

    async def soft_off(self) -> None:
        """Press the ACPI power button."""

    async def reset(self) -> None:
        """Cut and restore the power; nothing when off."""

    async def set_boot(self, target: BootTarget, *, persistent: bool) -> None:
        """Set the override; a one-time one is used up by the next boot."""


class MemoryMachine:
    """A machine with no hardware; records each boot in ``boots`` as the target it took."""

    def __init__(
        self,
        name: str,
        mac: str,
        firmware: Firmware = "bios",
        uuid: str = "00000000-0000-4000-8000-000000000001",
    ) -> None:
        self.name, self.mac, self.firmware, self.uuid = name, mac, firmware, uuid
        self.boots: list[BootTarget] = []
        self.soft_off_works = True
        self._on = False
        self._override = (BootTarget.NONE, False)

    @property
    def powered_on(self) -> bool:
        """Whether the machine is on now."""
        return self._on

    @property
    def boot_override(self) -> tuple[BootTarget, bool]:
        """The pending override and whether it is persistent."""
        return self._override

    async def power_on(self) -> None:
        """Switch on and use up a one-time override."""
        await asyncio.sleep(0)
        if not self._on:
            self._on = True
            self._boot()

    async def power_off(self) -> None:
        """Cut the power."""
        await asyncio.sleep(0)
        self._on = False

    async def soft_off(self) -> None:
        """Press the power button; obeyed when ``soft_off_works``."""
        await asyncio.sleep(0)
        if self.soft_off_works:
            self._on = False

    async def reset(self) -> None:
        """Boot again when on."""
        await asyncio.sleep(0)
        if self._on:
            self._boot()

    async def set_boot(self, target: BootTarget, *, persistent: bool) -> None:
        """Set the override."""
        await asyncio.sleep(0)
        self._override = (target, persistent)

    def _boot(self) -> None:
        target, persistent = self._override
        self.boots.append(target)
        if not persistent:
            self._override = (BootTarget.NONE, False)
