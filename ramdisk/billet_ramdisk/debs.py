"""Debian packages for a new root: resolved by the host's apt in a state of its own, then kept.

The host's proxies, credentials and keys apply (its /etc/apt is read); its installed packages,
its pins and its third-party sources do not.
"""

import re
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from billet_ramdisk.sources import parse_deb822, parse_one_line, render_deb822, select_release
from billet_ramdisk.steps import BuildError, Steps, turn

LISTS_FRESH_S = 6 * 3600
FIRST = ("?essential", "usr-is-merged")
"""``usr-is-merged``: a new root is merged from the start, so the converter (and perl) stay out."""

WAITING = "another build is fetching packages; waiting for it"

_INSTALL = re.compile(r"Inst (?P<name>\S+) \((?P<version>\S+) .*\[(?P<arch>\w+)\]\)")


class Deb(NamedTuple):
    """One package of a resolved set; ``path`` is its file in the cache."""

    name: str
    version: str
    path: Path


def host_codename(os_release: Path = Path("/etc/os-release")) -> str:
    """The build machine's Debian release, such as ``bookworm``."""
    match = re.search(r'^VERSION_CODENAME="?([a-z]+)', os_release.read_text(), re.MULTILINE)
    if not match:
        raise BuildError(f"{os_release} names no release: this build needs a Debian machine")
    return match[1]


def host_sources(codename: str, etc: Path = Path("/etc/apt")) -> str:
    """The machine's own sources for ``codename`` as deb822 text. BuildError when there are none."""
    stanzas = []
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]:
        if path.is_file() and path.suffix == ".list":
            stanzas += parse_one_line(path.read_text())
        elif path.is_file() and path.suffix == ".sources":
            stanzas += parse_deb822(path.read_text())
    kept = select_release(stanzas, codename)
    if not kept:
        raise BuildError(
            f"no package source for Debian {codename} (component main) in {etc}/sources.list "
            f"or {etc}/sources.list.d: add one, then try again"
        )
    return render_deb822(kept)


def parse_simulation(text: str, cache: Path) -> list[Deb]:
    """The packages of ``apt-get --simulate install`` output, in apt's order of installation."""
    found = []
    for line in text.splitlines():
        match = _INSTALL.match(line)
        if match:
            name = match["name"].partition(":")[0]
            version = match["version"]
            file = f"{name}_{version.replace(':', '%3a')}_{match['arch']}.deb"
            found.append(Deb(name, version, cache / file))
    return found


class DebCache:
    """Packages kept in one folder (``.deb`` files) with an apt state in its subfolder ``apt``."""

    def __init__(self, folder: Path, steps: Steps) -> None:
        self.folder = folder.resolve()
        self._steps = steps
        self._state = self.folder / "apt"
        for part in ("sources.d", "lists/partial", "cache"):
            (self._state / part).mkdir(parents=True, exist_ok=True)
        (self.folder / "partial").mkdir(exist_ok=True)
        (self._state / "status").write_bytes(b"")

    def resolve(self, packages: list[str]) -> tuple[list[Deb], list[Deb]]:
        """Essential packages, and ``packages`` with what they depend on; all of them fetched."""
        with turn(self._state / "turn", lambda: self._steps.say(WAITING)):
            return self._resolve(packages)

    def _resolve(self, packages: list[str]) -> tuple[list[Deb], list[Deb]]:
        codename = host_codename()
        sources = self._state / "sources.d" / "debian.sources"
        text = host_sources(codename)
        changed = not sources.exists() or sources.read_text() != text
        sources.write_text(text)
        self._update(force=changed)
        try:
            self._download(packages)
        except BuildError:
            self._steps.say("a package could not be fetched; refreshing the lists once")
            self._update(force=True)
            self._download_or_explain(packages)
        essential = parse_simulation(self._simulate([*FIRST]), self.folder)
        everything = parse_simulation(self._simulate([*FIRST, *packages]), self.folder)
        first = {deb.name for deb in essential}
        return essential, [deb for deb in everything if deb.name not in first]

    def _update(self, *, force: bool) -> None:
        stamp = self._state / "updated"
        fresh = stamp.exists() and time.time() - stamp.stat().st_mtime < LISTS_FRESH_S
        if fresh and not force:
            return
        self._steps.say("package lists")
        try:
            self._steps.run([*self._apt(), "update", "--error-on=any"])
        except BuildError:
            if not stamp.exists():
                raise
            self._steps.say("the lists could not be refreshed; going on with the earlier ones")
            return
        stamp.touch()

    def _download(self, packages: list[str]) -> None:
        argv = [*self._apt(), "--yes", "--download-only", "install", *FIRST, *packages]
        before = set(self.folder.glob("*.deb"))
        self._steps.run(argv)
        new = set(self.folder.glob("*.deb")) - before
        size_bytes = sum(path.stat().st_size for path in new)
        self._steps.say(f"packages: {len(new)} fetched, {size_bytes / 1e6:.0f} MB")

    def _download_or_explain(self, packages: list[str]) -> None:
        try:
            self._download(packages)
        except BuildError as error:
            if not any(name.startswith("firmware-") for name in packages):
                raise
            raise BuildError(
                f"{error}\nDebian has firmware in the archive component non-free-firmware: is it"
                " named in this machine's apt sources (/etc/apt/sources.list, sources.list.d)?"
            ) from error

    def _simulate(self, packages: list[str]) -> str:
        argv = [*self._apt(), "--simulate", "install", *packages]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode != 0:
            raise BuildError(f"apt-get could not resolve the packages:\n{done.stderr[-2000:]}")
        return done.stdout

    def _apt(self) -> list[str]:
        state, off = self._state, "/dev/null"
        options = {
            "Dir::Etc::SourceList": off,
            "Dir::Etc::SourceParts": state / "sources.d",
            "Dir::Etc::Preferences": off,
            "Dir::Etc::PreferencesParts": off,
            "Dir::State": state,
            "Dir::State::Lists": state / "lists",
            "Dir::State::status": state / "status",
            "Dir::Cache": state / "cache",
            "Dir::Cache::Archives": self.folder,
            "Dir::Log": state,
            "APT::Sandbox::User": "root",
            "APT::Install-Recommends": "false",
            "APT::Get::AllowUnauthenticated": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Acquire::http::Timeout": "60",
            "Dpkg::Use-Pty": "false",
        }
        argv = ["apt-get", "--quiet=2"]
        for name, value in options.items():
            argv += ["-o", f"{name}={value}"]
        return argv
