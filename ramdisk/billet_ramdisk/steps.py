"""Steps of a build: one progress line each, everything else in a log, errors with its end."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

TAIL_LINES = 15


class BuildError(Exception):
    """A build stopped. The text says what was tried, what came back, and what to do next."""


class Steps:
    """Progress lines on stderr and one log file for the output of every command."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self._start = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")

    @property
    def elapsed_s(self) -> float:
        """Seconds since this build began."""
        return time.monotonic() - self._start

    def say(self, text: str) -> None:
        """One progress line, also in the log."""
        line = f"[{self.name}] {self.elapsed_s:5.1f} s  {text}"
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
        with self.log.open("a") as log:
            log.write(line + "\n")

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Run ``argv``, output to the log, each line to ``on_line``; BuildError if it fails."""
        with self.log.open("a") as log:
            log.write("+ " + " ".join(argv) + "\n")
            log.flush()
            with subprocess.Popen(
                argv,
                env=dict(env) if env is not None else None,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            ) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    log.write(line)
                    if on_line is not None:
                        on_line(line.rstrip("\n"))
        if process.returncode != 0:
            raise BuildError(
                f"{Path(argv[0]).name} ended with status {process.returncode}\n"
                f"command: {' '.join(argv)[:300]}\nlast lines of {self.log}:\n{self.tail()}"
            )

    def tail(self) -> str:
        """The last lines of the log, indented."""
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join("    " + line for line in lines)


@contextmanager
def turn(lock: Path, wait: Callable[[], None]) -> Iterator[None]:
    """Hold ``lock``; when another process has it, call ``wait`` once (to say so) and wait."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def give_back(folder: Path) -> None:
    """Make ``folder`` and what is in it belong to the person who called sudo, if one did."""
    uid, gid = os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID")
    if not uid or not gid or not folder.exists():
        return
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, int(uid), int(gid), follow_symlinks=False)
