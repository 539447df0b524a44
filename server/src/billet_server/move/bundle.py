"""A host with all that belongs to it, and what is left of it on the way to another API. Pure."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from billet_server.core.annotations import MOVE, PAUSED, STATUS
from billet_server.core.terms import HostKey
from billet_server.ports import BARE_METAL_HOST, HARDWARE_DATA, SECRET, Kind, Object

AS_SAVED = "as-saved"
"""In a file, in place of the resourceVersion of a Secret that is in it."""
CHANGED = "changed-before-move"
REFERENCES = ("userData", "networkData", "metaData")
MOST_ANNOTATION_BYTES = 128 << 10
"""All annotations of an object may have 256 KiB together."""

_SERVERS = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
)
_OF_THE_OLD_SERVER = ("boot", "progress", "waiting")
ADDITIONS = frozenset({"problem", "failures", "conditions", *_OF_THE_OLD_SERVER})
"""Fields of a status that definitions other than Billet's may not have."""


class Mark(NamedTuple):
    """What `billet.dev/move` says. ``id``: the source object's UID; ``other``: the other API's.

    ``paused``: the value of the pause there was before the move, None without one. ``made``, at
    the target: Kind/name of what was not there before.
    """

    id: str
    other: str
    paused: str | None = None
    handed_over: bool = False
    made: Sequence[str] = ()

    def render(self) -> str:
        """Return the annotation's value."""
        return json.dumps(self._asdict(), separators=(",", ":"))


def read_mark(obj: Object) -> Mark | None:
    """Return an object's mark; None without one, or when it is not ours to read."""
    text = annotations(obj).get(MOVE)
    try:
        return Mark(**json.loads(text)) if text else None
    except (ValueError, TypeError):
        return None


class Bundle(NamedTuple):
    """A host's objects as they are at the source. Secrets that are missing are left out."""

    host: Object
    secrets: tuple[Object, ...] = ()
    hardware: Object | None = None

    @property
    def key(self) -> HostKey:
        """Return the host's namespace and name."""
        return key_of(self.host)

    @property
    def id(self) -> str:
        """Return what tells this host from another of its name: its UID, where it has one."""
        return str(self.host["metadata"].get("uid") or self.key)

    @property
    def dependents(self) -> list[tuple[Kind, Object]]:
        """Return Secrets and HardwareData with their kinds."""
        hardware = [(HARDWARE_DATA, self.hardware)] if self.hardware is not None else []
        return [*((SECRET, secret) for secret in self.secrets), *hardware]


def key_of(obj: Object) -> HostKey:
    """Return an object's namespace and name."""
    return HostKey(obj["metadata"]["namespace"], obj["metadata"]["name"])


def annotations(obj: Object) -> dict[str, str]:
    """Return an object's annotations."""
    return dict(obj["metadata"].get("annotations") or {})


def secret_names(host: Object) -> list[str]:
    """Return the names of the Secrets that a host refers to, each once."""
    spec = host.get("spec") or {}
    namespace = host["metadata"]["namespace"]
    references = [spec.get(field) or {} for field in REFERENCES]
    names = [
        (spec.get("bmc") or {}).get("credentialsName"),
        *(one.get("name") for one in references if one.get("namespace") in (None, "", namespace)),
        spec.get("preprovisioningNetworkDataName"),
    ]
    return list(dict.fromkeys(filter(None, names)))


def target_host(bundle: Bundle, mark: Mark) -> Object:
    """Return the object to create: paused, marked, with its status in an annotation.

    The annotation makes creation atomic: whoever unpauses the object too early restores it.
    """
    found = stripped(BARE_METAL_HOST, bundle.host)
    found.pop("status", None)
    kept = {**annotations(bundle.host), PAUSED: "billet move", MOVE: mark.render()}
    status = json.dumps(moved_status(bundle.host), separators=(",", ":"))
    if bundle.host.get("status") and len(status) <= MOST_ANNOTATION_BYTES:
        kept[STATUS] = status
    found["metadata"]["annotations"] = kept
    return found


Versions = Mapping[str, tuple[str, str]]
"""Of Secrets by name: the resourceVersion at the source, and at the target."""


