"""What a client's call does to a host: the edit that kubectl would make, or Ironic's refusal. Pure.

Each function returns an RFC 7386 merge patch, None where nothing is left to do, or raises
IronicError: 409 where the state is the wrong one, 400 where a verb has no meaning here.
"""

from collections.abc import Mapping
from typing import Any, Final

from billet_server.core.annotations import DETACHED, INSPECT, PAUSED, REBOOT, RETRY
from billet_server.core.host import Host
from billet_server.core.states import State, read_state
from billet_server.ironic.nodes import maintenance_of, state_of
from billet_server.ironic.replies import IronicError

Patch = dict[str, Any]

_FAILED: Final = ("inspect failed", "clean failed", "deploy failed")
_BUSY: Final = (
    *("verifying", "inspect wait", "deploying", "wait call-back", "deleting", "clean wait"),
    "manageable",
)
_CLAIMED_BY_CAPM3: Final = "metal3.io/capm3"

WITHOUT_MEANING: Final[Mapping[str, str]] = {
    "clean": "Billet cleans disks before an image is written and after it is taken away, by"
    " itself; there are no clean steps to choose (spec.automatedCleaningMode: metadata, disabled)",
    "rescue": "there is no rescue system; `billet detach` leaves the machine to other hands",
    "unrescue": "there is no rescue system",
    "service": "a running machine is not serviced; `billet detach` leaves it to other hands",
    "unhold": "nothing holds a node; `node maintenance unset` lets a paused host go on",
}


def annotated(key: str, value: str | None) -> Patch:
    """Return the patch that sets an annotation (None: takes it off)."""
    return {"metadata": {"annotations": {key: value}}}


def provision(host: Host, body: Mapping[str, Any], stamp: str) -> Patch | None:
    """Return the edit for a target of ``PUT states/provision``. ``stamp``: what a retry says."""
    target = body.get("target")
    if not isinstance(target, str):
        raise IronicError(400, 'Mandatory field missing: "target" must be a text.')
    if target in WITHOUT_MEANING:
        raise _meaningless(host, target, WITHOUT_MEANING[target])
    if target not in _TARGETS:
        known = ", ".join(sorted([*_TARGETS, *WITHOUT_MEANING]))
        raise IronicError(400, f'Unknown target "{target[:60]}"; there are: {known}.')
    if body.get("configdrive"):
        raise _meaningless(
            host, target, "the config drive is made from spec.userData, networkData and metaData"
        )
    _alive(host)
    return _TARGETS[target](host, stamp)


def _deploy(host: Host, stamp: str) -> Patch | None:
    word = state_of(host)[0]
    if word == "deploy failed":
        return annotated(RETRY, stamp)
    if word != "available":
        raise _wrong(host, "active")
    if maintenance_of(host)[0]:
        text = "The active operation can't be performed on node {} because it's in maintenance mode"
        raise IronicError(400, text.format(host.uid) + "; `node maintenance unset` ends that.")
    if host.spec.wanted_image is None:
        raise IronicError(
            400,
            f"Cannot validate image information for node {host.uid} because one or more parameters"
            " are missing from its instance_info: set spec.image (url, checksum), by kubectl or"
            " `billet provision`, then nothing more is needed.",
        )
    # With online: true it begins by itself.
    return None if host.spec.online else {"spec": {"online": True}}


def _undeploy(host: Host, stamp: str) -> Patch | None:
    del stamp
    word = state_of(host)[0]
    if _state(host) is State.EXTERNALLY_PROVISIONED:
        text = "the machine is provisioned externally and Billet wipes none such"
        raise _wrong(host, "deleted", f"{text}; take spec.externallyProvisioned back first")
    if word not in ("active", "deploy failed", "deploying", "wait call-back"):
        raise _wrong(host, "deleted")
    return {"spec": {"image": None}} if host.spec.image is not None else None


