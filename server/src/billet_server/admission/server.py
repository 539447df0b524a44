"""The HTTPS listener that a cluster's API server posts AdmissionReviews to.

The API server does not say who it is unless it is configured to, so anybody who reaches the
port may ask. Nothing is told that the asker did not send, and nothing is changed.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable

from aiohttp import web

from billet_server.admission.certificate import CertificateFiles
from billet_server.admission.review import Answer, BadReviewError, answer_review
from billet_server.errors import ConfigError

PATH = "/validate-metal3-io-v1alpha1-baremetalhost"
"""Where Metal3's webhook is, too: its configuration needs no other path."""

MAX_BODY_BYTES = 8 * 1024 * 1024
"""A review holds an object twice; the API takes 3 MiB for one."""

_BODY_S = 10.0
_AT_ONCE = 16
_RELOAD_S = 10.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)


class WebhookServer:
    """Answers reviews; renews its certificate when the files change."""

    def __init__(self, certificate: CertificateFiles, *, reload_s: float = _RELOAD_S) -> None:
        self._certificate = certificate
        self._reload_s = reload_s
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._runner: web.AppRunner | None = None
        self._reloading: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port (chosen when 0). Raises ConfigError."""
        context = self._certificate.load()
        app = web.Application(middlewares=[_in_words], client_max_size=MAX_BODY_BYTES)
        app.router.add_post(PATH, self._review)
        app.router.add_get("/healthz", _health)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=5.0)
        await runner.setup()
        self._runner = runner
        try:
            await web.TCPSite(runner, host, port, ssl_context=context).start()
        except OSError as error:
            await self.stop()
            text = f"cannot serve the webhook on {host} port {port}: {error.strerror}"
            advice = f"choose another --webhook-host or --webhook-port (ss -ltnp 'sport = :{port}')"
            raise ConfigError([f"{text}; {advice}"]) from error
        self._reloading = asyncio.create_task(self._reload(context), name="webhook-certificate")
        return int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Let reviews that are being answered end, and close."""
        if self._reloading is not None:
            self._reloading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reloading
            self._reloading = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _reload(self, context: ssl.SSLContext) -> None:
        while True:
            await asyncio.sleep(self._reload_s)
            self._certificate.reload(context)

    async def _review(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            text = f"an AdmissionReview comes as application/json, not {request.content_type}"
            return _text(text, 415)
        async with self._turns:
            try:
                async with asyncio.timeout(_BODY_S):
                    body = await request.read()
            except TimeoutError:
                return _text(f"the body did not come within {_BODY_S:.0f} seconds", 408)
            try:
                answer = answer_review(body)
            except BadReviewError as error:
                log.warning("webhook: a request of %s was no review: %s", request.remote, error)
                return _text(str(error), 400)
        _tell(answer)
        return web.Response(body=answer.body, content_type="application/json")


def _tell(answer: Answer) -> None:
    if answer.refusal:
        log.info("webhook: refused %r: %s", answer.what, answer.refusal)


@web.middleware
async def _in_words(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPRequestEntityTooLarge:
        return _text(f"the body has more than {MAX_BODY_BYTES} bytes", 413)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        refused = _text(f"{request.method} is not answered here, only {allowed}", 405)
        refused.headers["Allow"] = allowed
        return refused
    except web.HTTPNotFound:
        return _text(f"nothing is here; reviews go to {PATH}", 404)


async def _health(_: web.Request) -> web.Response:
    return _text("ok", 200)


def _text(text: str, status: int) -> web.Response:
    return web.Response(text=text + "\n", status=status)
