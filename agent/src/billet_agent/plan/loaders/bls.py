"""Boot Loader Specification: ``loader/entries/*.conf`` of Fedora, RHEL's kin and systemd-boot."""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from billet_agent.plan.loaders.grub import Entry, expand

_PARTS = re.compile(r"[0-9]+|[A-Za-z]+|~|\^")


def parse_bls(name: str, text: str, variables: Mapping[str, str]) -> Entry | None:
    """Read one entry file, ``name`` without ``.conf``; None where it names no Linux kernel.

    ``variables`` are those of GRUB (``$kernelopts``, ``$tuned_initrd``), which it expands here.
    """
    rows: dict[str, list[str]] = {}
    for line in text.split("\n"):
        key, _, value = line.strip().partition(" ")
        if key and not key.startswith("#") and value.strip():
            rows.setdefault(key, []).append(expand(value.strip(), variables))
    if "linux" not in rows:
        return None
    initrds = tuple(path for value in rows.get("initrd", ()) for path in value.split())
    names = (rows.get("title", [name])[0], name, f"{name}.conf")
    arguments = " ".join(part for value in rows.get("options", ()) for part in value.split())
    return Entry(names, rows["linux"][0].split()[0], initrds, arguments)


def newest_first(names: Iterable[str]) -> list[str]:
    """Return entry names in the order of the loaders: versions compared by rpm's rules."""
    return sorted(names, key=_version, reverse=True)


def choose_bls(entries: Mapping[str, Entry], default: str) -> Entry | None:
    """Return the default entry: a number, an id, a title, a pattern; otherwise the newest."""
    order = [entries[name] for name in newest_first(entries)]
    if default.isdecimal() and int(default) < len(order):
        return order[int(default)]
    for entry in order:
        if default and any(name == default or fnmatchcase(name, default) for name in entry.names):
            return entry
    ordinary = (each for each in order if "rescue" not in each.names[1])
    return next(ordinary, order[0] if order else None)


def parse_loader_conf(text: str) -> str:
    """Return the ``default`` of systemd-boot's ``loader.conf``, or ""."""
    for line in text.split("\n"):
        key, _, value = line.strip().partition(" ")
        if key == "default":
            return value.strip()
    return ""


def _version(name: str) -> list[tuple[int, int, str]]:
    """Return a key: digits count as numbers and come after letters, ``~`` before all else."""
    key = []
    for part in _PARTS.findall(name):
        if part.isdecimal():
            key.append((3, int(part), ""))
        else:
            key.append((-1 if part == "~" else 2, 0, part))
    return [*key, (0, 0, "")]
