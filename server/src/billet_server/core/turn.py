"""One pass over one host while it is being decided: the mutable draft behind `machine.step`.

A `Turn` lives for one call of ``step`` and never leaves core. It keeps the rules that every
state shares: a transition must be legal, a failure is counted once and backs off, a wait keeps
its beginning, an edit retries at once.
"""

import copy
import hashlib
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar

import msgspec

from billet_server.core import host as hosts
from billet_server.core import problems, retries
from billet_server.core.annotations import IMAGE_MIRRORS, IMAGE_RATE_LIMIT, PROTECT_DATA, REBOOT
from billet_server.core.backoff import retry_delay
from billet_server.core.capacity import (
    CAPACITY,
    DELAYED,
    OPERATIONS,
    Operation,
    Seat,
    claim_of,
    describe_wait,
    look_again_s,
)
from billet_server.core.conditions import with_conditions
from billet_server.core.effects import Effect, Outcome, RemoveAnnotations
from billet_server.core.host import Host, ProblemStatus, Progress, Status, Waiting
from billet_server.core.seen import Rules, Seen
from billet_server.core.states import State, is_legal, read_state
from billet_server.core.wording import printable_lines

REGISTRATION = "registration error"
INSPECTION = "inspection error"
PREPARATION = "preparation error"
PROVISIONING = "provisioning error"
POWER = "power management error"

REASONS = {"bmc-secret-missing": "BMCCredentialError", "bmc-secret-malformed": "BMCCredentialError"}
"""Reasons of Metal3's Events that tell a problem; those of others tell the type of error."""

_CLOCK_SLACK_S = 60.0
_EFFECT = timedelta(minutes=10)

EffectT = TypeVar("EffectT", bound=Effect)


class EventNote(NamedTuple):
    """A Kubernetes Event to record: type Normal or Warning, CamelCase reason, sentence."""

    type: str
    reason: str
    message: str


class Step(NamedTuple):
    """A decision: the status to write first, the one effect to perform then, when to look again.

    ``requeue_s`` None: nothing but a change of the object, its Secret, its agent matters.
    ``basis`` belongs into the effect's `Outcome`.
    """

    status: Status
    effect: Effect | None
    events: tuple[EventNote, ...]
    requeue_s: float | None
    basis: str = ""


