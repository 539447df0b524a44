"""The steps of a move; the package's docstring has their order and why it is safe."""

from collections.abc import Callable, Mapping

from billet_server import errors
from billet_server.core.annotations import MOVE, PAUSED, STATUS
from billet_server.core.host import FINALIZER
from billet_server.core.terms import HostKey
from billet_server.move import blockers
from billet_server.move.bundle import (
    ADDITIONS,
    AS_SAVED,
    Bundle,
    Mark,
    annotations,
    content,
    dependent,
    differences,
    key_of,
    moved_status,
    other_owners,
    read_mark,
    secret_names,
    target_host,
)
from billet_server.move.survey import Item, api_identity, find, make_mark, read_bundle
from billet_server.ports import (
    BARE_METAL_HOST,
    NAMESPACE,
    SECRET,
    Kind,
    KubeApi,
    Object,
)

Say = Callable[[HostKey, str], None]
PAUSE_VALUE = "billet move"


class MoveError(errors.BilletError):
    """A host cannot be moved as it is; nothing was lost, and a later run goes on."""


class Mover:
    """Moves hosts one after the other from ``source`` (None: from a file) to ``target``."""

    def __init__(self, source: KubeApi | None, target: KubeApi, say: Say) -> None:
        self._source, self._target, self._say = source, target, say

    async def move(self, item: Item, *, keep_paused: bool = False) -> None:
        """Bring one host over, from wherever an earlier run left it."""
        key, bundle = item.key, item.bundle
        if bundle is not None and self._source is None:
            copy = await self._copy(bundle, make_mark(bundle, "file"))
            await self._finish(key, copy, keep_paused=keep_paused)
            return
        if bundle is None:
            copy = await self._target.get(BARE_METAL_HOST, *key)
            await self._finish(key, copy)
            return
        assert self._source is not None
        here, far = await api_identity(self._source), await api_identity(self._target)
        if item.phase != "handed over":
            bundle = await self._pause(self._source, bundle, make_mark(bundle, far))
            mark = make_mark(bundle, far)
            copy = await self._copy(bundle, mark._replace(other=here))
            await self._hand_over(self._source, bundle, mark)
        else:
            copy = await self._target.get(BARE_METAL_HOST, *key)
        await self._release(self._source, key)
        await self._finish(key, copy)

    async def undo(self, item: Item) -> None:
        """Take back a move that is not handed over: the copy goes, then the source goes on."""
        if item.bundle is None or item.phase == "handed over" or self._source is None:
            text = f"{item.key} is handed over already: run the move again to finish it"
            raise MoveError(text)
        mark = read_mark(item.bundle.host)
        if mark is None:
            return
        copy = await find(self._target, BARE_METAL_HOST, *item.key)
        if copy is not None:
            await self._discard(copy, item.bundle, mark)
        self._say(item.key, "the copy is gone")
        changes = {PAUSED: mark.paused, MOVE: None}
        await _annotate(self._source, BARE_METAL_HOST, item.bundle.host, changes)
        self._say(item.key, "the source goes on as before")

    async def _pause(self, source: KubeApi, bundle: Bundle, mark: Mark) -> Bundle:
        """Pause the source in a state of rest; what was decided before it cannot be written."""
        if read_mark(bundle.host) is not None and PAUSED in annotations(bundle.host):
            return bundle
        changes = {PAUSED: mark.paused or PAUSE_VALUE, MOVE: mark.render()}
        # Guarded by its version: whatever the server began since we looked makes this fail,
        # and after it the server's own guarded writes fail, which come before each deed.
        host = await _annotate(source, BARE_METAL_HOST, bundle.host, changes, guarded=True)
        busy = blockers.busy(host)
        if busy:
            await _annotate(source, BARE_METAL_HOST, host, {PAUSED: mark.paused, MOVE: None})
            raise MoveError(f"{bundle.key} is busy: {busy}")
        self._say(bundle.key, "paused at the source")
        return await read_bundle(source, host)

    async def _copy(self, bundle: Bundle, mark: Mark) -> Object:
        """Make the target's objects; returns when what can be read there is what was sent."""
        old = await find(self._target, BARE_METAL_HOST, *bundle.key)
        if old is not None:
            # Of an interrupted run; the source may have been edited since.
            await self._discard(old, bundle, mark)
        await self._make_namespace(bundle.key.namespace)
        missing = [
            f"{kind.kind}/{key_of(obj).name}"
            for kind, obj in bundle.dependents
            if await find(self._target, kind, *key_of(obj)) is None
        ]
        marked = target_host(bundle, mark._replace(made=missing))
        copy = await self._target.create(BARE_METAL_HOST, marked)
        self._say(bundle.key, "created at the target, paused")
        versions: dict[str, tuple[str, str]] = {}
        for kind, obj in bundle.dependents:
            made = await self._put(kind, obj, copy, bundle)
            if kind == SECRET:
                version = obj["metadata"].get("resourceVersion") or AS_SAVED
                versions[key_of(obj).name] = (version, made["metadata"]["resourceVersion"])
        status = moved_status(bundle.host, versions)
        if status:
            copy = await self._target.get(BARE_METAL_HOST, *bundle.key)
            await self._target.replace(
                BARE_METAL_HOST, {**copy, "status": status}, subresource="status"
            )
        return await self._verify(bundle, mark, status)

    async def _verify(self, bundle: Bundle, mark: Mark, status: Object) -> Object:
        copy = await self._target.get(BARE_METAL_HOST, *bundle.key)
        self._check_ours(copy, mark)
        wrong = [f"spec.{path}" for path in differences(bundle.host.get("spec"), copy.get("spec"))]
        wrong += [
            f"status.{path}"
            for path in differences(status, copy.get("status") or {})
            if path.partition(".")[0].partition("[")[0] not in ADDITIONS
        ]
        for kind, obj in bundle.dependents:
            found = await find(self._target, kind, *key_of(obj))
            if found is None or differences(content(kind, obj), content(kind, found)):
                wrong.append(f"{kind.kind} {key_of(obj).name}")
        if wrong:
            text = f"{bundle.key}: the target did not keep {', '.join(wrong)}"
            raise MoveError(f"{text}; are its definitions those of Billet? kubectl apply -f crds/")
        self._say(bundle.key, "the copy is complete")
        return copy

    def _check_ours(self, copy: Object, mark: Mark) -> None:
        found = read_mark(copy)
        if found is None or found.id != mark.id:
            raise MoveError(f"{key_of(copy)}: a host of this name is at the target already")
        if PAUSED not in annotations(copy):
            raise MoveError(f"{key_of(copy)}: its copy was unpaused by somebody; pause it again")

    async def _make_namespace(self, name: str) -> None:
        if await find(self._target, NAMESPACE, "", name) is None:
            try:
                await self._target.create(NAMESPACE, {"metadata": {"name": name}})
            except errors.Conflict:
                return

    async def _put(self, kind: Kind, obj: Object, owner: Object, bundle: Bundle) -> Object:
        """Create a Secret or HardwareData; what is there and the same is used."""
        found = await find(self._target, kind, *key_of(obj))
        if found is None:
            return await self._target.create(kind, dependent(kind, obj, owner, bundle.id))
        if differences(content(kind, obj), content(kind, found)):
            text = f"{bundle.key}: {kind.kind} {key_of(obj).name} is there with other content"
            raise MoveError(text)
        return found

    async def _hand_over(self, source: KubeApi, bundle: Bundle, mark: Mark) -> None:
        """Write the point of no return; fails when the source changed since it was copied."""
        changes = {MOVE: mark._replace(handed_over=True).render()}
        await _annotate(source, BARE_METAL_HOST, bundle.host, changes, guarded=True)
        self._say(bundle.key, "handed over")

    async def _release(self, source: KubeApi, key: HostKey) -> None:
        """Delete the source's objects; no server acts on the paused host meanwhile."""
        host = await find(source, BARE_METAL_HOST, *key)
        if host is None:
            return
        mark = read_mark(host)
        if mark is None or not mark.handed_over or PAUSED not in annotations(host):
            raise MoveError(f"{key}: the source was changed by somebody; look at its annotations")
        bundle = await read_bundle(source, host)
        used = await self._used(source, host)
        for kind, obj in bundle.dependents:
            is_used = kind == SECRET and key_of(obj).name in used
            if not is_used and not other_owners(obj, host["metadata"]["uid"]):
                await _remove(source, kind, obj)
        await _remove(source, BARE_METAL_HOST, host)
        if await find(source, BARE_METAL_HOST, *key) is not None:
            finalizers = ", ".join(host["metadata"].get("finalizers") or ()) or FINALIZER
            raise MoveError(f"{key}: the source object does not go ({finalizers})")
        self._say(key, "gone from the source")

    async def _finish(self, key: HostKey, copy: Object, *, keep_paused: bool = False) -> None:
        """Let the target go on: marks off, and with the last one the pause of the move."""
        mark = read_mark(copy)
        if mark is None:
            return
        pause = mark.paused
        if keep_paused and pause is None:
            pause = PAUSE_VALUE
        await _annotate(
            self._target, BARE_METAL_HOST, copy, {PAUSED: pause, MOVE: None, STATUS: None}
        )
        self._say(key, "moved; paused, as it was" if pause is not None else "moved")

    async def _discard(self, copy: Object, bundle: Bundle, mark: Mark) -> None:
        """Take away an unfinished copy with what was made for it."""
        self._check_ours(copy, mark)
        used = await self._used(self._target, copy)
        found = read_mark(copy)
        for kind, obj in bundle.dependents:
            name = key_of(obj).name
            is_used = kind == SECRET and name in used
            if found is None or is_used or f"{kind.kind}/{name}" not in found.made:
                continue
            made = await find(self._target, kind, *key_of(obj))
            if made is not None:
                await _remove(self._target, kind, made)
        await _remove(self._target, BARE_METAL_HOST, copy)

    async def _used(self, api: KubeApi, host: Object) -> set[str]:
        """Return the Secrets that other hosts of its namespace refer to."""
        key = key_of(host)
        others = (await api.list(BARE_METAL_HOST, key.namespace)).items
        return {name for one in others if key_of(one) != key for name in secret_names(one)}


async def _annotate(
    api: KubeApi,
    kind: Kind,
    obj: Object,
    changes: Mapping[str, str | None],
    *,
    guarded: bool = False,
) -> Object:
    metadata: Object = {"annotations": dict(changes), "uid": obj["metadata"]["uid"]}
    if guarded:
        metadata["resourceVersion"] = obj["metadata"]["resourceVersion"]
    return await api.patch(kind, *key_of(obj), {"metadata": metadata})


async def _remove(api: KubeApi, kind: Kind, obj: Object) -> None:
    """Delete an object for good: its finalizers ask for work that must not be done."""
    metadata = obj["metadata"]
    try:
        if metadata.get("finalizers"):
            patch = {"metadata": {"finalizers": [], "uid": metadata["uid"]}}
            await api.patch(kind, *key_of(obj), patch)
        await api.delete(kind, *key_of(obj), uid=metadata["uid"])
    except errors.NotFound:
        return
