"""A machine with real hardware under its BMC: QEMU, one process per boot.

`Vm` is a `control.MachineControl`. A boot ends by the guest (its reset starts the next boot, its
power-off is one), by the BMC (a cut is SIGKILL, as sudden as a pulled plug), or by QEMU's own
death. One-time overrides are used up by the boot that follows, whoever caused it.
"""

import asyncio
import contextlib
import enum
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from billet_lab import console, net
from billet_lab.control import BootTarget, Firmware
from billet_lab.faults import Faults
from billet_lab.processes import die_with_parent
from billet_lab.qemu_args import NIC_ID, render_argv, throttle_of
from billet_lab.qmp import QmpClient, QmpError
from billet_lab.specs import MachineJob

_BOUND_EVERY_S = 2.0
_QUIT_S = 10.0
_KEPT_BOOTS = 100
_DELAY_ID = "link-delay"


class End(enum.StrEnum):
    """How a boot ended."""

    GUEST_RESET = "guest reset"
    GUEST_OFF = "guest power-off"
    CUT = "power cut"
    RESET = "hard reset"
    FAILED = "QEMU failed"


class Boot(msgspec.Struct, kw_only=True):
    """One boot: what it was told to start from, seconds since the epoch, and how it ended."""

    number: int
    target: BootTarget
    started_unix_s: float
    ended_unix_s: float | None = None
    end: End | None = None
    detail: str = ""


