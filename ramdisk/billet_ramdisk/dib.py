"""diskimage-builder as a child process: our elements, our folders, progress lines from its log."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from billet_ramdisk.steps import BuildError, Steps

ELEMENTS_PATH = "ELEMENTS_PATH"
"""diskimage-builder's own variable: folders of further elements, separated by colons."""

_HOOK = re.compile(r"dib-run-parts Running .*/(?P<phase>[a-z-]+)\.d/(?P<hook>\S+)$")
_OWN_LINE = re.compile(r"\[(?:root|kernel)\] +[0-9.]+ s  (?P<text>.*)$")


def progress_line(line: str) -> str | None:
    """What of a line of diskimage-builder's output a person wants to see, if anything."""
    own = _OWN_LINE.search(line)
    if own:
        return own["text"]
    hook = _HOOK.search(line)
    if hook and hook["hook"][:2].isdigit():
        return f"diskimage-builder: {hook['phase']} {hook['hook']}"
    return None


def element_folders(own: Path) -> list[Path]:
    """Where elements are looked for: our own folder, then those of the environment."""
    further = os.environ.get(ELEMENTS_PATH, "").split(":")
    return [own, *(Path(folder) for folder in further if folder)]


def run_elements(
    names: list[str], elements: list[Path], steps: Steps, settings: Mapping[str, str]
) -> None:
    """Build ``names`` from the folders ``elements``; raise BuildError with the log's end.

    Runs in a mount namespace of its own (the caller is root), so no mount outlives it however
    it ends; its temporary folder goes too.
    """
    scripts = Path(sys.executable).parent
    program = scripts / "disk-image-create"
    if not program.exists():
        raise BuildError(f"{program} is missing: diskimage-builder comes with tools/setup")
    scratch = Path(tempfile.mkdtemp(prefix="billet-dib-"))
    environment = {
        **os.environ,
        **settings,
        "PATH": f"{scripts}:/usr/local/sbin:/usr/sbin:/sbin:{os.environ.get('PATH', '/usr/bin')}",
        ELEMENTS_PATH: ":".join(str(folder) for folder in elements),
        "TMP_DIR": str(scratch),
        "TMPDIR": str(scratch),
        "HOME": str(scratch),
        "DIB_IMAGE_CACHE": str(scratch / "cache"),
        "DIB_LOCKFILES": str(scratch / "locks"),
        "DIB_NO_TIMESTAMP": "1",
        "BILLET_PYTHON": sys.executable,
    }
    argv = ["unshare", "--mount", "--propagation", "private", "--fork", "--kill-child"]
    argv += [str(program), "-n", "-o", str(scratch / "none"), *names]

    def show(line: str) -> None:
        text = progress_line(line)
        if text:
            steps.say(text)

    try:
        steps.run(argv, env=environment, cwd=scratch, on_line=show)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def as_root() -> list[str]:
    """What to put before a command that needs root; BuildError when there is no way."""
    if os.geteuid() == 0:
        return []
    done = subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False)
    if done.returncode != 0:
        raise BuildError("building needs root: run it as root, or with sudo that asks nothing")
    return ["sudo", "-n", "--preserve-env"]
