"""Hosts in a file: Kubernetes manifests that `kubectl apply` takes as well. Holds Secrets."""

import contextlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from billet_server import errors, pki
from billet_server.core.annotations import MOVE, PAUSED, STATUS
from billet_server.core.terms import HostKey
from billet_server.move.bundle import (
    AS_SAVED,
    MOST_ANNOTATION_BYTES,
    Bundle,
    annotations,
    key_of,
    moved_status,
    read_mark,
    secret_names,
    stripped,
)
from billet_server.ports import BARE_METAL_HOST, HARDWARE_DATA, SECRET, Object

HEADER = """\
# Hosts of Billet, with their Secrets in plain base64: keep this file as you keep passwords.
# `billet move --from-file` restores it; so does kubectl apply, in namespaces that exist.
"""


def render_archive(bundles: Iterable[Bundle]) -> str:
    """Return the file's text."""
    objects: list[Object] = []
    seen: set[HostKey] = set()
    for bundle in bundles:
        for secret in bundle.secrets:
            if key_of(secret) not in seen:
                seen.add(key_of(secret))
                objects.append(stripped(SECRET, secret))
        if bundle.hardware is not None:
            objects.append(stripped(HARDWARE_DATA, bundle.hardware))
            objects[-1]["metadata"].pop("finalizers", None)
        objects.append(_host(bundle))
    return HEADER + yaml.safe_dump_all(objects, sort_keys=False, allow_unicode=True)


def _host(bundle: Bundle) -> Object:
    """Return a host with its status beside, and in the annotation by which servers restore it."""
    obj = bundle.host
    found = stripped(BARE_METAL_HOST, obj)
    found["metadata"]["uid"] = obj["metadata"].get("uid", "")
    found["metadata"].pop("finalizers", None)
    kept = found["metadata"]["annotations"]
    mark = read_mark(obj)
    if mark is not None:  # of a move under way: not part of the host
        kept.pop(PAUSED, None)
        kept |= {PAUSED: mark.paused} if mark.paused is not None else {}
    saved = {key_of(one).name: one["metadata"]["resourceVersion"] for one in bundle.secrets}
    status = moved_status(obj, {name: (version, AS_SAVED) for name, version in saved.items()})
    text = json.dumps(moved_status(obj), separators=(",", ":"))
    if status and len(text) <= MOST_ANNOTATION_BYTES:
        kept[STATUS] = text
    return {**found, "status": status}


def write_archive(path: Path, text: str, *, overwrite: bool = False) -> None:
    """Write the file with mode 0600, whole or not at all. Raises ConfigError."""
    if path.exists() and not overwrite:
        raise errors.ConfigError([f"{path} exists; --overwrite replaces it"])
    if not path.parent.is_dir():
        raise errors.ConfigError([f"cannot write {path}: there is no folder {path.parent}"])
    try:
        pki.write_private(path, text.encode())
    except OSError as error:
        raise errors.ConfigError([f"cannot write {path}: {error.strerror}"]) from error


def read_archive(text: str, name: str) -> list[Bundle]:
    """Return the hosts of a file with what belongs to them. Raises ConfigError."""
    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise errors.ConfigError([f"{name} is not YAML: {error}"]) from error
    objects = [obj for document in documents for obj in _objects(document, name)]
    by_kind: dict[str, dict[HostKey, Object]] = {}
    for obj in objects:
        by_kind.setdefault(obj["kind"], {})[key_of(obj)] = obj
    hosts = by_kind.get(BARE_METAL_HOST.kind, {})
    if not hosts:
        raise errors.ConfigError([f"{name} holds no BareMetalHost"])
    secrets = by_kind.get(SECRET.kind, {})
    hardware = by_kind.get(HARDWARE_DATA.kind, {})
    return [
        Bundle(
            _without_restored(host),
            _referenced(host, secrets),
            hardware.get(key),
        )
        for key, host in sorted(hosts.items())
    ]


def _objects(document: Any, name: str) -> Sequence[Object]:
    if document is None:
        return []
    if isinstance(document, dict) and str(document.get("kind", "")).endswith("List"):
        return [each for item in document.get("items") or () for each in _objects(item, name)]
    metadata = document.get("metadata") if isinstance(document, dict) else None
    if not isinstance(metadata, dict) or not metadata.get("name") or not document.get("kind"):
        raise errors.ConfigError([f"{name} holds what is no Kubernetes object"])
    metadata.setdefault("namespace", "default")
    return [document]


def _referenced(host: Object, secrets: dict[HostKey, Object]) -> tuple[Object, ...]:
    keys = [HostKey(host["metadata"]["namespace"], name) for name in secret_names(host)]
    return tuple(secrets[key] for key in keys if key in secrets)


def _without_restored(host: Object) -> Object:
    """Return the host with the status of its annotation where it has none of its own."""
    kept = annotations(host)
    text = kept.pop(STATUS, "")
    kept.pop(MOVE, None)
    status = host.get("status")
    if not status and text:
        with contextlib.suppress(ValueError):
            status = json.loads(text)
    found = {**host, "metadata": {**host["metadata"], "annotations": kept}}
    return {**found, "status": status} if isinstance(status, dict) else found
