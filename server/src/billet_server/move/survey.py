"""What would be moved, and what is in the way: reads both sides, changes nothing."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from billet_server import errors
from billet_server.core.annotations import PAUSED
from billet_server.core.host import Host, parse_host
from billet_server.core.terms import HostKey
from billet_server.move import blockers
from billet_server.move.bundle import (
    Bundle,
    Mark,
    annotations,
    content,
    differences,
    key_of,
    read_mark,
    secret_names,
)
from billet_server.ports import (
    BARE_METAL_HOST,
    HARDWARE_DATA,
    NAMESPACE,
    SECRET,
    Kind,
    KubeApi,
    Object,
)

Phase = Literal["new", "copying", "handed over", "arrived"]


class Item(NamedTuple):
    """One host of the move. ``bundle`` None: only the target still has it (phase arrived)."""

    key: HostKey
    phase: Phase
    bundle: Bundle | None
    there: Object | None
    busy: str = ""
    blockers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


async def api_identity(api: KubeApi) -> str:
    """Return what tells this API from all others: the UID of a namespace that never goes."""
    for name in ("kube-system", "default"):
        try:
            return str((await api.get(NAMESPACE, "", name))["metadata"]["uid"])
        except errors.NotFound:
            continue
    listed = (await api.list(NAMESPACE)).items
    return str(min(one["metadata"]["uid"] for one in listed)) if listed else "empty"


async def read_bundle(api: KubeApi, host: Object) -> Bundle:
    """Return a host with its Secrets and HardwareData."""
    namespace, name = key_of(host)
    names = secret_names(host)
    secrets = [s for n in names if (s := await find(api, SECRET, namespace, n)) is not None]
    return Bundle(host, tuple(secrets), await find(api, HARDWARE_DATA, namespace, name))


async def find(api: KubeApi, kind: Kind, namespace: str, name: str) -> Object | None:
    """Return an object, None where there is none; a kind that is not served is an error."""
    try:
        return await api.get(kind, namespace, name)
    except errors.NotFound as error:
        if not error.reason:
            raise
        return None


async def survey(
    hosts: Iterable[Object],
    source: KubeApi | None,
    target: KubeApi,
    bundles: Sequence[Bundle] = (),
) -> list[Item]:
    """Return an item for each of the source's hosts, or (``source`` None) of the given bundles.

    Hosts that an earlier run left half-way at the target come as well.
    """
    hosts = list(hosts)
    spaces = {key_of(obj).namespace for obj in (*hosts, *(bundle.host for bundle in bundles))}
    there = {key_of(obj): obj for obj in await _list_hosts(target, spaces)}
    others = [parse_host(obj) for obj in there.values()]
    if source is None:
        return [await _item(bundle, "", target, there, others) for bundle in bundles]
    here, far = await api_identity(source), await api_identity(target)
    if here == far:
        raise errors.ConfigError(["source and target are the same API"])
    items = [
        await _item(await read_bundle(source, obj), far, target, there, others) for obj in hosts
    ]
    known = {item.key for item in items}
    for key, obj in there.items():
        mark = read_mark(obj)
        if mark is not None and mark.other == here and key not in known:
            left = await find(source, BARE_METAL_HOST, *key)
            if left is None:
                items.append(Item(key, "arrived", None, obj))
    return items


async def _list_hosts(api: KubeApi, spaces: Iterable[str]) -> list[Object]:
    """Return all hosts; where that is forbidden those of the namespaces that matter."""
    try:
        return (await api.list(BARE_METAL_HOST)).items
    except errors.ApiError as error:
        if error.status != 403:
            raise
    return [obj for space in spaces for obj in (await api.list(BARE_METAL_HOST, space)).items]


async def _item(
    bundle: Bundle, far: str, target: KubeApi, there: dict[HostKey, Object], others: list[Host]
) -> Item:
    key, host = bundle.key, parse_host(bundle.host)
    mark, copy = read_mark(bundle.host), there.get(key)
    busy = blockers.busy(bundle.host)
    found = [f"{busy} ({blockers.advice(host)})"] if busy else []
    found += blockers.rivals(host, others)
    if mark is not None and far and mark.other != far:
        found.append("an earlier move of it to another API was not finished: finish or undo that")
    their_mark = read_mark(copy) if copy is not None else None
    if copy is not None and (their_mark is None or their_mark.id != bundle.id):
        found.append("a host of this name is there already")
    elif copy is not None and PAUSED not in annotations(copy):
        found.append("its half-made copy there was unpaused by somebody: delete it, or pause it")
    found += await _others_in_the_way(bundle, target, their_mark)
    phase: Phase = "new"
    if mark is not None and far:
        phase = "handed over" if mark.handed_over else "copying"
    if phase == "handed over":
        found = [text for text in found if not busy or not text.startswith(busy)]
    notes = tuple(blockers.notes(bundle))
    return Item(key, phase, bundle, copy, busy, tuple(found), notes)


async def _others_in_the_way(bundle: Bundle, target: KubeApi, mark: Mark | None) -> list[str]:
    found = []
    made = mark.made if mark is not None else ()
    for kind, obj in bundle.dependents:
        namespace, name = key_of(obj)
        other = await find(target, kind, namespace, name)
        if other is None or f"{kind.kind}/{name}" in made:
            continue  # what an earlier run made is made anew
        if differences(content(kind, obj), content(kind, other)):
            found.append(f"{kind.kind} {name} with other content is there")
    return found


def make_mark(bundle: Bundle, other: str) -> Mark:
    """Return the mark of a move that begins: it keeps the pause there was."""
    old = read_mark(bundle.host)
    if old is not None:
        return old._replace(other=other)
    return Mark(bundle.id, other, annotations(bundle.host).get(PAUSED))
