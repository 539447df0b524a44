"""``/metrics`` over plain HTTP, and what probes ask, on an address that is the same everywhere."""

import asyncio

from aiohttp import web

from billet_server.errors import ConfigError
from billet_server.ports import Readiness, always_ready
from billet_server.telemetry.prometheus import PrometheusMetrics


class MetricsServer:
    """Serves one `PrometheusMetrics`. There is no authentication: listen on loopback."""

    def __init__(self, metrics: PrometheusMetrics, readiness: Readiness = always_ready) -> None:
        self._metrics, self._readiness = metrics, readiness
        self._runner: web.AppRunner | None = None
        self._one_at_a_time = asyncio.Lock()

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises ConfigError when the address cannot be had."""
        app = web.Application(client_max_size=1024)
        app.router.add_get("/metrics", self._scrape)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._ready)
        runner = self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            await self.stop()
            text = (
                f"cannot serve metrics on {host} port {port}: {error.strerror}; choose others by"
                f" --metrics-host and --metrics-port (0: no metrics), or stop what listens there"
                f" (ss -ltnp 'sport = :{port}')"
            )
            raise ConfigError([text]) from error
        return int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _scrape(self, request: web.Request) -> web.Response:
        # With a series for each host the text is long: a thread keeps the loop free meanwhile.
        async with self._one_at_a_time:
            accept = request.headers.get("Accept", "")
            body, content_type = await asyncio.to_thread(self._metrics.render, accept)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _health(self, request: web.Request) -> web.Response:
        del request
        return web.Response(text="ok\n")

    async def _ready(self, request: web.Request) -> web.Response:
        del request
        is_ready, words = self._readiness()
        return web.Response(text=f"{words}\n", status=200 if is_ready else 503)
