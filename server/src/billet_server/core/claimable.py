"""Hosts as Machines see them: whose one is, and whether, or why not, it may be taken. Pure.

Everything here reads plain objects, is cheap, and bears any object that the API may hold: the
engine's indexes ask it at each change of a host.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from billet_server.core.annotations import DETACHED, PAUSED
from billet_server.core.states import State, read_state, resume
from billet_server.core.terms import HostKey
from billet_server.core.validation.faults import Json, annotations_of, part, text
from billet_server.core.wording import printable

MACHINE_GROUP: Final = "cluster.k8s.io"
MACHINE_API: Final = f"{MACHINE_GROUP}/v1alpha1"
UNHEALTHY: Final = "capi.metal3.io/unhealthy"

CLAIMABLE: Final = ""
"""The obstacle of a host that has none."""

OBSTACLES: Final = (
    "taken",
    "not ready",
    "failing",
    "in use without a consumer",
    "paused",
    "detached",
    "unhealthy",
    "being deleted",
)
PROMISED: Final = "chosen by other Machines"
LABELS_DIFFER: Final = "other labels"
EXAMPLES: Final = 3
"""So many hosts of each obstacle are named."""


class Consumer(NamedTuple):
    """Whom ``spec.consumerRef`` names. ``group`` is that of its ``apiVersion``."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return printable(f"{self.kind or 'object'} {self.namespace}/{self.name}", 200)

    @property
    def machine(self) -> HostKey | None:
        """The Machine of ours that is named, else None."""
        ours = self.group == MACHINE_GROUP and self.kind == "Machine" and bool(self.name)
        return HostKey(self.namespace, self.name) if ours else None


class HostView(NamedTuple):
    """What a Machine's step has to know of one host. ``hardware`` is ``status.hardware``."""

    key: HostKey
    uid: str
    resource_version: str
    consumer: Consumer | None
    obstacle: str
    state: State
    labels: Mapping[str, str]
    image_url: str = ""
    user_data: str = ""
    online: bool = False
    keeps_power: bool = False
    powered_on: bool | None = None
    deleting: bool = False
    resting: str = ""
    trouble: str = ""
    hardware: Mapping[str, Any] = {}


class Group(NamedTuple):
    """Hosts with one obstacle: how many, and the words for some of them."""

    obstacle: str
    hosts: int
    examples: tuple[str, ...]


Survey = Sequence[Group]


def consumer_of(host: Json) -> Consumer | None:
    """Return whom a host is used by; an empty reference is nobody."""
    reference = part(part(host, "spec"), "consumerRef")
    if not reference:
        return None
    group, slash, _ = text(reference, "apiVersion").partition("/")
    own = text(part(host, "metadata"), "namespace")
    return Consumer(
        group if slash else "",
        text(reference, "kind"),
        text(reference, "namespace") or own,
        text(reference, "name"),
    )


def obstacle_of(host: Json) -> str:
    """Return which of `OBSTACLES` keeps a host from being taken, `CLAIMABLE` when none does."""
    meta, spec, status = (part(host, name) for name in ("metadata", "spec", "status"))
    notes = annotations_of(host)
    if "deletionTimestamp" in meta:
        return "being deleted"
    if consumer_of(host) is not None:
        return "taken"
    if PAUSED in notes:
        return "paused"
    if DETACHED in notes or text(status, "operationalStatus") == "detached":
        return "detached"
    if UNHEALTHY in notes:
        return "unhealthy"
    if _in_use(spec, status):
        return "in use without a consumer"
    if text(status, "errorMessage") or part(status, "problem"):
        return "failing"
    return CLAIMABLE if state_of(host) is State.READY else "not ready"


def state_of(host: Json) -> State:
    """Return a host's provisioning state; NONE for what cannot be read."""
    status = part(host, "status")
    word = text(part(status, "provisioning"), "state")
    held = part(part(status, "provisioning"), "image")
    return read_state(
        resume(
            word,
            has_image=bool(text(held, "url")),
            is_external=part(host, "spec").get("externallyProvisioned") is True,
            has_hardware=bool(part(status, "hardware")),
        )
    )


def labels_of(obj: Json) -> Mapping[str, str]:
    """Return an object's labels."""
    return part(part(obj, "metadata"), "labels")


def view_host(host: Json) -> HostView:
    """Return a host as a Machine's step sees it."""
    meta, spec, status = (part(host, name) for name in ("metadata", "spec", "status"))
    notes = annotations_of(host)
    resting = "paused" if PAUSED in notes else "detached" if DETACHED in notes else ""
    return HostView(
        key=HostKey(text(meta, "namespace"), text(meta, "name")),
        uid=text(meta, "uid"),
        resource_version=text(meta, "resourceVersion"),
        consumer=consumer_of(host),
        obstacle=obstacle_of(host),
        state=state_of(host),
        labels=labels_of(host),
        image_url=text(part(spec, "image"), "url"),
        user_data=text(part(spec, "userData"), "name"),
        online=spec.get("online") is True,
        keeps_power=spec.get("disablePowerOff") is True,
        powered_on=status.get("poweredOn") if isinstance(status.get("poweredOn"), bool) else None,
        deleting="deletionTimestamp" in meta,
        resting=resting,
        trouble=printable(text(status, "errorMessage"), 300),
        hardware=part(status, "hardware"),
    )


def explain(host: Json) -> str:
    """Return a host's name and, in brackets, what stands behind its obstacle."""
    view = view_host(host)
    detail = ""
    match view.obstacle:
        case "taken":
            detail = f"by {view.consumer}"
        case "not ready":
            detail = view.state.value or "new"
        case "failing":
            detail = printable(view.trouble, 80)
        case "in use without a consumer":
            detail = "spec.image is set" if view.image_url else "another deployment is wanted"
    return f"{view.key.name} ({detail})" if detail else view.key.name


def render_survey(survey: Survey, namespace: str) -> str:
    """Return the table of candidates as one line: how many of each sort, some by name."""
    total = sum(group.hosts for group in survey)
    if not total:
        return f"there is no BareMetalHost in namespace {namespace}"
    parts = []
    for group in survey:
        if not group.hosts:
            continue
        more = group.hosts - len(group.examples)
        named = ", ".join(group.examples) + (f" and {more} more" if more > 0 else "")
        parts.append(f"{group.hosts} {group.obstacle}: {named}")
    hosts = "1 host" if total == 1 else f"{total} hosts"
    return f"none of {hosts} in namespace {namespace} fits: {'; '.join(parts)}"


def _in_use(spec: Json, status: Json) -> bool:
    provisioning = part(status, "provisioning")
    return bool(
        text(part(spec, "image"), "url")
        or text(part(spec, "customDeploy"), "method")
        or spec.get("externallyProvisioned") is True
        or text(part(provisioning, "image"), "url")
    )
