"""What each command sets on a host, and whether that acts in the state the host is in. Pure."""

from collections.abc import Sequence

from billet_server.cli.changes import Change, Remark, SecretFile, annotation, field
from billet_server.cli.goals import annotation_value, reboot_keys
from billet_server.core.annotations import (
    DETACHED,
    HARDWARE_DETAILS,
    INSPECT,
    PAUSED,
    REBOOT,
    RETRY,
)
from billet_server.core.host import Host, Image
from billet_server.core.states import State, read_state

_REST = (State.READY, State.PROVISIONED, State.EXTERNALLY_PROVISIONED)
_RUNNING = (State.PROVISIONED, State.EXTERNALLY_PROVISIONED)


def state_of(host: Host) -> State:
    """Return the state a host is in."""
    return read_state(host.status.provisioning.state)


def in_state(host: Host) -> str:
    """Return the state's own word."""
    return host.status.provisioning.state or "new"


def general_remarks(host: Host) -> tuple[Remark, ...]:
    """Return what keeps any change from acting."""
    found = []
    if host.deleting:
        found.append(Remark("never", "the host is being deleted; nothing else is done to it"))
    if PAUSED in host.annotations:
        text = "the host is paused; nothing happens until `billet unpause`"
        found.append(Remark("waits", text))
    if DETACHED in host.annotations:
        text = "the host is detached; nothing is done to the machine until `billet attach`"
        found.append(Remark("waits", text))
    if not host.spec.bmc.address:
        found.append(Remark("waits", "the host has no spec.bmc.address"))
    return tuple(found)


def retry(host: Host, stamp: str) -> Change:
    """Try again now."""
    status, remarks = host.status, list(general_remarks(host))
    if status.problem is None:
        remarks.append(Remark("note", "the host has no problem: there is nothing to try again"))
    elif status.problem.next_retry_at is None:
        text = f"{status.problem.id} stands until something is changed: {status.problem.advice}"
        remarks.append(Remark("note", text))
    return Change(annotation(host, RETRY, stamp), tuple(remarks))


def pause(host: Host, reason: str) -> Change:
    """Stop reconciling; a host paused by somebody else stays so."""
    if PAUSED in host.annotations:
        owner = host.annotations[PAUSED]
        return Change((), (Remark("note", f"it is paused already, by {owner or 'somebody'}"),))
    remarks = []
    if state_of(host) not in _REST and host.status.provisioning.state:
        text = f"{in_state(host)}: what the machine's agent was told before goes on by itself"
        remarks.append(Remark("note", text))
    return Change(annotation(host, PAUSED, reason), tuple(remarks))


def unpause(host: Host) -> Change:
    """Go on."""
    if PAUSED not in host.annotations:
        return Change((), (Remark("note", "it is not paused"),))
    remarks = []
    if host.annotations[PAUSED] == "metal3.io/capm3":
        text = "Cluster API paused it, and pauses it again while its cluster is paused"
        remarks.append(Remark("note", text))
    return Change(annotation(host, PAUSED, None), tuple(remarks))


def detach(host: Host, *, force: bool, delete_action: str) -> Change:
    """Let go of the machine without touching it."""
    remarks = [one for one in general_remarks(host) if "detached" not in one.text]
    if state_of(host) not in _REST and not force:
        text = f"{in_state(host)}: acts in ready, provisioned, externally provisioned; or --force"
        remarks.append(Remark("waits", text))
    value = annotation_value(deleteAction=delete_action, force=force)
    return Change(annotation(host, DETACHED, value), tuple(remarks))


def attach(host: Host) -> Change:
    """Take the machine back."""
    if DETACHED not in host.annotations:
        return Change((), (Remark("note", "it is not detached"),))
    remarks = tuple(one for one in general_remarks(host) if "detached" not in one.text)
    return Change(annotation(host, DETACHED, None), remarks)


def reboot(host: Host, *, mode: str, force: bool, key: str = "") -> Change:
    """Reboot once, or (``key``) switch off until the key is released."""
    remarks = list(general_remarks(host))
    if state_of(host) not in _RUNNING and not force:
        text = f"{in_state(host)}: acts in provisioned and externally provisioned; or --force"
        remarks.append(Remark("waits", text))
    if not host.spec.online:
        text = "spec.online is false: the machine stays off; `billet power HOST on`"
        remarks.append(Remark("never", text))
    value = annotation_value(mode="" if mode == "soft" else mode, force=force)
    return Change(annotation(host, f"{REBOOT}/{key}" if key else REBOOT, value), tuple(remarks))


