"""The ramdisk: base layer (packages, by diskimage-builder) and agent layer, joined and described.

Each layer is built again only when its own inputs change; an agent change costs seconds.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from billet_ramdisk import layers
from billet_ramdisk.dib import element_folders, run_elements
from billet_ramdisk.inputs import digest_files, digest_texts
from billet_ramdisk.steps import BuildError, Steps, turn
from billet_ramdisk.wheels import collect_wheels, pinned_closure

BASE_MODULES = ("debs", "kernel", "layers", "rootfs", "sources", "steps")
"""What of this package has a hand in the base layer."""

_FIRMWARE = re.compile(r"firmware-[a-z0-9][a-z0-9.+-]*")

SITE = Path("usr/local/lib")
LAUNCHER = """#!/usr/bin/python3 -s
import sys

from billet_agent.__main__ import main

sys.exit(main())
"""


class Repository(NamedTuple):
    """The folders of a clone that the build reads."""

    top: Path

    @property
    def ramdisk(self) -> Path:
        """Elements and this package."""
        return self.top / "ramdisk"

    @property
    def agent(self) -> Path:
        """The agent's distribution."""
        return self.top / "agent"

    @property
    def constraints(self) -> Path:
        """Pinned versions of everything from the package index."""
        return self.top / "tools" / "constraints.txt"


class Extras(NamedTuple):
    """What goes into the base layer beside our own: further elements, packages with firmware.

    Elements are looked for in ``ramdisk/elements``, in the folders of ``ELEMENTS_PATH``, and
    among those that come with diskimage-builder.
    """

    elements: tuple[str, ...] = ()
    firmware: tuple[str, ...] = ()


def check_firmware(names: list[str]) -> None:
    """Raise BuildError for a name that is no Debian package of firmware."""
    for name in names:
        if not _FIRMWARE.fullmatch(name):
            raise BuildError(
                f"--firmware {name}: Debian's packages of firmware are named firmware-…; any other "
                "package belongs in an element (--element)"
            )


class Digests(NamedTuple):
    """What each layer was built from."""

    base: str
    agent: str


def input_digests(repository: Repository, pins: list[str], extras: Extras) -> Digests:
    """Digests of the inputs of both layers; the agent's includes the base's."""
    source = repository.ramdisk
    code = source / "billet_ramdisk"
    paths = [source / "elements", *(code / f"{name}.py" for name in BASE_MODULES)]
    further = [
        digest_files([folder / name], folder)
        for folder in element_folders(source / "elements")[1:]
        for name in extras.elements
        if (folder / name).is_dir()
    ]
    base = digest_texts(digest_files(paths, source), *extras.elements, *further, *extras.firmware)
    paths = [code, repository.agent / "src", repository.agent / "pyproject.toml"]
    return Digests(base, digest_texts(base, digest_files(paths, repository.top), *pins))


def build(
    repository: Repository, out: Path, debs: Path, *, force: bool, extras: Extras
) -> dict[str, Any]:
    """Build what is out of date into ``out``; returns the manifest. Raises BuildError."""

    def wait() -> None:
        sys.stderr.write(f"[ramdisk] another build is at work in {out}; waiting for it\n")

    with turn(out / "turn", wait):
        return _build(repository, out, debs, force=force, extras=extras)


def _build(
    repository: Repository, out: Path, debs: Path, *, force: bool, extras: Extras
) -> dict[str, Any]:
    manifest_path = out / "manifest.json"
    pins = pinned_closure(repository.agent / "pyproject.toml", repository.constraints)
    digests = input_digests(repository, pins, extras)
    manifest = read_manifest(manifest_path)
    if not force and manifest.get("inputs") == digests.agent and _complete(out, manifest):
        return manifest
    steps = Steps("ramdisk", out / "build.log")
    base = out / "base"
    marker = base / "inputs"
    if force or not marker.exists() or marker.read_text() != digests.base:
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir()
        _build_base(repository, base, debs, extras, steps)
        marker.write_text(digests.base)
    else:
        steps.say("base layer: unchanged")
    _build_agent(repository, base, out, pins, steps)
    manifest_path.unlink(missing_ok=True)
    layers.join([base / "base.cpio.zst", out / "agent.cpio.zst"], out / "initramfs")
    shutil.copy(base / "vmlinuz", out / "vmlinuz")
    manifest = describe(out, base, digests, steps.elapsed_s) | {"firmware": extras.firmware}
    manifest_path.write_text(json.dumps(manifest, indent=2) + "\n")
    size = manifest["initramfs_bytes"] + manifest["vmlinuz_bytes"]
    steps.say(f"ready: kernel and initramfs {size / 1e6:.1f} MB in {out}")
    return manifest


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of an earlier build, or an empty one."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def describe(out: Path, base: Path, digests: Digests, seconds: float) -> dict[str, Any]:
    """The manifest: inputs, sizes in bytes, digests of both files, kernel release, packages."""
    packages = (base / "packages.txt").read_bytes()
    return {
        "inputs": digests.agent,
        "base_inputs": digests.base,
        "kernel": (base / "release").read_text().strip(),
        "vmlinuz_bytes": (out / "vmlinuz").stat().st_size,
        "initramfs_bytes": (out / "initramfs").stat().st_size,
        "base_layer_bytes": (base / "base.cpio.zst").stat().st_size,
        "agent_layer_bytes": (out / "agent.cpio.zst").stat().st_size,
        "unpacked_bytes": sum(
            layer.stat().st_size for layer in (base / "base.cpio", out / "agent.cpio")
        ),
        "vmlinuz_sha256": _sha256(out / "vmlinuz"),
        "initramfs_sha256": _sha256(out / "initramfs"),
        "packages": len(packages.splitlines()),
        "packages_sha256": hashlib.sha256(packages).hexdigest(),
        "build_s": round(seconds, 1),
    }


