"""The states before a host is known: without a BMC, and getting to know it."""

from billet_server.core import inspecting
from billet_server.core.preflight import bmc_check, bmc_checked, credentials_status, preflight
from billet_server.core.problems import Fault
from billet_server.core.states import State
from billet_server.core.turn import REGISTRATION, Turn


def unmanaged(turn: Turn) -> None:
    """Wait for a BMC address."""
    if turn.state is State.NONE:
        turn.note("Discovered", "the host has no BMC address yet")
        turn.go(State.UNMANAGED)
    if turn.state is State.UNMANAGED:
        turn.status.operational_status = "discovered"
        turn.wait("change", "spec.bmc.address is empty", "user")
        return
    text = f"{turn.host.key}: spec.bmc.address was removed from a managed host"
    turn.stand(Fault("spec-invalid", text, advice="set spec.bmc.address again"), REGISTRATION)


def register(turn: Turn) -> None:
    """Try the credentials, then choose where the host goes."""
    if not preflight(turn) or not bmc_checked(turn):
        return
    status, spec = turn.status, turn.host.spec
    if status.good_credentials != credentials_status(turn):
        if not turn.blocked():
            status.tried_credentials = credentials_status(turn)
            turn.wait("bmc", f"trying the credentials at {spec.bmc.address}", "bmc")
            turn.ask(bmc_check(turn))
        return
    if status.operation_history.register.end is None:
        status.operation_history.register.end = turn.now
        turn.note("Registered", f"BMC {spec.bmc.address} accepts the credentials")
    if spec.externally_provisioned:
        turn.go(State.EXTERNALLY_PROVISIONED)
    elif inspecting.is_disabled(turn.host):
        turn.note("InspectionSkipped", "inspection is disabled")
        turn.go(State.PREPARING)
    else:
        inspecting.start(turn, "a new host")
