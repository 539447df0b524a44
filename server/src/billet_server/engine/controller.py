"""The controller: informers fill the queue, workers reconcile, and the directories answer.

One pass: object and observations in, `core.machine.step`, one status patch, Events, at most one
effect; then again until there is no effect. The status is written before the effect is
performed, so that what was begun (a boot nonce, an operation id) survives any crash.

Workers decide and write; effects run in tasks of their own, so that a rack of dead BMCs keeps
no worker from the other hosts. A host with an effect under way stays busy in the queue.
"""

import asyncio
import logging
import uuid
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final, NamedTuple

from billet_server import errors
from billet_server.core import effects as ask
from billet_server.core.annotations import PAUSED
from billet_server.core.bmcaddress import machine_key
from billet_server.core.capacity import claim_of, claim_of_object
from billet_server.core.conditions import same_but_generation
from billet_server.core.host import Host, host_patch, parse_host
from billet_server.core.machine import step, trouble
from billet_server.core.problems import Fault
from billet_server.core.seen import PowerSeen, Rules, Seen, Stranger
from billet_server.core.terms import Credentials, HostKey
from billet_server.core.turn import EventNote, Step
from billet_server.engine import indexes
from billet_server.engine.informer import Informer, OnChange
from billet_server.engine.limits import Limits
from billet_server.engine.memo import Memo
from billet_server.engine.meter import Meter, MeteredBmcs
from billet_server.engine.perform import Performer, describe
from billet_server.engine.queue import WorkQueue
from billet_server.engine.recorder import Recorder
from billet_server.engine.secrets import data_version, read_credentials
from billet_server.ports import (
    BARE_METAL_HOST,
    SECRET,
    AgentLink,
    Bmcs,
    Clock,
    KubeApi,
    Metrics,
    NoMetrics,
    Object,
)

log = logging.getLogger(__name__)

PROGRESS_INTERVAL_S: Final = 2.0
"""At most one write of mere progress in this time for each host."""

_VOLATILE = frozenset({"progress", "waiting", "lastUpdated"})
_API_RETRY_S: Final = (0.2, 1.0, 5.0, 15.0)

AGENT_INTERVAL_S: Final = 0.25
"""At most one pass in this time for what agents and boot services report of a host."""

RIVAL_INTERVAL_S: Final = 300.0

BMC_EFFECTS: Final = 256
SOFT_OFF_EFFECTS: Final = 128
"""BMC effects under way at once; shutting a system down softly takes minutes and counts apart."""

CLOCK_JUMP_S: Final = 30.0

_AT_BMC = (
    ask.CheckBmc,
    ask.ReadPower,
    ask.PowerOn,
    ask.PowerOff,
    ask.PowerCycle,
    ask.NetworkBoot,
    ask.SetDiskBoot,
    ask.RestartFromDisk,
)


_ON_OBJECT = (
    ask.AddFinalizer,
    ask.RemoveFinalizer,
    ask.RemoveAnnotations,
    ask.SetArchitecture,
)


class _Errand(NamedTuple):
    """An effect that was decided on and whose status is written."""

    effect: ask.Effect
    host: Host
    memo: Memo
    credentials: Credentials | None
    basis: str


