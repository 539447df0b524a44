"""Machines: an informer fills the queue, workers decide by `core.claim` and write what it says.

Hosts are those of the host controller's informer. A Machine that waits for a host is called when
one becomes claimable, the one that has waited longest first; what it says of the other hosts is
brought up to date once a minute, if they changed. Where the API does not serve Machines, the log
says so once, and the informer goes on asking now and then.

Cost: a change of a host is O(1), and O(Machines that wait) when the host becomes claimable; a
Machine's choice is O(claimable hosts of its namespace).
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from billet_server import errors
from billet_server.core.claim import step
from billet_server.core.claimable import (
    CLAIMABLE,
    EXAMPLES,
    PROMISED,
    Group,
    HostView,
    obstacle_of,
    view_host,
)
from billet_server.core.claimterms import ClaimSeen, Effect, PatchHost
from billet_server.core.machineobject import Machine, parse_machine
from billet_server.core.providerspec import ProviderSpec
from billet_server.core.terms import HostKey
from billet_server.core.turn import EventNote
from billet_server.engine import indexes
from billet_server.engine.controller import Controller
from billet_server.engine.informer import Informer
from billet_server.engine.queue import WorkQueue
from billet_server.engine.waiters import Waiters
from billet_server.ports import BARE_METAL_HOST, MACHINE, Clock, KubeApi, Object

log = logging.getLogger(__name__)

WORKERS: Final = 8
API_RETRY_S: Final = (0.2, 1.0, 5.0, 15.0)
REFUSED_RETRY_S: Final = 60.0
"""After so long the API is asked again for a host that it refused to have written."""


class _Refusal(NamedTuple):
    """Why the API refused a host's write, for which generation of the Machine, until when."""

    text: str
    generation: int
    until_s: float


