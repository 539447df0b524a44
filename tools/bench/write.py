"""How fast an image gets onto a disk: `make bench-write`.

The agent's own deploy job against the usual way (the whole file to memory, then qemu-img) and
against the bound, the slowest of: the download alone, decoding alone on all cores, writing alone.
All in one run, same file, same server, same target; each line is the best of `ROUNDS`.
"""

import contextlib
import hashlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from write_data import DISK_BYTES, FORMS, image

ROUNDS = 2
BUILD = Path("build/bench")
GOALS = {"ratio_to_peer": 0.35, "ratio_to_bound": 1.2, "peak_rss_mib": 96.0}
_PARTS = Path(__file__).with_name("write_parts.py")


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a loopback port by a process of its own; give its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [sys.executable, "-m", "billet_lab.image_server", str(folder), "127.0.0.1", str(port)]
    server = subprocess.Popen(argv)
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if time.monotonic() > deadline:
                raise SystemExit("the image server did not start")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def measure(way: str, url: str, file: Path, md5: str) -> dict[str, float]:
    """Return the best of some rounds on a fresh target."""
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        with tempfile.NamedTemporaryFile(dir=BUILD, prefix="target-") as target:
            subprocess.run(["fallocate", "-l", str(DISK_BYTES), target.name], check=True)
            subprocess.run(["sync"], check=True)
            argv = [sys.executable, str(_PARTS), way, url, str(file), target.name, md5]
            done = subprocess.run(argv, check=True, stdout=subprocess.PIPE)
            figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
            if way in {"ours", "peer"}:
                compare(file, Path(target.name))
        if not best or figures["seconds"] < best["seconds"]:
            best = figures
    return best


def compare(file: Path, target: Path) -> None:
    """Hold what was written against the image: all but the partition tables."""
    raw = file.with_name("write.raw")
    argv = ["cmp", "-i", str(1 << 20), "-n", str(DISK_BYTES - (2 << 20)), str(raw), str(target)]
    subprocess.run(argv, check=True)


def variant(form: str, base: str, folder: Path) -> dict[str, Any]:
    """Measure every way for one form of the image."""
    file = image(folder, form)
    with file.open("rb") as source:
        md5 = hashlib.file_digest(source, "md5").hexdigest()
    url = f"{base}/images/{file.name}"
    ways = ["ours", "peer", "download", "write", *(["decode"] if form != "raw" else [])]
    figures = {way: measure(way, url, file, md5) for way in ways}
    seconds = {way: round(found["seconds"], 3) for way, found in figures.items()}
    bound = max(seconds[way] for way in ("download", "decode", "write") if way in seconds)
    ours = figures["ours"]
    return {
        "ratio_to_peer": round(seconds["ours"] / seconds["peer"], 3),
        "ratio_to_bound": round(seconds["ours"] / bound, 3),
        "peak_rss_mib": round(ours["peak_mib"] - ours["idle_mib"], 1),
        "seconds": seconds,
        "file_mib": file.stat().st_size >> 20,
    }


def main() -> None:
    """Measure, print, write build/bench/write.json."""
    console = Console()
    forms = sys.argv[1:] or [*FORMS, "raw"]
    BUILD.mkdir(parents=True, exist_ok=True)
    folder = BUILD.resolve() / "images"
    table = Table(title="an image onto a disk: seconds, and ratios of the same run")
    columns = (
        "form",
        "MiB",
        "ours",
        "peer",
        "download",
        "decode",
        "write",
        "/peer",
        "/bound",
        "MiB RSS",
    )
    for name in columns:
        table.add_column(name, justify="left" if name == "form" else "right")
    found: dict[str, Any] = {}
    with console.status("making the images") as status:
        for form in forms:
            image(folder, form)
        with served(folder) as base:
            for form in forms:
                status.update(f"measuring {form}")
                one = found[form] = variant(form, base, folder)
                seconds = [one["seconds"].get(way, "-") for way in columns[2:7]]
                ratios = (one["ratio_to_peer"], one["ratio_to_bound"], one["peak_rss_mib"])
                table.add_row(form, *map(str, (one["file_mib"], *seconds, *ratios)))
    console.print(table)
    first = found[forms[0]]
    result = {key: first[key] for key in GOALS} | {"goals": GOALS, "variants": found}
    (BUILD / "write.json").write_text(json.dumps(result, indent=2) + "\n")
    words = ", ".join(f"{key} {first[key]} (goal {goal})" for key, goal in GOALS.items())
    console.print(f"{forms[0]}: {words}; all in {BUILD / 'write.json'}")


if __name__ == "__main__":
    main()