class Turn:
    """See the module."""

    def __init__(self, host: Host, seen: Seen, now: datetime, rules: Rules) -> None:
        self.host, self.seen, self.rules = host, seen, rules
        self.now = hosts.whole_second(now)
        self.exact_now = now
        self.status = hosts.copy_status(host.status)
        self.effect: Effect | None = None
        self.events: list[EventNote] = []
        self._requeue_s: float | None = None
        self._waiting: Waiting | None = None
        self._delayed: tuple[Operation, Seat] | None = None
        self._remarks: list[str] = []
        self._heal_clock()

    @property
    def state(self) -> State:
        """The present provisioning state."""
        return read_state(self.status.provisioning.state)

    @property
    def basis(self) -> str:
        """What a person may change to heal a problem; when it changes, retry at once."""
        secrets = f"{self.seen.secret.version}/{self.seen.data_version}"
        return f"{self.host.generation}/{secrets}{_said(self.host)}"

    def go(self, state: State) -> None:
        """Enter another state; clears progress and errors."""
        if not is_legal(self.state, state):
            raise AssertionError(f"illegal transition {self.state.value!r} -> {state.value!r}")
        if state is not self.state:
            retries.forget(self.status)
        word = self.rules.ready_word if state is State.READY else state.value
        self.status.provisioning.state = word
        self.status.progress = None
        self.clear_problem()
        self.look_again(0.0)

    def ask(self, effect: Effect) -> None:
        """Ask for an effect; at most one in a step."""
        assert self.effect is None, (self.effect, effect)
        self.effect = effect

    def remove_annotations(self, *keys: str) -> None:
        """Ask for annotations to be taken off, as they are now: what is set meanwhile stays."""
        found = self.host.annotations
        self.ask(RemoveAnnotations(tuple((key, found[key]) for key in keys if key in found)))

    def outcome(self, kind: type[EffectT]) -> tuple[EffectT, Outcome] | None:
        """Return the last effect and its outcome when it was of this kind."""
        last = self.seen.outcome
        if last is not None and isinstance(last.effect, kind):
            return last.effect, last
        return None

    def note(self, reason: str, message: str, kind: str = "Normal") -> None:
        """Record an Event."""
        self.events.append(EventNote(kind, reason, message))

    def remark(self, reason: str, message: str, kind: str = "Normal") -> None:
        """Say something that holds beside what the host waits for; its Event comes once."""
        old = self.host.status.waiting
        if old is None or message not in old.message:
            self.note(reason, message, kind)
        self._remarks.append(message)

    def look_again(self, seconds: float) -> None:
        """Come back after ``seconds`` at the latest."""
        seconds = max(0.0, seconds)
        self._requeue_s = seconds if self._requeue_s is None else min(self._requeue_s, seconds)

    def wait(self, cause: str, message: str, actor: str, until: datetime | None = None) -> None:
        """Say what the host waits for; an unchanged cause keeps its beginning."""
        since = self.waiting_since(cause)
        end = hosts.whole_second(until) if until is not None else None
        self._waiting = Waiting(cause, message, since, end, actor)
        if until is not None:
            self.look_again((until - self.exact_now).total_seconds())

    def go_on_waiting(self) -> None:
        """Keep the wait for somebody to change something: a look at the power is no news."""
        old = self.host.status.waiting
        if old is None or old.cause == hosts.FAST_TRACK:
            return  # That one is told anew in each pass, or no longer.
        if old.actor == "user" and self.status.problem is None:
            self._waiting = copy.copy(old)

    def waiting_since(self, cause: str) -> datetime:
        """Return since when the host waits for this cause; now when it did not until now."""
        old = self.host.status.waiting
        if old is None or old.cause != cause or old.since is None:
            return self.now
        return min(old.since, self.now)

    def progress(self, step: str, message: str = "", **figures: int | None) -> None:
        """Say which step runs; the step's beginning is kept while it stays the same."""
        old = self.status.progress
        began = old.started_at if old is not None and old.step == step else self.now
        self.status.progress = Progress(step=step, message=message, started_at=began, **figures)

    def fail(self, fault: problems.Fault, error_type: str) -> None:
        """Record a failure: count it, say it, choose the time of the next try, if there is one."""
        status, last = self.status, self.seen.outcome
        status.error_count += 1
        effect = last.effect if last is not None and last.fault is fault else None
        basis = last.basis if last is not None and effect is not None else ""
        # A deletion waits for nobody: what time does not heal is given up after a few tries.
        waits_for_nobody, outdated = self.host.deleting, basis not in ("", self.basis)
        if not waits_for_nobody and not outdated:
            spent = self._spent(fault, effect, error_type)
            if spent is not None:
                self._record(spent, error_type, None, cause=fault.problem)
                return
        retry_at = None
        if waits_for_nobody or problems.heals(fault):
            delay = retry_delay(
                status.error_count,
                self.host.uid,
                base_s=self.rules.retry_base_s,
                cap_s=self.rules.retry_cap_s,
            )
            retry_at = self.exact_now + delay
        self._record(fault, error_type, retry_at, basis)
        counts = not waits_for_nobody and not outdated and retries.is_counted(fault, effect)
        if retry_at is not None and counts and status.problem is not None:
            name = retries.operation(self.state, error_type)
            status.problem.retries_left = retries.left(self.rules, status, name)

    def _spent(
        self, fault: problems.Fault, effect: Effect | None, error_type: str
    ) -> problems.Fault | None:
        """Count a failure; return the problem that stands when this was the last try."""
        if not retries.is_counted(fault, effect):
            return None
        name = retries.operation(self.state, error_type)
        failed = retries.count(self.status, name, self.basis, self.host.spec.wanted_image)
        if not problems.heals(fault) or not 0 < retries.limit(self.rules, name) < failed:
            return None
        return retries.exhausted(self.host.key, fault, name, failed)

    def retry_now(self, key: str) -> None:
        """Let whatever waits for its next try have it in the next pass, with nothing counted."""
        retries.forget(self.status)
        self.status.error_count = 0
        if self.status.problem is not None:
            self.status.problem.basis = ""
        self._waiting = self.host.status.waiting
        self.note("RetryRequested", f"everything is tried again: annotation {key}")
        self.remove_annotations(key)

    def stand(self, fault: problems.Fault, error_type: str) -> None:
        """Record a condition that holds until somebody changes something; counted once."""
        old = self.status.problem
        if old is not None and (old.id, old.message) == (fault.problem, fault.message):
            self._wait_for_problem(old)
            return
        self.status.error_count += 1
        self._record(fault, error_type, None)

    def place(self, operation: Operation) -> bool:
        """Whether the host may begin an operation now; if not, it waits for its place.

        Deleting an object waits for nobody, and what is under way goes on.
        """
        seat: Seat = getattr(self.seen.seats, operation)
        if self.host.deleting or seat.granted or self._holds(operation):
            return True
        self._delayed = operation, seat
        self.look_again(look_again_s(seat))
        return False

    def blocked(self) -> bool:
        """Whether a recorded problem or the want of a place forbids trying now; says so."""
        if self.held_back():
            return True
        operation = self._limited()
        return operation is not None and not self.place(operation)

    def held_back(self) -> bool:
        """Whether a recorded problem forbids trying now; says until when."""
        problem = self.status.problem
        if problem is None or problem.basis != self.basis:
            return False
        if problem.next_retry_at is None:
            if self.host.deleting:
                return False
        elif not 0 < (problem.next_retry_at - self.exact_now).total_seconds() <= self._longest:
            return False
        self._wait_for_problem(problem)
        return True

    def soften(self) -> None:
        """A retry is well under way: the error goes, the count stays."""
        count = self.status.error_count
        self.clear_problem()
        self.status.error_count = count

    def clear_problem(self) -> None:
        """No problem, nothing counted."""
        status = self.status
        if status.operational_status == "error":
            status.operational_status = "OK"
        status.error_type = status.error_message = ""
        status.error_count = 0
        status.problem = None

    def finish(self) -> Step:
        """Return the decision."""
        self._settle_delay()
        if self._remarks:
            self._waiting = self._with_remarks()
        waiting = self._waiting
        if waiting is not None and waiting.actor in ("bmc", "agent") and self.effect is not None:
            # The engine ends every effect by then.
            until = waiting.until or self.now + _EFFECT
            self._waiting = msgspec.structs.replace(waiting, until=until)
        self.status.waiting = self._waiting
        if not self.host.deleting or hosts.FINALIZER in self.host.finalizers:
            self.status.conditions = with_conditions(self.host, self.status, self.now)
        if self.status != self.host.status:
            self.status.last_updated = self.now
        return Step(self.status, self.effect, tuple(self.events), self._requeue_s, self.basis)

    def _holds(self, operation: Operation) -> bool:
        """Whether the host had a place for this operation before this pass."""
        held = claim_of(self.host.status)
        return held is not None and held.held and held.operation is operation

    def _limited(self) -> Operation | None:
        """Return what the present state needs a place for; without a ramdisk there is no need."""
        operation = OPERATIONS.get(self.state)
        cleans = self.host.spec.automated_cleaning_mode != "disabled"
        return operation if cleans or operation is not Operation.CLEAN else None

    def _settle_delay(self) -> None:
        """Say that the host waits for a place, unless a problem makes it wait for more."""
        status, before = self.status, self.host.status.waiting
        entered = self._limited()
        if entered is not None and self._waiting is None and self.effect is None:
            self.place(entered)
        if self._delayed is not None and not self._waits_for_problem():
            operation, seat = self._delayed
            self.wait("capacity", describe_wait(operation, seat), "billet")
            status.operational_status = DELAYED
            if before is None or before.cause != CAPACITY:
                text = f"all {seat.limit} places to {operation} are taken; waiting for one"
                self.note("Delayed", text)
        elif status.operational_status == DELAYED:
            status.operational_status = "error" if status.problem is not None else "OK"

    def _waits_for_problem(self) -> bool:
        cause = self._waiting.cause if self._waiting is not None else ""
        return self.status.problem is not None and cause in ("retry", "change")

    def _with_remarks(self) -> Waiting:
        waiting = self._waiting or Waiting("change", "", self.waiting_since("change"), None, "user")
        said = waiting.message
        parts = (said, *(remark for remark in self._remarks if remark not in said))
        return msgspec.structs.replace(waiting, message="; ".join(filter(None, parts)))

    @property
    def _longest(self) -> float:
        # A retry further away than any back-off was set by a clock that was wrong.
        return self.rules.retry_cap_s + _CLOCK_SLACK_S

    def _heal_clock(self) -> None:
        """Take moments that lie ahead as now: the clock was set back, waits must still end."""
        boot = self.status.boot
        if boot is None:
            return
        ahead = self.now + timedelta(seconds=_CLOCK_SLACK_S)
        for name in (
            "chosen_at",
            "started_at",
            "agent_connected_at",
            "handed_over_at",
            "idle_since",
        ):
            moment = getattr(boot, name)
            if moment is not None and moment > ahead:
                setattr(boot, name, self.now)

    def _record(
        self,
        fault: problems.Fault,
        error_type: str,
        retry_at: datetime | None,
        basis: str = "",
        cause: str = "",
    ) -> None:
        status, advice = self.status, problems.advice(fault)
        first = status.problem is None or status.problem.id != fault.problem
        since = self.now if first or status.problem is None else status.problem.since
        status.operational_status = "error"
        status.error_type = error_type
        status.error_message = f"{fault.message} ({fault.problem}); {advice}"
        status.problem = ProblemStatus(
            id=fault.problem,
            cause=cause,
            message=fault.message,
            evidence=printable_lines(fault.evidence, 2000),
            advice=advice,
            basis=basis or self.basis,
            since=since,
            next_retry_at=hosts.whole_second(retry_at + timedelta(seconds=0.999))
            if retry_at
            else None,
        )
        reason = REASONS.get(fault.problem) or _reason(error_type)
        self.note(reason, status.error_message, "Warning")
        self._wait_for_problem(status.problem)
        if status.problem.basis != self.basis:
            self.look_again(0.0)

    def _wait_for_problem(self, problem: ProblemStatus) -> None:
        if problem.next_retry_at is not None:
            text = f"trying again after {problem.id}: {problem.message}"
            self.wait("retry", text, "billet", problem.next_retry_at)
        else:
            self.wait("change", f"{problem.message}: {problem.advice}", "user")


def _said(host: Host) -> str:
    """Return a short sign for what annotations ask of power, download and data; "" for nothing."""
    words = sorted(
        (key, value)
        for key, value in host.annotations.items()
        if key.startswith(REBOOT) or key in {IMAGE_MIRRORS, IMAGE_RATE_LIMIT, PROTECT_DATA}
    )
    if not words:
        return ""
    return "/" + hashlib.sha256(repr(words).encode()).hexdigest()[:8]


def _reason(error_type: str) -> str:
    return "".join(word.capitalize() for word in error_type.split())
