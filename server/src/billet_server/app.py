"""Composition root: builds adapters, runs one TaskGroup, orders start and stop.

Start: state directory, API (embedded or not), keys, gateway, boot HTTP; then, while this server
holds the Lease, DHCP and controller (`engine.duty`). Stop is the reverse: machines are told
nothing more before agents and API clients are let go.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

from billet_server import errors, pki
from billet_server.admission import CertificateFiles, WebhookServer
from billet_server.apiserver.schema import FieldError
from billet_server.apiserver.server import ApiServer
from billet_server.bmc.pacing import Pace
from billet_server.bmc.registry import BmcRegistry
from billet_server.boot.dhcp import DhcpSettings
from billet_server.boot.dnsmasq import Dnsmasq
from billet_server.boot.http import BootHttp
from billet_server.core.validate import host_warnings, validate_host
from billet_server.engine.clock import SystemClock
from billet_server.engine.controller import Controller
from billet_server.engine.directory import AgentAddress, Directory
from billet_server.engine.duty import Duty
from billet_server.engine.fence import FencedAgents, FencedKube
from billet_server.engine.identity import OwnName, token_key
from billet_server.engine.machines import MachineController
from billet_server.engine.reconcilers import Reconcilers
from billet_server.gateway import token
from billet_server.gateway.link import PING_S
from billet_server.gateway.server import Gateway
from billet_server.kube.client import open_kube
from billet_server.ports import (
    BARE_METAL_HOST,
    MACHINE,
    KubeApi,
    Metrics,
    NoMetrics,
    Object,
    Readiness,
)
from billet_server.settings import Settings, Webhook
from billet_server.telemetry.prometheus import PrometheusMetrics
from billet_server.telemetry.server import MetricsServer

log = logging.getLogger(__name__)

Announce = Callable[[str], None]

REPLICA_PING_S = 5.0
"""With another server to go to, agents leave a dead one after 15 s of silence."""


class _Tokens:
    """The gateway's tokens with this installation's key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def mint(self, host_uid: str, mac: str, nonce: str) -> str:
        return token.mint(self._key, host_uid, mac, nonce)

    def read(self, text: str) -> token.Claim | None:
        return token.read(self._key, text)


