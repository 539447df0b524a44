"""The engine's answers to boot services and gateway: what a MAC boots, whom an agent may be.

Both are derived from the host's object on every request; the only thing written is which agent
was first to use a boot nonce, and that is written before the agent is let in.
"""

import logging
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from billet_server import errors
from billet_server.core.annotations import PAUSED
from billet_server.core.booting import NETBOOT_PURPOSES
from billet_server.core.bootplan import AskAgain, BootPlan, DiskBoot, RamdiskBoot
from billet_server.core.host import Host, parse_host
from billet_server.core.states import State, read_state
from billet_server.engine.controller import Controller
from billet_server.ports import BARE_METAL_HOST, Admission, BootStage, Clock, KubeApi, Object
from billet_wire import STANDBY, Hello

log = logging.getLogger(__name__)

_MACS_TOLD = 16

_STILL_THERE = (
    "the machine may still run the ramdisk instead of its image, or somebody uses a copied token;"
    " look at the machine's screen"
)


STANDBY_PAUSE_S: Final = 1.0
"""After so long an agent that found only standbys asks again: a new leader is near."""


class Claim(Protocol):
    """What a genuine token says."""

    @property
    def host_uid(self) -> str:
        """The host object's UID."""

    @property
    def mac(self) -> str:
        """The boot MAC, lower case."""

    @property
    def nonce(self) -> str:
        """The boot nonce."""


class Tokens(Protocol):
    """Mints and reads one-time tokens; implemented by the gateway's token module."""

    def mint(self, host_uid: str, mac: str, nonce: str) -> str:
        """Return a token for a boot."""

    def read(self, token: str) -> Claim | None:
        """Return the claim of a genuine token, else None."""


class AgentAddress(NamedTuple):
    """What the kernel line tells the agent: HOST:PORT, CA fingerprint, CA URL, more arguments."""

    server: str
    ca_fingerprint: str
    ca_url: str
    extra_arguments: tuple[str, ...] = ()


