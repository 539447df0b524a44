"""A server for the agent's link tests: real TLS, a CA made here, scripted answers."""

import asyncio
import contextlib
import datetime
import hashlib
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from aiohttp import WSMsgType, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from billet_agent.settings import Address, Settings
from billet_wire import (
    AgentMessage,
    Hello,
    ServerMessage,
    Welcome,
    decode_agent,
    encode,
)

DAY = datetime.timedelta(days=1)


class Pki:
    """A CA and one leaf certificate for ``names``, in files."""

    def __init__(self, folder: Path, names: tuple[str, ...] = ("127.0.0.1",)) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        now = datetime.datetime.now(datetime.UTC)
        ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test-ca")])
        ca = self._builder(ca_name, ca_name, ca_key.public_key(), now)
        ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        ca_cert = ca.sign(ca_key, hashes.SHA256())
        leaf_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test-leaf")])
        leaf = self._builder(leaf_name, ca_name, key.public_key(), now)
        sans = [x509.IPAddress(ipaddress.ip_address(name)) for name in names]
        leaf = leaf.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        cert = leaf.sign(ca_key, hashes.SHA256())
        pem = serialization.Encoding.PEM
        self.ca_pem = ca_cert.public_bytes(pem).decode()
        der = ca_cert.public_bytes(serialization.Encoding.DER)
        self.fingerprint = hashlib.sha256(der).hexdigest()
        self._chain, self._key = folder / "leaf.crt", folder / "leaf.key"
        self._chain.write_bytes(cert.public_bytes(pem))
        self._key.write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )

    @staticmethod
    def _builder(
        subject: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePublicKey,
        now: datetime.datetime,
    ) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
        builder = builder.public_key(key).serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - DAY).not_valid_after(now + DAY)

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._chain, self._key)
        return context


class FakeServer:
    """Greets agents, keeps what they say, sends what the test asks."""

    def __init__(self, pki: Pki) -> None:
        self.pki = pki
        self.hellos: list[Hello] = []
        self.messages: list[AgentMessage] = []
        self.answer: ServerMessage | None = Welcome("metal/node-1", ping_s=0.3)
        self.ca_text = pki.ca_pem
        self.ca_headers: dict[str, str] = {}
        self.ca_status = 200
        self.sockets: list[web.WebSocketResponse] = []
        self.deaf = False
        self.pings = 0
        self._news = asyncio.Condition()
        self._runners: list[web.AppRunner] = []
        self.port = 0
        self.ca_port = 0

    async def start(self) -> None:
        link = web.Application()
        link.router.add_get("/agent/v1/link", self._link)
        self.port = await self._serve(link, self.port, self.pki.server_context())
        plain = web.Application()
        plain.router.add_get("/ca.pem", self._ca)
        self.ca_port = await self._serve(plain, self.ca_port, None)

    async def stop(self) -> None:
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()

    async def _serve(self, app: web.Application, port: int, tls: ssl.SSLContext | None) -> int:
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
        await site.start()
        self._runners.append(runner)
        return int(runner.addresses[0][1])

    def settings(self, **changes: str) -> Settings:
        values = {
            "ca_sha256": self.pki.fingerprint,
            "ca_url": f"http://127.0.0.1:{self.ca_port}/ca.pem",
            "token": "the-token",
            **changes,
        }
        return Settings(Address("127.0.0.1", self.port), **values)  # type: ignore[arg-type]

    async def send(self, message: ServerMessage) -> None:
        await self.sockets[-1].send_str(encode(message))

    async def until(self, ready: Callable[[], bool]) -> None:
        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(ready)

    async def tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def _ca(self, request: web.Request) -> web.Response:
        return web.Response(text=self.ca_text, status=self.ca_status, headers=self.ca_headers)

    async def _link(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        self.sockets.append(socket)
        async for frame in socket:
            if frame.type is WSMsgType.PING:
                self.pings += 1
                if not self.deaf:
                    await socket.pong(frame.data)
            elif frame.type is WSMsgType.TEXT:
                message = decode_agent(frame.data)
                if isinstance(message, Hello):
                    self.hellos.append(message)
                    if self.answer is not None:
                        await socket.send_str(encode(self.answer))
                else:
                    self.messages.append(message)
            await self.tell()
        await self.tell()
        return socket


@contextlib.asynccontextmanager
async def fake_server(pki: Pki) -> AsyncIterator[FakeServer]:
    server = FakeServer(pki)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
