"""Child processes that cannot outlive their parent, and ending processes by their identity."""

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent(signal_number: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """A ``preexec_fn``: the child gets the signal when the thread that started it ends.

    It survives ``execve`` (prctl(2), PR_SET_PDEATHSIG), so it also holds through ``ip netns exec``.
    """
    parent = os.getpid()

    def preexec() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal_number))
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    return preexec


def identity(pid: int) -> tuple[int, int] | None:
    """(pid, start time), or None when there is no such process or only its remains."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # Field 2 is the command in parentheses and may itself hold blanks and parentheses.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else (pid, int(fields[19]))


def send(process: tuple[int, int], signal_number: signal.Signals) -> bool:
    """Signal the process if it is still that one."""
    if identity(process[0]) != process:
        return False
    try:
        os.kill(process[0], signal_number)
    except ProcessLookupError:
        return False
    return True


async def end(processes: Iterable[tuple[int, int]], *, grace_s: float = 5.0) -> None:
    """SIGTERM, and SIGKILL for those that are still there after ``grace_s``; waits for the end."""
    await asyncio.to_thread(end_now, tuple(processes), grace_s=grace_s)


def end_now(processes: Iterable[tuple[int, int]], *, grace_s: float = 5.0) -> None:
    """`end` for places without a loop."""
    left = [process for process in processes if send(process, signal.SIGTERM)]
    left = _wait_gone(left, grace_s)
    for process in left:
        send(process, signal.SIGKILL)
    _wait_gone(left, 5.0)


def _wait_gone(processes: list[tuple[int, int]], deadline_s: float) -> list[tuple[int, int]]:
    end_at = time.monotonic() + deadline_s
    left = processes
    while left and time.monotonic() < end_at:
        left = [process for process in left if identity(process[0]) == process]
        if left:
            time.sleep(0.02)
    return left
