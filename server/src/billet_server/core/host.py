"""A BareMetalHost as typed data: spec is frozen, status is rebuilt by each step.

`parse_host` never fails on an object that the API accepted: what cannot be understood is
reported as ``spec_fault`` or ``status_fault`` and becomes a problem on the object. Field names and
meanings are Metal3's (``metal3.io/v1alpha1``); ours are ``progress``, ``waiting``, ``boot``,
``problem``.
"""

import contextlib
import copy
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from billet_server.core.states import ERRORS_OF_2019, is_known, resume
from billet_server.core.terms import BootMode, HostKey
from billet_wire import RootDeviceHints

FINALIZER = "baremetalhost.metal3.io"
_UNKNOWN = "status.provisioning.state {!r} is not one of BareMetalHost's"


class Bmc(msgspec.Struct, frozen=True, rename="camel"):
    """Metal3 ``spec.bmc``."""

    address: str = ""
    credentials_name: str = ""
    disable_certificate_verification: bool = msgspec.field(
        name="disableCertificateVerification", default=False
    )


class Image(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Metal3 ``spec.image``; an empty url is no image (old scripts deprovision that way)."""

    url: str = ""
    checksum: str | None = None
    checksum_type: str | None = None
    format: str | None = None


class CustomDeploy(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Metal3 ``customDeploy``: a step of a site's own ramdisk."""

    method: str = ""


class SecretReference(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A Secret's name and (optional) namespace."""

    name: str = ""
    namespace: str | None = None


class Spec(msgspec.Struct, frozen=True, rename="camel"):
    """The fields of ``spec`` that are acted upon."""

    bmc: Bmc = Bmc()
    boot_mac_address: str = msgspec.field(name="bootMACAddress", default="")
    boot_mode: BootMode | None = None
    online: bool = False
    image: Image | None = None
    user_data: SecretReference | None = None
    network_data: SecretReference | None = None
    meta_data: SecretReference | None = None
    externally_provisioned: bool = False
    automated_cleaning_mode: Literal["metadata", "disabled"] = "metadata"
    root_device_hints: RootDeviceHints | None = None
    hardware_profile: str = ""
    inspection_mode: str | None = None
    disable_power_off: bool = False
    raid: dict[str, Any] | None = None
    firmware: dict[str, Any] | None = None
    custom_deploy: CustomDeploy | None = None
    preprovisioning_network_data_name: str = ""
    architecture: str = ""
    consumer_ref: dict[str, Any] | None = None

    @property
    def image_network_data(self) -> SecretReference | None:
        """What configures the image's network: the ramdisk's data where it has none of its own."""
        if self.network_data is not None and self.network_data.name:
            return self.network_data
        name = self.preprovisioning_network_data_name
        return SecretReference(name) if name else None

    @property
    def custom_method(self) -> str:
        """The custom deployment's name, or empty."""
        return self.custom_deploy.method if self.custom_deploy is not None else ""

    @property
    def wanted_image(self) -> Image | None:
        """The image to run, or None."""
        return self.image if self.image is not None and self.image.url else None


class Period(msgspec.Struct, rename="camel", omit_defaults=True):
    """Metal3 OperationMetric: when an operation started and ended."""

    start: datetime | None = None
    end: datetime | None = None


class History(msgspec.Struct, rename="camel"):
    """Metal3 ``status.operationHistory``."""

    register: Period = msgspec.field(default_factory=Period)
    inspect: Period = msgspec.field(default_factory=Period)
    provision: Period = msgspec.field(default_factory=Period)
    deprovision: Period = msgspec.field(default_factory=Period)


class CredentialsStatus(msgspec.Struct, rename="camel", omit_defaults=True):
    """Which Secret, in which version, was tried or works."""

    credentials: SecretReference | None = None
    credentials_version: str = ""


class Provisioning(msgspec.Struct, rename="camel", omit_defaults=True):
    """Metal3 ``status.provisioning``; ``image`` is what the disk holds, set on proof only.

    ``raid``, ``firmware`` and ``custom_deploy`` are what Metal3 applied before it left the host
    to us. ``config_drive`` is `Seen.data_version` as of the image's writing.
    """

    state: str = msgspec.field(default="")
    id: str = msgspec.field(name="ID", default="")
    image: Image | None = None
    root_device_hints: RootDeviceHints | None = None
    boot_mode: str | None = None
    raid: dict[str, Any] | None = None
    firmware: dict[str, Any] | None = None
    custom_deploy: CustomDeploy | None = None
    config_drive: str = ""


class Progress(msgspec.Struct, rename="camel", omit_defaults=True):
    """Where the running operation is; bytes and rates as the agent reports them."""

    step: str = ""
    message: str = ""
    percent: int | None = None
    done_bytes: int | None = None
    total_bytes: int | None = None
    rate_bytes_per_second: int | None = None
    eta_seconds: int | None = None
    started_at: datetime | None = None


class Waiting(msgspec.Struct, rename="camel", omit_defaults=True):
    """What the host waits for, since when, normally until when, and who must act."""

    cause: str = ""
    message: str = ""
    since: datetime | None = None
    until: datetime | None = None
    actor: str = ""


FAST_TRACK: Final = "fast-track"
"""Wait cause of a host that is in the ramdisk and has nothing to do there yet."""


class Boot(msgspec.Struct, rename="camel", omit_defaults=True):
    """A network boot in progress or an agent session that came of it.

    ``purpose`` is inspect, provision, hand-over, deprovision or idle (agent stays, nothing to
    do since ``idle_since``). ``started_at`` is set once the BMC was told and the power is on.
    ``failed_jobs`` is part of job ids: the next try is a new job.
    """

    nonce: str = ""
    purpose: str = ""
    mac: str = ""
    chosen_at: datetime | None = None
    started_at: datetime | None = None
    agent_id: str = msgspec.field(name="agentID", default="")
    agent_connected_at: datetime | None = None
    handed_over_at: datetime | None = None
    idle_since: datetime | None = None
    failed_jobs: int = 0


class RebootStatus(msgspec.Struct, rename="camel", omit_defaults=True):
    """A restart in place (`disablePowerOff`); ``ended_at`` unset: the BMC was or is being told."""

    mode: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None


class ProblemStatus(msgspec.Struct, rename="camel", omit_defaults=True):
    """The present problem. A change of ``basis`` (spec, Secret) retries at once.

    ``cause`` is the last failure's id when the problem is that there were too many.
    ``retries_left`` counts the next one too; None: it is tried for ever, or not again.
    """

    id: str = ""
    cause: str = ""
    message: str = ""
    evidence: str = ""
    advice: str = ""
    basis: str = ""
    since: datetime | None = None
    next_retry_at: datetime | None = None
    retries_left: int | None = None


class Failures(msgspec.Struct, rename="camel", omit_defaults=True):
    """How often each operation failed since it succeeded last, or ``basis`` changed.

    Provisioning has Metal3's own field for it.
    """

    basis: str = ""
    registration: int = 0
    inspection: int = 0
    preparation: int = 0
    deprovisioning: int = 0
    power: int = 0


class Status(msgspec.Struct, rename="camel"):
    """``status``, mutable: a step works on its own copy."""

    operational_status: str = ""
    error_type: str = ""
    error_message: str = ""
    error_count: int = 0
    hardware_profile: str = ""
    powered_on: bool | None = None
    last_updated: datetime | None = None
    provisioning: Provisioning = msgspec.field(default_factory=Provisioning)
    hardware: dict[str, Any] | None = None
    good_credentials: CredentialsStatus | None = None
    tried_credentials: CredentialsStatus | None = None
    operation_history: History = msgspec.field(default_factory=History)
    progress: Progress | None = None
    waiting: Waiting | None = None
    boot: Boot | None = None
    problem: ProblemStatus | None = None
    failures: Failures | None = None
    provisioning_fail_count: int | None = None
    last_attempted_image: Image | None = None
    conditions: list[Any] | None = None
    reboot: RebootStatus | None = None


_OWNED = sorted(field.encode_name for field in msgspec.structs.fields(Status))


class Host(msgspec.Struct, frozen=True):
    """One BareMetalHost as the step sees it."""

    key: HostKey
    uid: str
    generation: int
    resource_version: str
    spec: Spec
    status: Status
    finalizers: tuple[str, ...] = ()
    annotations: Mapping[str, str] = {}
    deleting: bool = False
    spec_fault: str = ""
    status_fault: str = ""


def parse_host(obj: Mapping[str, Any]) -> Host:
    """Return the typed host of a Kubernetes object."""
    meta = obj.get("metadata", {})
    fault = ""
    try:
        spec = msgspec.convert(obj.get("spec") or {}, Spec, strict=False)
    except msgspec.ValidationError as error:
        spec, fault = Spec(), f"spec cannot be read: {error}"
    status, status_fault = read_status(obj.get("status") or {})
    if not status_fault:
        status_fault = _resume(status, spec)
    return Host(
        key=HostKey(meta.get("namespace", ""), meta.get("name", "")),
        uid=meta.get("uid", ""),
        generation=int(meta.get("generation", 0)),
        resource_version=str(meta.get("resourceVersion", "")),
        spec=spec,
        status=status,
        finalizers=tuple(meta.get("finalizers") or ()),
        annotations=dict(meta.get("annotations") or {}),
        deleting="deletionTimestamp" in meta,
        spec_fault=fault,
        status_fault=status_fault,
    )


def _resume(status: Status, spec: Spec) -> str:
    status.provisioning.state = resume(
        status.provisioning.state,
        has_image=status.provisioning.image is not None,
        is_external=spec.externally_provisioned,
        has_hardware=status.hardware is not None,
    )
    state = status.provisioning.state
    return "" if is_known(state) else _UNKNOWN.format(state)


def read_status(raw: Any) -> tuple[Status, str]:
    """Return the status of an object or of a copy of it, and what is wrong with its state."""
    return _parse_status(without_nulls(raw))


def _parse_status(raw: Any) -> tuple[Status, str]:
    """Return the status and what is wrong with its state.

    Only a foreign hand writes what cannot be read. Such a field is left out, which loses time;
    but without the state nobody knows whose system is on the disk, so then nothing is done.
    """
    if not isinstance(raw, Mapping):
        return Status(), "status is not an object"
    fault = _state_fault(raw.get("provisioning"))
    try:
        status = msgspec.convert(raw, Status, strict=False)
    except msgspec.ValidationError:
        status = Status()
    else:
        # Metal3 writes an image without URL where there is none.
        held = status.provisioning.image
        status.provisioning.image = held if held is not None and held.url else None
        return status, fault
    for field in msgspec.structs.fields(Status):
        if field.encode_name in raw:
            with contextlib.suppress(msgspec.ValidationError):
                value = msgspec.convert(raw[field.encode_name], field.type, strict=False)
                setattr(status, field.name, value)
    if not fault and raw.get("provisioning") and not status.provisioning.state:
        fault = "status.provisioning cannot be read"
    return status, fault


def _state_fault(provisioning: Any) -> str:
    if provisioning is None:
        return ""
    state = provisioning.get("state", "") if isinstance(provisioning, Mapping) else provisioning
    if isinstance(state, str) and (is_known(state) or state in ERRORS_OF_2019):
        return ""
    return _UNKNOWN.format(str(state)[:60])


def render_status(status: Status) -> dict[str, Any]:
    """Return the JSON form of a status: absent facts are absent keys."""
    rendered = msgspec.to_builtins(status)
    assert isinstance(rendered, dict)
    return {key: value for key, value in rendered.items() if value is not None}


def status_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the RFC 7386 merge patch that turns ``old`` into ``new`` for the keys we own.

    Keys of ``old`` that no step ever writes are left alone.
    """
    patch: dict[str, Any] = {}
    for key in _OWNED:
        if key in new:
            if key not in old:
                patch[key] = new[key]
            elif _differ(old[key], new[key]):
                patch[key] = _difference(old[key], new[key])
        elif old.get(key) is not None:
            patch[key] = None
    return patch


def host_patch(obj: Mapping[str, Any], host: Host, status: Status) -> dict[str, Any]:
    """Return the patch of an object's status; a state that cannot be read stays as evidence."""
    patch = status_patch(obj.get("status") or {}, render_status(status))
    if host.status_fault:
        patch.pop("provisioning", None)
    return patch


def copy_status(status: Status) -> Status:
    """Return a status that can be changed without changing ``status``."""
    # By hand: copy.deepcopy was half of a whole pass. `hardware` is never changed in place.
    new = copy.copy(status)
    for name in (
        "provisioning",
        "progress",
        "waiting",
        "boot",
        "problem",
        "reboot",
        "operation_history",
    ):
        setattr(new, name, copy.copy(getattr(status, name)))
    for name in ("good_credentials", "tried_credentials", "failures"):
        setattr(new, name, copy.copy(getattr(status, name)))
    history = new.operation_history
    for name in ("register", "inspect", "provision", "deprovision"):
        setattr(history, name, copy.copy(getattr(history, name)))
    return new


def whole_second(moment: datetime) -> datetime:
    """Return ``moment`` as Kubernetes writes times: UTC, no fraction."""
    return moment.astimezone(UTC).replace(microsecond=0)


def _difference(old: Any, new: Any) -> Any:
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return new
    patch: dict[str, Any] = {key: None for key in old if key not in new and old[key] is not None}
    for key, value in new.items():
        if key not in old:
            patch[key] = value
        elif _differ(old[key], value):
            patch[key] = _difference(old[key], value)
    return patch


def _differ(old: Any, new: Any) -> bool:
    """Whether the values differ in more than nulls, which Metal3's objects are full of."""
    return bool(old != new and without_nulls(old) != new)


def without_nulls(value: Any) -> Any:
    """Return a JSON value whose objects have no null fields, at any depth."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return value
