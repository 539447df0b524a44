"""Which resources are served: the built-in ones and those that definitions added."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from billet_server.apiserver.definitions import Definition, parse_crd
from billet_server.apiserver.schema import Schema
from billet_server.ports import EVENT, NAMESPACE, Kind, Object


class Resource(NamedTuple):
    """A served resource: its definition, compiled schema, and whether a CRD defined it."""

    definition: Definition
    schema: Schema | None
    custom: bool

    @property
    def kind(self) -> Kind:
        """Return its kind."""
        return self.definition.kind

    @property
    def path(self) -> str:
        """Return the store's name for it, "group/plural"."""
        return store_path(self.kind)

    @property
    def has_generation(self) -> bool:
        """Whether ``metadata.generation`` counts changes."""
        return self.custom or self.kind.group == "apiextensions.k8s.io"


def store_path(kind: Kind) -> str:
    """Return the store's name for a kind's resource."""
    return f"{kind.group}/{kind.plural}"


class Registry:
    """Served resources by group, version and plural. Changed and read in the loop's thread."""

    def __init__(self, definitions: Iterable[Definition]) -> None:
        self._resources: dict[tuple[str, str, str], Resource] = {}
        self.revision = 0
        """Grows with every change; rendered documents are cached by it."""
        for definition in definitions:
            self._add(definition, custom=False)

    def _add(self, definition: Definition, *, custom: bool) -> None:
        kind = definition.kind
        # Events pass as their clients send them: many writers, loose shapes, no consequences.
        checked = definition.schema is not None and kind != EVENT
        schema = Schema(definition.schema) if checked and definition.schema else None
        self._resources[kind.group, kind.version, kind.plural] = Resource(
            definition, schema, custom
        )
        self.revision += 1

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """Return the resource served under a path."""
        return self._resources.get((group, version, plural))

    def find_kind(self, kind: Kind) -> Resource | None:
        """Return the resource of a kind."""
        return self.find(kind.group, kind.version, kind.plural)

    def serves(self, api_version: str, kind: str) -> bool:
        """Whether objects of a kind, in any version of its group, could be here."""
        group = api_version.rpartition("/")[0]
        return any(entry.kind.group == group and entry.kind.kind == kind for entry in self)

    def find_path(self, path: str) -> Resource | None:
        """Return the resource that the store names so."""
        return next((entry for entry in self if entry.path == path), None)

    def __iter__(self) -> Iterator[Resource]:
        return iter(tuple(self._resources.values()))

    @property
    def definitions(self) -> list[Definition]:
        """Return all served definitions."""
        return [resource.definition for resource in self]

    def has_builtin_group(self, group: str) -> bool:
        """Whether a group belongs to the server itself."""
        return any(not entry.custom and entry.kind.group == group for entry in self)

    def put_crd(self, crd: Object) -> None:
        """Serve what a CustomResourceDefinition defines. Raises errors.Invalid."""
        definition = parse_crd(crd)
        self.drop_crd(crd)
        self._add(definition, custom=True)

    def drop_crd(self, crd: Object) -> None:
        """Stop serving what a CustomResourceDefinition defines."""
        group, plural = crd["spec"]["group"], crd["spec"]["names"]["plural"]
        for key, resource in list(self._resources.items()):
            if resource.custom and key[0] == group and key[2] == plural:
                del self._resources[key]
                self.revision += 1


def established(crd: Object, now: datetime) -> Object:
    """Return a CRD with the status of one that is served."""
    since = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    old = {entry.get("type"): entry for entry in crd.get("status", {}).get("conditions", ())}
    conditions = [
        old[kind] if kind in old and old[kind].get("status") == "True" else
        {"type": kind, "status": "True", "reason": reason, "message": message,
         "lastTransitionTime": since}
        for kind, reason, message in (
            ("NamesAccepted", "NoConflicts", "no conflicts found"),
            ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        )
    ]  # fmt: skip
    stored = [entry["name"] for entry in crd["spec"]["versions"] if entry.get("storage")]
    status = {
        "acceptedNames": crd["spec"]["names"],
        "conditions": conditions,
        "storedVersions": stored,
    }
    return {**crd, "status": status}


def initial_namespace(name: str) -> Object:
    """Return the manifest of a namespace."""
    return {"apiVersion": "v1", "kind": NAMESPACE.kind, "metadata": {"name": name}}
