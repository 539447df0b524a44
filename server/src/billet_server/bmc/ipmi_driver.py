"""`ports.Bmc` over IPMI: which commands, in which order, and what their failures mean to people."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from billet_server.bmc import ipmi_commands as commands
from billet_server.bmc.address import BmcAddress
from billet_server.bmc.ipmi import Answer, Session, open_session
from billet_server.bmc.ipmi_errors import Attempt, Reason, SessionError
from billet_server.bmc.pacing import Pace, Permit, always, confirm_power
from billet_server.core.bmcaddress import PRIVILEGE_LEVELS
from billet_server.core.terms import BootDevice, BootMode, Credentials, PowerState
from billet_server.errors import BmcUnsupported

log = logging.getLogger(__name__)

_TRIES = 3


class IpmiBmc:
    """One machine behind an IPMI BMC. The session is kept for ``pace.idle_s`` after a command."""

    def __init__(
        self,
        address: BmcAddress,
        credentials: Credentials,
        lane: asyncio.Lock,
        pace: Pace,
        permit: Permit = always,
    ) -> None:
        self._address, self._credentials, self._permit = address, credentials, permit
        self._lane, self._pace = lane, pace
        self._session: Session | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._manufacturer: int | None = None

    def __repr__(self) -> str:
        return f"IpmiBmc({self._address.endpoint})"

    async def power_state(self) -> PowerState:
        """Get Chassis Status."""
        return await self._power_state("read the power state")

    async def power_on(self) -> None:
        """Chassis Control: power up, then look until it is on."""
        action = "switch the machine on"
        if await self._power_state(action) is PowerState.ON:
            return
        await self._run(action, commands.POWER_UP)
        await self._confirm(action, PowerState.ON, self._pace.power_s)

    async def power_off(self, *, soft: bool = False) -> None:
        """Chassis Control: power down, or soft shutdown by ACPI; then look until it is off."""
        action = "shut the machine down" if soft else "switch the machine off"
        if await self._power_state(action) is PowerState.OFF:
            return
        await self._run(action, commands.SOFT_SHUTDOWN if soft else commands.POWER_DOWN)
        within_s = self._pace.soft_off_s if soft else self._pace.power_s
        await self._confirm(action, PowerState.OFF, within_s)

    async def power_cycle(self, *, soft: bool = False) -> None:
        """Chassis Control: hard reset, or power cycle where there is none (both are optional)."""
        action = "restart the machine"
        if soft:
            text = "IPMI has no command that asks the operating system to restart."
            raise BmcUnsupported(f"BMC {self._address.endpoint}: {text}", action)
        if await self._power_state(action) is PowerState.OFF:
            await self.power_on()
            return
        answer = await self._ask(action, commands.HARD_RESET)
        if answer.code in commands.LACKING_CODES:
            answer = await self._ask(action, commands.POWER_CYCLE)
        if answer.code:
            raise self._attempt(action).code_error(answer.code)
        await self._confirm(action, PowerState.ON, self._pace.power_s)

    async def set_boot_device(
        self, device: BootDevice, *, mode: BootMode | None = None, persistent: bool = False
    ) -> None:
        """Set System Boot Options with all flags at once (pyghmi's own call drops some)."""
        action = f"set the boot device to {device}"
        if mode is None:
            answer = await self._ask(action, commands.GET_BOOT_FLAGS)
            uefi = answer.code == 0 and commands.parse_uefi_flag(answer.data)
        else:
            uefi = mode.is_uefi
        manufacturer = 0
        if uefi and device is BootDevice.DISK:
            manufacturer = await self._read_manufacturer(action)
        kept = await self._ask(action, commands.KEEP_BOOT_FLAGS)
        if kept.code:
            log.debug("BMC %s keeps its boot flag time-out: 0x%02x", self, kept.code)
        flags = commands.render_boot_flags(
            device, uefi=uefi, persistent=persistent, manufacturer=manufacturer
        )
        await self._run(action, flags)

    async def close(self) -> None:
        """Log out. The driver can be used again and will log in again."""
        async with self._lane:
            self._end_session()

    async def _power_state(self, action: str) -> PowerState:
        return commands.parse_chassis_status(await self._run(action, commands.CHASSIS_STATUS))

    async def _confirm(self, action: str, wanted: PowerState, within_s: float) -> None:
        where = self._address.endpoint
        await confirm_power(lambda: self._power_state(action), wanted, within_s, self._pace, where)

    async def _read_manufacturer(self, action: str) -> int:
        if self._manufacturer is None:
            answer = await self._ask(action, commands.GET_DEVICE_ID)
            self._manufacturer = 0 if answer.code else commands.parse_manufacturer(answer.data)
        return self._manufacturer

    async def _run(self, action: str, command: commands.Command) -> bytes:
        """The data of a command that must succeed."""
        answer = await self._ask(action, command)
        if answer.code:
            raise self._attempt(action).code_error(answer.code)
        return answer.data

    async def _ask(self, action: str, command: commands.Command) -> Answer:
        """One command in its lane, asked again where the BMC was busy or its session gone."""
        async with self._lane, self._deadline(action):
            tries = 0
            while True:
                tries += 1
                kept = self._session is not None and self._session.usable
                try:
                    answer = await self._ask_once(command)
                except SessionError as error:
                    self._end_session()
                    stale = kept and error.reason in (Reason.SILENT, Reason.REFUSED)
                    if tries < _TRIES and (stale or error.reason == Reason.BUSY):
                        await asyncio.sleep(0 if stale else self._pace.busy_pause_s * tries)
                        continue
                    raise self._attempt(action).session_error(error) from error
                except OSError as error:
                    raise self._attempt(action).no_way(error) from error
                if answer.code not in commands.BUSY_CODES or tries == _TRIES:
                    return answer
                await asyncio.sleep(self._pace.busy_pause_s * tries)

    async def _ask_once(self, command: commands.Command) -> Answer:
        self._stop_idling()
        if self._session is None or not self._session.usable:
            self._session = await open_session(
                self._address.host,
                self._address.port,
                self._credentials,
                PRIVILEGE_LEVELS[self._address.privilege_level],
                self._pace.answer_s,
            )
        self._permit()
        try:
            answer = await self._session.run(command)
        except asyncio.CancelledError:
            self._end_session()  # its answer may still come and would fit no later question
            raise
        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(self._pace.idle_s, self._end_session)
        return answer

    @contextlib.asynccontextmanager
    async def _deadline(self, action: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._pace.command_s):
                yield
        except TimeoutError as error:
            self._end_session()
            raise self._attempt(action).too_slow(self._pace.command_s) from error

    def _attempt(self, action: str) -> Attempt:
        return Attempt(self._address, self._credentials.username, action)

    def _stop_idling(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _end_session(self) -> None:
        self._stop_idling()
        if self._session is not None:
            self._session.end()
            self._session = None
