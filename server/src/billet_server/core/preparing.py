"""Preparing: RAID volumes and firmware settings, between knowing a host and having it at rest.

Billet sets up neither, and admission says so; a host on which nothing is to be done passes
through. An object that was let in by somebody else (no admission, or another controller before
us) and wants more stays here with the problem named, instead of being called ready.
"""

from collections.abc import Mapping
from typing import Any

from billet_server.core.problems import Fault
from billet_server.core.states import State
from billet_server.core.turn import PREPARATION, Turn

_VOLUMES = ("hardwareRAIDVolumes", "softwareRAIDVolumes")


def prepare(turn: Turn) -> None:
    """Pass through, or say what is wanted and cannot be done."""
    fault = unsupported(turn)
    if fault is not None:
        turn.stand(fault, PREPARATION)
        return
    turn.go(State.READY)


def unsupported(turn: Turn) -> Fault | None:
    """Return what the spec wants to have prepared; None where it is there, or not asked for."""
    spec, done = turn.host.spec, turn.status.provisioning
    wanted = {
        "spec.raid": (_volumes(spec.raid), _volumes(done.raid)),
        "spec.firmware": (_settings(spec.firmware), _settings(done.firmware)),
    }
    for field, (wish, applied) in wanted.items():
        if wish and wish != applied:
            text = f"{turn.host.key}: {field} asks for {', '.join(sorted(wish))}"
            return Fault("preparation-unsupported", f"{text}, which Billet does not set up")
    return None


def _volumes(raid: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: raid[name] for name in _VOLUMES if raid.get(name)} if raid else {}


def _settings(firmware: Mapping[str, Any] | None) -> dict[str, Any]:
    # Metal3's three switches; one that is off asks for nothing.
    return {name: value for name, value in firmware.items() if value} if firmware else {}
