"""The verbs on single objects: read, decide, commit, and again when someone was faster."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple

from billet_server.apiserver import encoding
from billet_server.apiserver.admission import (
    Admitted,
    Adviser,
    Subresource,
    Validation,
    Validator,
    admit_create,
    admit_update,
    check_identity,
    render_time,
)
from billet_server.apiserver.failure import (
    Failure,
    already_exists,
    conflict,
    forbidden,
    invalid,
    not_found,
    precondition,
    resource_name,
)
from billet_server.apiserver.meta import is_deleting, owner_uids
from billet_server.apiserver.registry import Registry, Resource, established
from billet_server.apiserver.rules import CREATE_ON_UPDATE
from billet_server.apiserver.schema import FieldError
from billet_server.apiserver.store import (
    NAMESPACES,
    Change,
    Key,
    NoNamespace,
    Operation,
    Put,
    Remove,
    Stale,
    Store,
)
from billet_server.ports import CRD, NAMESPACE, Kind, Object

KEPT_NAMESPACES = frozenset({"default", "kube-system"})
CRD_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
FOREGROUND = "foregroundDeletion"
ATTEMPTS = 20
"""How often a patch is applied anew to an object that changed under it."""


class WriteOptions(NamedTuple):
    """Query parameters of writes."""

    dry_run: bool = False
    validation: Validation = "Strict"
    repeated: tuple[str, ...] = ()
    """What is to be said of fields that the body has more than once."""


class DeleteOptions(NamedTuple):
    """meta/v1 DeleteOptions as far as it has meaning here."""

    dry_run: bool = False
    uid: str = ""
    resource_version: str = ""
    propagation: str = "Background"


class Written(NamedTuple):
    """The object after a write, as JSON; ``removed``: it is no longer stored."""

    body: bytes
    warnings: list[str]
    removed: bool = False
    created: bool = False


class Objects:
    """Create, replace, patch and delete with Kubernetes' semantics. Raises ApiError."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        validators: Mapping[Kind, Validator],
        now: Callable[[], datetime],
        *,
        advisers: Mapping[Kind, Adviser] | None = None,
        protected_crds: frozenset[str] = frozenset(),
    ) -> None:
        self._store, self._registry = store, registry
        self._advisers = advisers or {}
        self._validators, self._now = validators, now
        self._protected = protected_crds

    def read(self, resource: Resource, namespace: str, name: str) -> bytes:
        """Return one stored object."""
        body = self._store.get(Key(resource.path, namespace, name))
        if body is None:
            raise not_found(resource_name(resource.kind), name)
        return body

    async def create(
        self, resource: Resource, namespace: str, obj: Object, options: WriteOptions
    ) -> Written:
        """Store a new object."""
        obj = check_identity(resource, obj, namespace, "")
        if resource.kind.namespaced:
            self._check_namespace(resource, namespace, obj["metadata"].get("name") or "")
        admitted = self._advise(
            resource,
            None,
            admit_create(
                resource,
                obj,
                self._now(),
                validation=options.validation,
                repeated=options.repeated,
                validators=self._validators,
            ),
        )
        new = self._settle_crd(resource, admitted.obj)
        name = new["metadata"]["name"]
        key = Key(resource.path, namespace, name)
        if options.dry_run:
            if self._store.get(key) is not None:
                raise already_exists(resource_name(resource.kind), name)
            return Written(encoding.encode(new), admitted.warnings, created=True)
        try:
            change = await self._commit(self._put(key, new, None))
        except Stale:
            raise already_exists(resource_name(resource.kind), name) from None
        except NoNamespace:
            raise not_found(resource_name(NAMESPACE), namespace) from None
        return Written(change.body, admitted.warnings, created=True)

    async def replace(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        obj: Object,
        options: WriteOptions,
        *,
        subresource: Subresource = "",
    ) -> Written:
        """Put a whole object; Events and Leases are created when they do not exist."""
        obj = check_identity(resource, obj, namespace, name)
        key = Key(resource.path, namespace, name)
        if resource.kind in CREATE_ON_UPDATE and self._store.get(key) is None:
            return await self.create(resource, namespace, obj, options)

        def change(old: Object) -> Admitted:
            given, have = obj["metadata"].get("uid"), old["metadata"]["uid"]
            if given and given != have:
                raise precondition(resource_name(resource.kind), name, "UID", given, have)
            return self._admit_update(resource, obj, old, options, subresource)

        return await self._modify(resource, key, change, dry_run=options.dry_run)

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        apply: Callable[[Object], Object],
        options: WriteOptions,
        *,
        subresource: Subresource = "",
    ) -> Written:
        """Apply a patch to the current object, again on its successor when it changed meanwhile.

        A patch that sets ``metadata.resourceVersion`` fits only that version.
        """

        def change(old: Object) -> Admitted:
            patched = check_identity(resource, apply(old), namespace, name)
            return self._admit_update(resource, patched, old, options, subresource)

        key = Key(resource.path, namespace, name)
        return await self._modify(resource, key, change, dry_run=options.dry_run)

    async def delete(
        self, resource: Resource, namespace: str, name: str, options: DeleteOptions
    ) -> Written:
        """Delete, or mark for deletion when finalizers (or contents) must go first."""
        key = Key(resource.path, namespace, name)
        self._check_deletable(resource, name)
        if options.propagation == "Orphan" and not options.dry_run:
            await self._release_dependents(key, options)

        def change(old: Object) -> Admitted:
            self._check_preconditions(resource, old, options)
            return Admitted(self._mark_deleted(resource, old, options), [])

        return await self._modify(resource, key, change, dry_run=options.dry_run)

    async def update_system(self, key: Key, change: Callable[[Object], Object]) -> Written:
        """Change an object on the server's own behalf, unchecked; finalizers still hold."""
        resource = self._registry.find_path(key.resource)
        if resource is None:
            return Written(b"", [], removed=True)
        return await self._modify(resource, key, lambda old: Admitted(change(old), []))

    async def remove_namespace(self, name: str) -> None:
        """Drop a namespace marked for deletion. Raises Stale while something is in it."""
        key = Key(NAMESPACES, "", name)
        body = self._store.get(key)
        if body is None:
            return
        old = encoding.decode(body)
        if is_deleting(old) and not old["metadata"].get("finalizers"):
            await self._commit(self._remove(key, old, if_empty=True))

    # --- steps -------------------------------------------------------------------------------

    async def _modify(
        self,
        resource: Resource,
        key: Key,
        change: Callable[[Object], Admitted],
        *,
        dry_run: bool = False,
    ) -> Written:
        for _ in range(ATTEMPTS):
            body = self._store.get(key)
            if body is None:
                raise not_found(resource_name(resource.kind), key.name)
            old = encoding.decode(body)
            admitted = change(old)
            new = self._settle_crd(resource, admitted.obj)
            removing = self._is_finished(resource, new)
            if dry_run:
                return Written(encoding.encode(new), admitted.warnings, removed=removing)
            if new == old and not removing:
                return Written(body, admitted.warnings)
            version = int(old["metadata"]["resourceVersion"])
            operation = self._remove(key, new) if removing else self._put(key, new, version)
            try:
                done = await self._commit(operation)
            except Stale:
                continue
            return Written(done.body, admitted.warnings, removed=removing)
        raise conflict(resource_name(resource.kind), key.name)

    async def _commit(self, operation: Operation) -> Change:
        try:
            return await asyncio.wrap_future(self._store.submit(operation))
        except OSError as error:
            message = f"Internal error occurred: {error}"
            raise Failure(500, "InternalError", message) from error

    def _put(self, key: Key, obj: Object, expect: int | None) -> Put:
        meta = obj["metadata"]
        return Put(
            key,
            expect,
            meta["uid"],
            encoding.encode(meta.get("labels", {})).decode(),
            owner_uids(obj),
            encoding.render_halves(obj),
            int(self._now().timestamp()),
        )

    def _remove(self, key: Key, obj: Object, *, if_empty: bool = False) -> Remove:
        version = int(obj["metadata"]["resourceVersion"])
        return Remove(key, version, encoding.render_halves(obj), if_empty)

    def _admit_update(
        self,
        resource: Resource,
        obj: Object,
        old: Object,
        options: WriteOptions,
        subresource: Subresource,
    ) -> Admitted:
        admitted = admit_update(
            resource,
            obj,
            old,
            subresource=subresource,
            validation=options.validation,
            repeated=options.repeated,
            validators=self._validators,
        )
        return self._advise(resource, old, admitted)

    def _advise(self, resource: Resource, old: Object | None, admitted: Admitted) -> Admitted:
        adviser = self._advisers.get(resource.kind)
        if adviser is None:
            return admitted
        return Admitted(admitted.obj, [*admitted.warnings, *adviser(admitted.obj, old)])

    def _check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        body = self._store.get(Key(NAMESPACES, "", namespace))
        if body is None:
            raise not_found(resource_name(NAMESPACE), namespace)
        if is_deleting(encoding.decode(body)):
            why = (
                f"unable to create new content in namespace {namespace} because it is being "
                "terminated"
            )
            raise forbidden(resource_name(resource.kind), name, why)

    def _check_deletable(self, resource: Resource, name: str) -> None:
        if resource.kind == NAMESPACE and name in KEPT_NAMESPACES:
            why = "this namespace may not be deleted"
            raise forbidden(resource_name(NAMESPACE), name, why)
        if resource.kind == CRD and name in self._protected:
            why = "this definition is part of Billet and is served as long as Billet runs"
            raise forbidden(resource_name(CRD), name, why)

    def _check_preconditions(self, resource: Resource, old: Object, options: DeleteOptions) -> None:
        meta, resource_text = old["metadata"], resource_name(resource.kind)
        if options.uid and options.uid != meta["uid"]:
            raise precondition(resource_text, meta["name"], "UID", options.uid, meta["uid"])
        wanted, have = options.resource_version, meta["resourceVersion"]
        if wanted and wanted != have:
            raise precondition(resource_text, meta["name"], "ResourceVersion", wanted, have)

    def _mark_deleted(self, resource: Resource, old: Object, options: DeleteOptions) -> Object:
        meta = old["metadata"]
        if is_deleting(old):
            return old
        finalizers = list(meta.get("finalizers", ()))
        if resource.kind == CRD:
            finalizers.append(CRD_FINALIZER)
        if options.propagation == "Foreground" and self._store.dependents(meta["uid"]):
            finalizers.append(FOREGROUND)
        meta = {
            **meta,
            "deletionTimestamp": render_time(self._now()),
            "deletionGracePeriodSeconds": 0,
            **({"finalizers": finalizers} if finalizers else {}),
        }
        if "generation" in meta and finalizers:
            meta["generation"] += 1
        new = {**old, "metadata": meta}
        if resource.kind == NAMESPACE:
            new["status"] = {**old.get("status", {}), "phase": "Terminating"}
        return new

    def _is_finished(self, resource: Resource, obj: Object) -> bool:
        """Whether nothing holds the object any more; of namespaces only the collector knows."""
        waiting = obj["metadata"].get("finalizers") or resource.kind == NAMESPACE
        return is_deleting(obj) and not waiting

    async def _release_dependents(self, key: Key, options: DeleteOptions) -> None:
        """Take the owner out of its dependents, so that they outlive it."""
        body = self._store.get(key)
        uid = encoding.decode(body)["metadata"]["uid"] if body else ""
        if not uid or (options.uid and options.uid != uid):
            return
        for dependent in self._store.dependents(uid):
            await self.update_system(dependent, lambda old: drop_owners(old, {uid}))

    def _settle_crd(self, resource: Resource, obj: Object) -> Object:
        """Check a CRD for what the schema of CRDs cannot say, and accept its names."""
        if resource.kind != CRD or is_deleting(obj):
            return obj
        name, group = obj["metadata"]["name"], obj["spec"]["group"]
        if self._registry.has_builtin_group(group):
            raise forbidden(resource_name(CRD), name, f"the group {group!r} is built in")
        try:
            Registry([]).put_crd(obj)
        except ValueError as error:
            path = "spec.versions[0].schema.openAPIV3Schema"
            raise invalid(CRD, name, [FieldError(path, "Invalid value", str(error))]) from error
        return established(obj, self._now())


def drop_owners(obj: Object, uids: set[str]) -> Object:
    """Return the object without ownerReferences to those uids."""
    meta = dict(obj["metadata"])
    kept = [owner for owner in meta.pop("ownerReferences", ()) if owner["uid"] not in uids]
    return {**obj, "metadata": {**meta, **({"ownerReferences": kept} if kept else {})}}