class Directory:
    """Implements ports.BootDirectory and ports.AgentDirectory.

    The gateway needs the directory and the controller needs the gateway: `attach` closes the
    circle before anything listens. ``standby()`` says in words why this server does not lead,
    "" when it does: agents are then told to call another one.
    """

    _controller: Controller

    def __init__(
        self,
        api: KubeApi,
        clock: Clock,
        tokens: Tokens,
        address: AgentAddress,
        *,
        standby: Callable[[], str] = lambda: "",
    ) -> None:
        self._api, self._clock, self._tokens, self._address = api, clock, tokens, address
        self._standby = standby

    def attach(self, controller: Controller) -> None:
        """Say who knows the hosts."""
        self._controller = controller

    def boot_plan(self, mac: str) -> BootPlan:
        """See `ports.BootDirectory`."""
        if not self._controller.hosts.synced.is_set():
            return AskAgain("the server has just started and reads its hosts")
        hosts = self._controller.find_by_mac(mac)
        if not hosts:
            return DiskBoot(f"no host has the MAC {mac}")
        meant = [host for host in hosts if _netboots(host, mac)]
        if len(meant) > 1:
            return DiskBoot("two hosts with this MAC want the ramdisk")
        if not meant:
            host = hosts[0]
            state = host.status.provisioning.state or "new"
            return DiskBoot(f"{host.key} is {state} and not meant to boot from the network")
        host = meant[0]
        assert host.status.boot is not None
        nonce = host.status.boot.nonce
        try:
            token = self._tokens.mint(host.uid, mac, nonce)
        except ValueError as error:
            log.warning("host %s: %s", host.key, error)
            return DiskBoot(f"the boot nonce in the status of {host.key} is malformed")
        arguments = (
            f"billet.server={self._address.server}",
            f"billet.ca=sha256:{self._address.ca_fingerprint}",
            f"billet.ca-url={self._address.ca_url}",
            f"billet.token={token}",
            *self._address.extra_arguments,
        )
        return RamdiskBoot(host.key, nonce, arguments)

    def boot_seen(self, mac: str, stage: BootStage, detail: str = "") -> None:
        """See `ports.BootDirectory`."""
        now = self._clock.now()
        for host in self._controller.find_by_mac(mac):
            log.info("host %s: boot stage %s %s", host.key, stage, detail)
            memo = self._controller.memo(host.key)
            if stage in ("dhcp", "script", "kernel", "initramfs"):
                memo.boot = memo.boot._replace(**{f"{stage}_at": now})  # type: ignore[arg-type]
            self._controller.wake(host.key)

    async def admit(self, hello: Hello, peer: str) -> Admission:
        """See `ports.AgentDirectory`."""
        claim = self._tokens.read(hello.token)
        if claim is None:
            return _refuse("token-invalid", "the token was not made by this server")
        if why := self._standby():
            text = f"this server does not lead ({why}); call the other servers"
            return _refuse(STANDBY, text, retry_after_s=STANDBY_PAUSE_S)
        if not self._controller.hosts.synced.is_set():
            return _refuse("server-starting", "the server is still reading", retry_after_s=1.0)
        cached = self._controller.find_by_uid(claim.host_uid)
        if cached is None:
            return _refuse("host-unknown", "the host of this token does not exist (any more)")
        if claim.mac not in {mac.lower() for mac in hello.macs}:
            await self._tell_stranger(cached, claim, hello, peer)
            return _refuse("mac-mismatch", f"this machine has no interface {claim.mac}")
        try:
            return await self._bind(cached, claim, hello, peer)
        except errors.ApiError as error:
            log.warning("agent of %s has to wait: %s", cached.key, error)
            return _refuse("api-unavailable", "the server cannot reach its API", retry_after_s=2.0)

    async def _tell_stranger(self, host: Host, claim: Claim, hello: Hello, peer: str) -> None:
        """Put a wrong machine, or one whose NIC the ramdisk cannot drive, on the object."""
        boot = host.status.boot
        if boot is not None and boot.nonce == claim.nonce and not boot.agent_id:
            macs = ", ".join(sorted(hello.macs)[:_MACS_TOLD]) or "none"
            text = f"the agent at {peer} has no interface {claim.mac}; its interfaces: {macs}"
            await self._controller.report_stranger(host, text)

    async def _bind(self, cached: Host, claim: Claim, hello: Hello, peer: str) -> Admission:
        namespace, name = cached.key
        for _ in range(5):
            host = parse_host(await self._api.get(BARE_METAL_HOST, namespace, name))
            boot = host.status.boot
            if host.uid != claim.host_uid or boot is None or boot.nonce != claim.nonce:
                if host.uid == claim.host_uid and _is_settled(host):
                    text = f"an agent of an earlier boot calls from {peer}: {_STILL_THERE}"
                    await self._controller.report_rival(host, text)
                return _refuse("token-expired", "this boot was given up; the host boots anew")
            if boot.agent_id == hello.agent_id:
                return _accept(host, claim)
            if boot.agent_id:
                text = f"a second agent, at {peer}, calls with the token of the first; refused"
                await self._controller.report_rival(host, text)
                return _refuse("token-used", "another agent used this token first")
            if PAUSED in host.annotations:
                # Its status is frozen, and an agent is let in only once that is on record.
                return _refuse("host-paused", "the host is paused", retry_after_s=5.0)
            body: Object = {
                "metadata": {"resourceVersion": host.resource_version},
                "status": {"boot": {"agentID": hello.agent_id}},
            }
            try:
                written = await self._api.patch(
                    BARE_METAL_HOST, namespace, name, body, subresource="status"
                )
            except errors.Conflict:
                continue
            self._controller.hosts.note_written(written)
            return _accept(host, claim)
        return _refuse("api-busy", "the host's object changes too fast", retry_after_s=1.0)

    def agent_changed(self, host_uid: str) -> None:
        """See `ports.AgentDirectory`."""
        host = self._controller.find_by_uid(host_uid)
        if host is not None:
            self._controller.wake(host.key)


def _netboots(host: Host, mac: str) -> bool:
    boot = host.status.boot
    return boot is not None and boot.purpose in NETBOOT_PURPOSES and boot.mac == mac


def _is_settled(host: Host) -> bool:
    states = (State.PROVISIONED, State.EXTERNALLY_PROVISIONED)
    return read_state(host.status.provisioning.state) in states


def _accept(host: Host, claim: Claim) -> Admission:
    return Admission(accepted=True, host=host.key, host_uid=host.uid, nonce=claim.nonce)


def _refuse(reason: str, message: str, *, retry_after_s: float | None = None) -> Admission:
    return Admission(accepted=False, reason=reason, message=message, retry_after_s=retry_after_s)
