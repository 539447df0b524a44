"""The in-memory twin of `ports.KubeApi`: one process's Kubernetes API, with true semantics.

Objects are kept as JSON bytes, as etcd does, so nobody can change a stored object by holding
on to it. `tests/contract/test_kube_api.py` holds this twin against a genuine API server.
"""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Literal

import msgspec

from billet_server import errors, ports
from billet_server.core.terms import HostKey
from billet_server.memory import objects
from billet_server.memory.clock import ManualClock
from billet_server.memory.journal import EventType, Journal
from billet_server.ports import CRD, NAMESPACE, SECRET, Clock, Kind, Object, ObjectList, WatchEvent

Subresource = Literal["", "status"]
_SERVED = (
    ports.BARE_METAL_HOST,
    ports.HARDWARE_DATA,
    ports.MACHINE,
    SECRET,
    ports.CONFIG_MAP,
    NAMESPACE,
    ports.EVENT,
    ports.LEASE,
    CRD,
)
_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")


class MemoryKube:
    """`ports.KubeApi` in memory. Billet's own kinds are served from the start.

    ``unavailable = True`` makes every call raise Unavailable and breaks running watches;
    False again is the API after its restart, with all its objects.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        namespaces: Iterable[str] = ("default",),
        history: int = 1000,
    ) -> None:
        self._clock: Clock = clock or ManualClock()
        self._history = history
        self._version = 0
        self._unavailable = False
        self._stores: dict[Kind, dict[HostKey, bytes]] = {kind: {} for kind in _SERVED}
        self._journals = {kind: Journal(history, 0) for kind in _SERVED}
        self._status_apart = set(objects.WITH_STATUS)
        for name in namespaces:
            self.put_namespace(name)

    @property
    def unavailable(self) -> bool:
        """Whether the API is stopped."""
        return self._unavailable

    @unavailable.setter
    def unavailable(self, value: bool) -> None:
        self._unavailable = value
        if value:
            self.break_watches()

    def break_watches(self) -> None:
        """Make every running watch raise Unavailable, as a lost connection does."""
        for journal in self._journals.values():
            journal.break_watches()

    def compact(self) -> None:
        """Forget the history: a watch from an older version is Gone."""
        for journal in self._journals.values():
            journal.compact()

    def put_namespace(self, name: str) -> None:
        """Create a namespace unless it exists (for tests)."""
        if HostKey("", name) not in self._stores[NAMESPACE]:
            self._insert(NAMESPACE, {"metadata": {"name": name}})

    def put_secret(self, namespace: str, name: str, **values: str) -> Object:
        """Create or overwrite a Secret, and its namespace where missing (for tests)."""
        self.put_namespace(namespace)
        secret = {"metadata": {"namespace": namespace, "name": name}, "stringData": values}
        if HostKey(namespace, name) not in self._stores[SECRET]:
            return self._insert(SECRET, secret)
        old = self._read(SECRET, namespace, name)
        return self._update(SECRET, old, objects.next_state(SECRET, old, secret))

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """See `ports.KubeApi.get`."""
        await self._called(kind)
        return self._read(kind, namespace, name)

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> ObjectList:
        """See `ports.KubeApi.list`."""
        await self._called(kind)
        found = [
            obj
            for key, body in sorted(self._stores[kind].items())
            if namespace in (None, key.namespace)
            and objects.matches(obj := msgspec.json.decode(body), labels or {})
        ]
        return ObjectList(found, str(self._version))

    async def watch(
        self, kind: Kind, namespace: str | None = None, *, resource_version: str
    ) -> AsyncIterator[WatchEvent]:
        """See `ports.KubeApi.watch`."""
        await self._called(kind)
        if not resource_version.isdecimal():
            raise errors.Invalid(f"invalid resource version {resource_version!r}", 400)
        async for event in self._journals[kind].watch(int(resource_version), namespace):
            yield event

    async def create(self, kind: Kind, obj: Object) -> Object:
        """See `ports.KubeApi.create`."""
        await self._called(kind)
        return await self._answer(self._insert(kind, obj))

    async def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        patch: Object,
        *,
        subresource: Subresource = "",
    ) -> Object:
        """See `ports.KubeApi.patch`."""
        await self._called(kind)
        old = self._read(kind, namespace, name)
        new = objects.merge_patch(old, msgspec.json.decode(msgspec.json.encode(patch)))
        return await self._answer(self._write(kind, old, new, subresource))

    async def replace(self, kind: Kind, obj: Object, *, subresource: Subresource = "") -> Object:
        """See `ports.KubeApi.replace`."""
        await self._called(kind)
        metadata = obj.get("metadata") or {}
        old = self._read(kind, metadata.get("namespace", ""), metadata.get("name", ""))
        if metadata.get("uid") not in (None, old["metadata"]["uid"]):
            message = f"{objects.describe(kind, old)} has another uid: it was made anew"
            raise errors.Conflict(message, 409, "Conflict")
        new = msgspec.json.decode(msgspec.json.encode(obj))
        return await self._answer(self._write(kind, old, new, subresource))

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        """See `ports.KubeApi.delete`."""
        await self._called(kind)
        old = self._read(kind, namespace, name)
        metadata = old["metadata"]
        if uid and uid != metadata["uid"]:
            message = f"{objects.describe(kind, old)} has uid {metadata['uid']}, not {uid}"
            raise errors.Conflict(message, 409, "Conflict")
        if kind == NAMESPACE:
            self._end_namespace(old)
        elif not metadata.get("finalizers"):
            self._remove(kind, old)
        elif "deletionTimestamp" not in metadata:
            self._update(kind, old, self._dying(old))
        await asyncio.sleep(0)

    async def close(self) -> None:
        """See `ports.KubeApi.close`."""

    async def _called(self, kind: Kind) -> None:
        """Let others run, as a call over a network does, then refuse what is not served."""
        await asyncio.sleep(0)
        if self._unavailable:
            raise errors.Unavailable("the Kubernetes API does not answer")
        if kind not in self._stores:
            message = f"{objects.resource_name(kind)} is not served: no such kind"
            raise errors.NotFound(message, 404, "NotFound")

    async def _answer(self, obj: Object) -> Object:
        """Let others run between write and answer: a watch may be quicker than the answer."""
        await asyncio.sleep(0)
        return obj

    def _read(self, kind: Kind, namespace: str, name: str) -> Object:
        key = HostKey(namespace if kind.namespaced else "", name)
        body = self._stores[kind].get(key)
        if body is None:
            message = f"{objects.place(kind, *key)} not found"
            raise errors.NotFound(message, 404, "NotFound")
        obj: Object = msgspec.json.decode(body)
        return obj

    def _insert(self, kind: Kind, obj: Object) -> Object:
        new = objects.first_state(
            kind, msgspec.json.decode(msgspec.json.encode(obj)), kind in self._status_apart
        )
        metadata = new["metadata"]
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": self._timestamp()}
        place = objects.describe(kind, new)
        prefix = str(metadata.get("generateName", "")).rstrip("-")
        if not _NAME.fullmatch(metadata["name"]) or (prefix and not _NAME.fullmatch(prefix)):
            message = f"{place}: metadata.name: must be a lower-case RFC 1123 subdomain"
            raise errors.Invalid(message, 422, "Invalid")
        namespace = metadata.get("namespace", "")
        if (
            kind.namespaced
            and "deletionTimestamp" in self._read(NAMESPACE, "", namespace)["metadata"]
        ):
            raise errors.ApiError(f"{place}: namespace is being deleted", 403, "Forbidden")
        if HostKey(namespace, metadata["name"]) in self._stores[kind]:
            raise errors.Conflict(f"{place} already exists", 409, "AlreadyExists")
        if kind == CRD:
            self._serve(new)
        return self._put(kind, new, "ADDED")

    def _write(self, kind: Kind, old: Object, new: Object, subresource: Subresource) -> Object:
        apart = kind in self._status_apart
        place = objects.describe(kind, old)
        if subresource == "status" and not apart:
            raise errors.NotFound(f"{place} has no subresource status", 404, "NotFound")
        objects.check_identity(kind, old, new)
        objects.check_version(kind, old, new)
        if subresource == "status":
            return self._update(kind, old, objects.next_status(old, new))
        return self._update(kind, old, objects.next_state(kind, old, new, status_apart=apart))

    def _update(self, kind: Kind, old: Object, new: Object) -> Object:
        if new == old:
            return old
        metadata = new["metadata"]
        if "deletionTimestamp" in metadata and not metadata.get("finalizers"):
            return self._remove(kind, new)
        return self._put(kind, new, "MODIFIED")

    def _put(self, kind: Kind, obj: Object, event_type: EventType) -> Object:
        self._version += 1
        metadata = {**obj["metadata"], "resourceVersion": str(self._version)}
        obj = {**obj, "metadata": metadata}
        key = HostKey(metadata.get("namespace", ""), metadata["name"])
        body = msgspec.json.encode(obj)
        if event_type == "DELETED":
            del self._stores[kind][key]
        else:
            self._stores[kind][key] = body
        self._journals[kind].append(self._version, event_type, key.namespace, body)
        return obj

    def _remove(self, kind: Kind, obj: Object) -> Object:
        removed = self._put(kind, obj, "DELETED")
        namespace = obj["metadata"].get("namespace", "")
        if namespace:
            self._drop_namespace_if_empty(namespace)
        return removed

    def _dying(self, obj: Object) -> Object:
        metadata = dict(obj["metadata"])
        metadata |= {"deletionTimestamp": self._timestamp(), "deletionGracePeriodSeconds": 0}
        if "generation" in metadata:
            metadata["generation"] += 1
        return {**obj, "metadata": metadata}

    def _end_namespace(self, obj: Object) -> None:
        name = obj["metadata"]["name"]
        if "deletionTimestamp" not in obj["metadata"]:
            self._put(
                NAMESPACE, {**self._dying(obj), "status": {"phase": "Terminating"}}, "MODIFIED"
            )
        for kind, store in self._stores.items():
            for key in [key for key in store if key.namespace == name]:
                one = self._read(kind, *key)
                if one["metadata"].get("finalizers"):
                    self._update(kind, one, self._dying(one))
                else:
                    self._put(kind, one, "DELETED")
        self._drop_namespace_if_empty(name)

    def _drop_namespace_if_empty(self, name: str) -> None:
        if HostKey("", name) not in self._stores[NAMESPACE]:
            return
        obj = self._read(NAMESPACE, "", name)
        empty = not any(key.namespace == name for store in self._stores.values() for key in store)
        if empty and "deletionTimestamp" in obj["metadata"]:
            self._put(NAMESPACE, obj, "DELETED")

    def _serve(self, crd: Object) -> None:
        for kind, status_apart in objects.defined_kinds(crd):
            self._stores.setdefault(kind, {})
            self._journals.setdefault(kind, Journal(self._history, self._version))
            if status_apart:
                self._status_apart.add(kind)

    def _timestamp(self) -> str:
        return self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