def moved_status(host: Object, versions: Versions | None = None) -> Object:
    """Return the status without what only the old server could use.

    What is known of the very Secrets that move is known of them at the target: the BMC is not
    asked for their sake, and none of them counts as changed since the image was written.
    """
    status = {k: v for k, v in (host.get("status") or {}).items() if k not in _OF_THE_OLD_SERVER}
    for field in ("goodCredentials", "triedCredentials"):
        known = status.get(field)
        if isinstance(known, Mapping):
            name = (known.get("credentials") or {}).get("name", "")
            old, new = (versions or {}).get(name, ("", ""))
            same = bool(old) and known.get("credentialsVersion") == old
            status[field] = {**known, "credentialsVersion": new if same else ""}
    provisioning = status.get("provisioning")
    if isinstance(provisioning, Mapping) and "configDrive" in provisioning:
        kept = {k: v for k, v in provisioning.items() if k != "configDrive"}
        drive = moved_drive(str(provisioning["configDrive"]), host.get("spec") or {}, versions)
        status["provisioning"] = kept | ({"configDrive": drive} if drive else {})
    if isinstance(status.get("problem"), Mapping):
        # A try that was put off is made soon.
        problem = {k: v for k, v in status["problem"].items() if k != "nextRetryAt"}
        status["problem"] = {**problem, "basis": ""} if "basis" in problem else problem
    return status


def moved_drive(recorded: str, spec: Mapping[str, Any], versions: Versions | None) -> str:
    """Return which Secrets the config drive was made of (field=version,...), as of the target."""
    if versions is None:
        return ""
    parts = []
    for field, _, version in (part.partition("=") for part in recorded.split(",")):
        name = (spec.get(field) or {}).get("name", "")
        if field == "networkData" and not name:
            name = spec.get("preprovisioningNetworkDataName") or ""
        old, new = versions.get(name, ("", ""))
        parts.append(f"{field}={new if old and version == old else CHANGED}")
    return ",".join(parts)


def stripped(kind: Kind, obj: Object) -> Object:
    """Return an object as it can be created elsewhere: no server's metadata, no owners."""
    metadata = {k: v for k, v in obj["metadata"].items() if k not in (*_SERVERS, "ownerReferences")}
    metadata["annotations"] = {k: v for k, v in annotations(obj).items() if k != MOVE}
    if kind == SECRET:
        metadata.pop("finalizers", None)
    kept = {k: v for k, v in obj.items() if k not in ("metadata", "apiVersion", "kind")}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **kept}


def dependent(kind: Kind, obj: Object, owner: Object, old_uid: str) -> Object:
    """Return a Secret or HardwareData for the target, owned by the host there as it was here."""
    found = stripped(kind, obj)
    owners = [
        {**reference, "uid": owner["metadata"]["uid"]}
        for reference in obj["metadata"].get("ownerReferences") or ()
        if reference.get("uid") == old_uid
    ]
    if owners:
        found["metadata"]["ownerReferences"] = owners
    return found


def other_owners(obj: Object, uid: str) -> list[str]:
    """Return who else owns an object, as Kind/name."""
    references = obj["metadata"].get("ownerReferences") or ()
    return [f"{one['kind']}/{one['name']}" for one in references if one.get("uid") != uid]


def content(kind: Kind, obj: Object) -> Any:
    """Return what must be the same on both sides."""
    if kind == SECRET:
        data = dict(obj.get("data") or {})
        for key, text in (obj.get("stringData") or {}).items():
            data[key] = base64.b64encode(text.encode()).decode()
        return {"type": obj.get("type") or "Opaque", "data": data}
    return obj.get("spec")


def differences(wanted: Any, found: Any, path: str = "") -> list[str]:
    """Return the paths of what is wanted and not there; more may be there (defaults)."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        paths: list[str] = []
        for key, value in wanted.items():
            if value is not None:
                paths += differences(value, found.get(key), f"{path}.{key}" if path else str(key))
        return paths
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return [
            each
            for number, (one, other) in enumerate(zip(wanted, found, strict=True))
            for each in differences(one, other, f"{path}[{number}]")
        ]
    return [] if wanted == found else [path or "(all)"]
