"""GRUB 2: ``grub.cfg`` as grub-mkconfig and makers of cloud images write it, ``grubenv``."""

import itertools
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_LINUX = frozenset({"linux", "linuxefi", "linux16"})
_INITRD = frozenset({"initrd", "initrdefi", "initrd16"})
_WORDS = 512
_DEPTH = 8


class Entry(NamedTuple):
    """One choice of a menu: ``names`` are its title and id; paths as the loader's file has them."""

    names: tuple[str, ...]
    kernel: str
    initrds: tuple[str, ...]
    arguments: str


class Menu(NamedTuple):
    """All choices in their order; ``default`` is a number, a title or an id, or empty."""

    entries: tuple[Entry, ...]
    default: str
    reads_bls: bool
    variables: Mapping[str, str]


class _Block:
    """A ``menuentry`` or ``submenu`` while its lines are read."""

    def __init__(self, kind: str, names: tuple[str, ...]) -> None:
        self.kind, self.names = kind, names
        self.kernel: list[str] | None = None
        self.initrds: tuple[str, ...] | None = None


def parse_grubenv(text: str) -> dict[str, str]:
    """Return the variables of a ``grubenv`` block (NAME=value lines, padded with ``#``)."""
    lines = (line for line in text.split("\n") if not line.startswith("#") and "=" in line)
    return {name.strip(): value for name, _, value in (line.partition("=") for line in lines)}


def parse_grub(text: str, environment: Mapping[str, str]) -> Menu:
    """Read ``grub.cfg``. Raises ValueError for what cannot be GRUB's settings.

    Of both branches of an ``if`` the lines are read, and the first kernel of an entry counts:
    that is the one with an initramfs, where a distribution tries without one later.
    """
    variables = dict(environment)
    entries: list[Entry] = []
    defaults: list[str] = []
    blocks: list[_Block] = []
    reads_bls = False
    for words in _commands(text):
        match words:
            case ["menuentry" | "submenu" as kind, *rest] if rest:
                if len(blocks) == _DEPTH:
                    raise ValueError(f"menus are nested deeper than {_DEPTH}")
                blocks.append(_Block(kind, _names(rest)))
            case ["function" | "{", *_]:
                blocks.append(_Block("other", ()))
            case ["}", *_] if blocks:
                entries += _closed(blocks)
            case ["blscfg", *_]:
                reads_bls = True
            case ["set", assignment, *_] if "=" in assignment:
                name, _, value = assignment.partition("=")
                value = expand(value, variables)
                if name == "default":
                    defaults.append(value)
                elif not blocks:
                    variables[name] = value
            case [command, *rest] if blocks:
                _take(blocks[-1], command, list(_expanded(rest, variables)))
    default = environment.get("next_entry") or next(filter(None, reversed(defaults)), "")
    return Menu(tuple(entries), default, reads_bls, variables)


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``$name`` and ``${name}``; as in GRUB an unknown variable is empty."""
    return _VARIABLE.sub(lambda found: variables.get(found[1] or found[2], ""), text)


def chosen(menu: Menu) -> Entry | None:
    """Return the entry that GRUB would start by itself: of no such default, the first one."""
    if not menu.entries:
        return None
    wanted = menu.default.rpartition(">")[2]
    top = [each for each in menu.entries if ">" not in each.names[0]]
    if wanted.isdecimal() and ">" not in menu.default and int(wanted) < len(top):
        return top[int(wanted)]
    for entry in menu.entries:
        if wanted in {name.rpartition(">")[2] for name in entry.names}:
            return entry
    return (top or list(menu.entries))[0]


def _commands(text: str) -> Iterator[list[str]]:
    """Yield each line's words; a brace that opens a block stays the line's last word."""
    for line in text.replace("\\\n", " ").split("\n"):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        if words:
            yield words[:_WORDS]


def _names(words: list[str]) -> tuple[str, ...]:
    names = [words[0]]
    for flag, value in itertools.pairwise(words):
        if flag in {"--id", "$menuentry_id_option", "${menuentry_id_option}"}:
            names.append(value)
    return tuple(names)


def _expanded(words: list[str], variables: Mapping[str, str]) -> Iterator[str]:
    """Yield the words after expansion: a variable may become several, a quoted word stays one."""
    for word in words:
        value = expand(word, variables)
        if " " in word:
            yield f'"{value}"'
        else:
            yield from value.split()


def _take(block: _Block, command: str, words: list[str]) -> None:
    if command in _LINUX and words and block.kernel is None:
        block.kernel = words
    elif command in _INITRD and words and block.initrds is None:
        block.initrds = tuple(words)


def _closed(blocks: list[_Block]) -> list[Entry]:
    """End the innermost block; an entry in a submenu is named with all titles around it."""
    block = blocks.pop()
    if block.kind != "menuentry" or block.kernel is None:
        return []
    above = "".join(f"{each.names[0]}>" for each in blocks if each.kind == "submenu")
    names = (above + block.names[0], *block.names[1:])
    return [Entry(names, block.kernel[0], block.initrds or (), " ".join(block.kernel[1:]))]
