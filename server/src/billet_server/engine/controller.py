"""The controller: informers fill the queue, workers reconcile, and the directories answer.

One pass: object and observations in, `core.machine.step`, one status patch, Events, at most one
effect; then again until there is no effect. The status is written before the effect is
performed, so that what was begun (a boot nonce, an operation id) survives any crash.
"""

import asyncio
import logging
import uuid
from typing import Final

from billet_server import errors
from billet_server.core.effects import Effect
from billet_server.core.host import Host, parse_host, render_status, status_patch
from billet_server.core.machine import step
from billet_server.core.seen import PowerSeen, Rules, Seen
from billet_server.core.terms import Credentials, HostKey, PowerState
from billet_server.core.turn import Step
from billet_server.engine.informer import Informer
from billet_server.engine.memo import Memo
from billet_server.engine.perform import Performer
from billet_server.engine.queue import WorkQueue
from billet_server.engine.recorder import Recorder
from billet_server.engine.secrets import read_credentials
from billet_server.ports import (
    BARE_METAL_HOST,
    SECRET,
    AgentLink,
    Bmcs,
    Clock,
    KubeApi,
    Object,
)

log = logging.getLogger(__name__)

PROGRESS_INTERVAL_S: Final = 2.0
"""At most one write of mere progress in this time for each host."""

_VOLATILE = frozenset({"progress", "waiting", "lastUpdated"})
_API_RETRY_S: Final = (0.2, 1.0, 5.0, 15.0)


