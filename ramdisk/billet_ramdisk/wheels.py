"""The agent and its dependencies as wheels, fetched and built outside the ramdisk.

Versions and digests come from ``tools/constraints.txt``; pip refuses anything else.
"""

import hashlib
import os
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from billet_ramdisk.inputs import normalise, parse_constraints, project_requirements
from billet_ramdisk.steps import BuildError, Steps

_REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)[^;]*(?:;(.*))?")


def pinned_closure(pyproject: Path, constraints: Path) -> list[str]:
    """Constraint entries of a project's dependencies and of what these need, sorted by name.

    What a dependency needs is read from its installed metadata in this environment; a
    requirement for another Python or platform, or an extra, is left out when it is not pinned.
    """
    pins = parse_constraints(constraints.read_text())
    waiting = project_requirements(pyproject)
    chosen: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        if name in chosen:
            continue
        if name not in pins:
            raise BuildError(f"{name}, which the agent needs, is not pinned in {constraints}")
        chosen[name] = pins[name]
        waiting += [need for need in _requirements(name) if need in pins]
    return [chosen[name] for name in sorted(chosen)]


def _requirements(name: str) -> list[str]:
    try:
        lines = distribution(name).requires or []
    except PackageNotFoundError as error:
        raise BuildError(
            f"{name} is not installed for {sys.executable}: run tools/setup"
        ) from error
    found = []
    for line in lines:
        match = _REQUIREMENT.match(line)
        if match and "extra" not in (match[2] or ""):
            found.append(normalise(match[1]))
    return found


def collect_wheels(
    agent: Path, pins: list[str], python: str, folder: Path, steps: Steps
) -> list[Path]:
    """Wheels of ``pins`` for CPython ``python`` (such as ``3.11``) and of ``agent``, in ``folder``.

    Wheels that are there already with a pinned digest are used again, without network.
    """
    cache = folder / "pinned"
    cache.mkdir(parents=True, exist_ok=True)
    requirements = folder / "requirements.txt"
    requirements.write_text("".join(pin + "\n" for pin in pins))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    environment = {**os.environ, "PIP_CONSTRAINT": os.environ.get("PIP_CONSTRAINT", "")}
    wheels = find_pinned(pins, cache)
    if wheels is None:
        steps.say(f"agent layer: fetching {len(pins)} wheels")
        target = ["--python-version", python, "--implementation", "cp", "--only-binary=:all:"]
        for glibc in ("2014", "_2_17", "_2_28", "_2_34"):
            target += ["--platform", f"manylinux{glibc}_x86_64"]
        fetch = ["download", "--no-deps", "--require-hashes", "--requirement", str(requirements)]
        steps.run([*pip, *fetch, *target, "--dest", str(cache)], env=environment)
        wheels = find_pinned(pins, cache)
        if wheels is None:
            raise BuildError(f"pip fetched other wheels than those pinned; remove {cache}")
    own = folder / "own"
    for stale in own.glob("*.whl"):
        stale.unlink()
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(own), str(agent)]
    steps.run([*pip, *build], env=environment)
    return wheels + sorted(own.glob("*.whl"))


def find_pinned(pins: list[str], cache: Path) -> list[Path] | None:
    """The wheel of each pin in ``cache``, its digest checked; None when one is not there."""
    there = {_identity(path): path for path in sorted(cache.glob("*.whl"))}
    found = []
    for pin in pins:
        name, _, version = pin.split()[0].partition("==")
        path = there.get((normalise(name), version))
        if path is None or f"sha256:{_sha256(path)}" not in pin:
            return None
        found.append(path)
    return found


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _identity(wheel: Path) -> tuple[str, str]:
    name, version = wheel.name.split("-")[:2]
    return normalise(name), version
