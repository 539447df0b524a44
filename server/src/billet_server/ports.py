"""The outside worlds as the engine sees them: one Protocol each, with its errors.

Adapters implement these (the in-memory twins live in `billet_server.memory`); only
`billet_server.app` builds them. Two ports point the other way: `BootDirectory` and
`AgentDirectory` are implemented by the engine and consumed by boot services and gateway.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

from billet_server.core.agents import AgentView as AgentView
from billet_server.core.bootplan import BootPlan
from billet_server.core.terms import BootDevice, BootMode, Credentials, HostKey, PowerState
from billet_wire import Hello, Job

Object = dict[str, Any]
"""A Kubernetes object as plain JSON data. Whoever receives one must not change it in place."""


class Clock(Protocol):
    """Time, so that tests can run in virtual time."""

    def now(self) -> datetime:
        """Return the wall clock, aware, UTC."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class Kind(NamedTuple):
    """A kind of object: API group ("" for core), version, kind, plural, whether namespaced."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Return the ``apiVersion`` value of manifests."""
        return f"{self.group}/{self.version}" if self.group else self.version


BARE_METAL_HOST = Kind("metal3.io", "v1alpha1", "BareMetalHost", "baremetalhosts")
HARDWARE_DATA = Kind("metal3.io", "v1alpha1", "HardwareData", "hardwaredata")
MACHINE = Kind("cluster.k8s.io", "v1alpha1", "Machine", "machines")
SECRET = Kind("", "v1", "Secret", "secrets")
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps")
NAMESPACE = Kind("", "v1", "Namespace", "namespaces", namespaced=False)
EVENT = Kind("", "v1", "Event", "events")
LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")
CRD = Kind(
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    namespaced=False,
)


class ObjectList(NamedTuple):
    """A list and the resourceVersion to watch from."""

    items: list[Object]
    resource_version: str


class WatchEvent(NamedTuple):
    """One change. BOOKMARK objects carry only metadata.resourceVersion."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: Object


class KubeApi(Protocol):
    """A Kubernetes API, embedded or real. Raises `errors.ApiError` and its children only."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """Return one object. Raises NotFound."""

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> ObjectList:
        """Return all objects of a kind, in one namespace or (None) in all."""

    def watch(
        self, kind: Kind, namespace: str | None = None, *, resource_version: str
    ) -> AsyncIterator[WatchEvent]:
        """Yield changes after ``resource_version`` until the server ends the watch.

        Once the server has taken the watch, a BOOKMARK of ``resource_version`` comes first.
        Raises Gone when the version is too old, Unavailable when the connection breaks.
        """

    async def create(self, kind: Kind, obj: Object) -> Object:
        """Create. Raises Conflict (exists), Invalid."""

    async def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        patch: Object,
        *,
        subresource: Literal["", "status"] = "",
    ) -> Object:
        """JSON-merge-patch (RFC 7386). A ``metadata.resourceVersion`` in it guards: Conflict."""

    async def replace(
        self, kind: Kind, obj: Object, *, subresource: Literal["", "status"] = ""
    ) -> Object:
        """Put the whole object. Raises Conflict when its resourceVersion is old."""

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        """Delete; objects with finalizers only get a deletionTimestamp. Raises NotFound."""

    async def close(self) -> None:
        """Release connections."""


class BmcTarget(NamedTuple):
    """All that is needed to talk to one host's BMC."""

    address: str
    credentials: Credentials
    verify_certificate: bool = True
    boot_mac: str = ""


