"""The demo's OS image: ``python -m billet_lab.os_image --out build/image``.

Debian with cloud-init as ``billet-demo.qcow2``, bootable in BIOS and UEFI mode, and two small
images beside it; ``images.md5sum`` and ``images.sha256sum`` list all three. Built from Debian
packages (the machine's own apt sources) and again only when its inputs change.
"""

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from billet_lab import os_image_disk as disk
from billet_lab import os_image_root

TOP = Path(__file__).resolve().parents[3]
IMAGE = "billet-demo.qcow2"
SMALL_RAW = "billet-scratch.raw"
SMALL_QCOW2 = "billet-scratch.qcow2"
IMAGES = (IMAGE, SMALL_QCOW2, SMALL_RAW)
SUM_FILES = ("images.md5sum", "images.sha256sum")
DISK_MIB = 2048
SMALL_MIB = 16
INSIDE = "BILLET_OS_IMAGE_INSIDE"


class ImageBuildError(Exception):
    """The image could not be built; the text says what failed and where the log is."""


def inputs_digest() -> str:
    """sha256 over the sources that decide what the image is."""
    total = hashlib.sha256()
    shared = ("debs", "rootfs", "sources")
    paths = sorted(Path(__file__).parent.glob("os_image*.py"))
    paths += [TOP / "ramdisk/billet_ramdisk" / f"{name}.py" for name in shared]
    for path in paths:
        total.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def is_current(out: Path, digest: str) -> bool:
    """Whether ``out`` holds a complete image made from inputs with ``digest``."""
    try:
        manifest = json.loads((out / "manifest.json").read_text())
        sizes = manifest["bytes"]
        return bool(
            manifest["inputs"] == digest
            and all((out / name).stat().st_size == sizes[name] for name in IMAGES)
            and all((out / name).is_file() for name in SUM_FILES)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def render_sums(digests: dict[str, str]) -> str:
    """A sum file in the layout of md5sum(1): digest, two blanks, name; sorted by name."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))


class _Progress:
    def __init__(self, log: Path) -> None:
        self.log = log
        self._start = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start

    def say(self, text: str) -> None:
        sys.stderr.write(f"[image] {self.elapsed_s:5.1f} s  {text}\n")
        sys.stderr.flush()


def build(out: Path, debs: Path) -> dict[str, Any]:
    """Build all images into ``out``; returns the manifest. Needs root and its own mounts.

    Raises ImageBuildError.
    """
    progress = _Progress(out / "build.log")
    with tempfile.TemporaryDirectory(prefix="billet-image-") as name:
        scratch = Path(name)
        disk.run_quietly(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(scratch)])
        try:
            layout = disk.new_layout(DISK_MIB)
            root = scratch / "root"
            root.mkdir()
            _install(root, debs, out)
            progress.say("packages installed; initramfs and settings")
            release = os_image_root.complete_root(root, layout, disk.run_quietly)
            progress.say("disk: partitions, root file system, boot loaders")
            raw = scratch / "disk.raw"
            disk.make_disk(raw, layout, root, scratch, disk.run_quietly)
            shutil.rmtree(root)
            progress.say("compressing to qcow2")
            disk.convert(raw, out / IMAGE, disk.run_quietly)
            _make_small(out, scratch)
        finally:
            disk.run_quietly(["umount", "--lazy", str(scratch)])
    manifest = _describe(out, release, progress.elapsed_s)
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    progress.say(f"ready: {IMAGE} {manifest['bytes'][IMAGE] / 1e6:.0f} MB in {out}")
    return manifest


def _install(root: Path, debs: Path, out: Path) -> None:
    command = [sys.executable, "-m", "billet_ramdisk.rootfs", str(root), "--debs", str(debs)]
    command += ["--log", str(out / "build.log"), "--list", str(out / "packages.txt")]
    environment = {
        **os.environ,
        "PYTHONPATH": str(TOP / "ramdisk"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "INITRD": "No",
    }
    done = subprocess.run([*command, *os_image_root.PACKAGES], env=environment, check=False)
    if done.returncode != 0:
        raise ImageBuildError(f"the packages could not be installed; see {out / 'build.log'}")


def _make_small(out: Path, scratch: Path) -> None:
    raw = scratch / "small.raw"
    with raw.open("wb") as file:
        file.truncate(SMALL_MIB * disk.MIB)
    table = ["sgdisk", "--clear", "--new=1:2048:0", "--typecode=1:0700", str(raw)]
    disk.run_quietly(table)
    shutil.copy(raw, out / SMALL_RAW)
    disk.convert(raw, out / SMALL_QCOW2, disk.run_quietly)


def _describe(out: Path, release: str, seconds: float) -> dict[str, Any]:
    digests: dict[str, dict[str, str]] = {}
    for kind, sums in (("md5", SUM_FILES[0]), ("sha256", SUM_FILES[1])):
        digests[kind] = {name: _digest(out / name, kind) for name in IMAGES}
        (out / sums).write_text(render_sums(digests[kind]))
    packages = (out / "packages.txt").read_bytes()
    return {
        "inputs": inputs_digest(),
        "kernel": release,
        "bytes": {name: (out / name).stat().st_size for name in IMAGES},
        "virtual_bytes": DISK_MIB * disk.MIB,
        "sha256": digests["sha256"],
        "packages": len(packages.splitlines()),
        "packages_sha256": hashlib.sha256(packages).hexdigest(),
        "build_s": round(seconds, 1),
    }


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


@contextmanager
def _turn(out: Path) -> Iterator[None]:
    """Two builds into one folder take turns; the second then finds its work done."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "turn").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write(f"[image] another build is at work in {out}; waiting for it\n")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _give_back(folder: Path) -> None:
    """Make ``folder`` and what is in it belong to the person who called sudo, if one did."""
    uid, gid = os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID")
    if uid and gid and folder.exists():
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, int(uid), int(gid), follow_symlinks=False)


def _enter_namespace(arguments: list[str]) -> int:
    """Run this program again as root in a mount namespace that ends with it."""
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n", "--preserve-env"]
    command = [*prefix, "unshare", "--mount", "--propagation", "private", "--fork"]
    command += ["--kill-child", sys.executable, "-m", "billet_lab.os_image", *arguments]
    try:
        done = subprocess.run(command, env={**os.environ, INSIDE: "1"}, check=False)
    except KeyboardInterrupt:
        return 130
    if done.returncode != 0 and prefix:
        sys.stderr.write("image: building needs root (or sudo that asks nothing)\n")
    return done.returncode


def main() -> int:
    """Command line; 0 when the images are there, 1 with a reason on stderr."""
    parser = argparse.ArgumentParser(prog="python -m billet_lab.os_image", description=__doc__)
    parser.add_argument("--out", type=Path, default=TOP / "build/image")
    parser.add_argument("--debs", type=Path, default=TOP / "build/debs", help="package cache")
    parser.add_argument("--force", action="store_true", help="build although nothing changed")
    options = parser.parse_args()
    out = options.out.resolve()
    if not options.force and is_current(out, inputs_digest()):
        return 0
    if not os.environ.get(INSIDE):
        return _enter_namespace(sys.argv[1:])
    try:
        with _turn(out):
            if options.force or not is_current(out, inputs_digest()):
                try:
                    build(out, options.debs.resolve())
                finally:
                    _give_back(out)
                    _give_back(options.debs.resolve())
    except (ImageBuildError, RuntimeError, ValueError, OSError) as error:
        sys.stderr.write(f"image: not built: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("image: not built: interrupted\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
