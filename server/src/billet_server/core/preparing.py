"""Preparing: RAID volumes and firmware settings, between knowing a host and having it at rest.

Billet sets up neither, nor does it run the deploy steps of other ramdisks, and admission says
so; a host of which nothing of that is asked passes through. An object that was let in by
somebody else (no admission, or another controller before us) and wants more stays here with
the problem named, instead of being called ready.
"""

import re
from collections.abc import Mapping
from typing import Any

from billet_server.core.effects import SetArchitecture
from billet_server.core.host import CustomDeploy
from billet_server.core.problems import Fault
from billet_server.core.profiles import set_profile
from billet_server.core.states import State
from billet_server.core.turn import PREPARATION, Turn

_ARCHITECTURE = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_VOLUMES = ("hardwareRAIDVolumes", "softwareRAIDVolumes")


def prepare(turn: Turn) -> None:
    """Pass through, or say what is wanted and cannot be done."""
    set_profile(turn)
    if _tell_architecture(turn):
        return
    fault = unsupported(turn)
    if fault is not None:
        turn.stand(fault, PREPARATION)
        return
    turn.go(State.READY)


def _tell_architecture(turn: Turn) -> bool:
    """Put what was inspected into ``spec.architecture`` where that is empty, as Metal3 does."""
    cpu = (turn.status.hardware or {}).get("cpu")
    arch = cpu.get("arch") if isinstance(cpu, dict) else None
    if turn.host.spec.architecture or turn.outcome(SetArchitecture) is not None:
        return False
    if not isinstance(arch, str) or not _ARCHITECTURE.fullmatch(arch):
        return False
    turn.wait("api", f"writing spec.architecture: {arch}", "billet")
    turn.ask(SetArchitecture(arch))
    return True


def unsupported(turn: Turn) -> Fault | None:
    """Return what the spec wants to have prepared; None where it is there, or not asked for."""
    spec, done = turn.host.spec, turn.status.provisioning
    wanted = {
        "spec.raid": (_volumes(spec.raid), _volumes(done.raid)),
        "spec.firmware": (_settings(spec.firmware), _settings(done.firmware)),
        "spec.customDeploy": (_method(spec.custom_deploy), _method(done.custom_deploy)),
    }
    for field, (wish, applied) in wanted.items():
        if wish and wish != applied:
            text = f"{turn.host.key}: {field} asks for {', '.join(sorted(wish))}"
            return Fault("preparation-unsupported", f"{text}, which Billet does not do")
    return None


def _volumes(raid: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: raid[name] for name in _VOLUMES if raid.get(name)} if raid else {}


def _method(custom: CustomDeploy | None) -> dict[str, Any]:
    return {f"method {custom.method!r}": True} if custom and custom.method else {}


def _settings(firmware: Mapping[str, Any] | None) -> dict[str, Any]:
    # Metal3's three switches; one that is off asks for nothing.
    return {name: value for name, value in firmware.items() if value} if firmware else {}