class Vm:
    """One machine. Create it inside the lab's namespace, on a running loop."""

    def __init__(self, job: MachineJob, faults: Callable[[], Faults]) -> None:
        machine = job.machine
        self.name: str = machine.name
        self.uuid: str = machine.uuid
        self.mac: str = machine.mac
        self.firmware: Firmware = machine.firmware
        self.boots: list[Boot] = []
        self.qemu_pid: int | None = None
        self._job, self._faults = job, faults
        self._override = (BootTarget.NONE, False)
        self._number = 0
        self._lock = asyncio.Lock()
        self._runner: asyncio.Task[None] | None = None
        self._hand: asyncio.Future[End] | None = None
        self._cut = False
        self._qmp: QmpClient | None = None

    @property
    def powered_on(self) -> bool:
        """Whether the machine is on now."""
        return self._runner is not None and not self._runner.done()

    @property
    def boot_override(self) -> tuple[BootTarget, bool]:
        """The pending override and whether it is persistent."""
        return self._override

    async def power_on(self) -> None:
        """Switch on; the first instruction runs ``slow_post_s`` later."""
        async with self._lock:
            if not self.powered_on:
                self._cut = False
                self._runner = asyncio.create_task(self._run(), name=f"vm-{self.name}")
                await asyncio.sleep(0)

    async def power_off(self) -> None:
        """Cut the power; QEMU is dead on return."""
        async with self._lock:
            if self.powered_on and self._runner is not None:
                self._cut = True  # also when a reset was pressed just before
                self._press(End.CUT)
                await asyncio.wait([self._runner])

    async def soft_off(self) -> None:
        """Press the ACPI power button; nothing when off or before the first instruction."""
        if self._qmp is not None:
            with contextlib.suppress(QmpError):
                await self._qmp.execute("system_powerdown")

    async def reset(self) -> None:
        """Cut and restore the power."""
        if self.powered_on:
            self._press(End.RESET)
            await asyncio.sleep(0)

    async def set_boot(self, target: BootTarget, *, persistent: bool) -> None:
        """Set the override; NONE clears it."""
        await asyncio.sleep(0)
        self._override = (target, persistent and target is not BootTarget.NONE)

    async def apply_link(self) -> None:
        """Bring the link in line with the faults; the loss is set by `machine` on the tap."""
        if self._qmp is None:
            return
        faults = self._faults()
        await self._qmp.execute("set_link", {"name": NIC_ID, "up": not faults.link_down})
        with contextlib.suppress(QmpError):
            await self._qmp.execute("object-del", {"id": _DELAY_ID})
        if faults.link_delay_ms > 0:
            # Releases what it holds once per interval: frames wait that long at most.
            await self._qmp.execute(
                "object-add",
                {
                    "qom-type": "filter-buffer",
                    "id": _DELAY_ID,
                    "netdev": NIC_ID,
                    "queue": "all",
                    "interval": max(1, round(faults.link_delay_ms * 1000)),
                },
            )

    async def apply_disks(self) -> None:
        """Bring the disks' speed in line with the faults."""
        if self._qmp is None:
            return
        for number, disk in enumerate(self._job.machine.disks):
            limit = throttle_of(number, disk, self._faults().disk_write_mib_s)
            await self._qmp.execute("block_set_io_throttle", limit)

    async def apply_loss(self) -> None:
        """Bring the loss on the tap in line with the faults."""
        await net.set_loss(self._job.tap, self._faults().link_loss_percent)

    async def close(self) -> None:
        """Power off for good."""
        await self.power_off()

    def _press(self, end: End) -> None:
        if self._hand is not None and not self._hand.done():
            self._hand.set_result(end)

    async def _run(self) -> None:
        end = End.RESET
        while end in {End.RESET, End.GUEST_RESET} and not self._cut:
            boot = self._next_boot()
            self._hand = asyncio.get_running_loop().create_future()
            try:
                end = await self._boot(boot.target)
            except (QmpError, OSError, net.NetError) as error:
                end, boot.detail = End.FAILED, str(error)
            finally:
                boot.ended_unix_s, boot.end = time.time(), end
            self._mark(f"boot {boot.number} ended: {end}{boot.detail and ': '}{boot.detail}")

    def _next_boot(self) -> Boot:
        target, persistent = self._override
        if not persistent:
            self._override = (BootTarget.NONE, False)
        if self._faults().ignore_boot_override:
            target = BootTarget.NONE
        self._number += 1
        boot = Boot(number=self._number, target=target, started_unix_s=time.time())
        self.boots = [*self.boots[1 - _KEPT_BOOTS :], boot]
        source = "its boot order" if target is BootTarget.NONE else f"override {target}"
        self._mark(f"boot {boot.number} from {source}")
        return boot

    def _mark(self, text: str) -> None:
        path = Path(self._job.console_path)
        console.bound(path)
        with path.open("ab") as file:
            file.write(f"\r\n--- billet lab: {self.name}: {text}\r\n".encode())

    async def _boot(self, target: BootTarget) -> End:
        qmp_path = Path(self._job.run_dir) / "qmp.sock"
        process = await self._spawn(target, qmp_path)
        self.qemu_pid = process.pid
        dead = asyncio.create_task(process.wait(), name=f"qemu-{self.name}")
        drive = asyncio.create_task(self._drive(qmp_path), name=f"drive-{self.name}")
        hand = self._hand or asyncio.get_running_loop().create_future()
        ends: set[asyncio.Future[Any]] = {dead, drive, hand}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if hand.done():
                return hand.result()
            return await self._own_end(process, dead, drive)
        finally:
            self._qmp = None
            drive.cancel()
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await asyncio.gather(drive, dead, return_exceptions=True)
            self.qemu_pid = None
            qmp_path.unlink(missing_ok=True)

    async def _own_end(
        self,
        process: asyncio.subprocess.Process,
        dead: asyncio.Task[int],
        drive: asyncio.Task[End | None],
    ) -> End:
        """The end that came from inside: the guest's own, else QEMU's, which raises."""
        # When QEMU is gone its last event may still be on the way, and the other way round.
        await asyncio.wait({drive}, timeout=1)
        error = drive.exception() if drive.done() else None
        end = drive.result() if drive.done() and error is None else None
        await asyncio.wait({dead}, timeout=_QUIT_S if end else 1)
        if end is not None:
            return end
        if process.returncode is None:
            raise QmpError(f"QEMU cannot be driven: {error}") from error
        raise QmpError(self._last_words(process.returncode)) from error

    async def _spawn(self, target: BootTarget, qmp_path: Path) -> asyncio.subprocess.Process:
        qmp_path.unlink(missing_ok=True)
        with (
            socket.socket(socket.AF_UNIX) as listener,
            open(self._job.log_path, "ab") as log,  # noqa: ASYNC230, PTH123
        ):
            listener.bind(str(qmp_path))
            listener.listen(1)
            argv = render_argv(
                self._job,
                target,
                qmp_fd=listener.fileno(),
                disk_errors=self._faults().disk_errors,
            )
            return await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(listener.fileno(),),
                preexec_fn=die_with_parent(signal.SIGKILL),
            )

    async def _drive(self, qmp_path: Path) -> End | None:
        """Start the paused machine and tell how the guest ended it; None when QEMU just died."""
        qmp = await QmpClient.connect(qmp_path)
        try:
            self._qmp = qmp
            await self.apply_link()
            if self._faults().disk_write_mib_s > 0:
                await self.apply_disks()
            if self._faults().slow_post_s > 0:
                await asyncio.sleep(self._faults().slow_post_s)
            await qmp.execute("cont")
            async with contextlib.AsyncExitStack() as stack:
                bounding = asyncio.create_task(self._keep_bounded(), name=f"console-{self.name}")
                stack.callback(bounding.cancel)
                return await self._await_shutdown(qmp)
        finally:
            await qmp.close()

    async def _await_shutdown(self, qmp: QmpClient) -> End | None:
        while event := await qmp.event():
            end = guest_end(event)
            if end is not None:
                with contextlib.suppress(QmpError):
                    await qmp.execute("quit")
                return end
        return None

    async def _keep_bounded(self) -> None:
        while True:
            await asyncio.sleep(_BOUND_EVERY_S)
            console.bound(Path(self._job.console_path))

    def _last_words(self, code: int | None) -> str:
        words = console.tail(Path(self._job.log_path), lines=3)
        return f"QEMU ended with code {code} and said: {words or 'nothing'}"


def guest_end(event: dict[str, Any]) -> End | None:
    """What a QMP event says about the boot's end (QEMU's ShutdownCause); None: it goes on."""
    if event.get("event") != "SHUTDOWN":
        return None
    reason = event.get("data", {}).get("reason", "")
    if reason in {"guest-reset", "subsystem-reset", "host-qmp-system-reset"}:
        return End.GUEST_RESET
    return End.GUEST_OFF
