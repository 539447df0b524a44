"""dnsmasq as a child process: without root's powers, watched, restarted, never orphaned.

The only place of the server that starts a process. The child gets three capabilities and the
user nobody before it runs (setpriv), so it never is root, and the kernel kills it when the
server dies, however that happens (PR_SET_PDEATHSIG). dnsmasq closes every descriptor that it
inherits except the standard ones, so the lease file, which nobody may not reach by path, is
handed over as standard input.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from billet_server.boot.advertise import Advertiser
from billet_server.boot.dhcp import DhcpSettings, check_settings, parse_log, render_config
from billet_server.boot.ground import Ground, prepare
from billet_server.boot.neighbours import Neighbours
from billet_server.errors import BootError
from billet_server.ports import BootDirectory

__all__ = ["Child", "DhcpSettings", "Dnsmasq", "check_settings", "render_config"]

log = logging.getLogger(__name__)

START_S, STOP_S = 10.0, 3.0
BACKOFF_FIRST_S, BACKOFF_MOST_S, STEADY_S = 0.5, 30.0, 60.0
KEPT_LINES = 20

# dnsmasq(8), "EXIT CODES".
_EXITS = {
    1: "it refuses its configuration; please report this with the lines above",
    2: "it could not open its sockets; stop the other DHCP or TFTP server on this interface "
    "(ss -lnup 'sport = :67 or sport = :69') or choose another interface",
    3: "it could not read or write a file; check that the state directory is writable",
    4: "it ran out of memory",
}

Spawn = Callable[[], Awaitable[asyncio.subprocess.Process]]


class Child:
    """A process in the foreground whose output is read line by line, restarted when it dies.

    ``spawn`` starts it with its output on a pipe; it counts as started once a line contains
    ``ready``. Restarts wait 0.5 s, doubling to 30 s, from anew after a minute of health.
    """

    def __init__(
        self,
        name: str,
        spawn: Spawn,
        ready: str,
        on_line: Callable[[str], None],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._name, self._spawn, self._ready, self._on_line = name, spawn, ready, on_line
        self._sleep = sleep
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._last: deque[str] = deque(maxlen=KEPT_LINES)
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The latest lines of output, oldest first."""
        return tuple(self._last)

    async def start(self) -> None:
        """Start and return once it is ready. Raises BootError with its last words."""
        reader = await self._launch()
        self._watcher = asyncio.create_task(self._watch(reader), name=f"boot: {self._name}")

    async def stop(self) -> None:
        """Ask it to end, and make it after 3 s."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
        await self._end()

    async def _launch(self) -> "asyncio.Task[None]":
        started = asyncio.Event()
        try:
            process = await self._spawn()
        except OSError as error:
            raise BootError(f"cannot start {self._name}: {error}") from error
        self._process = process
        reader = asyncio.create_task(self._read(process, started), name=f"{self._name}: output")
        waiter = asyncio.create_task(started.wait())
        try:
            await asyncio.wait(
                (reader, waiter), timeout=START_S, return_when=asyncio.FIRST_COMPLETED
            )
            if not started.is_set():
                await self._end()
                raise BootError(self._why(process.returncode))
        except BaseException:
            await self._end()
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            raise
        finally:
            waiter.cancel()
        return reader

    async def _watch(self, reader: "asyncio.Task[None]") -> None:
        loop = asyncio.get_running_loop()
        delay_s, since_s = BACKOFF_FIRST_S, loop.time()
        try:
            while True:
                await asyncio.shield(reader)
                await self._end()
                code = self._process.returncode if self._process else None
                if loop.time() - since_s > STEADY_S:
                    delay_s = BACKOFF_FIRST_S
                log.error("%s; starting it again in %g s", self._why(code), delay_s)
                await self._sleep(delay_s)
                delay_s, since_s = min(delay_s * 2, BACKOFF_MOST_S), loop.time()
                self.restarts += 1
                with contextlib.suppress(BootError):
                    reader = await self._launch()
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, process: asyncio.subprocess.Process, started: asyncio.Event) -> None:
        assert process.stdout is not None
        while True:
            try:
                raw = await process.stdout.readline()
            except ValueError:
                continue  # a line beyond the reader's limit has been dropped
            if not raw:
                break
            line = raw.decode(errors="replace").rstrip()
            self._last.append(line)
            if self._ready in line:
                started.set()
            self._on_line(line)
        await process.wait()

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _why(self, code: int | None) -> str:
        said = "; ".join(list(self._last)[-3:]) or "nothing"
        ended = f"ended with code {code}"
        if code is None or code < 0:
            ended = f"was ended by signal {-code}" if code else "did not become ready"
        advice = _EXITS.get(code or 0, "more in the debug log")
        return f"{self._name} {ended}; its last words: {said} ({advice})"


class Dnsmasq:
    """DHCP (or proxyDHCP) and TFTP on one interface, and the answer to router solicitations.

    Each machine seen is told to ``directory``: stage dhcp by its MAC, stage loader once the
    first loader was sent. With mode off, `start` and `stop` do nothing.
    """

    def __init__(self, settings: DhcpSettings, directory: BootDirectory) -> None:
        self._settings, self._directory = settings, directory
        self._neighbours = Neighbours()
        self._ground: Ground | None = None
        self._advertiser = Advertiser(settings.interface)
        self._child = Child("dnsmasq", self._spawn, ": started, version", self._line)

    @property
    def pid(self) -> int | None:
        """The process id of dnsmasq while it runs."""
        return self._child.pid

    @property
    def restarts(self) -> int:
        """How often dnsmasq died and was started again."""
        return self._child.restarts

    def prepare(self) -> None:
        """Find out whether it could serve. Raises ConfigError (settings), BootError (machine)."""
        if self._settings.mode == "off":
            return
        render_config(self._settings)
        self._ground = prepare(self._settings)

    async def start(self) -> None:
        """Start serving. Raises ConfigError (settings), BootError (what to do is in it)."""
        if self._settings.mode == "off":
            return
        self.prepare()
        await self._child.start()
        self._advertiser.start()
        log.info("dnsmasq serves %s in mode %s", self._settings.interface, self._settings.mode)

    async def stop(self) -> None:
        """Stop serving; leases stay in the state directory."""
        self._advertiser.stop()
        await self._child.stop()
        if self._ground is not None:
            self._ground.clear()
            self._ground = None

    async def _spawn(self) -> asyncio.subprocess.Process:
        assert self._ground is not None
        options = [f"--{line}" for line in render_config(self._settings).splitlines()]
        with self._ground.open_leases() as leases:
            return await asyncio.create_subprocess_exec(
                *self._ground.command,
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--log-facility=-",
                "--dhcp-leasefile=/proc/self/fd/0",
                f"--tftp-root={self._ground.tftp_root}",
                *options,
                stdin=leases,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
            )

    def _line(self, line: str) -> None:
        sighting = parse_log(line)
        if sighting is None:
            log.debug("%s", line)
            return
        if sighting.mac and sighting.address:
            self._neighbours.learn(sighting.address, sighting.mac)
        mac = sighting.mac or self._neighbours.mac(sighting.address)
        level = logging.WARNING if sighting.trouble else logging.INFO
        log.log(level, "%s: %s %s", mac or sighting.address, sighting.stage, sighting.detail)
        if mac:
            self._directory.boot_seen(mac, sighting.stage, sighting.detail)
