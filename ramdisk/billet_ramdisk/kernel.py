"""Kernel and modules of the ramdisk: which modules a server needs, and what those depend on.

Run as a program: ``python -m billet_ramdisk.kernel ROOT --debs DIR --log FILE --patterns FILE``.
The kernel package is unpacked, not installed: nothing in a ramdisk needs its scripts.
"""

import argparse
import fnmatch
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from billet_ramdisk.debs import Deb, DebCache
from billet_ramdisk.steps import BuildError, Steps

KERNEL_PACKAGE = "linux-image-amd64"
COMPRESSION = ("zstd", "-15", "--quiet", "--rm")
"""Modules stay compressed in the ramdisk's memory; kmod unpacks the few that a machine needs."""


def parse_patterns(text: str) -> tuple[list[str], list[str]]:
    """Wanted and unwanted (``!``) globs, one a line, relative to ``kernel/``; ``#`` comments."""
    wanted, unwanted = [], []
    for line in text.splitlines():
        glob = line.split("#", 1)[0].strip()
        if glob.startswith("!"):
            unwanted.append(glob[1:])
        elif glob:
            wanted.append(glob)
    return wanted, unwanted


def parse_dependencies(text: str) -> dict[str, list[str]]:
    """``modules.dep``: module path -> paths of the modules it needs."""
    found = {}
    for line in text.splitlines():
        module, _, needs = line.partition(":")
        found[module] = needs.split()
    return found


def select_modules(
    dependencies: Mapping[str, Iterable[str]], wanted: list[str], unwanted: list[str]
) -> set[str]:
    """Paths of the modules that match, and of all they depend on (``!`` globs bar only matches).

    Raises BuildError for a wanted glob that matches nothing, so that the list stays true.
    """
    chosen: set[str] = set()
    idle = []
    for glob in wanted:
        matches = [path for path in dependencies if fnmatch.fnmatch(path, f"kernel/{glob}")]
        chosen.update(matches)
        if not matches:
            idle.append(glob)
    if idle:
        raise BuildError(f"patterns that match no module of this kernel: {' '.join(idle)}")
    chosen = {
        path
        for path in chosen
        if not any(fnmatch.fnmatch(path, f"kernel/{glob}") for glob in unwanted)
    }
    waiting = list(chosen)
    while waiting:
        for need in dependencies.get(waiting.pop(), ()):
            if need not in chosen:
                chosen.add(need)
                waiting.append(need)
    return chosen


def install_kernel(root: Path, deb: Deb, patterns: str, steps: Steps) -> str:
    """Put ``boot/vmlinuz`` and the chosen modules into ``root``; returns the kernel's release."""
    with tempfile.TemporaryDirectory(prefix="billet-kernel-") as scratch:
        steps.run(["dpkg-deb", "-x", str(deb.path), scratch])
        release = next((Path(scratch) / "lib/modules").iterdir()).name
        source = Path(scratch) / "lib/modules" / release
        steps.run(["depmod", "-b", scratch, release])
        dependencies = parse_dependencies((source / "modules.dep").read_text())
        chosen = select_modules(dependencies, *parse_patterns(patterns))
        target = root / "usr/lib/modules" / release
        for path in sorted(chosen):
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / path, target / path)
        steps.run(["find", str(target), "-name", "*.ko", "-exec", *COMPRESSION, "{}", "+"])
        for index in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
            shutil.copy(source / index, target / index)
        (root / "boot").mkdir(exist_ok=True)
        shutil.copy(Path(scratch) / "boot" / f"vmlinuz-{release}", root / "boot/vmlinuz")
    steps.run(["depmod", "-b", str(root), release])
    # kmod reads the binary indexes and modules.order; the text forms are for people
    for name in ("alias", "dep", "symbols", "builtin.alias"):
        (target / f"modules.{name}").unlink(missing_ok=True)
    names = sorted(path.removeprefix("kernel/") for path in chosen)
    steps.log.with_name("modules.txt").write_text("".join(f"{name}\n" for name in names))
    steps.say(f"kernel {release}: {len(chosen)} of {len(dependencies)} modules")
    return release


def _is_image(name: str) -> bool:
    return name.startswith("linux-image-") and name != KERNEL_PACKAGE


def main() -> int:
    """Command line; 0 when kernel and modules are in place, 1 with a reason on stderr."""
    parser = argparse.ArgumentParser(prog="billet_ramdisk.kernel", description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--debs", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--patterns", type=Path, required=True)
    options = parser.parse_args()
    steps = Steps("kernel", options.log)
    try:
        _, others = DebCache(options.debs, steps).resolve([KERNEL_PACKAGE])
        deb = next(deb for deb in others if _is_image(deb.name))
        install_kernel(options.root, deb, options.patterns.read_text(), steps)
    except (BuildError, OSError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
