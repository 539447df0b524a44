"""A lab: a network namespace with machines in it, each with a BMC. An async context manager.

    async with Lab(Path("lab"), [MachineSpec(name="node01")]) as lab:
        server = await lab.run_in(["billet", "up"], pass_fds=(api_socket.fileno(),))
        await lab.control("node01").power("on")

On leaving, also after a failure, every process, link, socket and disk is removed; consoles stay.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from billet_lab import accel, net, processes, requirements, teardown
from billet_lab.control_socket import MachineClient
from billet_lab.machine import READY, control_path
from billet_lab.qemu_args import OVMF_VARS
from billet_lab.specs import (
    BRIDGE_ADDRESS,
    Accel,
    LabState,
    MachineInfo,
    MachineJob,
    MachineSpec,
    bmc_address,
    bmc_port,
    number_machines,
)

_READY_S = 30.0
_END_S = 10.0
# A unix socket's path has at most 107 bytes, so sockets live apart from the lab's directory.
_RUN_ROOT = Path("/run")

Stream = int | IO[bytes] | None


class LabError(Exception):
    """The lab could not be brought up; all that had been made is removed again."""


class Lab:
    """N machines under ``directory``. ``machines`` is filled once it is entered.

    ``bridge_address`` is the host's side of the lab's network (address/prefix); BMCs answer there.
    ``kernels``: Linux kernels for the KVM probe to try, best first.
    """

    def __init__(
        self,
        directory: Path,
        machines: Sequence[MachineSpec],
        *,
        accel_choice: accel.AccelChoice = "auto",
        bridge_address: str = BRIDGE_ADDRESS,
        keep_disks: bool = False,
        kernels: Sequence[Path] = (),
    ) -> None:
        self.directory = directory.absolute()
        self.accel: Accel = "tcg"
        self.accel_reason = ""
        self._specs = number_machines(tuple(machines))
        self._choice, self._kernels = accel_choice, kernels
        self._bridge = bridge_address
        self._keep_disks = keep_disks
        self._started: list[asyncio.subprocess.Process] = []
        lab_id = secrets.token_hex(3)
        self._state = LabState(
            lab_id=lab_id,
            namespace=f"billet-{lab_id}",
            directory=str(self.directory),
            run_dir=str(_RUN_ROOT / f"billet-lab-{lab_id}"),
        )

    @property
    def namespace(self) -> str:
        """Name of the lab's network namespace."""
        return self._state.namespace

    @property
    def host_address(self) -> str:
        """The address at which machines reach what `run_in` starts, and it reaches the BMCs."""
        return self._bridge.partition("/")[0]

    @property
    def machines(self) -> list[MachineInfo]:
        """The running machines."""
        return list(self._state.machines)

    def machine(self, name: str) -> MachineInfo:
        """The machine of that name; KeyError when there is none."""
        return {machine.name: machine for machine in self.machines}[name]

    def control(self, name: str) -> MachineClient:
        """The client of a machine's control socket."""
        return MachineClient(name, Path(self.machine(name).control_path))

    async def run_in(
        self,
        argv: Sequence[str],
        *,
        pass_fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: Stream = asyncio.subprocess.DEVNULL,
        stdout: Stream = None,
        stderr: Stream = None,
    ) -> asyncio.subprocess.Process:
        """Start a program in the lab's network; it gets SIGTERM when the lab's process dies.

        The lab ends it on leaving if it still runs. Its pid is the program's own.
        """
        return await self._start(
            argv, signal.SIGTERM, pass_fds=pass_fds, env=env, cwd=cwd,
            stdin=stdin, stdout=stdout, stderr=stderr,
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        try:
            requirements.check()
        except requirements.RequirementError as error:
            raise LabError(str(error)) from error
        if teardown.state_path(self.directory).exists():
            raise LabError(
                f"there is a lab in {self.directory} already; end it with "
                f"`billet lab down --dir {self.directory}`"
            )
        try:
            await self._bring_up()
        except (OSError, net.NetError) as error:
            await self._take_down()
            raise LabError(f"the lab in {self.directory} cannot be made: {error}") from error
        except BaseException:
            await self._take_down()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        troubles = await self._take_down()
        if troubles and error is None:
            raise LabError("the lab did not go down cleanly: " + "; ".join(troubles))

    async def _bring_up(self) -> None:
        me = processes.identity(os.getpid())
        assert me is not None
        cache = self.directory / "accel"
        self._record(processes=(me,), files=(str(cache),))
        self.accel, self.accel_reason = await accel.choose(
            self._choice,
            kernels=accel.known_kernels(self._kernels),
            cache=cache,
        )
        self._record(accel=self.accel)
        Path(self._state.run_dir).mkdir(mode=0o700, parents=True)
        taps = [f"tap{index}" for index in range(len(self._specs))]
        await net.create(self._state.namespace, self._bridge, taps)
        jobs = [self._job(spec, index) for index, spec in enumerate(self._specs)]
        if not self._keep_disks:
            made = [path for job in jobs for path in (*job.disk_paths, job.nvram_path)]
            self._record(files=(*self._state.files, *made))
        await asyncio.gather(*(self._start_machine(job) for job in jobs))

    def _job(self, spec: MachineSpec, index: int) -> MachineJob:
        home = self.directory / spec.name
        run_dir = Path(self._state.run_dir) / spec.name
        disks = [home / f"disk{number}.raw" for number in range(len(spec.disks))]
        return MachineJob(
            machine=spec,
            accel=self.accel,
            tap=f"tap{index}",
            bmc_host=self.host_address,
            bmc_port=bmc_port(spec, index),
            disk_paths=tuple(str(path) for path in disks),
            nvram_path=str(home / "nvram.fd"),
            console_path=str(home / "console.log"),
            log_path=str(home / "machine.log"),
            run_dir=str(run_dir),
            parent_pid=os.getpid(),
        )

    def _make_files(self, job: MachineJob) -> None:
        Path(job.run_dir).mkdir(mode=0o700)
        Path(job.console_path).parent.mkdir(parents=True, exist_ok=True)
        Path(job.console_path).write_bytes(b"")
        for path, disk in zip(job.disk_paths, job.machine.disks, strict=True):
            with Path(path).open("ab" if self._keep_disks else "wb") as file:
                file.truncate(disk.size_bytes)
        nvram = Path(job.nvram_path)
        if job.machine.firmware == "uefi" and not (self._keep_disks and nvram.exists()):
            shutil.copyfile(OVMF_VARS, nvram)

    async def _start_machine(self, job: MachineJob) -> None:
        spec = job.machine
        self._make_files(job)
        job_path = Path(job.run_dir) / "job.json"
        job_path.touch(mode=0o600)
        job_path.write_bytes(msgspec.json.encode(job))
        with open(job.log_path, "wb") as log:  # noqa: ASYNC230, PTH123
            process = await self._start(
                [sys.executable, "-m", "billet_lab.machine", str(job_path)],
                signal.SIGKILL,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        info = MachineInfo(
            name=spec.name,
            firmware=spec.firmware,
            mac=spec.mac,
            uuid=spec.uuid,
            bmc_address=bmc_address(spec, job.bmc_host, job.bmc_port),
            username=spec.username,
            password=spec.password,
            console_path=job.console_path,
            disk_paths=job.disk_paths,
            control_path=str(control_path(job.run_dir)),
            pid=process.pid,
        )
        order = [machine.name for machine in self._specs]
        machines = sorted((*self._state.machines, info), key=lambda m: order.index(m.name))
        self._record(machines=tuple(machines))
        await self._await_ready(job, process)

    async def _await_ready(self, job: MachineJob, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        line = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READY_S):
                line = await process.stdout.readline()
        if line != READY:
            words = Path(job.log_path).read_text(errors="replace").strip().splitlines()[-5:]
            raise LabError(
                f"machine {job.machine.name}: its process did not come up within {_READY_S:g} s; "
                f"{job.log_path} ends with: {' / '.join(words) or 'nothing'}"
            )

    async def _start(
        self,
        argv: Sequence[str],
        with_parent: signal.Signals,
        *,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        pass_fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", self._state.namespace, *argv,
            stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=tuple(pass_fds),
            env=None if env is None else dict(env), cwd=cwd,
            start_new_session=True, preexec_fn=processes.die_with_parent(with_parent),
        )  # fmt: skip
        self._started.append(process)
        known = processes.identity(process.pid)
        if known is not None:
            self._record(processes=(*self._state.processes, known))
        return process

    async def _take_down(self) -> list[str]:
        troubles = await teardown.take_down(self._state)
        ends = [asyncio.ensure_future(process.wait()) for process in self._started]
        if ends:
            _, left = await asyncio.wait(ends, timeout=_END_S)
            troubles += [f"{len(left)} processes do not end"] if left else []
        return troubles

    def _record(self, **changes: object) -> None:
        self._state = msgspec.structs.replace(self._state, **changes)
        teardown.write_state(self._state)
