"""Which kernel a file system's boot loader would start, whatever loader that is."""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple, Protocol

from billet_agent.plan.loaders.bls import (
    choose_bls,
    newest_first,
    parse_bls,
    parse_loader_conf,
)
from billet_agent.plan.loaders.extlinux import parse_extlinux
from billet_agent.plan.loaders.grub import Entry, chosen, parse_grub, parse_grubenv

MOST_ARGUMENTS = 2047
"""COMMAND_LINE_SIZE of x86 and arm64 kernels is 2048, with the final zero."""

_MOST_ENTRIES = 64
_GRUB = ("boot/grub", "boot/grub2", "grub", "grub2")
_EXTLINUX = (
    "boot/extlinux/extlinux.conf", "extlinux/extlinux.conf", "boot/extlinux.conf", "extlinux.conf",
    "boot/syslinux/syslinux.cfg", "syslinux/syslinux.cfg", "syslinux.cfg",
)  # fmt: skip
_ODD = re.compile(r"[^\x20-\x7e]")


class Start(NamedTuple):
    """A kernel to start: paths inside the file system, its command line, whose setting it was."""

    kernel: str
    initrds: tuple[str, ...]
    arguments: str
    source: str


class NoStart(NamedTuple):
    """Why nothing can be started; ``reason`` reads on after "because"."""

    reason: str


class Tree(Protocol):
    """A file system that is only read. Paths have no leading slash."""

    def text(self, path: str) -> str | None:
        """Return a regular file's text (bounded, undecodable bytes replaced), or None."""

    def names(self, path: str) -> Iterable[str]:
        """Return the names in a folder; none where there is no folder."""


def choose_start(tree: Tree) -> Start | NoStart | None:
    """Return what the loader would start; None where the file system has no loader's settings."""
    for look in (_grub, _systemd_boot, _extlinux):
        found = look(tree)
        if found is not None:
            return found
    return None


def _grub(tree: Tree) -> Start | NoStart | None:
    for folder in _GRUB:
        text = tree.text(f"{folder}/grub.cfg")
        if text is None:
            continue
        source = f"{folder}/grub.cfg"
        environment = parse_grubenv(tree.text(f"{folder}/grubenv") or "")
        try:
            menu = parse_grub(text, environment)
        except ValueError as error:
            return NoStart(f"{source} is not understood: {error}")
        if menu.reads_bls:
            top = PurePosixPath(folder).parent
            entries = _bls_entries(tree, str(top / "loader/entries"), menu.variables)
            entry = choose_bls(entries, environment.get("saved_entry", "") or menu.default)
            source = f"{source} and loader/entries"
        else:
            entry = chosen(menu)
        if entry is None:
            return NoStart(f"{source} has no entry with a kernel")
        return _start(entry, source)
    return None


def _systemd_boot(tree: Tree) -> Start | NoStart | None:
    entries = _bls_entries(tree, "loader/entries", {})
    if not entries:
        return None
    entry = choose_bls(entries, parse_loader_conf(tree.text("loader/loader.conf") or ""))
    return None if entry is None else _start(entry, "loader/entries")


def _extlinux(tree: Tree) -> Start | NoStart | None:
    for path in _EXTLINUX:
        entry = parse_extlinux(tree.text(path) or "")
        if entry is not None:
            return _start(entry, path, folder=str(PurePosixPath(path).parent))
    return None


def _bls_entries(tree: Tree, folder: str, variables: Mapping[str, str]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    names = newest_first(
        name.removesuffix(".conf") for name in tree.names(folder) if name.endswith(".conf")
    )
    for name in names[:_MOST_ENTRIES]:
        entry = parse_bls(name, tree.text(f"{folder}/{name}.conf") or "", variables)
        if entry is not None:
            found[name] = entry
    return found


def _inside(path: str, folder: str) -> str:
    """Return a loader's path without its leading slash; "" where it points elsewhere.

    GRUB writes ``(hd0,gpt1)/vmlinuz`` for another device: that is not this file system.
    """
    pure = PurePosixPath(path)
    if not path or ".." in pure.parts or path.startswith("(") or _ODD.search(path):
        return ""
    return str(pure.relative_to("/")) if pure.is_absolute() else str(PurePosixPath(folder) / pure)


def _start(entry: Entry, source: str, *, folder: str = ".") -> Start | NoStart:
    words = entry.arguments.split()
    given = {word.partition("=")[0] for word in words}
    if "root" not in given and not {"boot", "rd.luks.uuid", "ostree"} & given:
        return NoStart(f"the kernel line in {source} names no root file system")
    kernel = _inside(entry.kernel, folder)
    initrds = tuple(_inside(path, folder) for path in entry.initrds)
    if not kernel or not all(initrds):
        return NoStart(f"{source} names a file outside its file system: {entry.kernel[:200]}")
    arguments = f"BOOT_IMAGE={entry.kernel} {entry.arguments}"
    if _ODD.search(arguments):
        return NoStart(f"the kernel line in {source} has characters that are not printable")
    if len(arguments) > MOST_ARGUMENTS:
        return NoStart(
            f"the kernel line in {source} has {len(arguments)} characters, the kernel takes"
            f" {MOST_ARGUMENTS}"
        )
    return Start(kernel, initrds, arguments, source)
