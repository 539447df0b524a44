"""What a lab, a demo or a test may leave behind on a machine, before and after."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from billet_lab import processes

_NAMES = ("qemu-system-", "dnsmasq", "billet")


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Sets of things as people would name them, comparable."""

    namespaces: frozenset[str]
    mounts: frozenset[str]
    taps: frozenset[str]
    loop_devices: frozenset[str]
    run_dirs: frozenset[str]
    processes: frozenset[tuple[int, int, str]]


def snapshot() -> Snapshot:
    """What there is now. Needs no privileges beyond reading /proc and /sys."""
    return Snapshot(
        namespaces=frozenset(_entries(Path("/run/netns"))),
        mounts=frozenset(_mounts()),
        taps=frozenset(
            name
            for name in _entries(Path("/sys/class/net"))
            if Path("/sys/class/net", name, "tun_flags").exists()
        ),
        loop_devices=frozenset(_loop_devices()),
        run_dirs=frozenset(
            name for name in _entries(Path("/run")) if name.startswith("billet-lab-")
        ),
        processes=frozenset(_processes()),
    )


def difference(before: Snapshot, after: Snapshot) -> list[str]:
    """What is there now and was not before; empty when nothing was left behind."""
    new = [
        *(f"network namespace {name}" for name in sorted(after.namespaces - before.namespaces)),
        *(f"mount {point}" for point in sorted(after.mounts - before.mounts)),
        *(f"tap {name}" for name in sorted(after.taps - before.taps)),
        *(f"loop device {name}" for name in sorted(after.loop_devices - before.loop_devices)),
        *(f"directory /run/{name}" for name in sorted(after.run_dirs - before.run_dirs)),
    ]
    new += [f"process {pid}: {line}" for pid, _, line in sorted(after.processes - before.processes)]
    return new


def _entries(directory: Path) -> list[str]:
    try:
        return [path.name for path in directory.iterdir()]
    except OSError:
        return []


def _mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        yield line.split()[4]


def _loop_devices() -> Iterator[str]:
    for device in Path("/sys/block").glob("loop*"):
        try:
            backing = (device / "loop" / "backing_file").read_text().strip()
        except OSError:
            continue  # not in use
        yield f"{device.name} ({backing})"


def _processes() -> Iterator[tuple[int, int, str]]:
    for entry in _entries(Path("/proc")):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            words = Path("/proc", entry, "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue  # ended meanwhile
        argv = words.rstrip("\0").split("\0")
        known = processes.identity(int(entry))
        if known is not None and _is_ours(argv):
            yield (*known, " ".join(argv)[:200])


def _is_ours(argv: list[str]) -> bool:
    """QEMU, dnsmasq, `billet …` or ``python -m billet_…``, not a tool that mentions them."""
    names = [Path(argv[0]).name]
    if names[0].startswith("python"):
        names += [Path(word).name for word in argv[1:3]]
    return any(name.startswith(_NAMES) for name in names)
