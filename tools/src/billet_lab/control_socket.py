"""A machine process's control socket: one JSON object per line each way, over a unix socket.

Asked ``{"op": "status"}``, answered ``{"ok": true, "status": {...}}`` or
``{"ok": false, "error": "..."}``. Requests: `Status`, `Power`, `SetBoot`, `SetFaults`; each
answer to them is the machine's status after it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from billet_lab.control import BootTarget
from billet_lab.faults import Faults
from billet_lab.vm import Boot

PowerAction = Literal["on", "off", "soft", "cut", "reset"]
_DEADLINE_S = 20.0


class Status(msgspec.Struct, frozen=True, tag_field="op", tag="status"):
    """Ask only."""


class Power(msgspec.Struct, frozen=True, tag_field="op", tag="power"):
    """``off`` and ``cut`` pull the plug, ``soft`` presses the ACPI button."""

    action: PowerAction


class SetBoot(msgspec.Struct, frozen=True, tag_field="op", tag="boot"):
    """What a BMC's "chassis bootdev" does."""

    target: BootTarget
    persistent: bool = False


class SetFaults(msgspec.Struct, frozen=True, tag_field="op", tag="faults"):
    """Switches to set; those not named stay."""

    settings: dict[str, bool | float]


Request = Status | Power | SetBoot | SetFaults


class MachineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is doing: power, override, its boots (newest last), switches."""

    name: str
    powered_on: bool
    boot_target: BootTarget
    boot_persistent: bool
    qemu_pid: int | None
    boots: tuple[Boot, ...]
    faults: Faults


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one request."""

    ok: bool
    status: MachineStatus | None = None
    error: str = ""


class ControlError(Exception):
    """The machine's process does not answer or refuses; the message says which and why."""


Handler = Callable[[Request], Awaitable[MachineStatus]]
Refusals = tuple[type[Exception], ...]


async def serve(path: Path, handle: Handler, refused: Refusals) -> asyncio.Server:
    """Listen on ``path``; exceptions in ``refused`` become error answers, others end the peer."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(msgspec.json.encode(await _answer(line, handle, refused)) + b"\n")
                await writer.drain()
        except (OSError, ValueError):
            pass  # the client left, or sent a line without end
        finally:
            writer.close()

    path.unlink(missing_ok=True)
    return await asyncio.start_unix_server(answer, path)


async def _answer(line: bytes, handle: Handler, refused: Refusals) -> Answer:
    try:
        return Answer(ok=True, status=await handle(msgspec.json.decode(line, type=Request)))
    except msgspec.DecodeError as error:
        return Answer(ok=False, error=f"this is no request: {error}")
    except refused as error:
        return Answer(ok=False, error=str(error))


class MachineClient:
    """Asks one machine's process; a connection per request. Usable from any namespace."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self._path = name, path

    async def status(self) -> MachineStatus:
        """What the machine is doing now."""
        return await self._ask(Status())

    async def power(self, action: PowerAction) -> MachineStatus:
        """Switch; returns once it is under way."""
        return await self._ask(Power(action))

    async def set_boot(self, target: BootTarget, *, persistent: bool = False) -> MachineStatus:
        """Set or (NONE) clear the boot override."""
        return await self._ask(SetBoot(target, persistent))

    async def set_faults(self, settings: Mapping[str, bool | float]) -> MachineStatus:
        """Set fault switches by name (`faults.Faults`); effective at once."""
        return await self._ask(SetFaults(dict(settings)))

    async def _ask(self, request: Request) -> MachineStatus:
        try:
            async with asyncio.timeout(_DEADLINE_S):
                reader, writer = await asyncio.open_unix_connection(self._path, limit=1 << 20)
                with contextlib.closing(writer):
                    writer.write(msgspec.json.encode(request) + b"\n")
                    line = await reader.readline()
        except TimeoutError:
            raise ControlError(
                f"machine {self.name}: its process did not answer within {_DEADLINE_S:g} s"
            ) from None
        except OSError as error:
            raise ControlError(
                f"machine {self.name}: its process is not there ({error}); is the lab still up?"
            ) from error
        if not line:
            raise ControlError(f"machine {self.name}: its process ended while it was asked")
        answer = msgspec.json.decode(line, type=Answer)
        if not answer.ok or answer.status is None:
            raise ControlError(f"machine {self.name}: {answer.error}")
        return answer.status
