"""What must hold before anything is done for a host: its spec, its Secret, its BMC."""

import re

from billet_server.core import retries
from billet_server.core.effects import CheckBmc
from billet_server.core.host import CredentialsStatus, SecretReference
from billet_server.core.problems import Fault
from billet_server.core.states import State
from billet_server.core.terms import PowerState
from billet_server.core.turn import INSPECTION, PREPARATION, PROVISIONING, REGISTRATION, Turn

_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")

ERROR_TYPES = {
    State.INSPECTING: INSPECTION,
    State.PREPARING: PREPARATION,
    State.PROVISIONING: PROVISIONING,
    State.DEPROVISIONING: PROVISIONING,
}
"""Status errorType of what goes wrong in a state; registration error in all others."""

_RAMDISK_STATES = (State.INSPECTING, State.PROVISIONING, State.DEPROVISIONING)
_ARCHITECTURES = ("", "x86_64", "amd64")


def preflight(turn: Turn) -> bool:
    """Check what must hold before anything is done; False: a problem stands."""
    fault = standing_fault(turn)
    if fault is not None:
        registers = fault is turn.seen.secret.fault
        error_type = REGISTRATION if registers else ERROR_TYPES.get(turn.state, REGISTRATION)
        turn.stand(fault, error_type)
        return False
    standing = turn.status.problem
    # With a time for the next try it is no standing condition but an effect that failed.
    if standing is not None and standing.id in _STANDING and standing.next_retry_at is None:
        turn.clear_problem()
    return True


def standing_fault(turn: Turn) -> Fault | None:
    """Return what only a change of object, Secret or other hosts can heal."""
    host, seen = turn.host, turn.seen
    key, mac, address = host.key, host.spec.boot_mac_address, host.spec.bmc.address
    if host.status_fault:
        return Fault("status-invalid", f"{key}: {host.status_fault}")
    if host.spec_fault:
        return Fault("spec-invalid", f"{key}: {host.spec_fault}")
    if seen.secret.fault is not None:
        return seen.secret.fault
    if mac and not _MAC.fullmatch(mac):
        return Fault("boot-mac-invalid", f"{key}: spec.bootMACAddress is {mac!r}")
    if mac and seen.mac_conflict:
        return Fault("boot-mac-conflict", f"{key}: host {seen.mac_conflict} has {mac.lower()} too")
    if seen.bmc_conflict:
        return Fault("bmc-conflict", f"{key}: host {seen.bmc_conflict} has BMC {address} too")
    if turn.state not in _RAMDISK_STATES:
        return None
    arch = host.spec.architecture
    if arch not in _ARCHITECTURES:
        text = f"{key}: spec.architecture is {arch!r}, the ramdisk is for x86_64"
        return Fault("architecture-unsupported", text)
    if not mac:
        return Fault("boot-mac-missing", f"{key}: cannot network boot without its MAC")
    return None


_STANDING = frozenset(
    {
        "spec-invalid",
        "status-invalid",
        "status-refused",
        "internal",
        "bmc-conflict",
        "bmc-secret-missing",
        "bmc-secret-malformed",
        "boot-mac-invalid",
        "boot-mac-conflict",
        "boot-mac-missing",
        "architecture-unsupported",
    }
)


def bmc_checked(turn: Turn) -> bool:
    """Take in the outcome of a credential check; False when it failed."""
    last = turn.outcome(CheckBmc)
    if last is None or last[0] != bmc_check(turn):
        return True  # what was tried is no longer what the object says: it is tried anew
    if last[1].fault is not None:
        turn.fail(last[1].fault, REGISTRATION)
        return False
    wanted = credentials_status(turn)
    if turn.status.good_credentials != wanted:
        address, secret = turn.host.spec.bmc.address, turn.host.spec.bmc.credentials_name
        turn.note("BMCAccessValidated", f"BMC {address} takes the credentials of Secret {secret}")
    turn.status.good_credentials = wanted
    retries.succeeded(turn.status, "registration")
    if last[1].power is not PowerState.UNKNOWN:
        turn.status.powered_on = last[1].power is PowerState.ON
    if turn.status.error_type == REGISTRATION:
        turn.clear_problem()
    turn.status.operational_status = "OK"
    return True


def bmc_check(turn: Turn) -> CheckBmc:
    """Return the credential check that fits what object and Secret say now."""
    return CheckBmc(turn.seen.secret.version, turn.host.spec.bmc.address)


def credentials(turn: Turn) -> bool:
    """Re-check when the Secret changed or the last check failed; False: not usable now."""
    if not bmc_checked(turn):
        return False
    wanted, status = credentials_status(turn), turn.status
    if status.good_credentials == wanted:
        if status.error_type == REGISTRATION:
            turn.clear_problem()  # the edit that led to it was taken back
        return True
    if not turn.blocked():
        status.tried_credentials = wanted
        turn.wait("bmc", "trying the credentials of the changed Secret", "bmc")
        turn.ask(bmc_check(turn))
    return False


def credentials_status(turn: Turn) -> CredentialsStatus:
    """Return Metal3 ``goodCredentials``/``triedCredentials`` of the present Secret."""
    reference = SecretReference(turn.host.spec.bmc.credentials_name, turn.host.key.namespace)
    return CredentialsStatus(reference, turn.seen.secret.version)
