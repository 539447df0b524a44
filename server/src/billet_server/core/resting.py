"""The states in which a host is at rest: ready, provisioned, externally provisioned."""

from billet_server.core.capacity import Operation
from billet_server.core.fasttrack import left_ramdisk, tell
from billet_server.core.host import Period
from billet_server.core.images import same_image
from billet_server.core.inspecting import inspect_again
from billet_server.core.power import keep_power
from billet_server.core.preparing import unsupported
from billet_server.core.profiles import set_profile
from billet_server.core.reboot import acting
from billet_server.core.states import State
from billet_server.core.turn import Turn


def ready(turn: Turn) -> None:
    """Inspected, no image: keep the power, wait for an image."""
    spec = turn.host.spec
    turn.status.provisioning.state = turn.rules.ready_word
    if spec.externally_provisioned:
        turn.status.boot = None
        turn.go(State.EXTERNALLY_PROVISIONED)
        return
    if inspect_again(turn):
        return
    set_profile(turn)
    if unsupported(turn) is not None:
        turn.go(State.PREPARING)
        return
    if spec.wanted_image is not None and spec.online and not acting(turn):
        if not turn.place(Operation.PROVISION):
            return
        turn.status.provisioning.id = ""
        turn.go(State.PROVISIONING)
        return
    if left_ramdisk(turn):
        return
    keep_power(turn)
    tell(turn)
    if spec.wanted_image is not None and not spec.online and turn.effect is None:
        turn.wait("change", "an image is set but spec.online is false", "user")


def externally_provisioned(turn: Turn) -> None:
    """Somebody else's system: only the power."""
    spec, status = turn.host.spec, turn.status
    if spec.externally_provisioned:
        keep_power(turn)
        return
    # As Metal3: what is there counts as provisioned, by the image of the spec if there is one.
    text = "it has no image and is deprovisioned"
    if spec.wanted_image is not None:
        status.provisioning.image = spec.wanted_image
        text = f"the machine counts as running {spec.wanted_image.url}; nothing is written"
    turn.note("NoLongerExternal", f"spec.externallyProvisioned was taken back: {text}")
    turn.go(State.PROVISIONED)


def provisioned(turn: Turn) -> None:
    """Our image runs: keep the power, watch for another image or none."""
    done, spec = turn.status.provisioning, turn.host.spec
    if done.image is None and spec.wanted_image is not None:
        # Left by Metal3 when it took spec.externallyProvisioned back.
        done.image = spec.wanted_image
    cleaned = spec.automated_cleaning_mode != "disabled"
    if _is_unwanted(turn) and (not cleaned or turn.place(Operation.CLEAN)):
        turn.status.operation_history.deprovision = Period(start=turn.now)
        turn.note("DeprovisioningStarted", "spec.image was removed or changed")
        turn.go(State.DEPROVISIONING)
        return
    if later := _for_later(turn):
        text = f"{' and '.join(later)} changed since the image was written"
        text = f"{text}; that takes effect when the host is provisioned again"
        turn.wait("next-provisioning", text, "user")
    keep_power(turn)


def _is_unwanted(turn: Turn) -> bool:
    """Whether what the disk holds is not what the spec wants; by URL and method, as Metal3."""
    done, spec = turn.status.provisioning, turn.host.spec
    method = done.custom_deploy.method if done.custom_deploy is not None else ""
    if method and method != spec.custom_method:
        return True
    return not same_image(done.image, spec.wanted_image) or not (method or spec.wanted_image)


def _for_later(turn: Turn) -> list[str]:
    """Return the fields that were changed and change nothing on a disk that is written."""
    done, wanted = turn.status.provisioning, turn.host.spec.wanted_image
    found = []
    if done.image is not None and wanted is not None:
        names = {"checksum": "checksum", "checksum_type": "checksumType", "format": "format"}
        found = [
            f"spec.image.{field}"
            for name, field in names.items()
            if getattr(done.image, name) != getattr(wanted, name)
        ]
    before, now = _versions(done.config_drive), _versions(turn.seen.data_version)
    if before:
        fields = [field for field in (*before, *now) if now.get(field, "") != before.get(field, "")]
        # A Secret that is gone may come back as it was.
        found += [f"spec.{field}" for field in dict.fromkeys(fields) if now.get(field) != "-"]
    return found


def _versions(data: str) -> dict[str, str]:
    """Return the versions in a `Seen.data_version` by field."""
    pairs = (part.partition("=") for part in data.split(",") if "=" in part)
    return {field: version for field, _, version in pairs}
