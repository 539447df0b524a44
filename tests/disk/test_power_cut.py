"""A machine that loses power while its disk is written never boots a half-written image."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_rig import (
    MIB,
    Page,
    Recorder,
    digest,
    disk_report,
    file_machine,
    make_disk,
    make_gpt_image,
    run,
    to_qcow2,
    to_vdi,
    web_server,
)
from billet_agent.jobs.context import JobContext
from billet_agent.jobs.deploy import deploy
from billet_wire import Deploy, ImageSource, Progress, RootDeviceHints

CHILD = """
import itertools, os, signal, sys
import psutil
sys.path[:0] = sys.argv[6].split(":")
from agent_rig import disk_report, file_machine
from billet_agent.jobs.context import JobContext
from billet_agent.jobs.deploy import deploy
from billet_wire import Deploy, ImageSource, RootDeviceHints

device, url, checksum, step, done = sys.argv[1:6]

def power_cut(progress):
    if progress.step == step and (progress.percent or 0) >= int(done):
        for child in psutil.Process().children(recursive=True):
            child.kill()
        os.kill(os.getpid(), signal.SIGKILL)

seconds = itertools.count()
context = JobContext(power_cut, clock=lambda: float(next(seconds)))
machine = file_machine(disk_report(device))
deploy(machine, Deploy(ImageSource(url, checksum), RootDeviceHints(device_name=device)), context)
"""


@pytest.fixture(name="device")
def _device(tmp_path: Path) -> Iterator[str]:
    """A loop device of the image's own size: its backup GPT would sit at the very end."""
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    backing = make_disk(tmp_path / "disk.raw", 64)
    name = run("losetup", "--find", "--show", backing).strip()
    try:
        yield name
    finally:
        run("losetup", "--detach", name)


def edges(device: str) -> tuple[bytes, bytes]:
    with open(device, "rb") as file:
        head = file.read(MIB)
        file.seek(-MIB, os.SEEK_END)
        return head, file.read(MIB)


@pytest.mark.root
@pytest.mark.parametrize("form", ["qcow2", "raw", "vdi"])
@pytest.mark.parametrize(
    ("step", "done"), [("write", 1), ("write", 60), ("partition-table", 0), ("head", 0)]
)
def test_killed_half_way_there_is_no_head_and_the_next_try_heals(
    device: str, tmp_path: Path, form: str, step: str, done: int
) -> None:
    raw = make_gpt_image(tmp_path / "os.raw", 64)
    image = {"qcow2": lambda: to_qcow2(raw, "-c"), "raw": lambda: raw, "vdi": lambda: to_vdi(raw)}[
        form
    ]()
    body = image.read_bytes()
    with web_server() as web:
        web.pages["/image"] = Page(body)
        url, checksum = web.url("/image"), digest(body)
        paths = ":".join(path for path in sys.path if path)
        child = subprocess.run(
            [sys.executable, "-c", CHILD, device, url, checksum, step, str(done), paths],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert child.returncode == -signal.SIGKILL, child.stderr
        head, _ = edges(device)
        assert head == bytes(MIB), "no boot code and no partition table before all has landed"
        params = Deploy(ImageSource(url, checksum), RootDeviceHints(device_name=device))
        deploy(file_machine(disk_report(device)), params, Recorder().context())
    assert "No problems found" in run("sgdisk", "--verify", device)
    run("qemu-img", "compare", "-f", image.suffix[1:], "-F", "raw", image, device)


def test_the_head_is_empty_until_the_very_last_step(tmp_path: Path) -> None:
    raw = make_gpt_image(tmp_path / "os.raw", 40)
    body = to_qcow2(raw).read_bytes()
    disk = make_disk(tmp_path / "disk.raw", 64)
    seen: list[tuple[str, bool]] = []

    def look(progress: Progress) -> None:
        if progress.step in {"write", "config-drive", "head"}:
            seen.append((progress.step, edges(str(disk))[0] == bytes(MIB)))

    ticks = iter(range(10**9))
    with web_server() as web:
        web.pages["/image"] = Page(body)
        image = ImageSource(web.url("/image"), digest(body))
        params = Deploy(image, RootDeviceHints(device_name=str(disk)), b"drive")
        context = JobContext(look, clock=lambda: float(next(ticks)))
        deploy(file_machine(disk_report(disk)), params, context)
    assert [step for step, _ in seen][-2:] == ["config-drive", "head"]
    assert len(seen) > 5
    # The step "write" is told before its wipe: from its first bytes on the head is empty.
    assert all(empty for _, empty in seen[1:])
    assert edges(str(disk))[0] != bytes(MIB)
