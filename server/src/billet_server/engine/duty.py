"""What this server does as a leader and as a standby, beside deciding which of them it is.

Always: caches are kept filled, boot HTTP and gateway answer. Leading: hosts are reconciled and
agents let in. DHCP: from first leading on until another server is known to lead. Two DHCP
servers with one range must not meet, but a machine that boots while the API is away for a
minute shall get its address all the same.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from billet_server.core.lease import Terms
from billet_server.engine.identity import share_identity
from billet_server.engine.leader import Leader, Phase, ensure_namespace
from billet_server.ports import Clock, KubeApi
from billet_server.settings import Settings

log = logging.getLogger(__name__)

OWN_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
DEFAULT_NAMESPACE: Final = "billet-system"


class Reconciler(Protocol):
    """The controller."""

    @property
    def synced(self) -> bool:
        """Whether the caches have been filled."""

    async def follow(self) -> None:
        """Keep the caches filled, for ever."""

    async def work(self) -> None:
        """Reconcile until cancelled."""


class Agents(Protocol):
    """The gateway."""

    async def dismiss(self, reason: str) -> None:
        """Close every connection."""


class Dhcp(Protocol):
    """DHCP on the provisioning network; both calls may be repeated."""

    async def start(self) -> None:
        """Start serving. Raises BootError, ConfigError."""

    async def stop(self) -> None:
        """Stop serving."""


class Duty:
    """One server's part among the replicas; `prepare`, then `run` once, then ``leader.release``."""

    def __init__(
        self,
        settings: Settings,
        api: KubeApi,
        clock: Clock,
        identity: str,
        announce: Callable[[str], None],
    ) -> None:
        self._settings, self._api, self._announce = settings, api, announce
        self.namespace = _namespace(settings)
        terms = Terms(identity, settings.lease_duration_s, settings.lease_renew_s)
        self.leader = Leader(api, clock, terms, self.namespace, on_phase=self._told)
        self._controller: Reconciler | None = None

    async def prepare(self) -> None:
        """Have the Lease's namespace and, on a cluster, the shared keys. Raises BilletError."""
        await ensure_namespace(self._api, self.namespace)
        if not self._settings.embedded_api:
            await share_identity(self._api, self.namespace, self._settings.state_dir)

    def why_not(self) -> str:
        """Say why this server may not act, "" when it may."""
        return "" if self.leader.leading else self.leader.describe()

    def readiness(self) -> tuple[bool, str]:
        """See `ports.Readiness`."""
        if self._controller is None or not self._controller.synced:
            return False, "not ready: reading the hosts"
        return True, f"ready: {self.leader.describe()}"

    async def run(self, controller: Reconciler, agents: Agents, dhcp: Dhcp) -> None:
        """Be what the Lease says, for ever. Raises what the first failing part raised."""
        self._controller = controller
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(controller.follow(), name="follow")
                group.create_task(self.leader.run(), name="lease")
                group.create_task(self.leader.lead(controller.work), name="lead")
                group.create_task(self._keep_agents(agents), name="agents-of-leader")
                group.create_task(self._serve_dhcp(dhcp), name="dhcp-of-leader")
        except ExceptionGroup as failed:
            raise _first(failed) from failed

    async def _keep_agents(self, agents: Agents) -> None:
        """Send the agents on when this server leads no more."""
        while True:
            await self.leader.until(lambda phase: phase is Phase.LEADING)
            await self.leader.until(lambda phase: phase is not Phase.LEADING)
            await agents.dismiss("this server leads no more")

    async def _serve_dhcp(self, dhcp: Dhcp) -> None:
        while True:
            await self.leader.until(lambda phase: phase is Phase.LEADING)
            await dhcp.start()
            if self._settings.dhcp == "off":
                self._announce("DHCP is off: point your DHCP server's boot file at that address")
            else:
                self._announce(f"DHCP ({self._settings.dhcp}) on {self._settings.interface}")
            self._announce("ready")
            await self.leader.until(lambda phase: phase is Phase.STANDBY)
            await dhcp.stop()

    def _told(self, phase: Phase) -> None:
        if phase in (Phase.STANDBY, Phase.UNSURE):
            self._announce(self.leader.describe())
        if phase is Phase.STANDBY and len(self._settings.agent_addresses) == 1:
            log.warning(
                "there are several servers, and agents booted by this one are told %s only; give"
                " every server's address by --agent-address (or one that leads to all of them)",
                self._settings.agent_addresses[0],
            )


def _namespace(settings: Settings) -> str:
    if settings.lease_namespace:
        return settings.lease_namespace
    if settings.namespaces:
        return settings.namespaces[0]
    if settings.in_cluster and OWN_NAMESPACE.is_file():
        return OWN_NAMESPACE.read_text().strip()
    return DEFAULT_NAMESPACE


def _first(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error in a group of groups."""
    first: BaseException = failed
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
