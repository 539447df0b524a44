"""`ports.Bmc` over Redfish: which requests, in which order, in a pool so that nothing blocks."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

from billet_server.bmc.address import BmcAddress
from billet_server.bmc.blocking import BlockingPool
from billet_server.bmc.pacing import Pace, Permit, always, confirm_power
from billet_server.bmc.redfish import Reading, RedfishSystem, ResetType
from billet_server.bmc.redfish_errors import Attempt
from billet_server.core.terms import BootDevice, BootMode, Credentials, PowerState
from billet_server.errors import BmcRejected

T = TypeVar("T")


class RedfishBmc:
    """One system behind a Redfish BMC. The session is kept for ``pace.idle_s`` after a request."""

    def __init__(
        self,
        address: BmcAddress,
        credentials: Credentials,
        *,
        verify: str | bool,
        lane: asyncio.Lock,
        pool: BlockingPool,
        pace: Pace,
        permit: Permit = always,
    ) -> None:
        self._address, self._credentials, self._verify = address, credentials, verify
        self._permit = permit
        self._lane, self._pool, self._pace = lane, pool, pace
        self._system = self._new_system()
        self._idle: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"RedfishBmc({self._address.base_url}{self._address.system_path})"

    async def power_state(self) -> PowerState:
        """PowerState of the system."""
        return (await self._read("read the power state")).power

    async def power_on(self) -> None:
        """Reset type On (or ForceOn), then look until it is on."""
        action = "switch the machine on"
        await self._switch(
            action, PowerState.ON, self._pace.power_s, ResetType.ON, ResetType.FORCE_ON
        )

    async def power_off(self, *, soft: bool = False) -> None:
        """Reset type ForceOff or GracefulShutdown, then look until it is off."""
        if soft:
            kind, within_s = ResetType.GRACEFUL_SHUTDOWN, self._pace.soft_off_s
            await self._switch("shut the machine down", PowerState.OFF, within_s, kind)
        else:
            kind, within_s = ResetType.FORCE_OFF, self._pace.power_s
            await self._switch("switch the machine off", PowerState.OFF, within_s, kind)

    async def power_cycle(self, *, soft: bool = False) -> None:
        """Reset type GracefulRestart, or ForceRestart, or PowerCycle."""
        action = "restart the machine"
        if (await self._read(action)).power is PowerState.OFF:
            await self.power_on()
            return
        attempt = self._attempt(action)
        hard = (ResetType.FORCE_RESTART, ResetType.POWER_CYCLE)
        kinds = (ResetType.GRACEFUL_RESTART,) if soft else hard
        await self._run(attempt, lambda system: system.reset(attempt, *kinds))
        await self._confirm(action, PowerState.ON, self._pace.power_s)

    async def set_boot_device(
        self, device: BootDevice, *, mode: BootMode | None = None, persistent: bool = False
    ) -> None:
        """BootSourceOverride target, enabled and, where asked for and different, mode."""
        attempt = self._attempt(f"set the boot device to {device}")
        uefi = None if mode is None else mode.is_uefi
        await self._run(
            attempt,
            lambda system: system.set_boot(attempt, device, uefi=uefi, persistent=persistent),
        )

    async def close(self) -> None:
        """Log out. The driver can be used again and will log in again."""
        async with self._lane:
            if self._closing is not None:
                await self._closing
            await self._log_out()

    def _new_system(self) -> RedfishSystem:
        connect_s, read_s = self._pace.answer_s, self._pace.read_s
        return RedfishSystem(self._address, self._credentials, self._verify, connect_s, read_s)

    async def _read(self, action: str) -> Reading:
        attempt = self._attempt(action)
        return await self._run(attempt, lambda system: system.read(attempt))

    async def _switch(
        self, action: str, wanted: PowerState, within_s: float, *kinds: object
    ) -> None:
        if (await self._read(action)).power is wanted:
            return
        attempt = self._attempt(action)
        try:
            await self._run(attempt, lambda system: system.reset(attempt, *kinds))
        except BmcRejected:
            # 400 and 409 mean "is so already" on some BMCs; the state decides
            if (await self._read(action)).power is not wanted:
                raise
            return
        await self._confirm(action, wanted, within_s)

    async def _confirm(self, action: str, wanted: PowerState, within_s: float) -> None:
        async def power() -> PowerState:
            return (await self._read(action)).power

        await confirm_power(power, wanted, within_s, self._pace, self._address.endpoint)

    async def _run(self, attempt: Attempt, work: Callable[[RedfishSystem], T]) -> T:
        async with self._lane:
            self._stop_idling()
            if self._closing is not None:
                await self._closing
            system = self._system

            def permitted() -> T:
                self._permit()
                return system.run(work)

            try:
                result = await self._pool.run(permitted, self._pace.command_s)
            except (TimeoutError, asyncio.CancelledError) as error:
                system.abandoned = True  # its thread may be using it for a while
                self._system = self._new_system()
                if isinstance(error, TimeoutError):
                    raise attempt.too_slow(self._pace.command_s) from error
                raise
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(self._pace.idle_s, self._begin_log_out)
            return result

    def _begin_log_out(self) -> None:
        if not self._lane.locked():
            loop = asyncio.get_running_loop()
            self._closing = loop.create_task(self._log_out(), name=f"log out {self!r}")

    async def _log_out(self) -> None:
        self._stop_idling()
        system, self._system = self._system, self._new_system()
        with contextlib.suppress(TimeoutError):
            await self._pool.run(system.close, self._pace.answer_s)

    def _stop_idling(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _attempt(self, action: str) -> Attempt:
        return Attempt(self._address, self._credentials.username, action)
