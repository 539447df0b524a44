"""The only place that starts processes: every tool by its absolute path, with a deadline."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, NamedTuple, Protocol

PATHS: Mapping[str, str] = {
    "efibootmgr": "/usr/bin/efibootmgr",
    "poweroff": "/usr/sbin/poweroff",
    "prlimit": "/usr/bin/prlimit",
    "qemu-img": "/usr/bin/qemu-img",
    "reboot": "/usr/sbin/reboot",
    "systemctl": "/usr/bin/systemctl",
    "udevadm": "/usr/bin/udevadm",
    "wipefs": "/usr/sbin/wipefs",
}
"""Every tool the agent may run, and where Debian has it."""

CAPTURE_BYTES = 4 * 1024 * 1024
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_POLL_S = 0.1
_GRACE_S = 5.0


class Limits(NamedTuple):
    """Resource limits of a tool that reads what a stranger made."""

    address_space_bytes: int
    cpu_s: int


class Completed(NamedTuple):
    """A tool that ended: its status (negative: killed by that signal) and what it printed."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes = b""
    stderr: bytes = b""

    @property
    def text(self) -> str:
        """Return standard output as text."""
        return self.stdout.decode(errors="replace")

    @property
    def evidence(self) -> str:
        """Return command, status and output for a person."""
        lines = [f"$ {' '.join(self.argv)}", f"exit status {self.status}"]
        for stream in (self.stderr, self.stdout):
            text = stream.decode(errors="replace").replace("\r", "\n").strip()
            if text:
                lines.append(text)
        return "\n".join(lines)


class ToolError(Exception):
    """A tool is missing, or did not end by its deadline; the text says which."""


class Tools(Protocol):
    """Runs the tools of `PATHS`."""

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline_s: float,
        stdin: bytes | None = None,
        on_line: Callable[[str], None] | None = None,
        limits: Limits | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Completed:
        """Run ``argv`` (its first word a key of `PATHS`) to its end; any status is returned.

        ``on_line`` gets each line of standard output as it comes, ended by CR or LF. When
        ``cancelled`` turns true the tool is killed and its status returned. Raises ToolError.
        """


class HostTools:
    """The tools of this machine."""

    def __init__(self, paths: Mapping[str, str] = PATHS) -> None:
        self._paths = paths

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline_s: float,
        stdin: bytes | None = None,
        on_line: Callable[[str], None] | None = None,
        limits: Limits | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Completed:
        """Run a tool; see `Tools.run`."""
        command = self._command(argv, limits)
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
                start_new_session=True,
            )
        except OSError as error:
            raise ToolError(f"{argv[0]} cannot be started: {error}") from error
        out, err = _Capture(process.stdout, on_line), _Capture(process.stderr, None)
        feeder = threading.Thread(target=_feed, args=(process, stdin), daemon=True)
        feeder.start()
        try:
            status = _wait(process, deadline_s, cancelled)
        finally:
            _end(process)
            for thread in (out.thread, err.thread, feeder):
                thread.join(_GRACE_S)
        done = Completed(tuple(argv), status if status is not None else -9, out.data, err.data)
        if status is None:
            raise ToolError(f"{argv[0]} did not end in {deadline_s:.0f} s\n{done.evidence}")
        return done

    def _command(self, argv: Sequence[str], limits: Limits | None) -> list[str]:
        path = self._paths.get(argv[0])
        if path is None:
            raise ToolError(f"{argv[0]} is not in the table of tools")
        command = [path, *argv[1:]]
        if limits is not None:
            prefix = [
                self._paths["prlimit"],
                f"--as={limits.address_space_bytes}",
                f"--cpu={limits.cpu_s}",
                "--core=0",
            ]
            command = [*prefix, *command]
        return command


class _Capture:
    """Reads a stream in a thread, keeps its last part, and hands on its lines."""

    def __init__(self, stream: IO[bytes] | None, on_line: Callable[[str], None] | None) -> None:
        self._stream = stream
        self._on_line = on_line
        self.data = b""
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        if self._stream is None:
            return
        line = bytearray()
        with self._stream as stream:
            while chunk := os.read(stream.fileno(), 65536):
                self.data = (self.data + chunk)[-CAPTURE_BYTES:]
                if self._on_line is not None:
                    line = self._hand_on(line + chunk)
        if self._on_line is not None and line:
            self._on_line(line.decode(errors="replace"))

    def _hand_on(self, text: bytearray) -> bytearray:
        *lines, rest = text.replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            if line and self._on_line is not None:
                self._on_line(line.decode(errors="replace"))
        return rest[-65536:]


def _feed(process: subprocess.Popen[bytes], stdin: bytes | None) -> None:
    if process.stdin is None or stdin is None:
        return
    try:
        with process.stdin as pipe:
            pipe.write(stdin)
    except OSError:
        pass  # the tool ended without reading; its status tells


def _wait(
    process: subprocess.Popen[bytes], deadline_s: float, cancelled: Callable[[], bool] | None
) -> int | None:
    end = time.monotonic() + deadline_s
    while True:
        try:
            return process.wait(timeout=_POLL_S)
        except subprocess.TimeoutExpired:
            if cancelled is not None and cancelled():
                _end(process)
                return process.returncode
            if time.monotonic() > end:
                return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group when it still runs, and collect it."""
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


Answer = Callable[[tuple[str, ...], bytes | None], Completed | bytes | int]


class MemoryTools:
    """The twin: answers by tool name from functions, and remembers every call.

    An answer is a whole `Completed`, the bytes of standard output, or a status.
    """

    def __init__(self, answers: Mapping[str, Answer] | None = None) -> None:
        self.answers: dict[str, Answer] = dict(answers or {})
        self.calls: list[tuple[str, ...]] = []
        self.limits: list[Limits | None] = []

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline_s: float,  # noqa: ARG002
        stdin: bytes | None = None,
        on_line: Callable[[str], None] | None = None,
        limits: Limits | None = None,
        cancelled: Callable[[], bool] | None = None,  # noqa: ARG002
    ) -> Completed:
        """Record the call and give the answer; a tool without one is missing."""
        call = tuple(argv)
        self.calls.append(call)
        self.limits.append(limits)
        if call[0] not in self.answers:
            raise ToolError(f"{call[0]} cannot be started: no such file")
        answer = self.answers[call[0]](call, stdin)
        if isinstance(answer, int):
            answer = Completed(call, answer)
        elif isinstance(answer, bytes):
            answer = Completed(call, 0, answer)
        if on_line is not None:
            for line in answer.text.replace("\r", "\n").split("\n"):
                if line:
                    on_line(line)
        return answer