class Controller:
    """Reconciles every host: `run`, or `follow` always and `work` while this server leads."""

    def __init__(
        self,
        api: KubeApi,
        bmcs: Bmcs,
        agents: AgentLink,
        clock: Clock,
        *,
        rules: Rules | None = None,
        workers: int = 64,
        namespaces: Sequence[str] = (),
        metrics: Metrics | None = None,
    ) -> None:
        self._api, self._agents, self._clock = api, agents, clock
        self._rules, self._workers = rules or Rules(), workers
        self._started_at = clock.now()
        self._clock_offset_s = self._offset_s()
        self._memos: dict[HostKey, Memo] = {}
        self.queue: WorkQueue[HostKey] = WorkQueue(clock)
        self.listeners: list[OnChange] = []
        self.limits = Limits(self._rules, clock, self.queue.add)
        metrics = metrics or NoMetrics()
        self._meter = Meter(metrics, clock)
        self._meter.watch(self.queue, self.limits)
        bmcs = MeteredBmcs(bmcs, metrics, clock)
        self.hosts = Informer(
            api,
            BARE_METAL_HOST,
            clock=clock,
            on_change=self._host_changed,
            namespaces=namespaces,
        )
        for name, function in indexes.SHARED.items():
            self.hosts.add_index(name, function)
        self.hosts.add_index("uid", indexes.uids)
        self.hosts.add_index("secret", indexes.secrets)
        self.secrets = Informer(
            api, SECRET, clock=clock, on_change=self._secret_changed, namespaces=namespaces
        )
        self.recorder = Recorder(api, clock, metrics)
        self._performer = Performer(api, bmcs, agents, self.secrets.get, self.hosts.note_written)
        self._bmc_places = asyncio.Semaphore(BMC_EFFECTS)
        self._soft_off_places = asyncio.Semaphore(SOFT_OFF_EFFECTS)

    async def run(self) -> None:
        """Reconcile for ever, as the only server."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.follow(), name="follow")
            await self.work()

    async def follow(self) -> None:
        """Keep the caches of hosts and Secrets filled, for ever; standbys do as well."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.secrets.run(), name="informer-secrets")
            group.create_task(self.hosts.run(), name="informer-hosts")

    async def work(self) -> None:
        """Reconcile until cancelled. Whatever was known before may have become untrue since."""
        was_synced = self.synced
        # Deciding on half a cache would report Secrets missing that are merely not listed.
        await self.secrets.synced.wait()
        await self.hosts.synced.wait()
        if was_synced:
            await self._catch_up()
        log.info("caches are filled: %d hosts", len(self.hosts))
        self._started_at = self._clock.now()
        self.queue.abandon()
        for key, memo in self._memos.items():
            self._memos[key] = Memo(uid=memo.uid, boot=memo.boot)
            self.queue.add(key)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.recorder.run(), name="events")
            for number in range(self._workers):
                group.create_task(self._work(group), name=f"reconcile-{number}")

    async def _catch_up(self) -> None:
        """Have all that another leader wrote, also where a watch of ours has stood still."""
        while True:
            try:
                await self.secrets.catch_up()
                await self.hosts.catch_up()
            except errors.ApiError as error:
                log.warning("cannot begin to reconcile yet: %s", error)
                await self._clock.sleep(_API_RETRY_S[1])
            else:
                return

    @property
    def synced(self) -> bool:
        """Whether the caches have been filled."""
        return self.hosts.synced.is_set() and self.secrets.synced.is_set()

    def wake(self, key: HostKey) -> None:
        """Have a host looked at soon: at once, unless it was a moment ago."""
        left_s = self.memo(key).last_pass_s + AGENT_INTERVAL_S - self._clock.monotonic()
        self.queue.add_after(key, left_s)

    async def report_rival(self, host: Host, text: str) -> None:
        """Say that an agent was refused for a host: an Event now and then, not for every call."""
        memo = self.memo(host.key)
        memo.boot = memo.boot._replace(rival_at=self._clock.now())
        self._refused(host, memo, text)

    async def report_stranger(self, host: Host, text: str) -> None:
        """Say that the agent of a host's boot runs on a machine without the host's MAC."""
        memo = self.memo(host.key)
        memo.boot = memo.boot._replace(stranger=Stranger(self._clock.now(), text))
        self._refused(host, memo, text)

    def _refused(self, host: Host, memo: Memo, text: str) -> None:
        now_s = self._clock.monotonic()
        if now_s - memo.rival_noted_s > RIVAL_INTERVAL_S:
            memo.rival_noted_s = now_s
            self.recorder.record(host, EventNote("Warning", "AgentRefused", text))
        self.wake(host.key)

    def memo(self, key: HostKey) -> Memo:
        """Return what is remembered of a host."""
        return self._memos.setdefault(key, Memo())

    def find_by_mac(self, mac: str) -> list[Host]:
        """Return the hosts that claim a MAC (lower case)."""
        return [parse_host(obj) for obj in self.hosts.by_index("mac", mac)]

    def find_by_uid(self, uid: str) -> Host | None:
        """Return the host with this UID."""
        found = self.hosts.by_index("uid", uid)
        return parse_host(found[0]) if found else None

    async def _work(self, group: asyncio.TaskGroup) -> None:
        while True:
            key = await self.queue.get()
            errand = None
            try:
                errand = await self._reconcile_safely(key)
            finally:
                if errand is None:
                    self.queue.done(key)
            if errand is not None:
                group.create_task(self._run(key, errand), name=f"effect-{key}")

    async def _reconcile_safely(self, key: HostKey) -> _Errand | None:
        """Reconcile; trouble with the API, or of our own, is retried and never ends a worker."""
        began_s = self._clock.monotonic()
        try:
            errand = await self.reconcile(key)
            self.memo(key).api_failures = 0
            return errand
        except errors.ApiError as error:
            self._meter.broke(key)
            await self._api_failed(key, error)
        except Exception as error:
            log.exception("host %s: reconciling failed unexpectedly", key)
            self._meter.broke(key)
            await self._say(key, "internal", f"cannot decide what to do: {_words(error)}")
            self.queue.add_after(key, _API_RETRY_S[-1])
        finally:
            if self.hosts.get(*key) is not None:
                self._meter.passed(key, began_s)
        return None

    async def _api_failed(self, key: HostKey, error: errors.ApiError) -> None:
        memo = self.memo(key)
        pause = _API_RETRY_S[min(memo.api_failures, len(_API_RETRY_S) - 1)]
        if isinstance(error, errors.Conflict):
            pause = _API_RETRY_S[0]
        elif isinstance(error, errors.NotFound):
            pause = _API_RETRY_S[1]
        else:
            memo.api_failures += 1
            log.warning("host %s: %s; trying again in %.1f s", key, error, pause)
        if isinstance(error, errors.Invalid):
            pause = _API_RETRY_S[-1]
            await self._say(key, "status-refused", f"the API refused a write: {error}")
        self.queue.add_after(key, pause)

    async def _say(self, key: HostKey, problem: str, text: str) -> None:
        """Put a trouble of the server's own on the object, if that much is possible."""
        obj = self.hosts.get(*key)
        if obj is None:
            return
        try:
            host = parse_host(obj)
            fault = Fault(problem, f"{key}: {text[:500]}")
            said = trouble(host, fault, self._clock.now(), self._rules)
            patch = host_patch(obj, host, said.status)
            if patch:
                await self._write_status(host, self.memo(key), patch)
            for note in said.events:
                self.recorder.record(host, note)
        except errors.ApiError as error:
            log.warning("host %s: cannot say %s on the object: %s", key, problem, error)
        except Exception:
            log.exception("host %s: cannot say %s on the object", key, problem)

    async def reconcile(self, key: HostKey) -> _Errand | None:
        """Bring one host one step on; return what is to be performed. Raises ApiError."""
        self._watch_clock()
        obj = self.hosts.get(*key)
        if obj is None:
            memo = self._memos.pop(key, None)
            self.queue.forget(key)
            if memo is not None and memo.uid:
                await self._agents.forget(memo.uid)
            return None
        host = parse_host(obj)
        memo = self.memo(key)
        if memo.uid != host.uid:
            gone, memo = memo.uid, Memo(uid=host.uid)
            self._memos[key] = memo
            if gone:
                await self._agents.forget(gone)
        memo.last_pass_s = self._clock.monotonic()
        if self._rests_paused(host, memo):
            return None
        seen, credentials = self._observe(host, memo)
        decision = step(host, seen, self._clock.now(), self._rules)
        patch = host_patch(obj, host, decision.status)
        if self._too_soon(host, memo, patch, decision):
            return None
        if patch:
            # Before anything is awaited: no other host may be given the same place.
            self.limits.reserve(key, claim_of(decision.status))
            try:
                await self._write_status(host, memo, patch)
            finally:
                self.limits.end_reservation(key)
        memo.outcome = None
        self._meter.decided(host, decision)
        for note in decision.events:
            self.recorder.record(host, note)
        if decision.effect is not None:
            return _Errand(decision.effect, host, memo, credentials, decision.basis)
        if decision.requeue_s is not None:
            self.queue.add_after(key, max(decision.requeue_s, 0.05))
        return None

    def _rests_paused(self, host: Host, memo: Memo) -> bool:
        """Whether a host is paused: then nothing is decided, and nothing forgotten either."""
        paused, memo.paused = memo.paused, PAUSED in host.annotations
        if paused and not memo.paused:
            memo.resumed_at = self._clock.now()
        return memo.paused

    async def _run(self, key: HostKey, errand: _Errand) -> None:
        """Perform an effect and have the host looked at again, whatever happens."""
        memo = errand.memo
        try:
            async with self._place(errand.effect):
                await self._perform(errand)
            self.queue.add(key)
        except errors.ApiError as error:
            await self._api_failed(key, error)
        except Exception as error:
            log.exception("host %s: %s failed unexpectedly", key, describe(errand.effect))
            name = type(errand.effect).__name__
            fault = Fault("internal", f"{key}: {name} failed unexpectedly: {_words(error)}")
            memo.outcome = ask.Outcome(errand.effect, fault, basis=errand.basis)
            self.queue.add_after(key, _API_RETRY_S[1])
        finally:
            self.queue.done(key)

    def _place(self, effect: ask.Effect) -> AbstractAsyncContextManager[object]:
        if isinstance(effect, ask.PowerOff) and effect.soft:
            return self._soft_off_places
        return self._bmc_places if isinstance(effect, _AT_BMC) else nullcontext()

    def _offset_s(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()

    def _watch_clock(self) -> None:
        """A wall clock that was set makes every wait begin anew, as a restart does."""
        offset_s = self._offset_s()
        jump_s = offset_s - self._clock_offset_s
        if abs(jump_s) > CLOCK_JUMP_S:
            log.warning("the clock was set by %+.0f s; waits of all hosts begin anew", jump_s)
            self._clock_offset_s = offset_s
            self._started_at = self._clock.now()

    def _observe(self, host: Host, memo: Memo) -> tuple[Seen, Credentials | None]:
        secret, credentials = read_credentials(host, self.secrets.get)
        seen = Seen(
            entropy=uuid.uuid4().hex,
            # Nobody looked while the host was paused: its waits begin anew, as after a restart.
            started_at=max(self._started_at, memo.resumed_at or self._started_at),
            secret=secret,
            power=memo.power,
            agent=self._agents.view(host.uid),
            boot=memo.boot,
            mac_conflict=self._elder(host, "mac", host.spec.boot_mac_address.lower()),
            outcome=memo.outcome,
            bmc_conflict=self._elder(host, "machine", machine_key(host.spec.bmc.address)),
            data_version=data_version(host, self.secrets.get),
            seats=self.limits.seats(host.key),
        )
        return seen, credentials

    def _elder(self, host: Host, index: str, value: str) -> str:
        found = self.hosts.by_index(index, value) if value else []
        return indexes.elder(found, host.key) if len(found) > 1 else ""

    def _too_soon(self, host: Host, memo: Memo, patch: Object, decision: Step) -> bool:
        """Whether this is mere progress that was written a moment ago; comes back for it."""
        # An effect without fields is an empty tuple, which is false.
        is_news = decision.effect is not None or bool(decision.events)
        if is_news or not patch or not _is_minor(host, patch):
            return False
        left = memo.last_write_s + PROGRESS_INTERVAL_S - self._clock.monotonic()
        if left <= 0:
            return False
        self.queue.add_after(host.key, left)
        return True

    async def _write_status(self, host: Host, memo: Memo, patch: Object) -> None:
        body: Object = {"metadata": {"resourceVersion": host.resource_version}, "status": patch}
        namespace, name = host.key
        written = await self._api.patch(
            BARE_METAL_HOST, namespace, name, body, subresource="status"
        )
        memo.last_write_s = self._clock.monotonic()
        self.hosts.note_written(written)

    async def _perform(self, errand: _Errand) -> None:
        host, memo = errand.host, errand.memo
        if isinstance(errand.effect, _ON_OBJECT):
            # The status was just written: guards of further writes need the new version.
            current = self.hosts.get(*host.key)
            host = parse_host(current) if current is not None else host
        outcome = await self._performer.perform(errand.effect, host, errand.credentials)
        memo.outcome = outcome._replace(basis=errand.basis)
        if outcome.power is not None:
            memo.power = PowerSeen(outcome.power, self._clock.now())

    def _host_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        key = indexes.key_of(obj)
        self._meter.host_changed(old, new)
        self.limits.observe(key, claim_of_object(new) if new is not None else None)
        self.queue.add(key)
        for told in self.listeners:
            told(old, new)
        for index, function in indexes.SHARED.items():
            before, after = function(old or {}), function(new or {})
            if before != after:
                for value in (*before, *after):
                    for other in self.hosts.by_index(index, value):
                        self.queue.add(indexes.key_of(other))

    def _secret_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        meta = obj["metadata"]
        for host in self.hosts.by_index("secret", f"{meta['namespace']}/{meta['name']}"):
            self.queue.add(indexes.key_of(host))


def _is_minor(host: Host, patch: Object) -> bool:
    """Whether a patch of the status is of mere progress, or says that an edit was seen."""
    if not set(patch) <= _VOLATILE | {"conditions"}:
        return False
    told = patch.get("conditions")
    return told is None or same_but_generation(host.status.conditions or (), told)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
