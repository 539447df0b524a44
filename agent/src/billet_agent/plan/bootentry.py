"""UEFI boot entries: which loader the ESP offers, which stale entries go, in which order."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

LABEL = "billet"
_ARCHES = {"x86_64": "x64", "aarch64": "aa64", "riscv64": "riscv64", "i686": "ia32"}
_LOADER = re.compile(r"[A-Za-z0-9._+ /-]{1,200}")
_ENTRY = re.compile(r"Boot([0-9A-Fa-f]{4})(\*?) ([^\t]*)(?:\t.*)?")


class Loader(NamedTuple):
    """What the firmware should start: path with backslashes, and the entry's label."""

    path: str
    label: str


def csv_paths(files: Sequence[str], machine: str) -> list[str]:
    """Return the ESP's boot lists (shim's BOOTX64.CSV), best first; ``files`` like /EFI/x/y."""
    arch = _ARCHES.get(machine, machine)
    ranks = {f"boot{arch}.csv": 0, "boot.csv": 1}
    named = [(ranks.get(_base(path)), path) for path in files]
    return [path for rank, path in sorted((r, p) for r, p in named if r is not None)]


def choose_loader(files: Sequence[str], machine: str, csv: Mapping[str, bytes]) -> Loader | None:
    """Choose the loader: the first good line of a boot list, else the removable-media path."""
    present = {path.lower(): path for path in files}
    for path in csv_paths(files, machine):
        folder = path.rpartition("/")[0]
        found = _parse_csv(csv.get(path, b""))
        if found is not None:
            name, label = found
            real = present.get(f"{folder}/{name}".lower())
            if real and _LOADER.fullmatch(real):
                return Loader(real.replace("/", "\\"), label)
    fallback = fallback_loader(files, machine)
    return Loader(fallback.replace("/", "\\"), LABEL) if fallback else None


def fallback_loader(files: Sequence[str], machine: str) -> str | None:
    """Return the path that firmware starts without any entry (/EFI/BOOT/BOOTX64.EFI), if there."""
    wanted = f"/efi/boot/boot{_ARCHES.get(machine, machine)}.efi"
    return next((path for path in files if path.lower() == wanted), None)


class Entries(NamedTuple):
    """What efibootmgr lists: labels by number (4 hex digits), and the boot order."""

    labels: Mapping[str, str]
    order: tuple[str, ...]


def parse_entries(listing: str) -> Entries:
    """Read ``efibootmgr``'s output (with or without device paths behind a tab)."""
    labels: dict[str, str] = {}
    order: tuple[str, ...] = ()
    for line in listing.splitlines():
        if line.startswith("BootOrder:"):
            words = line.partition(":")[2].split(",")
            order = tuple(word.strip().upper() for word in words if word.strip())
        elif match := _ENTRY.fullmatch(line):
            labels[match[1].upper()] = match[3].strip()
    return Entries(labels, order)


def stale_entries(entries: Entries, label: str) -> list[str]:
    """Return the numbers of entries that we or the same system made before."""
    ours = {label.casefold(), LABEL}
    return sorted(number for number, text in entries.labels.items() if text.casefold() in ours)


def order_with_first(entries: Entries, label: str) -> list[str] | None:
    """Return the boot order with the labelled entry first, or None when it is already so."""
    number = next((n for n, text in entries.labels.items() if text == label), None)
    if number is None or (entries.order and entries.order[0] == number):
        return None
    return [number, *(other for other in entries.order if other != number)]


def _parse_csv(data: bytes) -> tuple[str, str] | None:
    text = data.decode("utf-16", errors="replace") if data else ""
    for line in text.lstrip("\ufeff").splitlines():
        name, _, rest = line.partition(",")
        name = name.strip().lstrip("\\/").replace("\\", "/")
        label = "".join(c for c in rest.partition(",")[0] if c.isascii() and c.isprintable())
        if name and ".." not in name:
            return name, label.strip()[:40] or LABEL
    return None


def _base(path: str) -> str:
    return path.rpartition("/")[2].lower()
