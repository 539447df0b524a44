"""Machines and the hosts they claim: one pure function from what is known to what is done next.

Theory of operation. A host belongs to the Machine that its ``spec.consumerRef`` names, and to
nobody else: that field is written together with image, user data and power in one patch that the
host's resourceVersion guards, so of any number of writers one wins and the others choose again.
All else follows from it. The Machine's annotation and status say again what the hosts say, and
losing a call, an outcome or a process anywhere only repeats work.

``step`` sees the Machine, the hosts that matter to it and the time. It returns the patch of the
status, at most one write to perform after it, and Events. Deleting is in `release`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from billet_server.core import claimable
from billet_server.core.claimable import MACHINE_API, HostView, labels_of, view_host
from billet_server.core.claimed import report_host
from billet_server.core.claimterms import (
    ClaimSeen,
    ClaimStep,
    PatchHost,
    PatchMachine,
    Verdict,
    note,
    said,
)
from billet_server.core.labels import matches
from billet_server.core.machineobject import (
    CLAIMED,
    FINALIZER,
    HOST_ANNOTATION,
    PROVISIONED,
    Condition,
    Machine,
    Report,
    status_patch,
)
from billet_server.core.providerspec import Foreign, ProviderSpec, SpecFault
from billet_server.core.release import delete

INVALID = "InvalidConfiguration"
NO_HOST = "NoHostFits"


def step(machine: Machine, seen: ClaimSeen, now: datetime) -> ClaimStep:
    """Decide what to do next for one Machine. Never raises for anything the objects may hold."""
    verdict = _decide(machine, seen)
    patch = status_patch(machine, verdict.report, now) if verdict.report is not None else {}
    return ClaimStep(patch, verdict.effect, verdict.events, verdict.waits)


def _decide(machine: Machine, seen: ClaimSeen) -> Verdict:
    provider = machine.provider
    if isinstance(provider, Foreign):
        if not seen.own and not _is_adopted(machine):
            return Verdict(events=() if machine.deleting else (_left_alone(provider),))
        provider = SpecFault(
            f"spec.providerSpec.value.apiVersion: {provider.api_version!r} is another provider's,"
            " and this Machine is Billet's already"
        )
    if machine.deleting:
        return delete(machine, seen)
    if isinstance(provider, SpecFault):
        return _invalid(machine, seen, provider)
    if FINALIZER not in machine.finalizers:
        return Verdict(PatchMachine({"finalizers": [*machine.finalizers, FINALIZER]}))
    if seen.refused:
        return _refused(machine, seen)
    if seen.own:
        return _owning(machine, provider, seen)
    if machine.note:
        return _lost(machine, provider, seen.noted)
    return _choose(machine, provider, seen)


def _is_adopted(machine: Machine) -> bool:
    return any(
        isinstance(one, Mapping) and one.get("type") == CLAIMED
        for one in machine.status.get("conditions") or ()
    )


def _left_alone(foreign: Foreign) -> Any:
    text = f"spec.providerSpec.value is of {foreign.api_version}: another provider's Machine"
    return note("LeftAlone", f"{text}; Billet leaves it alone")


def _invalid(machine: Machine, seen: ClaimSeen, fault: SpecFault) -> Verdict:
    """Say what is wrong. A host that is claimed already stays so: nothing is known against it."""
    own = kept_host(machine, seen)
    claimed = Condition(CLAIMED, "False", INVALID, fault.message)
    if own is None:
        report = Report("Failed", (claimed, _not_yet()), error=(INVALID, fault.message))
    else:
        report = report_host(own, None)._replace(error=(INVALID, fault.message))
    news = machine.status.get("errorMessage") != report.error[1] if report.error else False
    events = (note("InvalidConfiguration", fault.message, "Warning"),) if news else ()
    return Verdict(report=report, events=events)


def _refused(machine: Machine, seen: ClaimSeen) -> Verdict:
    """The API refused to have the host written; the engine comes back later and tries again."""
    claimed = Condition(CLAIMED, "False", "HostRefused", seen.refused)
    report = Report("Pending", (claimed, _not_yet()), error=("CreateError", seen.refused))
    news = not said(machine, claimed)
    events = (note("HostRefused", seen.refused, "Warning"),) if news else ()
    return Verdict(report=report, events=events)


def kept_host(machine: Machine, seen: ClaimSeen) -> HostView | None:
    """Return the Machine's host: of several that name it the annotated one, else the first."""
    by_key = {host.key: host for host in seen.own}
    if machine.noted in by_key:
        return by_key[machine.noted]
    return by_key[min(by_key)] if by_key else None


