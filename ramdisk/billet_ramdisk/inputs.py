"""What a build depends on, as one digest: nothing is built again until it changes."""

import hashlib
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SKIPPED = {"__pycache__"}


def digest_files(paths: Iterable[Path], base: Path) -> str:
    """sha256 over names (relative to ``base``), executable bits and contents; order is by name.

    A directory stands for all files below it, without byte code.
    """
    files: set[Path] = set()
    for path in paths:
        found = path.rglob("*") if path.is_dir() else [path]
        files.update(p for p in found if p.is_file() and not _SKIPPED & set(p.parts))
    total = hashlib.sha256()
    for path in sorted(files):
        mode = "x" if path.stat().st_mode & 0o100 else "-"
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(base)} {mode} {content}\n".encode())
    return total.hexdigest()


def digest_texts(*texts: str) -> str:
    """sha256 over texts, each with its length, so that no two lists of texts look alike."""
    total = hashlib.sha256()
    for text in texts:
        total.update(f"{len(text)}\n{text}\n".encode())
    return total.hexdigest()


def parse_constraints(text: str) -> dict[str, str]:
    """A pip requirements file with hashes: normalised name -> its whole entry."""
    found: dict[str, str] = {}
    for entry in text.replace("\\\n", " ").splitlines():
        line = " ".join(entry.split("#", 1)[0].split())
        match = _NAME.match(line)
        if match:
            found[normalise(match[0])] = line
    return found


def normalise(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def project_requirements(pyproject: Path) -> list[str]:
    """Normalised names of a project's run-time dependencies."""
    data = tomllib.loads(pyproject.read_text())
    found = [_NAME.match(text) for text in data["project"].get("dependencies", [])]
    return [normalise(match[0]) for match in found if match]