def _rebuild(host: Host, stamp: str) -> Patch | None:
    if state_of(host)[0] == "deploy failed":
        return annotated(RETRY, stamp)
    if state_of(host)[0] != "active":
        raise _wrong(host, "rebuild")
    raise _meaningless(
        host,
        "rebuild",
        "an image that runs is not written again; another spec.image.url is, at once, or"
        " undeploy and deploy",
    )


def _manage(host: Host, stamp: str) -> Patch | None:
    word = state_of(host)[0]
    if word in _FAILED[:2] or (word == "enroll" and host.status.problem is not None):
        return annotated(RETRY, stamp)
    if word == "enroll" and not host.spec.bmc.address:
        raise _wrong(host, "manage", "the host has no BMC: set spec.bmc")
    if word == "enroll":
        return None
    more = "hosts are managed from their registration on; inspect and deploy need nothing first"
    raise _wrong(host, "manage", more)


def _provide(host: Host, stamp: str) -> Patch | None:
    word = state_of(host)[0]
    if word in _FAILED[:2]:
        return annotated(RETRY, stamp)
    if word == "manageable":
        return None
    raise _wrong(host, "provide", "an inspected host becomes available by itself")


def _inspect(host: Host, stamp: str) -> Patch | None:
    word = state_of(host)[0]
    if host.spec.inspection_mode == "disabled":
        raise _meaningless(host, "inspect", "spec.inspectionMode is disabled")
    if word == "inspect failed":
        return annotated(RETRY, stamp)
    if word != "available":
        raise _wrong(host, "inspect")
    return annotated(INSPECT, "")


def _abort(host: Host, stamp: str) -> Patch | None:
    del stamp
    if state_of(host)[0] not in ("inspect wait", "inspect failed"):
        more = "only an inspection is aborted; undeploy ends a deployment"
        raise _wrong(host, "abort", more)
    if host.spec.inspection_mode:
        text = f"spec.inspectionMode is {host.spec.inspection_mode}: set it to disabled"
        raise _meaningless(host, "abort", text)
    return annotated(INSPECT, "disabled")


def _adopt(host: Host, stamp: str) -> Patch | None:
    del stamp
    if state_of(host)[0] not in ("available", "manageable"):
        raise _wrong(host, "adopt")
    return {"spec": {"externallyProvisioned": True}}


_TARGETS: Final = {
    "active": _deploy,
    "deleted": _undeploy,
    "rebuild": _rebuild,
    "manage": _manage,
    "provide": _provide,
    "inspect": _inspect,
    "abort": _abort,
    "adopt": _adopt,
}


def power(host: Host, body: Mapping[str, Any]) -> Patch | None:
    """Return the edit for a target of ``PUT states/power``."""
    target = body.get("target")
    targets = ("power on", "power off", "soft power off", "rebooting", "soft rebooting")
    if target not in targets:
        text = f"{str(target)[:60]!r} is not a valid power target; there are: {', '.join(targets)}."
        raise IronicError(400, text)
    _alive(host)
    if state_of(host)[0] in _BUSY:
        raise _locked(host)
    if target in ("rebooting", "soft rebooting"):
        return _reboot(host, soft=target == "soft rebooting")
    wanted = target == "power on"
    if not wanted and host.spec.disable_power_off:
        text = f"Power off is disabled for node {host.uid}: spec.disablePowerOff forbids it."
        raise IronicError(400, text)
    # Whoever holds the machine off takes the hold away, not somebody else's power on.
    return None if host.spec.online == wanted else {"spec": {"online": wanted}}


def _reboot(host: Host, *, soft: bool) -> Patch:
    if not host.spec.online:
        return {"spec": {"online": True}}
    if state_of(host)[0] == "active":
        return annotated(REBOOT, '{"mode":"soft"}' if soft else '{"mode":"hard"}')
    # At rest without a system it acts by force only.
    return annotated(REBOOT, '{"mode":"hard","force":true}')