def _owning(machine: Machine, provider: ProviderSpec, seen: ClaimSeen) -> Verdict:
    host = kept_host(machine, seen)
    assert host is not None
    if host.key != machine.noted:
        # The claim's second half; or somebody named this Machine in the host by hand.
        missing = _missing(host, provider)
        if missing and not host.deleting:
            done = note("HostClaimed", f"completing what {host.key} was to be given")
            return Verdict(PatchHost(host.key, host.resource_version, missing, done))
        return Verdict(PatchMachine(_annotation(str(host.key))))
    report = report_host(host, provider)
    events = []
    others = sorted(str(each.key) for each in seen.own if each.key != host.key)
    if others:
        listed = ", ".join(others[:3]) + (" …" if len(others) > 3 else "")
        text = f"{host.key} is used; also named this Machine in spec.consumerRef: {listed}"
        told = Condition(CLAIMED, "True", "SeveralHosts", text)
        report = report._replace(conditions=(told, *report.conditions[1:]))
        if not said(machine, told):
            events.append(note("SeveralHosts", text, "Warning"))
    proved = report.conditions[-1]
    if proved.status == "True" and not said(machine, proved):
        events.append(note("MachineProvisioned", f"host {host.key} is {host.state.value}"))
    return Verdict(report=report, events=tuple(events))


def _missing(host: HostView, provider: ProviderSpec) -> dict[str, Any]:
    """Return what a host that names this Machine still lacks; an image it has stays."""
    missing = {} if host.image_url else _image(provider)
    return missing if host.online else missing | {"online": True}


def _image(provider: ProviderSpec) -> dict[str, Any]:
    # Nulls take away what an earlier user left beside an empty url.
    image = {"url": provider.url, "checksum": provider.checksum}
    return {
        "image": image | {"checksumType": None, "format": None},
        "userData": {"name": provider.user_data} if provider.user_data else None,
    }


def _lost(machine: Machine, provider: ProviderSpec, host: HostView | None) -> Verdict:
    """The annotated host does not name this Machine: claim it, take it back, or forget it."""
    where = machine.note[:200]
    if host is None:
        text = f"host {where} of the annotation {HOST_ANNOTATION} does not exist (any more)"
        return _forget(note("HostGone", f"{text}; choosing another", "Warning"))
    if host.consumer is not None:
        text = f"host {where} is used by {host.consumer} now, and is left alone"
        return _forget(note("HostLost", f"{text}; choosing another", "Warning"))
    if host.obstacle == claimable.CLAIMABLE and matches(provider.selector, host.labels):
        return _claim(machine, provider, host)
    if host.image_url == provider.url and not host.deleting:
        text = f"spec.consumerRef of {where} was empty, its image is this Machine's: named again"
        done = note("ConsumerRestored", text, "Warning")
        named = {"consumerRef": _reference(machine)}
        return Verdict(PatchHost(host.key, host.resource_version, named, done))
    text = f"host {where} cannot be claimed: {host.obstacle or 'its labels do not match'}"
    return _forget(note("HostLost", f"{text}; choosing another", "Warning"))


def _forget(done: Any) -> Verdict:
    return Verdict(PatchMachine(_annotation(None), done))


def _choose(machine: Machine, provider: ProviderSpec, seen: ClaimSeen) -> Verdict:
    selector = provider.selector
    fit = seen.candidates
    if selector:
        fit = [obj for obj in fit if matches(selector, labels_of(obj))]
    if not fit:
        return _none_fits(machine, provider, seen)
    host = view_host(fit[seen.entropy % len(fit)])
    # First here, guarded by this object's version, then on the host: of two servers that both
    # choose for this Machine one goes on, so that it never gets two hosts.
    return Verdict(PatchMachine(_annotation(str(host.key)), chosen=host.key))


def _claim(machine: Machine, provider: ProviderSpec, host: HostView) -> Verdict:
    spec = _image(provider) | {"online": True, "consumerRef": _reference(machine)}
    done = note("HostClaimed", f"host {host.key} is to run {provider.url}")
    return Verdict(PatchHost(host.key, host.resource_version, spec, done))


def _annotation(value: str | None) -> dict[str, Any]:
    return {"annotations": {HOST_ANNOTATION: value}}


def _reference(machine: Machine) -> dict[str, Any]:
    return {
        "apiVersion": MACHINE_API,
        "kind": "Machine",
        "namespace": machine.key.namespace,
        "name": machine.key.name,
    }


def _none_fits(machine: Machine, provider: ProviderSpec, seen: ClaimSeen) -> Verdict:
    free = [view_host(obj).key.name for obj in seen.candidates[: claimable.EXAMPLES]]
    survey = [*seen.survey]
    if free:
        other = claimable.Group(claimable.LABELS_DIFFER, len(seen.candidates), tuple(free))
        survey.insert(0, other)
    text = claimable.render_survey(survey, machine.key.namespace)
    if provider.selector:
        text = f"{text} (wanted: {', '.join(map(str, provider.selector))})"
    told = Condition(CLAIMED, "False", NO_HOST, text)
    news = not said(machine, told._replace(message=""))
    events = (note("NoHostFits", told.message, "Warning"),) if news else ()
    return Verdict(report=Report("Pending", (told, _not_yet())), events=events, waits=True)


def _not_yet() -> Condition:
    return Condition(PROVISIONED, "False", "NoHost", "no host is claimed yet")
