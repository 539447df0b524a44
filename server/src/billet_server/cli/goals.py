"""When a command's `--wait` is over: what the host must look like. Pure."""

import json
from collections.abc import Callable
from typing import Literal, NamedTuple

from billet_server.core.annotations import DETACHED, HARDWARE_DETAILS, INSPECT, REBOOT, RETRY
from billet_server.core.host import Host
from billet_server.core.states import State, read_state

WORKING = frozenset({State.INSPECTING, State.PROVISIONING, State.DEPROVISIONING})


class Verdict(NamedTuple):
    """How far a host is. stuck: nothing will happen by itself, unless it has just been told to."""

    kind: Literal["going", "done", "failed", "stuck"]
    words: str = ""


Goal = Callable[[Host, Host], Verdict]
"""Takes the host as it was before the change, and as it is now."""

GOING = Verdict("going")


def judge(goal: Goal, before: Host, now: Host) -> Verdict:
    """Return the goal's verdict; a problem that is new since the change is the end."""
    if now.uid != before.uid:
        return Verdict("failed", "the host was deleted and made anew")
    verdict = goal(before, now)
    problem, old = now.status.problem, before.status.problem
    if verdict.kind != "going" or problem is None:
        return verdict
    words = f"{problem.id}: {problem.message.removeprefix(f'{now.key}: ')}; {problem.advice}"
    is_new = (
        old is None
        or (old.id, old.since) != (problem.id, problem.since)
        or now.status.error_count > before.status.error_count
    )
    if is_new:
        return Verdict("failed", words)
    waiting = now.status.waiting
    return Verdict("stuck", words) if waiting and waiting.cause == "change" else GOING


def powered(*, on: bool) -> Goal:
    """Until the BMC says so."""

    def goal(before: Host, now: Host) -> Verdict:
        del before
        if now.status.powered_on is on and now.spec.online is on:
            return Verdict("done", f"power {'on' if on else 'off'}")
        return GOING

    return goal


def rebooted(before: Host, now: Host) -> Verdict:
    """Until the server took the annotation off and the power is as wanted again."""
    del before
    if REBOOT in now.annotations or now.status.powered_on is not now.spec.online:
        return GOING
    return Verdict("done", f"rebooted, power {'on' if now.spec.online else 'off'}")


def held(before: Host, now: Host) -> Verdict:
    """Until the power is off."""
    del before
    return Verdict("done", "power off, held") if now.status.powered_on is False else GOING


def let_go(before: Host, now: Host) -> Verdict:
    """Until the power is as wanted; other keys may go on holding it off."""
    del before
    keys = reboot_keys(now)
    if keys:
        return Verdict("stuck", f"still held off by {', '.join(keys)}")
    return Verdict("done", "power on") if now.status.powered_on is now.spec.online else GOING


def detached(before: Host, now: Host) -> Verdict:
    """Until the server let go of it."""
    del before
    return Verdict("done", "detached") if now.status.operational_status == "detached" else GOING


def attached(before: Host, now: Host) -> Verdict:
    """Until the server has it again."""
    del before
    is_out = DETACHED in now.annotations or now.status.operational_status == "detached"
    return GOING if is_out else Verdict("done", "attached")


def inspected(before: Host, now: Host) -> Verdict:
    """Until a new inspection has ended."""
    if INSPECT in now.annotations or read_state(now.status.provisioning.state) in WORKING:
        return GOING
    old, new = (host.status.operation_history.inspect.end for host in (before, now))
    return Verdict("done", "inspected") if new and new != old else GOING


def hardware_taken(before: Host, now: Host) -> Verdict:
    """Until the server took the annotation into the status."""
    del before
    return GOING if HARDWARE_DETAILS in now.annotations else Verdict("done", "hardware set")


def retried(before: Host, now: Host) -> Verdict:
    """Until the annotation is taken off and what was tried again has succeeded or failed."""
    if RETRY in now.annotations:
        return GOING
    if now.status.problem is None and read_state(now.status.provisioning.state) not in WORKING:
        return Verdict("done", "no problem any more" if before.status.problem else "no problem")
    return GOING


def provisioned(url: str) -> Goal:
    """Until this image runs."""

    def goal(before: Host, now: Host) -> Verdict:
        del before
        held_image = now.status.provisioning.image
        is_there = now.status.provisioning.state == State.PROVISIONED
        if is_there and held_image is not None and held_image.url == url:
            return Verdict("done", "provisioned")
        return GOING

    return goal


def deprovisioned(before: Host, now: Host) -> Verdict:
    """Until the host is at rest without an image."""
    del before
    state = read_state(now.status.provisioning.state)
    return Verdict("done", state.value) if state is State.READY else GOING


def reboot_keys(host: Host) -> list[str]:
    """Return the keys that hold a host off (``reboot.metal3.io/KEY``)."""
    prefix = f"{REBOOT}/"
    return sorted(k.removeprefix(prefix) for k in host.annotations if k.startswith(prefix))


def annotation_value(**values: object) -> str:
    """Return an annotation's JSON of what was given; "" when nothing was."""
    given = {key: value for key, value in values.items() if value}
    return json.dumps(given, separators=(",", ":")) if given else ""
