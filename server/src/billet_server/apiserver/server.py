"""The embedded API as one thing to start and stop."""

import asyncio
import fcntl
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from billet_server import pki
from billet_server.apiserver import encoding
from billet_server.apiserver.admission import Adviser, Validator
from billet_server.apiserver.auth import ensure_token
from billet_server.apiserver.collector import Collector
from billet_server.apiserver.definitions import Definition, builtin_definitions, load_crds
from billet_server.apiserver.kubeconfig import render_kubeconfig
from billet_server.apiserver.objects import KEPT_NAMESPACES, Objects, WriteOptions
from billet_server.apiserver.reads import Reads
from billet_server.apiserver.registry import Registry, initial_namespace, store_path
from billet_server.apiserver.routes import Routes
from billet_server.apiserver.store import Change, Key, Store
from billet_server.apiserver.watch import Hub
from billet_server.apiserver.writes import Writes
from billet_server.core.terms import Secret
from billet_server.errors import ApiError, ConfigError
from billet_server.ports import CRD, NAMESPACE, Kind, Object

READERS = 2
"""Threads for lists: more would only compete for the interpreter."""

_CRDS = store_path(CRD)


def _wall_clock() -> datetime:
    return datetime.now(UTC)


class ApiServer:
    """The embedded Kubernetes API over one state directory.

    Files in it: ``objects.sqlite``, ``token`` and ``kubeconfig`` (0600), ``pki/`` unless an
    authority is given. Only one process may use a directory at a time.
    """

    def __init__(
        self,
        state_dir: Path,
        definitions: Iterable[Definition] | None = None,
        *,
        crds: Sequence[Object] | None = None,
        validators: Mapping[Kind, Validator] | None = None,
        advisers: Mapping[Kind, Adviser] | None = None,
        namespace: str = "default",
        authority: pki.Authority | None = None,
        names: Iterable[str] = (),
        now: Callable[[], datetime] = _wall_clock,
    ) -> None:
        """Touches no file yet.

        ``definitions`` replace the built-in kinds, ``crds`` the shipped ones. ``namespace`` is
        created and becomes the kubeconfig's. ``names`` are more DNS names or addresses that the
        certificate shall be good for.
        """
        self._state_dir = state_dir
        self._definitions = definitions
        self._crds = crds
        self._validators, self._advisers = dict(validators or {}), dict(advisers or {})
        self._namespace = namespace
        self._given_authority = authority
        self._names = set(names)
        self._now = now
        self.kubeconfig_path = state_dir / "kubeconfig"
        """Written by `start`."""
        self.url = ""
        """``https://ADDRESS:PORT``, known after `start`."""
        self.token = Secret("")
        """The bearer token, known after `start`."""
        self._lock = -1
        self._store: Store | None = None
        self._runner: web.AppRunner | None = None
        self._collecting: asyncio.Task[None] | None = None
        self._hub = Hub(0)
        self._pool: ThreadPoolExecutor | None = None

    @property
    def authority(self) -> pki.Authority:
        """Return the CA that signs the server's certificate."""
        return self._given_authority or pki.ensure_authority(self._state_dir / "pki")

    async def start(self, *, host: str, port: int, sock: socket.socket | None = None) -> None:
        """Open the store, listen, write the kubeconfig.

        A listening ``sock`` is used instead of host and port when given. Raises ConfigError when
        the directory is in use or the address cannot be bound.
        """
        try:
            await self._start(host, port, sock)
        except BaseException:
            await self.stop()
            raise

    async def _start(self, host: str, port: int, sock: socket.socket | None) -> None:
        self._state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _lock(self._state_dir / "api.lock")
        self.token = ensure_token(self._state_dir / "token")
        loop = asyncio.get_running_loop()

        def publish(changes: list[Change]) -> None:
            loop.call_soon_threadsafe(self._hub.publish, changes)

        store = self._store = Store(self._state_dir / "objects.sqlite", publish)
        self._hub = Hub(store.version)
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="api-read")
        crds = load_crds() if self._crds is None else self._crds
        registry = Registry(builtin_definitions() if self._definitions is None else
                            self._definitions)  # fmt: skip
        objects = Objects(
            store,
            registry,
            self._validators,
            self._now,
            advisers=self._advisers,
            protected_crds=frozenset(crd["metadata"]["name"] for crd in crds),
        )
        self._hub.listen(_CrdListener(registry))
        await _load_definitions(store, registry, objects, crds)
        for name in sorted({*KEPT_NAMESPACES, self._namespace}):
            await _ensure(store, registry, objects, NAMESPACE, initial_namespace(name))
        collector = Collector(store, objects, registry)
        self._hub.listen(collector.notice)
        self._collecting = asyncio.create_task(collector.run(), name="api-collector")
        reads = Reads(store, self._hub, objects, self._pool, self._now)
        routes = Routes(registry, reads, Writes(objects, reads), self.token, self._now)
        await self._listen(routes.application(), host, port, sock)

    async def _listen(
        self, app: web.Application, host: str, port: int, sock: socket.socket | None
    ) -> None:
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=3
        )
        await self._runner.setup()
        authority = self.authority
        names = {"localhost", "127.0.0.1", "::1", *self._names}
        if sock is None:
            names |= {host} - {"", "0.0.0.0", "::"}
        leaf = pki.ensure_leaf(authority, self._state_dir / "pki", "api", names)
        context = leaf.server_context()
        site: web.BaseSite
        if sock is not None:
            site = web.SockSite(self._runner, sock, ssl_context=context)
        else:
            site = web.TCPSite(self._runner, host, port, ssl_context=context)
        try:
            await site.start()
        except OSError as error:
            fault = f"the API cannot listen on {host} port {port}: {error.strerror or error}"
            raise ConfigError([fault]) from error
        address, bound_port = self._runner.addresses[0][:2]
        if address in ("0.0.0.0", "::"):
            address = "127.0.0.1"
        self.url = f"https://{f'[{address}]' if ':' in address else address}:{bound_port}"
        text = render_kubeconfig(self.url, authority.cert_pem, self.token, self._namespace)
        pki.write_private(self.kubeconfig_path, text.encode())

    async def listen_on_loopback(self) -> Path:
        """Listen on a free port of this process's own loopback too; return a kubeconfig for it.

        For a server whose listening socket was handed in from another network namespace: its
        own controller cannot reach that one.
        """
        assert self._runner is not None
        context = pki.ensure_leaf(
            self.authority, self._state_dir / "pki", "api-own", {"127.0.0.1"}
        ).server_context()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context).start()
        url = f"https://127.0.0.1:{self._runner.addresses[-1][1]}"
        text = render_kubeconfig(url, self.authority.cert_pem, self.token, self._namespace)
        path = self._state_dir / "kubeconfig.own"
        pki.write_private(path, text.encode())
        return path

    async def compact(self) -> None:
        """Forget the change history: watches from earlier versions get 410 Gone."""
        if self._store is not None:
            await asyncio.wrap_future(self._store.compact())

    async def stop(self) -> None:
        """End watches, finish requests, close the store. Does nothing when not started."""
        self._hub.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._collecting is not None:
            self._collecting.cancel()
            await asyncio.gather(self._collecting, return_exceptions=True)
            self._collecting = None
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        if self._store is not None:
            await asyncio.to_thread(self._store.close)
            self._store = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        fault = (
            f"{path.parent} is in use by another Billet server: stop it, or choose another "
            "state directory"
        )
        raise ConfigError([fault]) from error
    return descriptor


