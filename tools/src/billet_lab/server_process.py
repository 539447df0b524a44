"""`billet up` inside a lab: started, waited for, killed, started again, always on the same port.

The API's listening socket belongs to this process and is handed in, so that kubectl outside the
lab's network reaches the API inside it, and a client that calls between a server's end and the
next one's start waits in the socket's queue instead of being refused.
"""

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from billet_lab.kubectl import Kubectl, KubectlError
from billet_lab.lab import Lab

_START_S = 120.0
_END_S = 30.0
_DEFAULT_PORT = 6443


class ServerError(Exception):
    """The server did not start; the message says where its log is and how it ends."""


class ServerProcess:
    """One server of a lab. ``directory`` gets ``server.log`` (appended to) and ``state/``.

    ``arguments`` are further ones of `billet up`. An async context manager; leaving it closes
    the API's socket, the process itself ends with the lab.
    """

    def __init__(
        self,
        lab: Lab,
        directory: Path,
        ramdisk_dir: Path,
        *,
        namespace: str,
        arguments: Sequence[str] = (),
    ) -> None:
        self._lab, self._arguments, self._ramdisk = lab, tuple(arguments), ramdisk_dir
        self.state_dir = directory / "state"
        self.log_path = directory / "server.log"
        self.kubeconfig = self.state_dir / "kubeconfig"
        self.kubectl = Kubectl(self.kubeconfig, namespace)
        self._listener = _listening_socket()
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The running server."""
        assert self._process is not None
        return self._process

    async def start(self) -> None:
        """Start it and wait until kubectl gets an answer. Raises ServerError."""
        fd = self._listener.fileno()
        with self.log_path.open("ab") as log:
            self._process = await self._lab.run_in(
                [
                    *(str(Path(sys.executable).with_name("billet")), "up"),
                    *("--state-dir", str(self.state_dir), "--interface", "br0"),
                    *("--api-fd", str(fd), "--ramdisk-dir", str(self._ramdisk)),
                    *("--kernel-argument", "console=tty0", "--kernel-argument", "console=ttyS0"),
                    *self._arguments,
                ],
                pass_fds=[fd],
                stdout=log,
                stderr=log,
            )
        await self._wait_for_api()

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """Ask it to end; its exit code."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        async with asyncio.timeout(_END_S):
            return await self.process.wait()

    def log_tail(self, lines: int = 5) -> str:
        """The last lines of the log."""
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    async def _wait_for_api(self) -> None:
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            if self.process.returncode is not None:
                raise ServerError(
                    f"`billet up` ended with code {self.process.returncode};"
                    f" {self.log_path} ends with:\n{self.log_tail()}"
                )
            if self.kubeconfig.exists():
                with contextlib.suppress(KubectlError):
                    await self.kubectl.run("get", "baremetalhosts", deadline_s=20)
                    return
            await asyncio.sleep(0.2)
        raise ServerError(
            f"the API did not answer within {_START_S:.0f} s;"
            f" {self.log_path} ends with:\n{self.log_tail()}"
        )


def _listening_socket() -> socket.socket:
    """Return a listener on loopback: port 6443, or any where that is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", _DEFAULT_PORT))
    except OSError:
        listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener
