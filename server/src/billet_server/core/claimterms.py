"""What a Machine's step is given and what it answers with."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from billet_server.core.claimable import HostView, Survey
from billet_server.core.machineobject import Condition, Machine, Report
from billet_server.core.terms import HostKey
from billet_server.core.turn import EventNote
from billet_server.core.validation.faults import Json


class ClaimSeen(NamedTuple):
    """The hosts that matter to one Machine, as the caches have them.

    ``own`` name it in their consumerRef; ``noted`` is the one that its annotation names, if it
    exists; ``candidates`` are the objects of all hosts that may be taken; ``survey`` counts the
    others. ``refused`` is why the API refused the last write of a host, "" when it did not.
    ``entropy`` chooses among equals.
    """

    own: Sequence[HostView] = ()
    noted: HostView | None = None
    candidates: Sequence[Json] = ()
    survey: Survey = ()
    refused: str = ""
    entropy: int = 0


class PatchMachine(NamedTuple):
    """Merge-patch the Machine's metadata, guarded by the version it was read in.

    ``chosen`` is a host that no other Machine is to choose meanwhile.
    """

    metadata: Mapping[str, Any]
    done: EventNote | None = None
    chosen: HostKey | None = None


class PatchHost(NamedTuple):
    """Merge-patch a host's spec, guarded by ``version``: whoever wrote meanwhile has won."""

    key: HostKey
    version: str
    spec: Mapping[str, Any]
    done: EventNote | None = None


Effect = PatchMachine | PatchHost


class Verdict(NamedTuple):
    """A decision. ``report`` None leaves the status as it is."""

    effect: Effect | None = None
    report: Report | None = None
    events: tuple[EventNote, ...] = ()
    waits: bool = False


class ClaimStep(NamedTuple):
    """A step: the status patch (may be empty), then the effect, Events; whether it wants a host.

    An effect's own Event, ``done``, is to be recorded when it has succeeded.
    """

    status: Mapping[str, Any]
    effect: Effect | None
    events: tuple[EventNote, ...]
    waits: bool


def note(reason: str, message: str, kind: str = "Normal") -> EventNote:
    """Return an Event about a Machine."""
    return EventNote(kind, reason, message)


def said(machine: Machine, condition: Condition) -> bool:
    """Whether the status says that already; an empty message stands for any."""
    for one in machine.status.get("conditions") or ():
        if isinstance(one, Mapping) and one.get("type") == condition.type:
            same = one.get("status") == condition.status and one.get("reason") == condition.reason
            return same and condition.message in ("", one.get("message"))
    return False