class Controller:
    """Reconciles every host; `run` it once."""

    def __init__(
        self,
        api: KubeApi,
        bmcs: Bmcs,
        agents: AgentLink,
        clock: Clock,
        *,
        rules: Rules | None = None,
        workers: int = 64,
    ) -> None:
        self._api, self._agents, self._clock = api, agents, clock
        self._rules, self._workers = rules or Rules(), workers
        self._started_at = clock.now()
        self._memos: dict[HostKey, Memo] = {}
        self.queue: WorkQueue[HostKey] = WorkQueue(clock)
        self.hosts = Informer(api, BARE_METAL_HOST, clock=clock, on_change=self._host_changed)
        self.hosts.add_index("mac", _macs)
        self.hosts.add_index("uid", _uids)
        self.hosts.add_index("secret", _secrets)
        self.secrets = Informer(api, SECRET, clock=clock, on_change=self._secret_changed)
        self._recorder = Recorder(api, clock)
        self._performer = Performer(api, bmcs, agents, self.secrets.get)

    async def run(self) -> None:
        """Reconcile for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.secrets.run(), name="informer-secrets")
            group.create_task(self.hosts.run(), name="informer-hosts")
            # Deciding on half a cache would report Secrets missing that are merely not listed.
            await self.secrets.synced.wait()
            await self.hosts.synced.wait()
            log.info("caches are filled: %d hosts", len(self.hosts))
            for number in range(self._workers):
                group.create_task(self._work(), name=f"reconcile-{number}")

    def wake(self, key: HostKey) -> None:
        """Have a host looked at now."""
        self.queue.add(key)

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

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                await self._reconcile_safely(key)
            finally:
                self.queue.done(key)

    async def _reconcile_safely(self, key: HostKey) -> None:
        """Reconcile; trouble with the API, or of our own, is retried and never ends a worker."""
        memo = self.memo(key)
        try:
            await self.reconcile(key)
            memo.api_failures = 0
        except errors.Conflict:
            self.queue.add_after(key, _API_RETRY_S[0])
        except errors.NotFound:
            self.queue.add_after(key, _API_RETRY_S[1])
        except errors.ApiError as error:
            pause = _API_RETRY_S[min(memo.api_failures, len(_API_RETRY_S) - 1)]
            memo.api_failures += 1
            log.warning("host %s: %s; trying again in %.0f s", key, error, pause)
            self.queue.add_after(key, pause)
        except Exception:
            log.exception("host %s: reconciling failed unexpectedly", key)
            self.queue.add_after(key, _API_RETRY_S[-1])

    async def reconcile(self, key: HostKey) -> None:
        """Bring one host one step on. Raises `errors.ApiError`."""
        obj = self.hosts.get(*key)
        if obj is None:
            memo = self._memos.pop(key, None)
            self.queue.forget(key)
            if memo is not None and memo.uid:
                await self._agents.forget(memo.uid)
            return
        host = parse_host(obj)
        memo = self.memo(key)
        if memo.uid != host.uid:
            memo = self._memos[key] = Memo(uid=host.uid)
        seen, credentials = self._observe(host, memo)
        decision = step(host, seen, self._clock.now(), self._rules)
        patch = status_patch(obj.get("status") or {}, render_status(decision.status))
        if self._too_soon(key, memo, patch, decision):
            return
        if patch:
            await self._write_status(host, memo, patch)
        memo.outcome = None
        for note in decision.events:
            await self._recorder.record(host, note)
        if decision.effect is not None:
            await self._perform(decision.effect, host, memo, credentials)
            self.queue.add(key)
        elif decision.requeue_s is not None:
            self.queue.add_after(key, max(decision.requeue_s, 0.05))

    def _observe(self, host: Host, memo: Memo) -> tuple[Seen, Credentials | None]:
        secret, credentials = read_credentials(host, self.secrets.get)
        mac = host.spec.boot_mac_address.lower()
        others = self.hosts.by_index("mac", mac) if mac else []
        # The elder keeps the MAC, so that a mistyped new host cannot stop a running one.
        rivals = sorted(
            (_age(other), f"{other['metadata']['namespace']}/{other['metadata']['name']}")
            for other in others
        )
        conflict = ""
        if len(rivals) > 1 and rivals[0][1] != str(host.key):
            conflict = rivals[0][1]
        seen = Seen(
            entropy=uuid.uuid4().hex,
            started_at=self._started_at,
            secret=secret,
            power=memo.power,
            agent=self._agents.view(host.uid),
            boot=memo.boot,
            mac_conflict=conflict,
            outcome=memo.outcome,
        )
        return seen, credentials

    def _too_soon(self, key: HostKey, memo: Memo, patch: Object, decision: Step) -> bool:
        """Whether this is mere progress that was written a moment ago; comes back for it."""
        if decision.effect or decision.events or not patch or not set(patch) <= _VOLATILE:
            return False
        left = memo.last_write_s + PROGRESS_INTERVAL_S - self._clock.monotonic()
        if left <= 0:
            return False
        self.queue.add_after(key, left)
        return True

    async def _write_status(self, host: Host, memo: Memo, patch: Object) -> None:
        body: Object = {"metadata": {"resourceVersion": host.resource_version}, "status": patch}
        namespace, name = host.key
        written = await self._api.patch(
            BARE_METAL_HOST, namespace, name, body, subresource="status"
        )
        memo.last_write_s = self._clock.monotonic()
        self.hosts.note_written(written)

    async def _perform(
        self, effect: Effect, host: Host, memo: Memo, credentials: Credentials | None
    ) -> None:
        # The status was just written: guards of further writes need the new resourceVersion.
        current = self.hosts.get(*host.key)
        if current is not None:
            host = parse_host(current)
        outcome = await self._performer.perform(effect, host, credentials)
        memo.outcome = outcome
        if outcome.power is not None and outcome.power is not PowerState.UNKNOWN:
            memo.power = PowerSeen(outcome.power, self._clock.now())

    def _host_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        meta = obj["metadata"]
        self.queue.add(HostKey(meta["namespace"], meta["name"]))
        before, after = _macs(old or {}), _macs(new or {})
        if before != after:
            for mac in (*before, *after):
                for other in self.hosts.by_index("mac", mac):
                    self.queue.add(_key(other))

    def _secret_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        meta = obj["metadata"]
        for host in self.hosts.by_index("secret", f"{meta['namespace']}/{meta['name']}"):
            self.queue.add(_key(host))


def _key(obj: Object) -> HostKey:
    return HostKey(obj["metadata"]["namespace"], obj["metadata"]["name"])


def _age(obj: Object) -> tuple[str, str]:
    meta = obj["metadata"]
    return str(meta.get("creationTimestamp", "")), str(meta.get("uid", ""))


def _macs(obj: Object) -> list[str]:
    mac = (obj.get("spec") or {}).get("bootMACAddress")
    return [mac.lower()] if isinstance(mac, str) and mac else []


def _uids(obj: Object) -> list[str]:
    return [str(obj["metadata"].get("uid", ""))]


def _secrets(obj: Object) -> list[str]:
    spec = obj.get("spec") or {}
    namespace = obj["metadata"].get("namespace", "")
    references = [(spec.get("bmc") or {}).get("credentialsName")]
    fields = ("userData", "networkData", "metaData")
    references.extend((spec.get(field) or {}).get("name") for field in fields)
    return [f"{namespace}/{name}" for name in references if isinstance(name, str) and name]
