"""A running embedded API on loopback and a small HTTP client for it."""

import contextlib
import json
import ssl

import aiohttp
import pytest

from billet_server.apiserver import ApiServer

HOSTS = "/apis/metal3.io/v1alpha1/namespaces/default/baremetalhosts"
SECRETS = "/api/v1/namespaces/default/secrets"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


class Answer:
    """Status, headers and JSON of an answer."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def message(self):
        return self.json["message"]


class Client:
    """Sends requests with the server's token."""

    hosts, secrets, config_maps = HOSTS, SECRETS, CONFIG_MAPS

    def __init__(self, server):
        self.server = server
        context = ssl.create_default_context(cadata=server.authority.cert_pem.decode())
        self.session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {server.token.reveal()}"},
            connector=aiohttp.TCPConnector(ssl=context),
            read_bufsize=2**22,
        )

    async def __call__(self, method, path, body=None, *, headers=None, data=None):
        data = json.dumps(body) if body is not None else data
        sent = {"Content-Type": "application/json"} if data is not None else {}
        url = self.server.url + path
        async with self.session.request(
            method, url, data=data, headers={**sent, **(headers or {})}
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path, **headers):
        return await self("GET", path, headers=headers)

    async def make(self, path, body):
        answer = await self("POST", path, body)
        assert answer.status == 201, answer.body
        return answer.json

    async def patch(self, path, body, media="application/merge-patch+json"):
        return await self("PATCH", path, body, headers={"Content-Type": media})

    @contextlib.asynccontextmanager
    async def watch(self, path, **headers):
        """Yield a function that returns the next event."""
        async with self.session.get(self.server.url + path, headers=headers) as response:
            assert response.status == 200, await response.read()

            async def following():
                line = await response.content.readline()
                return json.loads(line) if line else None

            yield following

    async def close(self):
        await self.session.close()


def host(name="h1", **spec):
    return {
        "apiVersion": "metal3.io/v1alpha1",
        "kind": "BareMetalHost",
        "metadata": {"name": name},
        "spec": {"online": True, **spec},
    }


def config_map(name="c1", **metadata):
    return {"metadata": {"name": name, **metadata}, "data": {"a": "b"}}


@pytest.fixture
def make_host():
    return host


@pytest.fixture
def make_config_map():
    return config_map


@pytest.fixture
async def running(tmp_path):
    """Start servers over one folder; the last one started is stopped at the end."""
    started = []

    async def start(**options):
        for server in started:
            await server.stop()
        server = ApiServer(tmp_path / "state", **options)
        started.append(server)
        await server.start(host="127.0.0.1", port=0)
        return server

    yield start
    for server in started:
        await server.stop()


@pytest.fixture
async def client(running):
    made = Client(await running())
    yield made
    await made.close()


@pytest.fixture
def connect():
    return Client