def release(host: Host, key: str) -> Change:
    """Let a held machine go on again."""
    keys = reboot_keys(host)
    if key not in keys:
        known = f"; there are: {', '.join(keys)}" if keys else "; no key holds it"
        return Change((), (Remark("note", f"no key {key} holds it{known}"),))
    remarks = list(general_remarks(host))
    others = [one for one in keys if one != key]
    if others:
        remarks.append(Remark("waits", f"the host stays off: held by {', '.join(others)} too"))
    return Change(annotation(host, f"{REBOOT}/{key}", None), tuple(remarks))


def inspect(host: Host) -> Change:
    """Inspect again, in the ramdisk."""
    remarks = list(general_remarks(host))
    if host.spec.inspection_mode == "disabled":
        text = "spec.inspectionMode is disabled: the API refuses the annotation, or it does nothing"
        remarks.append(Remark("never", text))
    if state_of(host) in _RUNNING:
        text = f"{in_state(host)}: a running machine is not inspected; acts once it is ready again"
        remarks.append(Remark("waits", text))
    elif state_of(host) is not State.READY:
        remarks.append(Remark("waits", f"{in_state(host)}: acts once the host is ready"))
    return Change(annotation(host, INSPECT, ""), tuple(remarks))


def set_hardware(host: Host, details: str) -> Change:
    """Have the given hardware written instead of an inspection's."""
    remarks = list(general_remarks(host))
    is_off = host.spec.inspection_mode == "disabled"
    if not is_off and host.annotations.get(INSPECT) != "disabled":
        text = "hardware is only taken with spec.inspectionMode: disabled"
        remarks.append(Remark("never", text))
    return Change(annotation(host, HARDWARE_DETAILS, details), tuple(remarks))


def power(host: Host, *, on: bool) -> Change:
    """Say how the power is to be at rest."""
    remarks = list(general_remarks(host))
    state = state_of(host)
    if state not in _REST:
        remarks.append(Remark("waits", f"{in_state(host)}: the power follows once it is at rest"))
    if not on and host.spec.disable_power_off:
        text = "spec.disablePowerOff forbids switching off; the API refuses online: false"
        remarks.append(Remark("never", text))
    if on and state is State.READY and host.spec.wanted_image is not None:
        remarks.append(Remark("note", f"provisioning begins: {host.spec.wanted_image.url}"))
    keys = reboot_keys(host)
    if on and keys:
        remarks.append(Remark("waits", f"held off by {', '.join(keys)}; `billet reboot --release`"))
    return Change(field(host.spec.online, "online", on), tuple(remarks))


def provision(host: Host, image: Image, secrets: Sequence[SecretFile], *, online: bool) -> Change:
    """Have an image written and run."""
    spec, remarks = host.spec, list(general_remarks(host))
    held = host.status.provisioning.image
    if spec.externally_provisioned:
        remarks.append(Remark("never", "spec.externallyProvisioned is true: nothing is written"))
    elif held is not None and held.url == image.url:
        text = "this image runs already; only another URL provisions anew"
        remarks.append(Remark("never", text))
    if not online and not spec.online:
        remarks.append(Remark("waits", "spec.online is false: nothing is written until it is true"))
    old = spec.image or Image()
    # Null takes away what was there.
    more = {
        "checksumType": (image.checksum_type, old.checksum_type),
        "format": (image.format, old.format),
    }
    wanted = {key: value for key, (value, was) in more.items() if value or was}
    wanted |= {"url": image.url, "checksum": image.checksum}
    edits = field(spec.image, "image", wanted) if spec.image != image else ()
    if online:
        edits += field(spec.online, "online", True)
    for secret in secrets:
        reference = {"name": secret.name, "namespace": host.key.namespace}
        edits += field(None, secret.key, reference)
    return Change(edits, tuple(remarks), tuple(secrets))


def deprovision(host: Host, *, power_off: bool) -> Change:
    """Have the image taken away and the disks wiped."""
    remarks = list(general_remarks(host))
    if host.spec.automated_cleaning_mode == "disabled":
        text = "spec.automatedCleaningMode is disabled: the disks are left as they are"
        remarks.append(Remark("note", text))
    if host.spec.image is None and state_of(host) is not State.PROVISIONED:
        remarks.append(Remark("note", "the host has no image"))
    edits = field(host.spec.image, "image", None) if host.spec.image is not None else ()
    if power_off:
        edits += field(host.spec.online, "online", False)
    return Change(edits, tuple(remarks))