class _CrdListener:
    """Keeps the registry in step with the stored CustomResourceDefinitions."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __call__(self, change: Change) -> None:
        if change.key.resource != _CRDS:
            return
        crd = encoding.decode(change.body)
        if change.type == "DELETED":
            self._registry.drop_crd(crd)
        else:
            self._registry.put_crd(crd)


async def _load_definitions(
    store: Store, registry: Registry, objects: Objects, crds: Sequence[Object]
) -> None:
    """Serve the stored definitions, then bring the shipped ones up to date."""
    for body in store.page(_CRDS).bodies:
        try:
            registry.put_crd(encoding.decode(body))
        except (ApiError, ValueError) as error:
            name = encoding.decode(body)["metadata"]["name"]
            fault = f"the stored definition {name} cannot be served: {error}"
            raise ConfigError([fault]) from error
    for crd in crds:
        await _ensure(store, registry, objects, CRD, crd)


async def _ensure(
    store: Store, registry: Registry, objects: Objects, kind: Kind, manifest: Object
) -> None:
    """Create a cluster-wide object, or bring its spec up to date."""
    resource = registry.find_kind(kind)
    if resource is None:
        return
    name = manifest["metadata"]["name"]
    options = WriteOptions(validation="Ignore")
    if store.get(Key(resource.path, "", name)) is None:
        await objects.create(resource, "", manifest, options)
    elif "spec" in manifest:
        spec = manifest["spec"]
        await objects.patch(resource, "", name, lambda old: {**old, "spec": spec}, options)
