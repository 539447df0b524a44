"""Boot files over plain HTTP: scripts made on request, kernel and initramfs per boot.

Firmware and Debian's iPXE know no CA of ours, so this listener has no TLS and carries nothing
that must stay secret from the provisioning network except the one-time token, which is in the
script of the one machine that is meant to boot now (docs/boot.md says what is trusted).
"""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from billet_server.boot.ipxe import (
    InvalidMac,
    parse_mac,
    render_bootstrap,
    render_disk,
    render_ramdisk,
)
from billet_server.core.bootplan import AskAgain, DiskBoot, RamdiskBoot
from billet_server.core.ratelimit import RateLimit
from billet_server.errors import BootError
from billet_server.ports import BootDirectory, BootStage, Readiness, always_ready

log = logging.getLogger(__name__)

SCRIPT_RATE_PER_S = 5.0
SCRIPT_BURST = 60.0
KEEPALIVE_S = 15.0
LOADERS = ("undionly.kpxe", "snponly.efi")

_FILES: dict[str, BootStage] = {"vmlinuz": "kernel", "initramfs": "initramfs"}
_STALE = (
    "This boot address is not current: the host was told to boot anew, or is not meant to boot "
    "from the network now. Let the machine ask for its script again (/boot.ipxe).\n"
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class BootHttp:
    """The boot HTTP listener; plans come from ``directory``, which also hears of each stage.

    ``ramdisk_dir`` holds ``vmlinuz`` and ``initramfs``; ``loader_dir`` the first loaders, for
    firmware with UEFI HTTP boot; ``ca_pem`` is the gateway's CA.
    """

    def __init__(
        self,
        directory: BootDirectory,
        ramdisk_dir: Path,
        ca_pem: bytes,
        *,
        loader_dir: Path = Path("/usr/lib/ipxe"),
        script_rate_per_s: float = SCRIPT_RATE_PER_S,
        script_burst: float = SCRIPT_BURST,
        readiness: Readiness = always_ready,
    ) -> None:
        self._directory = directory
        self._ramdisk_dir = ramdisk_dir
        self._loader_dir = loader_dir
        self._ca_pem = ca_pem
        self._readiness = readiness
        self._limit = RateLimit(script_rate_per_s, script_burst)
        self._runner: web.AppRunner | None = None

    async def start(self, host: str | Sequence[str], port: int) -> int:
        """Listen on these addresses only; return the port (chosen when 0).

        Raises BootError when an address is not this machine's or the port is taken.
        """
        runner = web.AppRunner(
            self._app(), access_log=None, keepalive_timeout=KEEPALIVE_S, shutdown_timeout=1.0
        )
        await runner.setup()
        self._runner = runner
        for address in [host] if isinstance(host, str) else host:
            try:
                await web.TCPSite(runner, address, port).start()
            except OSError as error:
                await self.stop()
                raise BootError(
                    f"cannot serve boot files on {address} port {port}: {error.strerror}; "
                    "choose another address or port for boot HTTP, or stop what listens there "
                    f"(ss -ltnp 'sport = :{port}')"
                ) from error
            port = runner.addresses[0][1]
        missing = [name for name in _FILES if not (self._ramdisk_dir / name).is_file()]
        if missing:
            log.warning("no %s in %s: hosts cannot boot the ramdisk until it is built",
                        " and ".join(missing), self._ramdisk_dir)  # fmt: skip
        return port

    async def stop(self) -> None:
        """Close the listener and every connection."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=1024)
        app.router.add_get("/boot.ipxe", self._bootstrap)
        app.router.add_get("/boot/script", self._script)
        app.router.add_get("/boot/loader/{name}", self._loader)
        app.router.add_get("/boot/{nonce}/{file}", self._file)
        app.router.add_get("/ca.pem", self._ca)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._ready)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.can_read_body:
            return _text("This server takes no request bodies.\n", 413)
        try:
            response = await handler(request)
        except web.HTTPException as error:
            return _text(f"{error.status} {error.reason}: no such boot file.\n", error.status)
        response.headers["Server"] = "billet"
        return response

    async def _bootstrap(self, request: web.Request) -> web.StreamResponse:
        del request
        return _text(render_bootstrap())

    async def _script(self, request: web.Request) -> web.StreamResponse:
        if not self._limit.take(request.remote or "", asyncio.get_running_loop().time()):
            return _text("Too many script requests from this address; wait a second.\n", 429)
        try:
            mac = parse_mac(request.query.get("mac", ""))
        except InvalidMac as error:
            log.warning("script asked for by %s: %s", request.remote, error)
            return _text(render_disk(DiskBoot(f"the boot server was asked wrongly, {error}")))
        plan = self._directory.boot_plan(mac)
        if isinstance(plan, AskAgain):
            return _text(f"{plan.reason}; ask again.\n", 503)
        script, detail = _answer(plan, mac)
        self._seen(mac, "script", detail)
        return _text(script)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["file"]
        stage = _FILES.get(name)
        if stage is None:
            raise web.HTTPNotFound
        try:
            mac = parse_mac(request.query.get("mac", ""))
        except InvalidMac:
            return _text(_STALE, 404)
        plan = self._directory.boot_plan(mac)
        if isinstance(plan, AskAgain):
            return _text(f"{plan.reason}; ask again.\n", 503)
        asked = request.match_info["nonce"].encode()
        if not isinstance(plan, RamdiskBoot) or not hmac.compare_digest(plan.nonce.encode(), asked):
            log.warning("%s asked for %s of a boot of %s that is over", request.remote, name, mac)
            return _text(_STALE, 404)
        path = self._ramdisk_dir / name
        if not path.is_file():
            log.error("%s asked for %s, which is not there", plan.host, path)
            return _text(f"The server has no {name}; build the ramdisk first.\n", 503)

        def sent(sent_bytes: int) -> None:
            if request.method == "GET":
                self._seen(mac, stage, f"{sent_bytes} bytes")

        return _CountedFile(path, sent)

    async def _loader(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in LOADERS or not (self._loader_dir / name).is_file():
            raise web.HTTPNotFound
        return web.FileResponse(self._loader_dir / name)

    async def _ca(self, request: web.Request) -> web.StreamResponse:
        del request
        return web.Response(body=self._ca_pem, content_type="application/x-pem-file")

    async def _health(self, request: web.Request) -> web.StreamResponse:
        del request
        return _text("ok\n")

    async def _ready(self, request: web.Request) -> web.StreamResponse:
        del request
        is_ready, words = self._readiness()
        return _text(f"{words}\n", 200 if is_ready else 503)

    def _seen(self, mac: str, stage: BootStage, detail: str) -> None:
        log.info("%s: %s %s", mac, stage, detail)
        self._directory.boot_seen(mac, stage, detail)


class _CountedFile(web.FileResponse):
    """A file that reports, once all of what was asked for has gone out, how many bytes it was."""

    def __init__(self, path: Path, sent: Callable[[int], None]) -> None:
        super().__init__(path, chunk_size=256 * 1024)
        self._sent = sent

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        writer = await super().prepare(request)
        if self.status in {200, 206}:
            self._sent(self.content_length or 0)
        return writer


def _answer(plan: RamdiskBoot | DiskBoot, mac: str) -> tuple[str, str]:
    if isinstance(plan, RamdiskBoot):
        try:
            return render_ramdisk(plan, mac), f"ramdisk for {plan.host}"
        except ValueError as error:
            log.warning("no ramdisk script for %s (%s): %s", mac, plan.host, error)
            plan = DiskBoot(f"the ramdisk of {plan.host} has a kernel argument that is refused")
    return render_disk(plan), f"disk: {plan.reason}"


def _text(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, headers={"Cache-Control": "no-store"})
