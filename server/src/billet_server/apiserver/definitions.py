"""What the embedded API serves: one `Definition` for each kind, from CRDs or built in.

CRDs are apiextensions.k8s.io/v1 CustomResourceDefinitions; the shipped ones lie in ``crds/`` at
the top of the repository and, in a wheel, in ``billet_server/data/crds``.
"""

import copy
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from billet_server import errors, ports

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


class Column(NamedTuple):
    """One column of a server-printed table (CRD ``additionalPrinterColumns``).

    ``json_path`` is relative to the object (``.spec.online``), or ``=name`` for one of the
    computed cells of `billet_server.apiserver.cells`. Columns of ``priority`` > 0 show only with
    ``-o wide``.
    """

    name: str
    type: str
    format: str = ""
    description: str = ""
    json_path: str = ""
    priority: int = 0


class Definition(NamedTuple):
    """All that the API knows of one kind.

    ``schema`` is the OpenAPI v3 structural schema of the served version, shared and not to be
    changed. ``columns`` come after NAME, which every table starts with.
    """

    kind: ports.Kind
    singular: str
    list_kind: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    has_status: bool = False
    schema: dict[str, Any] | None = None
    columns: tuple[Column, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS


AGE = Column("Age", "date", "", "Time since the object was created", ".metadata.creationTimestamp")


def builtin_definitions() -> list[Definition]:
    """Return the kinds that exist without a CRD, in the order of discovery."""
    from billet_server.apiserver.kinds import DEFINITIONS

    return list(DEFINITIONS)


def parse_crd(crd: dict[str, Any]) -> Definition:
    """Return the definition of a CRD's served (of several: stored) version.

    Raises errors.Invalid with one ``path: sentence`` for each fault.
    """
    faults: list[str] = []
    spec = crd.get("spec")
    if not isinstance(spec, dict):
        raise errors.Invalid("spec: Required value", 422, "Invalid")
    names: dict[str, Any] = spec["names"] if isinstance(spec.get("names"), dict) else {}
    for path, value in (
        ("spec.group", spec.get("group")),
        ("spec.names.kind", names.get("kind")),
        ("spec.names.plural", names.get("plural")),
    ):
        if not isinstance(value, str) or not value:
            faults.append(f"{path}: Required value")
    if spec.get("scope") not in ("Namespaced", "Cluster"):
        faults.append('spec.scope: Unsupported value: supported values: "Cluster", "Namespaced"')
    version = _served_version(spec)
    if not version:
        faults.append("spec.versions: Invalid value: must have a served version")
    elif not isinstance(_schema_of(version), dict):
        faults.append("spec.versions[0].schema.openAPIV3Schema: Required value: must be an object")
    expected = f"{names.get('plural')}.{spec.get('group')}"
    found = (crd.get("metadata") or {}).get("name")
    if not faults and found != expected:
        faults.append(
            f'metadata.name: Invalid value: "{found}": must be spec.names.plural+"."+spec.group'
        )
    if faults:
        raise errors.Invalid(", ".join(faults), 422, "Invalid")
    kind = ports.Kind(
        spec["group"],
        version["name"],
        names["kind"],
        names["plural"],
        spec["scope"] == "Namespaced",
    )
    return Definition(
        kind,
        names.get("singular") or names["kind"].lower(),
        names.get("listKind") or names["kind"] + "List",
        tuple(names.get("shortNames") or ()),
        tuple(names.get("categories") or ()),
        "status" in (version.get("subresources") or {}),
        copy.deepcopy(_schema_of(version)),
        tuple(map(_column, version.get("additionalPrinterColumns") or ())) or (AGE,),
    )


def load_crds(directory: Path | None = None) -> list[dict[str, Any]]:
    """Return the CRDs of a directory's ``*.yaml`` files; without one, those shipped with us.

    Raises errors.ConfigError when there is none, or a file is not YAML.
    """
    directory = directory or shipped_directory()
    crds: list[dict[str, Any]] = []
    for path in sorted(directory.glob("*.yaml")):
        try:
            loaded = list(yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader))
        except yaml.YAMLError as error:
            raise errors.ConfigError([f"{path} is not YAML: {error}"]) from error
        # Aliases of the YAML are shared objects: copied so that no change shows up twice.
        crds += [copy.deepcopy(doc) for doc in loaded if isinstance(doc, dict)]
    if not crds:
        raise errors.ConfigError([f"no CustomResourceDefinitions in {directory}/*.yaml"])
    return crds


def shipped_directory() -> Path:
    """Return where our CRDs lie: inside the wheel, or at the top of the repository."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "data" / "crds"
    return inside if inside.is_dir() else package.parents[2] / "crds"


def _served_version(spec: dict[str, Any]) -> dict[str, Any]:
    served = [v for v in spec.get("versions") or () if isinstance(v, dict) and v.get("served")]
    return next((v for v in served if v.get("storage")), served[0] if served else {})


def _schema_of(version: dict[str, Any]) -> Any:
    return (version.get("schema") or {}).get("openAPIV3Schema")


def _column(raw: dict[str, Any]) -> Column:
    return Column(
        raw["name"],
        raw["type"],
        raw.get("format", ""),
        raw.get("description", ""),
        raw["jsonPath"],
        raw.get("priority", 0),
    )
