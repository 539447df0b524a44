"""The informer's cache of one kind: objects by key, indexes, and which version is newer. Pure.

Versions: Kubernetes says resourceVersions of one kind compare as decimal numbers. Where they
do not (an API in front that makes up its own), an object we wrote is kept until the watch has
delivered that very version.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from typing import Final, NamedTuple

from billet_server.core.terms import HostKey
from billet_server.ports import Object

IndexFunction = Callable[[Object], Iterable[str]]
_REMEMBERED: Final = 1024  # opaque versions the watch delivered lately


def object_key(obj: Object) -> HostKey:
    """Return an object's namespace ("" for cluster-scoped kinds) and name."""
    metadata = obj["metadata"]
    return HostKey(metadata.get("namespace", ""), metadata["name"])


def object_version(obj: Object) -> str:
    """Return ``metadata.resourceVersion``, or "" where there is none."""
    return str(obj["metadata"].get("resourceVersion", ""))


def version_number(version: str) -> int | None:
    """Return a resourceVersion as a number, None where it is not one."""
    return int(version) if version.isascii() and version.isdecimal() else None


class _Index:
    """Keys by the values a function finds in an object."""

    def __init__(self, function: IndexFunction) -> None:
        self._function = function
        self._values: dict[HostKey, tuple[str, ...]] = {}
        self._keys: dict[str, dict[HostKey, None]] = {}

    def put(self, key: HostKey, obj: Object | None) -> None:
        new = tuple(dict.fromkeys(self._function(obj))) if obj is not None else ()
        old = self._values.get(key, ())
        if new == old:
            return
        for value in old:
            keys = self._keys[value]
            del keys[key]
            if not keys:
                del self._keys[value]
        for value in new:
            self._keys.setdefault(value, {})[key] = None
        if new:
            self._values[key] = new
        else:
            self._values.pop(key, None)

    def keys(self, value: str) -> Collection[HostKey]:
        return self._keys.get(value, ())


class Change(NamedTuple):
    """What the cache held of an object before and after; None: nothing."""

    old: Object | None
    new: Object | None


class ObjectCache:
    """Objects of one kind as last seen, with indexes. Each call is O(1) but `replace`.

    A scope is what one watch covers: one namespace each (``by_namespace``), or None for all.
    """

    def __init__(self, *, by_namespace: bool = False) -> None:
        self._by_namespace = by_namespace
        self._objects: dict[HostKey, Object] = {}
        self._indexes: dict[str, _Index] = {}
        self._positions: dict[str | None, int] = {}  # newest version each watch has brought
        self._awaited: dict[HostKey, str] = {}  # opaque versions we wrote and wait to see
        self._seen: deque[tuple[HostKey, str]] = deque()
        self._seen_set: set[tuple[HostKey, str]] = set()

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, namespace: str, name: str) -> Object | None:
        """Return the newest known state of an object, None when there is none."""
        return self._objects.get(HostKey(namespace, name))

    def items(self) -> list[Object]:
        """Return all objects; O(n)."""
        return list(self._objects.values())

    def add_index(self, name: str, function: IndexFunction) -> None:
        """Index by the values ``function`` finds; it must bear any object a user may write."""
        index = self._indexes[name] = _Index(function)
        for key, obj in self._objects.items():
            index.put(key, obj)

    def by_index(self, name: str, value: str) -> list[Object]:
        """Return the objects for which an index gave ``value``."""
        return [self._objects[key] for key in self._indexes[name].keys(value)]

    def count(self, name: str, value: str) -> int:
        """Return for how many objects an index gave ``value``."""
        return len(self._indexes[name].keys(value))

    def some(self, name: str, value: str, most: int) -> list[Object]:
        """Return at most so many of the objects for which an index gave ``value``."""
        return [self._objects[key] for key in islice(self._indexes[name].keys(value), most)]

    def advance(self, version: str, scope: str | None = None) -> None:
        """Note that the watch of ``scope`` has delivered everything up to ``version``."""
        number = version_number(version)
        if number is not None and number > self._positions.get(scope, -1):
            self._positions[scope] = number

    def watched(self, obj: Object, *, deleted: bool = False) -> Change | None:
        """Take a watch event; return what changed, None for an event older than the cache."""
        key, version = object_key(obj), object_version(obj)
        self.advance(version, self._scope(key))
        known = self._objects.get(key)
        if version_number(version) is None:
            self._remember(key, version)
        if not self._is_news(key, known, version, deleted=deleted):
            return None
        return self._put(key, None if deleted else obj)

    def written(self, obj: Object) -> Change | None:
        """Take the API's answer to a write of ours, which may be ahead of the watch."""
        key, version = object_key(obj), object_version(obj)
        known = self._objects.get(key)
        number = version_number(version)
        if number is not None:
            if number <= self._positions.get(self._scope(key), -1):
                return None  # the watch has been there: it brought this state or a newer one
            if known is not None and number <= (version_number(object_version(known)) or -1):
                return None
        else:
            if (key, version) in self._seen_set:
                return None
            self._awaited[key] = version
        return self._put(key, obj)

    def begin_list(self) -> None:
        """A list is about to be asked for: what was written before it will be in it."""
        self._awaited.clear()

    def replace(
        self, items: Iterable[Object], version: str, *, scope: str | None = None
    ) -> list[Change]:
        """Take a list made at ``version`` of one namespace (None: all); return what changed.

        Objects that we wrote after the list was made stay as they are. A list older than
        what was seen before means that the API's history began anew (restored, or another
        cluster): then only the list counts.
        """
        number = version_number(version)
        restarted = number is not None and number < self._positions.get(scope, -1)
        if restarted:
            del self._positions[scope]
        changes: list[Change] = []
        listed: set[HostKey] = set()
        for obj in items:
            key = object_key(obj)
            listed.add(key)
            known = self._objects.get(key)
            if known is not None and object_version(known) == object_version(obj) and known == obj:
                continue
            if restarted or self._is_news(key, known, object_version(obj)):
                changes.append(self._put(key, obj))
        absent = [
            key
            for key in self._objects
            if scope in (None, key.namespace)
            and key not in listed
            and (restarted or not self._is_ahead(key, number))
        ]
        changes.extend(self._put(key, None) for key in absent)
        self.advance(version, scope)
        return changes

    def _scope(self, key: HostKey) -> str | None:
        return key.namespace if self._by_namespace else None

    def _is_ahead(self, key: HostKey, number: int | None) -> bool:
        known = version_number(object_version(self._objects[key]))
        if number is not None and known is not None:
            return known > number
        return key in self._awaited

    def _is_news(
        self, key: HostKey, known: Object | None, version: str, *, deleted: bool = False
    ) -> bool:
        if known is None:
            return not deleted
        known_version = object_version(known)
        new_number, known_number = version_number(version), version_number(known_version)
        if new_number is not None and known_number is not None:
            return new_number > known_number or (deleted and new_number == known_number)
        if key in self._awaited and not deleted:
            if self._awaited[key] == version:
                del self._awaited[key]
            return False
        self._awaited.pop(key, None)
        return True

    def _remember(self, key: HostKey, version: str) -> None:
        self._seen.append((key, version))
        self._seen_set.add((key, version))
        if len(self._seen) > _REMEMBERED:
            self._seen_set.discard(self._seen.popleft())

    def _put(self, key: HostKey, obj: Object | None) -> Change:
        old = self._objects.get(key)
        if obj is None:
            self._objects.pop(key, None)
        else:
            self._objects[key] = obj
        for index in self._indexes.values():
            index.put(key, obj)
        return Change(old, obj)
