"""What a command sets, as data: shown in words, as kubectl would say it, and as a patch. Pure."""

import json
import shlex
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from billet_server.core.host import Host
from billet_server.core.terms import HostKey

Gravity = Literal["note", "waits", "never"]


class Remark(NamedTuple):
    """What a person should know before a change acts.

    note: it acts all the same. waits: not before something else happens. never: it has no effect.
    """

    gravity: Gravity
    text: str


class Edit(NamedTuple):
    """One annotation or field; ``value`` None removes it."""

    path: tuple[str, ...]
    value: Any

    def __str__(self) -> str:
        where, what = self.path, self.value
        text = ".".join(where[:2]) + f'["{where[2]}"]' if is_annotation(self) else ".".join(where)
        if what is None:
            return f"{text} removed"
        return f"{text} = {what if is_annotation(self) and what else _json(what)}"


class Change(NamedTuple):
    """What a command does to one host; no edits: nothing is left to do."""

    edits: tuple[Edit, ...]
    remarks: tuple[Remark, ...] = ()
    secrets: tuple["SecretFile", ...] = ()


class SecretFile(NamedTuple):
    """A Secret to make of a file's content, which is shown nowhere."""

    name: str
    key: str
    file: str
    content: bytes


def is_annotation(edit: Edit) -> bool:
    """Whether an edit is of an annotation."""
    return edit.path[:2] == ("metadata", "annotations")


def annotation(host: Host, key: str, value: str | None) -> tuple[Edit, ...]:
    """Return the edit that gives an annotation this value (None: takes it off), if needed."""
    if host.annotations.get(key) == value:
        return ()
    return (Edit(("metadata", "annotations", key), value),)


def field(old: Any, path: str, value: Any) -> tuple[Edit, ...]:
    """Return the edit of a field of ``spec`` whose value was ``old``, if one is needed."""
    return () if old == value else (Edit(("spec", *path.split(".")), value),)


def merge_patch(edits: tuple[Edit, ...]) -> dict[str, Any]:
    """Return the RFC 7386 patch of all edits."""
    patch: dict[str, Any] = {}
    for edit in edits:
        place = patch
        for word in edit.path[:-1]:
            place = place.setdefault(word, {})
        place[edit.path[-1]] = edit.value
    return patch


def kubectl_commands(key: HostKey, change: Change) -> list[str]:
    """Return the same as commands for a shell, in the order they would be given."""
    target = f"-n {key.namespace} baremetalhost {key.name}"
    commands = [
        f"kubectl create secret generic -n {key.namespace} {secret.name}"
        f" --from-file={shlex.quote(f'{secret.key}={secret.file}')}"
        for secret in change.secrets
    ]
    words = [
        f"{edit.path[2]}-" if edit.value is None else f"{edit.path[2]}={edit.value}"
        for edit in change.edits
        if is_annotation(edit)
    ]
    if words:
        quoted = " ".join(map(shlex.quote, words))
        commands.append(f"kubectl annotate --overwrite {target} {quoted}")
    fields = tuple(edit for edit in change.edits if not is_annotation(edit))
    if fields:
        patch = shlex.quote(_json(merge_patch(fields)))
        commands.append(f"kubectl patch {target} --type=merge -p {patch}")
    return commands


def change_json(change: Change) -> list[Mapping[str, Any]]:
    """Return the edits for ``-o json``."""
    return [{"field": _pointer(edit.path), "value": edit.value} for edit in change.edits]


def _pointer(path: tuple[str, ...]) -> str:
    """Return an RFC 6901 JSON pointer."""
    return "".join(f"/{word.replace('~', '~0').replace('/', '~1')}" for word in path)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