class Bmc(Protocol):
    """One machine's BMC. Raises `errors.BmcError` children only; every call has a deadline."""

    async def power_state(self) -> PowerState:
        """Return the power state; the cheapest proof that address and credentials work."""

    async def power_on(self) -> None:
        """Switch on; returns when the BMC says "on". A machine that is on is left alone."""

    async def power_off(self, *, soft: bool = False) -> None:
        """Switch off; returns when the BMC says "off".

        soft asks the operating system (ACPI) and raises BmcUnsupported where the BMC cannot,
        BmcRejected when the machine is still on at the deadline.
        """

    async def power_cycle(self, *, soft: bool = False) -> None:
        """Restart by one command of the BMC's; a machine that is off is switched on.

        soft asks the operating system and raises BmcUnsupported where the BMC cannot. Nothing
        tells when a machine has restarted: returns when the BMC took the command and says "on".
        """

    async def set_boot_device(
        self, device: BootDevice, *, mode: BootMode | None = None, persistent: bool = False
    ) -> None:
        """Choose the next boot's device (once, or persistent); ``mode`` None leaves the mode."""

    async def close(self) -> None:
        """Log out and release connections."""


class Bmcs(Protocol):
    """Opens BMCs; all drivers of one BMC address share one lane (one command at a time)."""

    def open(self, target: BmcTarget) -> Bmc:
        """Return a driver without touching the network. Raises BmcAddressError."""

    async def close(self) -> None:
        """Close every driver and pool."""


class AgentLink(Protocol):
    """The server's side of all agent connections."""

    def view(self, host_uid: str) -> AgentView | None:
        """Return the latest session of a host's agent, connected or not; None: never seen."""

    async def run_job(self, host_uid: str, job: Job) -> None:
        """Send a job (idempotent by id). Raises AgentError when no agent is connected."""

    async def cancel_job(self, host_uid: str, job_id: str) -> None:
        """Ask the agent to stop a job. Raises AgentError when no agent is connected."""

    async def forget(self, host_uid: str) -> None:
        """Drop the session and its connection: the host starts afresh or is gone."""


class Admission(NamedTuple):
    """Whether an agent may speak for a host. ``reason`` is a short id, ``message`` words."""

    accepted: bool
    host: HostKey | None = None
    host_uid: str = ""
    nonce: str = ""
    reason: str = ""
    message: str = ""
    retry_after_s: float | None = None


class AgentDirectory(Protocol):
    """Engine's answers to the gateway."""

    async def admit(self, hello: Hello, peer: str) -> Admission:
        """Check token, nonce, MACs and first-use binding (recorded before acceptance)."""

    def agent_changed(self, host_uid: str) -> None:
        """A session appeared, changed or went; called on every report, must be cheap."""


BootStage = Literal["dhcp", "loader", "script", "kernel", "initramfs"]


class BootDirectory(Protocol):
    """Engine's answers to the boot services."""

    def boot_plan(self, mac: str) -> BootPlan:
        """Return what the machine with this MAC (lower case, colons) should boot now."""

    def boot_seen(self, mac: str, stage: BootStage, detail: str = "") -> None:
        """A boot step of a MAC was observed; must be cheap and never raise."""


class Metrics(Protocol):
    """Figures of `core.figures`, ``labels`` in their order. Cheap; never raises for a host."""

    def add(self, name: str, *labels: str, amount: float = 1.0) -> None:
        """Count up."""

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""

    def observe(self, name: str, seconds: float, *labels: str) -> None:
        """Enter a duration into a histogram."""

    def watch(self, name: str, read: Callable[[], float], *labels: str) -> None:
        """Have a gauge read when somebody asks; ``read`` is cheap and may run in any thread."""

    def forget(self, namespace: str, host: str) -> None:
        """Drop what is kept for a host that is gone."""


class NoMetrics:
    """`Metrics` that nobody looks at."""

    def add(self, name: str, *labels: str, amount: float = 1.0) -> None:
        """Do nothing."""

    def set(self, name: str, value: float, *labels: str) -> None:
        """Do nothing."""

    def observe(self, name: str, seconds: float, *labels: str) -> None:
        """Do nothing."""

    def watch(self, name: str, read: Callable[[], float], *labels: str) -> None:
        """Do nothing."""

    def forget(self, namespace: str, host: str) -> None:
        """Do nothing."""


WakeUp = Callable[[], Awaitable[None]]

Readiness = Callable[[], tuple[bool, str]]
"""Whether this server has filled its caches, and what it is, in words. Standbys are ready too."""


def always_ready() -> tuple[bool, str]:
    """Be ready: for a service without anything behind it."""
    return True, "ready"