async def run(settings: Settings, announce: Announce) -> None:
    """Serve until SIGINT or SIGTERM. Raises BilletError when something cannot start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings, announce) as reconcile:
        runner = asyncio.create_task(reconcile(), name="reconcile")
        stopper = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait({runner, stopper}, return_when=asyncio.FIRST_COMPLETED)
        if runner.done():
            await runner
        announce("stopping")
        for task in (runner, stopper):
            task.cancel()
        await asyncio.gather(runner, stopper, return_exceptions=True)


@contextlib.asynccontextmanager
async def serving(
    settings: Settings, announce: Announce
) -> AsyncIterator[Callable[[], Coroutine[None, None, None]]]:
    """Start every service; yields what reconciles while this server leads, for ever."""
    async with contextlib.AsyncExitStack() as stack:
        # Before anything makes it with a wider mode: keys, tokens and objects live in it.
        settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = OwnName(settings.state_dir, settings.identity)
        stack.callback(name.close)
        kubeconfig = settings.kubeconfig
        if settings.embedded_api:
            kubeconfig = await _start_api(settings, stack, announce)
        api = open_kube(kubeconfig, watches=3 * max(1, len(settings.namespaces)))
        stack.push_async_callback(api.close)
        await _check_api(api, settings.namespaces)
        clock = SystemClock()
        # A client of its own: a renewal never queues behind other requests.
        lease_api = open_kube(kubeconfig)
        stack.push_async_callback(lease_api.close)
        duty = Duty(settings, lease_api, clock, name.text, announce)
        await duty.prepare()
        authority = pki.ensure_authority(settings.state_dir / "pki")
        if settings.webhook is not None:
            await start_webhook(settings.webhook, settings, authority, stack, announce)
        address = _agent_address(settings, authority.fingerprint)
        tokens = _Tokens(token_key(settings.state_dir))
        check = duty.leader.check
        fenced = FencedKube(api, check)
        directory = Directory(fenced, clock, tokens, address, standby=duty.why_not)
        gateway = Gateway(
            directory,
            authority.cert_pem,
            log_dir=settings.state_dir / "agent-logs",
            ping_s=PING_S if settings.embedded_api else REPLICA_PING_S,
            readiness=duty.readiness,
        )
        answer_s = settings.bmc_timeout_s
        pace = Pace(answer_s=answer_s, read_s=4 * answer_s, command_s=9 * answer_s)
        pace = pace._replace(soft_off_s=settings.rules.soft_off_s)
        bmcs = BmcRegistry(pace=pace, ca_file=settings.redfish_ca, permit=check)
        stack.push_async_callback(bmcs.close)
        metrics = await _start_metrics(settings, duty.readiness, stack, announce)
        controller = Controller(
            fenced,
            bmcs,
            FencedAgents(gateway, check),
            clock,
            rules=settings.rules,
            workers=settings.workers,
            namespaces=settings.namespaces,
            metrics=metrics,
        )
        directory.attach(controller)
        await _tell_machines(api, settings.namespaces, announce)
        machines = MachineController(fenced, controller, clock, namespaces=settings.namespaces)
        reconcilers = Reconcilers(controller, machines)
        names = [settings.address, "localhost"]
        names += [each.rpartition(":")[0] for each in settings.agent_addresses]
        leaf = pki.ensure_leaf(authority, settings.state_dir / "pki", "agents", names)
        await gateway.start(settings.address, settings.agent_port, leaf.server_context())
        stack.push_async_callback(gateway.stop)
        announce(f"agents call {address.server} (TLS, CA {authority.fingerprint[:16]}…)")
        boot = BootHttp(
            directory, settings.ramdisk_dir, authority.cert_pem, readiness=duty.readiness
        )
        await boot.start(settings.address, settings.http_port)
        stack.push_async_callback(boot.stop)
        announce(f"machines boot from http://{settings.address}:{settings.http_port}/boot.ipxe")
        # Given back before gateway and boot HTTP end: the next leader need not wait for them.
        stack.push_async_callback(duty.leader.release)
        dnsmasq = Dnsmasq(_dhcp(settings), directory)
        dnsmasq.prepare()
        stack.push_async_callback(dnsmasq.stop)
        yield lambda: duty.run(reconcilers, gateway, dnsmasq)


async def _start_api(
    settings: Settings, stack: contextlib.AsyncExitStack, announce: Announce
) -> Path:
    validators = {BARE_METAL_HOST: _host_faults}
    advisers = {BARE_METAL_HOST: host_warnings}
    server = ApiServer(settings.state_dir, validators=validators, advisers=advisers)
    handed = None if settings.api_fd is None else socket.socket(fileno=settings.api_fd)
    await server.start(host=settings.api_host, port=settings.api_port, sock=handed)
    stack.push_async_callback(server.stop)
    announce(f"API on {server.url}; kubectl --kubeconfig {server.kubeconfig_path}")
    return server.kubeconfig_path if handed is None else await server.listen_on_loopback()


async def start_webhook(
    webhook: Webhook,
    settings: Settings,
    authority: pki.Authority,
    stack: contextlib.AsyncExitStack,
    announce: Announce,
) -> None:
    """Serve the webhook until the stack is undone. Raises ConfigError."""
    if webhook.cert is not None and webhook.key is not None:
        files = CertificateFiles(webhook.cert, webhook.key)
    else:
        names = [*webhook.names, settings.address, "localhost", "127.0.0.1"]
        leaf = pki.ensure_leaf(authority, settings.state_dir / "pki", "webhook", names)
        files = CertificateFiles(leaf.cert_path, leaf.key_path)
    server = WebhookServer(files)
    port = await server.start(webhook.host, webhook.port)
    stack.push_async_callback(server.stop)
    announce(f"webhook on {webhook.host} port {port}; billet webhook-manifest makes a cluster ask")


async def _start_metrics(
    settings: Settings,
    readiness: Readiness,
    stack: contextlib.AsyncExitStack,
    announce: Announce,
) -> Metrics:
    if settings.metrics_port == 0:
        return NoMetrics()
    metrics = PrometheusMetrics(per_host=settings.metrics_per_host)
    server = MetricsServer(metrics, readiness)
    try:
        port = await server.start(settings.metrics_host, settings.metrics_port)
    except errors.ConfigError as error:
        # Nobody's machine has to wait for want of figures.
        log.warning("%s", error)
        announce(f"no metrics: {error}")
        return metrics
    stack.push_async_callback(server.stop)
    announce(f"metrics on http://{settings.metrics_host}:{port}/metrics")
    return metrics


def _host_faults(new: Object, old: Object | None) -> list[FieldError]:
    return [FieldError(*fault) for fault in validate_host(new, old)]


async def _check_api(api: KubeApi, namespaces: tuple[str, ...]) -> None:
    try:
        # With namespaces of its own the server may be allowed to read in those only.
        await api.list(BARE_METAL_HOST, namespaces[0] if namespaces else None)
    except errors.NotFound as error:
        text = "the cluster does not know BareMetalHost; install the definitions first:"
        raise errors.ConfigError([f"{text} kubectl apply --server-side -f crds/"]) from error


async def _tell_machines(api: KubeApi, namespaces: tuple[str, ...], announce: Announce) -> None:
    """Say if the cluster has no Machines for us; hosts do not need them, so that is no fault."""
    try:
        await api.list(MACHINE, namespaces[0] if namespaces else None)
    except errors.NotFound:
        text = "the cluster does not know Machine; where it is wanted: kubectl apply --server-side"
        announce(f"no Machines: {text} -f crds/machines.yaml (noticed within a minute)")
    except errors.ApiError as error:
        if error.status == 403:
            text = "this account may not list them; deploy/rbac.yaml has the rules"
            announce(f"no Machines: {text} (noticed within a minute)")


def _dhcp(settings: Settings) -> DhcpSettings:
    return DhcpSettings(
        interface=settings.interface,
        server_address=settings.address,
        mode=settings.dhcp,
        range_start=settings.range_start,
        range_end=settings.range_end,
        netmask=settings.netmask,
        gateway=settings.router,
        dns=settings.dns,
        http_port=settings.http_port,
        state_dir=settings.state_dir,
    )


def _agent_address(settings: Settings, fingerprint: str) -> AgentAddress:
    hosts = dict.fromkeys(each.rpartition(":")[0] for each in settings.agent_addresses)
    return AgentAddress(
        ",".join(settings.agent_addresses),
        fingerprint,
        ",".join(f"http://{host}:{settings.http_port}/ca.pem" for host in hosts),
        settings.kernel_arguments,
    )
