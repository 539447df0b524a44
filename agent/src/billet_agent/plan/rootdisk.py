"""Which disk gets the image: Metal3's rootDeviceHints, or the smallest disk of 4 GiB and more."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from billet_agent.problems import JobFailed, failure, show_bytes
from billet_wire import DiskReport, RootDeviceHints

GIB = 1 << 30
LEAST_BYTES = 4 * GIB
"""Without hints no smaller disk is taken (Ironic's rule)."""


class Choice(NamedTuple):
    """The chosen disk and why, in words."""

    disk: DiskReport
    reason: str


class NoDisk(NamedTuple):
    """Nothing fits; ``rejected`` has (name, reason) for every disk, in kernel order."""

    summary: str
    rejected: tuple[tuple[str, str], ...]

    def failure(self) -> JobFailed:
        """Return the problem ``root-device`` with every disk and what it failed."""
        lines = "\n".join(f"{name}: {reason}" for name, reason in self.rejected)
        listed = "; ".join(f"{name}: {reason}" for name, reason in self.rejected)
        return failure(
            "root-device",
            f"{self.summary}: {listed}" if listed else f"{self.summary}: the machine has no disk",
            evidence=lines,
        )


def choose_root_disk(
    disks: Sequence[DiskReport], hints: RootDeviceHints | None = None
) -> Choice | NoDisk:
    """Choose by hints (all must match; the first in kernel order wins), else by the default rule.

    Operators are Metal3's: deviceName, hctl, serialNumber and wwn* equal, model and vendor
    contain, minSizeGigabytes at least (GiB), rotational equal; text without regard to case.
    Disks marked ``skip`` are never chosen.
    """
    ordered = sorted(disks, key=_kernel_order)
    if hints is None or hints == RootDeviceHints():
        return _smallest(ordered)
    rejected: list[tuple[str, str]] = []
    fitting: list[DiskReport] = []
    for disk in ordered:
        reason = _mismatch(disk, hints)
        if reason:
            rejected.append((disk.name, reason))
        else:
            fitting.append(disk)
    if not fitting:
        return NoDisk(f"no disk fits rootDeviceHints ({_describe(hints)})", tuple(rejected))
    also = ", ".join(disk.name for disk in fitting[1:])
    reason = f"fits rootDeviceHints ({_describe(hints)})"
    if also:
        reason += f"; first of {len(fitting)} that fit, the others: {also}"
    return Choice(fitting[0], reason)


def _smallest(disks: Sequence[DiskReport]) -> Choice | NoDisk:
    usable = [disk for disk in disks if not disk.skip and disk.size_bytes >= LEAST_BYTES]
    if not usable:
        rejected = tuple(
            (disk.name, disk.skip or f"{show_bytes(disk.size_bytes)} is less than 4 GiB")
            for disk in disks
        )
        return NoDisk("no disk of at least 4 GiB", rejected)
    best = min(usable, key=lambda disk: (disk.size_bytes, _kernel_order(disk)))
    if len(usable) == 1:
        return Choice(best, f"the only usable disk, {show_bytes(best.size_bytes)}")
    reason = f"the smallest of {len(usable)} disks of 4 GiB and more"
    return Choice(best, f"{reason}, {show_bytes(best.size_bytes)}")


def _kernel_order(disk: DiskReport) -> tuple[int, str]:
    """Sort sdb before sdaa."""
    return len(disk.name), disk.name


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


def _equal(wanted: str, *have: str) -> bool:
    return any(_folded(wanted) == _folded(value) for value in have if value)


def _contained(wanted: str, *have: str) -> bool:
    return any(_folded(wanted) in _folded(value) for value in have if value)


_TEXT: tuple[tuple[str, str, Callable[..., bool], str], ...] = (
    ("hctl", "hctl", _equal, "is not"),
    ("serial_number", "serialNumber", _equal, "is not"),
    ("wwn", "wwn", _equal, "is not"),
    ("wwn_with_extension", "wwnWithExtension", _equal, "is not"),
    ("wwn_vendor_extension", "wwnVendorExtension", _equal, "is not"),
    ("model", "model", _contained, "does not contain"),
    ("vendor", "vendor", _contained, "does not contain"),
)


def _mismatch(disk: DiskReport, hints: RootDeviceHints) -> str | None:
    if disk.skip:
        return disk.skip
    name = hints.device_name
    if name is not None and name not in _names(disk):
        return f"deviceName: it is {disk.name}, not {name}"
    for field, hint, matches, words in _TEXT:
        wanted, have = getattr(hints, field), getattr(disk, field)
        if wanted is not None and not matches(wanted, have):
            return f"{hint}: {have!r} {words} {wanted!r}"
    least = hints.min_size_gigabytes
    if least is not None and disk.size_bytes < least * GIB:
        return f"minSizeGigabytes: {disk.size_bytes / GIB:.2f} GiB is less than {least}"
    if hints.rotational is not None and disk.rotational != hints.rotational:
        turns = "rotational" if disk.rotational else "not rotational"
        return f"rotational: the disk is {turns}"
    return None


def _names(disk: DiskReport) -> set[str]:
    return {disk.name, disk.by_path or disk.name, *disk.alternate_names}


def _describe(hints: RootDeviceHints) -> str:
    words = []
    for field in hints.__struct_fields__:
        value = getattr(hints, field)
        if value is not None:
            head, *rest = field.split("_")
            text = str(value).lower() if isinstance(value, bool) else str(value)
            key = head + "".join(map(str.capitalize, rest))
            words.append(f"{key}={' '.join(text.split())}")
    return ", ".join(words)
