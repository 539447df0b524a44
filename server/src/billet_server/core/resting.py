"""The states in which a host is at rest: ready, provisioned, externally provisioned."""

from billet_server.core.capacity import Operation
from billet_server.core.host import Period
from billet_server.core.images import same_image
from billet_server.core.inspecting import inspect_again
from billet_server.core.power import keep_power
from billet_server.core.preparing import unsupported
from billet_server.core.states import State
from billet_server.core.turn import Turn


def ready(turn: Turn) -> None:
    """Inspected, no image: keep the power, wait for an image."""
    spec = turn.host.spec
    if spec.externally_provisioned:
        turn.status.boot = None
        turn.go(State.EXTERNALLY_PROVISIONED)
        return
    if inspect_again(turn):
        return
    if unsupported(turn) is not None:
        turn.go(State.PREPARING)
        return
    if spec.wanted_image is not None and spec.online:
        if not turn.place(Operation.PROVISION):
            return
        turn.status.provisioning.id = ""
        turn.go(State.PROVISIONING)
        return
    keep_power(turn)
    if spec.wanted_image is not None and turn.effect is None:
        turn.wait("change", "an image is set but spec.online is false", "user")


def externally_provisioned(turn: Turn) -> None:
    """Somebody else's system: only the power."""
    if not turn.host.spec.externally_provisioned:
        # As Metal3: what was there counts as provisioned, and not by the image of the spec.
        turn.note("NoLongerExternal", "spec.externallyProvisioned was taken back")
        turn.go(State.PROVISIONED)
        return
    keep_power(turn)


def provisioned(turn: Turn) -> None:
    """Our image runs: keep the power, watch for another image or none."""
    held, wanted = turn.status.provisioning.image, turn.host.spec.wanted_image
    cleaned = turn.host.spec.automated_cleaning_mode != "disabled"
    changed = held is None or not same_image(held, wanted)
    if changed and (not cleaned or turn.place(Operation.CLEAN)):
        turn.status.operation_history.deprovision = Period(start=turn.now)
        turn.note("DeprovisioningStarted", "spec.image was removed or changed")
        turn.go(State.DEPROVISIONING)
        return
    keep_power(turn)
