"""Taking a host over from elsewhere: its status from an annotation, or what Metal3 left in it.

Tools that move hosts between clusters create the object with its status as JSON in an
annotation, since no client can create an object with its status. The first pass writes it
back; nothing is done to the machine before, so one that runs its image never notices.
"""

import json
from typing import Any

from billet_server.core.annotations import STATUS
from billet_server.core.booting import HAND_OVER
from billet_server.core.host import Status, read_status
from billet_server.core.problems import Fault
from billet_server.core.turn import REGISTRATION, Turn
from billet_server.core.wording import printable

PROBLEM = "status-annotation"

_OPERATIONAL = ("", "OK", "discovered", "error", "delayed", "detached", "servicing")


def restore(turn: Turn) -> bool:
    """Take the status out of the annotation; False: nothing else may be done in this pass."""
    standing = turn.status.problem is not None and turn.status.problem.id == PROBLEM
    text = turn.host.annotations.get(STATUS)
    if text is None:
        if standing:
            turn.clear_problem()
        return True
    if turn.host.status.last_updated is not None and not standing:
        turn.note("RemoveAnnotation", f"{STATUS} was dropped: the host has a status already")
        turn.remove_annotations(STATUS)
        return False
    found = _read(text)
    if isinstance(found, str):
        if turn.host.deleting:
            return True
        turn.stand(Fault(PROBLEM, f"{turn.host.key}: annotation {STATUS} {found}"), REGISTRATION)
        return False
    _scrub(found)
    turn.status = found
    drop_foreign_error(turn)
    turn.note("RemoveAnnotation", f"the status was restored from {STATUS}")
    turn.remove_annotations(STATUS)
    return False


def drop_foreign_error(turn: Turn) -> None:
    """Forget an error that another controller left: what still holds is found again at once."""
    status = turn.status
    if status.problem is None and (status.error_type or status.error_message):
        turn.clear_problem()
    if status.operational_status == "servicing":
        status.operational_status = "OK"


def _read(text: str) -> Status | str:
    """Return the status, or what is wrong with the text."""
    try:
        raw: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"is not JSON: {error}"
    if not isinstance(raw, dict):
        return f"holds a JSON {type(raw).__name__}, not the object that a status is"
    status, fault = read_status(raw)
    if fault:
        return f"cannot be used: {fault}"
    if status.operational_status not in _OPERATIONAL:
        word = printable(status.operational_status, 60)
        return f"cannot be used: operationalStatus {word!r} is not one of BareMetalHost's"
    return status


def _scrub(status: Status) -> None:
    """Drop what held only for the server that wrote it: its waits, and agents it had tokens of."""
    status.progress = status.waiting = None
    if status.boot is not None and status.boot.purpose != HAND_OVER:
        status.boot = None
    # The Secrets have other versions here.
    status.provisioning.config_drive = ""
    # A retry that was put off is made now.
    if status.problem is not None:
        status.problem.basis, status.problem.next_retry_at = "", None
