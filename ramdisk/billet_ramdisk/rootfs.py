"""A Debian root directory from packages: unpacked and configured, without network inside.

Run as a program: ``python -m billet_ramdisk.rootfs ROOT --debs DIR --log FILE PACKAGE...``
(as root). The order is mmdebstrap's: the essential packages' files first by plain extraction so
that their own scripts can run, then they are installed properly, then all the others at once.
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from billet_ramdisk.debs import Deb, DebCache
from billet_ramdisk.steps import BuildError, Steps

MERGED = ("bin", "sbin", "lib", "lib64")
DPKG_OPTIONS = ("--force-unsafe-io", "--force-depends", "--force-confdef", "--force-confold")
DOCUMENTATION = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
    "/usr/share/bug/*",
    "/usr/share/doc-base/*",
    "/usr/share/bash-completion/*",
)


def make_root(root: Path, cache: DebCache, packages: list[str], steps: Steps) -> list[Deb]:
    """Install ``packages`` (and the essential set) into the empty directory ``root``.

    Documentation and translations are left out. Services do not start. Returns what was
    installed. Needs root, and a mount namespace that the caller throws away.
    """
    essential, rest = cache.resolve(packages)
    steps.say(f"root: {len(essential)} essential packages and {len(rest)} others")
    _prepare(root)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda deb: _extract(deb, root), essential))
    mounted = _mount(root, cache.folder)
    try:
        _dpkg(root, steps, "--install", [deb.path.name for deb in essential])
        steps.say("root: essential packages ready")
        _dpkg(root, steps, "--unpack", [deb.path.name for deb in rest])
        steps.say("root: unpacked")
        _dpkg(root, steps, "--configure", ["--pending"])
    finally:
        for point in reversed(mounted):
            subprocess.run(["umount", str(point)], check=False)
    (root / "debs").rmdir()
    for leftover in ("usr/sbin/policy-rc.d", "etc/dpkg/dpkg.cfg.d/billet"):
        (root / leftover).unlink()
    steps.say("root: configured")
    return [*essential, *rest]


def _prepare(root: Path) -> None:
    root.chmod(0o755)
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in ("proc", "sys", "dev", "debs", "var/lib/dpkg/info", "var/lib/dpkg/updates"):
        (root / name).mkdir(parents=True)
    for name in ("status", "available"):
        (root / "var/lib/dpkg" / name).touch()
    excludes = root / "etc/dpkg/dpkg.cfg.d/billet"
    excludes.parent.mkdir(parents=True)
    excludes.write_text(
        "".join(f"path-exclude={glob}\n" for glob in DOCUMENTATION)
        + "path-include=/usr/share/doc/*/copyright\n"
    )
    policy = root / "usr/sbin/policy-rc.d"
    policy.parent.mkdir(parents=True, exist_ok=True)
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)


def _extract(deb: Deb, root: Path) -> None:
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(deb.path)], stdout=subprocess.PIPE
    ) as source:
        unpack = subprocess.run(
            [
                *("tar", "-C", str(root), "-x", "--keep-directory-symlink"),
                *(f"--exclude=.{glob}" for glob in DOCUMENTATION),
            ],
            stdin=source.stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    if source.returncode or unpack.returncode:
        raise BuildError(f"{deb.path} cannot be unpacked: {unpack.stderr.strip()}\nremove it")


def _mount(root: Path, debs: Path) -> list[Path]:
    mounts = [
        (["-t", "proc", "proc"], root / "proc"),
        (["--bind", "/dev"], root / "dev"),
        (["--bind", "-o", "ro", str(debs)], root / "debs"),
    ]
    for arguments, point in mounts:
        subprocess.run(["mount", *arguments, str(point)], check=True)
    return [point for _, point in mounts]


def _dpkg(root: Path, steps: Steps, action: str, arguments: list[str]) -> None:
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "DEBIAN_FRONTEND": "noninteractive",
        "DEBCONF_NONINTERACTIVE_SEEN": "true",
        "LC_ALL": "C.UTF-8",
        "HOME": "/root",
        "INITRD": os.environ.get("INITRD", "Yes"),
    }
    command = ["chroot", str(root), "sh", "-c", 'cd /debs && exec "$@"', "sh"]
    steps.run([*command, "dpkg", *DPKG_OPTIONS, action, *arguments], env=environment)


def main() -> int:
    """Command line; 0 when the root is complete, 1 with a reason on stderr."""
    parser = argparse.ArgumentParser(prog="billet_ramdisk.rootfs", description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("packages", nargs="+")
    parser.add_argument("--debs", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--list", type=Path, help="write 'name version' lines to this file")
    options = parser.parse_args()
    steps = Steps("root", options.log)
    try:
        installed = make_root(options.root, DebCache(options.debs, steps), options.packages, steps)
    except (BuildError, OSError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    if options.list:
        lines = sorted(f"{deb.name} {deb.version}\n" for deb in installed)
        options.list.write_text("".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