class MachineController:
    """Claims hosts for Machines: `follow` always, `work` while this server leads."""

    def __init__(
        self,
        api: KubeApi,
        controller: Controller,
        clock: Clock,
        *,
        namespaces: Sequence[str] = (),
        entropy: Callable[[], int] = lambda: random.getrandbits(32),
        workers: int = WORKERS,
    ) -> None:
        self._api, self._clock, self._entropy, self._workers = api, clock, entropy, workers
        self._hosts, self._recorder = controller.hosts, controller.recorder
        self.queue: WorkQueue[HostKey] = WorkQueue(clock)
        self.machines = Informer(
            api, MACHINE, clock=clock, on_change=self._machine_changed, namespaces=namespaces
        )
        self.machines.add_index("host", indexes.noted_host)
        self._hosts.add_index("machine-of", indexes.consuming_machine)
        self._hosts.add_index("obstacle", indexes.obstacle)
        controller.listeners.append(self._host_changed)
        self._waiters = Waiters(self.queue, clock)
        self._reserved: dict[HostKey, HostKey] = {}
        self._refused: dict[HostKey, _Refusal] = {}
        self._failures: dict[HostKey, int] = {}

    async def follow(self) -> None:
        """Keep the cache of Machines filled, for ever."""
        await self.machines.run()

    async def work(self) -> None:
        """Claim and release until cancelled; may be called again."""
        was_synced = self._hosts.synced.is_set() or self.machines.synced.is_set()
        await self._hosts.synced.wait()
        await self.machines.synced.wait()
        if was_synced:
            await self._catch_up()
        self._reserved.clear()
        self._refused.clear()
        self._waiters.clear()
        self.queue.abandon()
        for obj in self.machines.items():
            self.queue.add(indexes.key_of(obj))
        async with asyncio.TaskGroup() as group:
            for number in range(self._workers):
                group.create_task(self._work(), name=f"machines-{number}")

    async def _catch_up(self) -> None:
        """Have what another leader wrote, also where a watch of ours has stood still."""
        while True:
            try:
                await self.machines.catch_up()
                await self._hosts.catch_up()
            except errors.ApiError as error:
                log.warning("cannot begin to look after Machines yet: %s", error)
                await self._clock.sleep(API_RETRY_S[1])
            else:
                return

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                await self._reconcile_safely(key)
            finally:
                self.queue.done(key)

    async def _reconcile_safely(self, key: HostKey) -> None:
        """Reconcile; trouble with the API, or of our own, is retried and never ends a worker."""
        try:
            await self.reconcile(key)
            self._failures.pop(key, None)
        except (errors.Conflict, errors.NotFound) as error:
            # Somebody else wrote first, or the object went: the cache will say who and what.
            log.info("Machine %s: %s; looking again", key, error)
            self.queue.add_after(key, API_RETRY_S[0])
        except errors.ApiError as error:
            count = self._failures.get(key, 0)
            self._failures[key] = count + 1
            pause_s = API_RETRY_S[min(count, len(API_RETRY_S) - 1)]
            log.warning("Machine %s: %s; trying again in %.1f s", key, error, pause_s)
            self.queue.add_after(key, pause_s)
        except Exception:
            log.exception("Machine %s: reconciling failed unexpectedly", key)
            self.queue.add_after(key, API_RETRY_S[-1])
        finally:
            self._offer_again(key)

    async def reconcile(self, key: HostKey) -> None:
        """Bring one Machine one step on. Raises ApiError."""
        obj = self.machines.get(*key)
        if obj is None:
            self._refused.pop(key, None)
            self._failures.pop(key, None)
            self._waiters.remove(key)
            self.queue.forget(key)
            return
        machine = parse_machine(obj)
        decision = step(machine, await self._look(machine), self._clock.now())
        effect = decision.effect
        chosen = effect.key if isinstance(effect, PatchHost) else effect and effect.chosen
        if chosen is not None:
            # Before anything is awaited: no other worker may choose the same host.
            self._reserved.setdefault(chosen, key)
        try:
            if decision.waits and isinstance(machine.provider, ProviderSpec):
                self._waiters.add(key, machine.provider.selector)
            else:
                self._waiters.remove(key)
            if decision.status:
                await self._write_status(machine, decision.status)
            for note in decision.events:
                self._record(machine, note)
            if effect is not None:
                await self._perform(machine, effect)
        finally:
            if chosen is not None and self._reserved.get(chosen) == key:
                del self._reserved[chosen]
                self._offer(chosen, after_s=API_RETRY_S[1])

    async def _look(self, machine: Machine) -> ClaimSeen:
        own = self._own(machine.key)
        found = None if own else await self._noted(machine)
        free: list[Object] = []
        survey: list[Group] = []
        if not own:
            place = indexes.obstacle_value(machine.key.namespace, "")
            found_free = self._hosts.by_index("obstacle", place)
            free = [obj for obj in found_free if self._is_free(indexes.key_of(obj))]
            if not free:
                names = [indexes.key_of(obj).name for obj in found_free[:EXAMPLES]]
                survey = [Group(PROMISED, len(found_free), tuple(names))]
            survey += indexes.survey(self._hosts, machine.key.namespace)
        return ClaimSeen(
            own=own,
            noted=view_host(found) if found is not None else None,
            candidates=free,
            survey=survey,
            refused=self._refusal(machine),
            entropy=self._entropy(),
        )

    async def _noted(self, machine: Machine) -> Object | None:
        """Return the annotated host; read anew if it is about to be given up."""
        key = machine.noted
        if key is None or key.namespace != machine.key.namespace or machine.deleting:
            return None
        found = self._hosts.get(*key)
        if found is not None and obstacle_of(found) == CLAIMABLE:
            return found
        try:
            return await self._api.get(BARE_METAL_HOST, *key)
        except errors.NotFound:
            return None

    def _is_free(self, host: HostKey) -> bool:
        return host not in self._reserved and not self.machines.count("host", str(host))

    def _refusal(self, machine: Machine) -> str:
        refused = self._refused.get(machine.key)
        if refused is None:
            return ""
        left_s = refused.until_s - self._clock.monotonic()
        if left_s <= 0 or refused.generation != machine.generation:
            del self._refused[machine.key]
            return ""
        self.queue.add_after(machine.key, left_s)
        return refused.text

    def _own(self, key: HostKey) -> list[HostView]:
        found = self._hosts.by_index("machine-of", str(key))
        # A Machine is given hosts of its own namespace only.
        return [view for view in map(view_host, found) if view.key.namespace == key.namespace]

    async def _write_status(self, machine: Machine, patch: object) -> None:
        body = {"metadata": {"resourceVersion": machine.resource_version}, "status": patch}
        written = await self._api.patch(MACHINE, *machine.key, body, subresource="status")
        self.machines.note_written(written)

    async def _perform(self, machine: Machine, effect: Effect) -> None:
        if isinstance(effect, PatchHost):
            if not await self._patch_host(machine, effect):
                return
        else:
            metadata = {"resourceVersion": self._version(machine), **effect.metadata}
            written = await self._api.patch(MACHINE, *machine.key, {"metadata": metadata})
            if (
                written["metadata"].get("finalizers")
                or "deletionTimestamp" not in (written["metadata"])
            ):
                self.machines.note_written(written)
        if effect.done is not None:
            self._record(machine, effect.done)
        self.queue.add(machine.key)

    async def _patch_host(self, machine: Machine, effect: PatchHost) -> bool:
        body = {"metadata": {"resourceVersion": effect.version}, "spec": effect.spec}
        try:
            written = await self._api.patch(BARE_METAL_HOST, *effect.key, body)
        except errors.Invalid as error:
            text = f"host {effect.key} was not written: the API refused it: {error}"
            until_s = self._clock.monotonic() + REFUSED_RETRY_S
            self._refused[machine.key] = _Refusal(text, machine.generation, until_s)
            self.queue.add(machine.key)
            return False
        self._hosts.note_written(written)
        return True

    def _version(self, machine: Machine) -> str:
        """Return the version to guard with: a status may have been written in this pass."""
        obj = self.machines.get(*machine.key)
        same = obj is not None and obj["metadata"].get("uid") == machine.uid
        return str(obj["metadata"]["resourceVersion"]) if same and obj else machine.resource_version

    def _record(self, machine: Machine, note: EventNote) -> None:
        self._recorder.record_about(MACHINE, machine.key, machine.uid, note)

    def _machine_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        self.queue.add(indexes.key_of(obj))

    def _host_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        for side in (old, new):
            for name in indexes.consuming_machine(side) if side is not None else ():
                self.queue.add(HostKey(*name.split("/", 1)))
        host = indexes.key_of(obj)
        for noting in self.machines.by_index("host", str(host)):
            self.queue.add(indexes.key_of(noting))
        self._waiters.host_changed(old, new)

    def _offer_again(self, key: HostKey) -> None:
        """Give the host that a Machine was called for to the next one, if it wants none."""
        host = self._waiters.called_for(key)
        if host is not None and not self._waiters.waits(key):
            self._offer(host)

    def _offer(self, host: HostKey, *, after_s: float = 0.0) -> None:
        """Call a Machine for a host, if that is still to be had."""
        obj = self._hosts.get(*host)
        if obj is not None and host not in self._reserved:
            self._waiters.offer(obj, after_s=after_s)
