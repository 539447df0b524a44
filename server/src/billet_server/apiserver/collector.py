"""What the server does by itself: empty deleted namespaces, remove what lost its owners.

Level-triggered: changes only say where to look. At start everything is looked at once, so a
crash loses nothing.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from billet_server.apiserver import encoding
from billet_server.apiserver.meta import is_deleting, owner_uids
from billet_server.apiserver.objects import (
    CRD_FINALIZER,
    FOREGROUND,
    DeleteOptions,
    Objects,
    drop_owners,
)
from billet_server.apiserver.registry import Registry, store_path
from billet_server.apiserver.store import NAMESPACES, Change, Key, Stale, Store
from billet_server.errors import ApiError
from billet_server.ports import CRD, EVENT, NAMESPACE, Object

EVENT_LIFE_S = 3600
"""How long Events are kept after they were last written, as in Kubernetes."""

SWEEP_EVERY_S = 60.0
SWEEP_OBJECTS = 500
_CRDS = store_path(CRD)
_LOG = logging.getLogger(__name__)


class Task(NamedTuple):
    """Something to look at: an object (its key), or the dependents of a uid that is gone.

    Neither: Events that are old enough to go.
    """

    key: Key | None = None
    owner: str = ""


_SWEEP = Task()


class Collector:
    """One task working off a queue that `notice` fills."""

    def __init__(
        self, store: Store, objects: Objects, registry: Registry, *,
        sweep_every_s: float = SWEEP_EVERY_S, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._store, self._objects, self._registry = store, objects, registry
        self._sweep_every_s, self._clock = sweep_every_s, clock
        self._tasks: deque[Task] = deque()
        self._queued: set[Task] = set()
        self._wake = asyncio.Event()

    def add(self, task: Task) -> None:
        """Queue something to look at, once."""
        if task not in self._queued:
            self._queued.add(task)
            self._tasks.append(task)
            self._wake.set()

    def notice(self, change: Change) -> None:
        """Hear of a change; decodes only what can matter."""
        key, body = change.key, change.body
        if change.type == "DELETED":
            self.add(Task(owner=change.uid))
            if key.namespace:
                self.add(Task(key=Key(NAMESPACES, "", key.namespace)))
            crd = self._registry.find_path(key.resource)
            if crd is not None and crd.custom:
                self.add(Task(key=Key(_CRDS, "", f"{crd.kind.plural}.{crd.kind.group}")))
            for owner in self._owners(body):
                if found := self._store.find_uid(owner):
                    self.add(Task(key=found))
        elif b'"deletionTimestamp"' in body or b'"ownerReferences"' in body:
            self.add(Task(key=key))

    @staticmethod
    def _owners(body: bytes) -> list[str]:
        return owner_uids(encoding.decode(body)) if b'"ownerReferences"' in body else []

    async def run(self) -> None:
        """Work until cancelled."""
        self._look_at_all()
        while True:
            self._wake.clear()
            while self._tasks:
                task = self._tasks.popleft()
                self._queued.discard(task)
                await self._work(task)
            try:
                async with asyncio.timeout(self._sweep_every_s):
                    await self._wake.wait()
            except TimeoutError:
                self.add(_SWEEP)

    def _look_at_all(self) -> None:
        for key in self._store.orphans():
            self.add(Task(key=key))
        for resource in (NAMESPACES, _CRDS):
            for body in self._store.page(resource).bodies:
                obj = encoding.decode(body)
                if is_deleting(obj):
                    self.add(Task(key=Key(resource, "", obj["metadata"]["name"])))

    async def _sweep(self) -> None:
        """Let go of old Events, some at a time."""
        before = int(self._clock()) - EVENT_LIFE_S
        old = self._store.written_before(store_path(EVENT), before, limit=SWEEP_OBJECTS)
        for key in old:
            await self._delete(key)
        if len(old) == SWEEP_OBJECTS:
            self.add(_SWEEP)

    async def _work(self, task: Task) -> None:
        try:
            if task == _SWEEP:
                await self._sweep()
                return
            if task.key is None:
                for dependent in self._store.dependents(task.owner):
                    self.add(Task(key=dependent))
                return
            body = self._store.get(task.key)
            if body is not None:
                await self._look_at(task.key, encoding.decode(body))
        except ApiError as error:
            # The next change of the object, or the next start, brings it up again.
            _LOG.warning("cleaning up after %s: %s", task.key or task.owner, error)
        except Exception:  # noqa: BLE001 - the edge of a task that nobody awaits
            _LOG.exception("cleaning up after %s", task.key or task.owner)

    async def _look_at(self, key: Key, obj: Object) -> None:
        if is_deleting(obj):
            finalizers = obj["metadata"].get("finalizers", ())
            if key.resource == NAMESPACES:
                await self._empty_namespace(key.name)
            elif CRD_FINALIZER in finalizers:
                await self._empty_definition(key, obj)
            elif FOREGROUND in finalizers:
                await self._delete_dependents(key, obj)
            return
        # Owners of kinds that are not served here cannot be known to be gone.
        known = {
            owner["uid"]
            for owner in obj["metadata"].get("ownerReferences", ())
            if self._registry.serves(owner["apiVersion"], owner["kind"])
        }
        await self._leave_owners(key, obj, known - self._store.existing(known))

    async def _leave_owners(
        self, key: Key, obj: Object, gone: set[str], propagation: str = "Background"
    ) -> None:
        """Take owners out of a dependent, or remove it with the last one."""
        if gone >= set(owner_uids(obj)) and gone:
            await self._delete(key, uid=obj["metadata"]["uid"], propagation=propagation)
        elif gone:
            await self._objects.update_system(key, lambda old: drop_owners(old, gone))

    async def _empty_namespace(self, name: str) -> None:
        for key in self._store.in_namespace(name):
            await self._delete(key)
        if not self._store.in_namespace(name, limit=1):
            try:
                await self._objects.remove_namespace(name)
            except Stale:
                self.add(Task(key=Key(NAMESPACES, "", name)))

    async def _empty_definition(self, key: Key, crd: Object) -> None:
        group, plural = crd["spec"]["group"], crd["spec"]["names"]["plural"]
        path = f"{group}/{plural}"
        for body in self._store.page(path).bodies:
            meta = encoding.decode(body)["metadata"]
            await self._delete(Key(path, meta.get("namespace", ""), meta["name"]))
        if not self._store.page(path, limit=1).bodies:
            await self._drop_finalizer(key, CRD_FINALIZER)

    async def _delete_dependents(self, key: Key, obj: Object) -> None:
        uid = obj["metadata"]["uid"]
        for dependent in self._store.dependents(uid):
            if body := self._store.get(dependent):
                found = encoding.decode(body)
                await self._leave_owners(dependent, found, {uid}, propagation="Foreground")
        if not self._store.dependents(uid):
            await self._drop_finalizer(key, FOREGROUND)

    async def _drop_finalizer(self, key: Key, finalizer: str) -> None:
        def change(old: Object) -> Object:
            meta = dict(old["metadata"])
            kept = [entry for entry in meta.pop("finalizers", ()) if entry != finalizer]
            return {**old, "metadata": {**meta, **({"finalizers": kept} if kept else {})}}

        await self._objects.update_system(key, change)

    async def _delete(self, key: Key, *, uid: str = "", propagation: str = "Background") -> None:
        resource = self._registry.find_path(key.resource)
        if resource is None or resource.kind == NAMESPACE:
            return
        options = DeleteOptions(uid=uid, propagation=propagation)
        try:
            await self._objects.delete(resource, key.namespace, key.name, options)
        except ApiError as error:
            if error.status not in (404, 409):
                raise
