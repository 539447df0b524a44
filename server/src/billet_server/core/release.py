"""Deleting a Machine: its host is given back, clean, before the object goes."""

from typing import Any, Final

from billet_server.core.claimable import HostView
from billet_server.core.claimterms import ClaimSeen, PatchHost, PatchMachine, Verdict, note
from billet_server.core.machineobject import (
    CLAIMED,
    FINALIZER,
    PROVISIONED,
    Condition,
    Machine,
    Report,
)
from billet_server.core.states import State

_HOLDS_NOTHING: Final = frozenset(
    {
        State.NONE,
        State.UNMANAGED,
        State.REGISTERING,
        State.INSPECTING,
        State.PREPARING,
        State.READY,
        State.POWERING_OFF,
        State.DELETING,
    }
)
"""States in which there is no image of a user on the machine, or nobody to take it off."""


def delete(machine: Machine, seen: ClaimSeen) -> Verdict:
    """Give back every host that names this Machine, then let the object go."""
    if FINALIZER not in machine.finalizers:
        return Verdict()
    hosts = sorted(seen.own, key=lambda host: host.key)
    for host in hosts:
        if cleared := _cleared(host):
            text = f"host {host.key} is deprovisioned because this Machine is deleted"
            done = note("HostReleased", text)
            return Verdict(PatchHost(host.key, host.resource_version, cleared, done))
    for host in hosts:
        if _is_clean(host):
            done = note("HostFreed", f"host {host.key} may be claimed again")
            free: dict[str, Any] = {"consumerRef": None}
            return Verdict(PatchHost(host.key, host.resource_version, free, done))
    if hosts:
        return Verdict(report=_waiting(hosts[0]))
    left = [each for each in machine.finalizers if each != FINALIZER]
    return Verdict(PatchMachine({"finalizers": left}))


def _cleared(host: HostView) -> dict[str, Any]:
    """Return what is still to be taken out of the host's spec."""
    cleared: dict[str, Any] = {}
    if host.image_url:
        cleared["image"] = None
    if host.user_data:
        cleared["userData"] = None
    if host.online and not host.keeps_power:
        cleared["online"] = False
    return cleared


def _is_clean(host: HostView) -> bool:
    if host.state is State.EXTERNALLY_PROVISIONED:
        return host.powered_on is False or host.keeps_power
    return host.state in _HOLDS_NOTHING


def _waiting(host: HostView) -> Report:
    text = f"waiting until {host.key} is deprovisioned; it is {host.state.value}"
    if host.resting:
        text = f"{text}, and {host.resting} by an annotation: remove that"
    elif host.trouble:
        text = f"{text}: {host.trouble}"
    claimed = Condition(CLAIMED, "True", "Releasing", text)
    gone = Condition(PROVISIONED, "False", "Deleting", "the Machine is being deleted")
    return Report("Deleting", (claimed, gone), host)
