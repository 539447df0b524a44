"""How often an operation may fail before a person has to say that it is worth another try.

A failure is counted for its operation; after ``Rules.max_retries`` retries (provisioning:
``max_provisioning_retries``, in Metal3's own fields) the operation is given up until somebody
edits the host or its Secret, or annotates it. Not counted is what lies outside and costs one
question to find out, such as a BMC that does not answer: that is asked for ever, slowly.
"""

from billet_server.core.effects import CheckBmc, Effect, ReadPower
from billet_server.core.host import Failures, Host, Image, Status
from billet_server.core.problems import Fault, advice, kind_of
from billet_server.core.seen import Rules
from billet_server.core.states import State
from billet_server.core.terms import HostKey

EXHAUSTED = "retries-exhausted"

_PROVISIONING = "provisioning"
_OPERATIONS = {
    "registration error": "registration",
    "inspection error": "inspection",
    "preparation error": "preparation",
}


def operation(state: State, error_type: str) -> str:
    """Return which operation failed: a word that is also a field of `Failures`."""
    if error_type in _OPERATIONS:
        return _OPERATIONS[error_type]
    if state is State.PROVISIONING:
        return _PROVISIONING
    return "deprovisioning" if state is State.DEPROVISIONING else "power"


def is_counted(fault: Fault, effect: Effect | None) -> bool:
    """Whether a failure brings its operation nearer to the limit."""
    if kind_of(fault.problem).outside:
        return False
    # A question reboots nothing; but a BMC locks the account after some wrong passwords.
    return not isinstance(effect, ReadPower | CheckBmc) or fault.problem == "bmc-auth"


def count(status: Status, name: str, basis: str, image: Image | None) -> int:
    """Count a failure; return how many there are now."""
    if status.failures is None:
        status.failures = Failures(basis=basis)
    if name == _PROVISIONING:
        status.last_attempted_image = image
        status.provisioning_fail_count = (status.provisioning_fail_count or 0) + 1
        return status.provisioning_fail_count
    failed: int = getattr(status.failures, name) + 1
    setattr(status.failures, name, failed)
    return failed


def limit(rules: Rules, name: str) -> int:
    """Return how many retries an operation has; 0: as many as it takes."""
    return rules.max_provisioning_retries if name == _PROVISIONING else rules.max_retries


def left(rules: Rules, status: Status, name: str) -> int | None:
    """Return how many retries an operation still has, the next one included; None: no limit."""
    most = limit(rules, name)
    if not most:
        return None
    failed = status.provisioning_fail_count if name == _PROVISIONING else None
    if failed is None:
        failed = getattr(status.failures, name, 0)
    return max(0, most - failed + 1)


def exhausted(key: HostKey, fault: Fault, name: str, failed: int) -> Fault:
    """Return the problem that stands when the last retry has failed."""
    words = {"power": "switching the power"}.get(name, name)
    last = fault.message.removeprefix(f"{key}: ")
    return Fault(
        EXHAUSTED,
        f"{key}: {words} failed {failed} times and is not tried again; the last time: {last}"
        f" ({fault.problem})",
        fault.evidence,
        f"{advice(fault).rstrip('.')}; then edit the host, or:"
        f" kubectl annotate baremetalhost -n {key.namespace} {key.name} billet.dev/retry=now",
    )


def forget(status: Status) -> None:
    """Forget all failures: the host is in another state, or somebody changed something."""
    status.failures = status.provisioning_fail_count = status.last_attempted_image = None


def succeeded(status: Status, name: str) -> None:
    """Forget the failures of one operation; provisioning ends by another state."""
    failures = status.failures
    if failures is not None:
        setattr(failures, name, 0)
        if failures == Failures(basis=failures.basis) and not status.provisioning_fail_count:
            status.failures = None


def forget_if_edited(host: Host, status: Status, basis: str) -> None:
    """Forget what failed before the last edit; for provisioning also as Metal3 does.

    A count without a basis was left by Metal3: it holds for the image it belongs to.
    """
    if status.failures is not None:
        if status.failures.basis != basis:
            forget(status)
    elif status.provisioning_fail_count and status.last_attempted_image != host.spec.wanted_image:
        forget(status)