def _complete(out: Path, manifest: dict[str, Any]) -> bool:
    """Both files are there with the sizes that the manifest tells."""
    sizes = {"vmlinuz": "vmlinuz_bytes", "initramfs": "initramfs_bytes"}
    return all(
        (out / name).is_file() and (out / name).stat().st_size == manifest.get(key)
        for name, key in sizes.items()
    )


def _build_base(
    repository: Repository, base: Path, debs: Path, extras: Extras, steps: Steps
) -> None:
    debs.mkdir(parents=True, exist_ok=True)
    run_elements(
        ["billet-base", *extras.elements],
        element_folders(repository.ramdisk / "elements"),
        steps,
        {
            "BILLET_DEBS": str(debs),
            "BILLET_OUT": str(base),
            "BILLET_FIRMWARE": " ".join(extras.firmware),
            "PYTHONPATH": str(repository.ramdisk),
        },
    )
    archive = base / "base.cpio"
    if not archive.exists() or not (base / "vmlinuz").exists():
        raise BuildError(f"diskimage-builder left no base layer in {base}; see {steps.log}")
    steps.say(f"base layer: {archive.stat().st_size / 1e6:.0f} MB, compressing")
    layers.compress(archive, base / "base.cpio.zst")


def _build_agent(
    repository: Repository, base: Path, out: Path, pins: list[str], steps: Steps
) -> None:
    python = (base / "python").read_text().strip()
    steps.say(f"agent layer: wheels for Python {python}")
    wheels = collect_wheels(repository.agent, pins, python, out / "wheels", steps)
    with tempfile.TemporaryDirectory(prefix="billet-agent-layer-") as scratch:
        root = Path(scratch) / "root"
        root.mkdir()
        unpack = ["cpio", "--extract", "--quiet", "--make-directories", "--no-absolute-filenames"]
        with (base / "base.cpio").open("rb") as archive:
            subprocess.run(unpack, cwd=root, stdin=archive, check=True)
        install_agent(root, wheels, python, steps)
        stage = Path(scratch) / "layer"
        collect_layer(root, stage)
        layers.pack(stage, out / "agent.cpio")
    layers.compress(out / "agent.cpio", out / "agent.cpio.zst")
    steps.say(f"agent layer: {(out / 'agent.cpio.zst').stat().st_size / 1e6:.1f} MB")


def install_agent(root: Path, wheels: list[Path], python: str, steps: Steps) -> None:
    """Unpack ``wheels`` into ``root``, write the launcher, compile what the agent imports."""
    site = root / SITE / f"python{python}" / "dist-packages"
    site.mkdir(parents=True, exist_ok=True)
    for wheel in wheels:
        steps.run(["python3", "-m", "zipfile", "-e", str(wheel), str(site)])
    launcher = root / "usr/local/bin/billet-agent"
    launcher.parent.mkdir(parents=True, exist_ok=True)
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)
    for name in ("tests", "test"):
        for folder in site.glob(f"*/{name}"):
            shutil.rmtree(folder)
    for pattern in ("*/*.c", "*/*.pyx", "*/*.pyi", "*/*.pxd", "*/*.h", "*/*/*.pyi"):
        for source in site.glob(pattern):
            source.unlink()
    environment = {"PATH": "/usr/sbin:/usr/bin", "LC_ALL": "C.UTF-8"}
    compiler = "/usr/lib/billet/compile-imports"
    steps.run(["chroot", str(root), compiler, "billet_agent.__main__"], env=environment)


def collect_layer(root: Path, stage: Path) -> None:
    """Hard-link into ``stage`` what the agent's installation added to the base in ``root``."""
    added = [root / SITE, root / "usr/local/bin", *root.glob("usr/lib/python3*")]
    for folder in added:
        for path in folder.rglob("*"):
            inside = path.relative_to(root)
            is_code = "__pycache__" in path.parts
            if not path.is_file() or not (is_code or inside.is_relative_to("usr/local")):
                continue
            target = stage / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