def set_maintenance(host: Host, reason: object) -> Patch | None:
    """Return the edit that pauses a host."""
    if reason is not None and not isinstance(reason, str):
        raise IronicError(400, 'Invalid input: "reason" must be a text.')
    if host.annotations.get(PAUSED) == _CLAIMED_BY_CAPM3:
        # Overwritten, Cluster API would not know its own pause and never end it.
        return None
    if reason and not reason.isprintable():
        raise IronicError(400, "Invalid input: the reason has characters that are not printable.")
    return annotated(PAUSED, reason or "")


def unset_maintenance(host: Host, stamp: str) -> Patch | None:
    """Return the edit that lets a host go on."""
    if DETACHED in host.annotations:
        text = f"Node {host.uid} is detached, its machine may be in other hands"
        raise IronicError(409, f"{text}: `billet attach {host.key.name}` takes it back.")
    if PAUSED in host.annotations:
        return annotated(PAUSED, None)
    return annotated(RETRY, stamp) if maintenance_of(host)[0] else None


def boot_device(host: Host) -> str | None:
    """Return what the machine boots from next, as far as Billet has said so."""
    if host.status.boot is not None:
        return "pxe"
    return "disk" if _state(host) is State.PROVISIONED else None


def set_boot_device(host: Host, device: object) -> None:
    """Take what is so already. Raises IronicError for anything else."""
    if device not in ("pxe", "disk"):
        raise IronicError(400, f"Invalid boot device {str(device)[:40]!r}; there are: pxe, disk.")
    if boot_device(host) != device:
        raise _meaningless(
            host,
            "set boot device",
            "Billet chooses the boot device itself: the network for the ramdisk, else the disk",
        )


def validate(host: Host) -> dict[str, dict[str, Any]]:
    """Return what each of Ironic's interfaces says of a host."""
    status, problem = host.status, host.status.problem
    bad = {"result": False, "reason": status.error_message or (problem.message if problem else "")}
    bmc: dict[str, Any] = {"result": True, "reason": None}
    if not host.spec.bmc.address:
        bmc = {"result": False, "reason": "the host has no BMC: spec.bmc is not set"}
    elif status.error_type in ("registration error", "power management error"):
        bmc = bad
    deploy: dict[str, Any] = {"result": True, "reason": None}
    if status.error_type == "provisioning error":
        deploy = bad
    elif host.spec.wanted_image is None:
        deploy = {"result": False, "reason": "spec.image is not set"}
    boot: dict[str, Any] = {"result": bool(host.spec.boot_mac_address), "reason": None}
    if not boot["result"]:
        boot["reason"] = "spec.bootMACAddress is not set"
    ours = {"power": bmc, "management": bmc, "boot": boot, "deploy": deploy}
    inspect = bad if status.error_type == "inspection error" else {"result": True, "reason": None}
    none = {"result": None, "reason": "Billet does not have this interface"}
    others = ("bios", "console", "firmware", "raid", "rescue", "storage", "network")
    return {**ours, "inspect": inspect, **dict.fromkeys(others, none)}


def no_console(host: Host) -> IronicError:
    """Return what every call about consoles is answered."""
    text = f"Node {host.uid}: Billet does not support console yet; see the BMC's own console"
    return IronicError(400, f"{text} (ipmitool sol activate, or its web page).")


def _state(host: Host) -> State:
    return read_state(host.status.provisioning.state)


def _alive(host: Host) -> None:
    if host.deleting:
        raise IronicError(409, f"Node {host.uid} is being deleted; nothing else is done to it.")


def _locked(host: Host) -> IronicError:
    return IronicError(
        409,
        f"Node {host.uid} is locked by billet, please retry after the current operation is"
        f" completed: {host.key} is {host.status.provisioning.state or 'new'}.",
    )


def _wrong(host: Host, action: str, more: str = "") -> IronicError:
    text = (
        f'The requested action "{action}" can not be performed on node "{host.uid}" while it is'
        f' in state "{state_of(host)[0]}"'
    )
    return IronicError(409, f"{text}: {more}." if more else f"{text}.")


def _meaningless(host: Host, action: str, why: str) -> IronicError:
    text = f'The action "{action}" is not done to node "{host.uid}"'
    return IronicError(400, f"{text}: {why}.")
