"""The host state machine: one pure function from what is known to what is done next.

Theory of operation. ``step`` sees the object (its status is the only memory), the observations
of this pass, and the time. It returns the status to write, at most one effect to perform after
the write, Events, and when to look again. It is called again on any change and after each
effect with its outcome. Losing any call, outcome or process in between only repeats work:
everything needed to go on is in the status (state, boot nonce, operation id), in the agent
(its jobs) or in the machine (power).

The order in every state: conditions that forbid acting, then the credentials, then the state's
own work. States and legal transitions are in `states`; problems and their retries in `turn`.
"""

from datetime import datetime

from billet_server.core import retries
from billet_server.core.annotations import PAUSED, RETRY
from billet_server.core.deleting import delete
from billet_server.core.detach import detached
from billet_server.core.effects import AddFinalizer, ForgetAgent
from billet_server.core.host import FINALIZER, Host, Period
from billet_server.core.inspecting import inspect, take_details
from billet_server.core.preflight import ERROR_TYPES, credentials, preflight
from billet_server.core.preparing import prepare
from billet_server.core.problems import Fault
from billet_server.core.provisioning import deprovision, provision
from billet_server.core.reboot import interrupted, remark_on_requests
from billet_server.core.registering import register, unmanaged
from billet_server.core.resting import externally_provisioned, provisioned, ready
from billet_server.core.restoring import drop_foreign_error, restore
from billet_server.core.seen import Rules, Seen
from billet_server.core.states import State
from billet_server.core.turn import REGISTRATION, Step, Turn


def step(host: Host, seen: Seen, now: datetime, rules: Rules) -> Step:
    """Decide what to do next for one host. Never raises for anything the object may hold."""
    if PAUSED in host.annotations:
        return Step(host.status, None, (), None)
    turn = Turn(host, seen, now, rules)
    if not restore(turn):
        return turn.finish()
    drop_foreign_error(turn)
    retries.forget_if_edited(host, turn.status, turn.basis)
    wish = RETRY in host.annotations and FINALIZER in host.finalizers
    if wish and seen.outcome is None:
        turn.retry_now(RETRY)
    elif host.deleting:
        if FINALIZER in host.finalizers and not detached(turn):
            delete(turn)
    elif FINALIZER not in host.finalizers:
        turn.ask(AddFinalizer())
    elif not detached(turn):
        _live(turn)
    _let_go(turn)
    if wish and turn.effect is None:
        turn.look_again(0.0)  # What just ended came first.
    return turn.finish()


def trouble(host: Host, fault: Fault, now: datetime, rules: Rules) -> Step:
    """Say on the object that the server itself has trouble with it; the next step takes it back.

    Changes nothing but the problem: what is written now was accepted before.
    """
    turn = Turn(host, Seen("", now), now, rules)
    turn.stand(fault, ERROR_TYPES.get(turn.state, REGISTRATION))
    return turn.finish()


def _let_go(turn: Turn) -> None:
    """Cut off an agent of a boot that is over; what it said is of no use any more."""
    agent, boot = turn.seen.agent, turn.status.boot
    stale = agent is not None and (boot is None or agent.nonce != boot.nonce)
    if stale and turn.effect is None and turn.host.finalizers:
        turn.ask(ForgetAgent())


def _live(turn: Turn) -> None:
    remark_on_requests(turn)
    if turn.host.status_fault:
        preflight(turn)
        return
    if not take_details(turn):
        return
    if not turn.host.spec.bmc.address and not turn.host.spec_fault:
        unmanaged(turn)
        return
    if turn.state in (State.NONE, State.UNMANAGED):
        turn.status.operational_status = ""
        turn.status.operation_history.register = Period(start=turn.now)
        turn.go(State.REGISTERING)
        return
    if turn.state is State.REGISTERING:
        register(turn)
    elif preflight(turn) and credentials(turn) and not interrupted(turn):
        _act(turn)


def _act(turn: Turn) -> None:
    match turn.state:
        case State.INSPECTING:
            inspect(turn)
        case State.PREPARING:
            prepare(turn)
        case State.READY:
            ready(turn)
        case State.PROVISIONING:
            provision(turn)
        case State.PROVISIONED:
            provisioned(turn)
        case State.DEPROVISIONING:
            deprovision(turn)
        case State.EXTERNALLY_PROVISIONED:
            externally_provisioned(turn)
        case State.POWERING_OFF | State.DELETING:
            # A deletion cannot be taken back; without deletionTimestamp somebody restored
            # the object from a backup: it starts over.
            turn.status.provisioning.state = State.NONE.value
            turn.look_again(0.0)
        case _:
            raise AssertionError(turn.state)
