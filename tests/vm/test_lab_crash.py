"""A lab that is killed takes its machines with it, and `billet lab down` finds the rest."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from billet_lab import leaks, processes, teardown

pytestmark = [pytest.mark.vm, pytest.mark.root]

LAB = [sys.executable, "-c", "from billet_lab.cli import lab; lab()"]


def command(directory: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LAB, *argv[:1], "--dir", str(directory), *argv[1:]],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def start(directory: Path) -> subprocess.Popen[bytes]:
    up = subprocess.Popen(
        [*LAB, "up", "--accel", "tcg", "--memory", "256M", "--dir", str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    for line in up.stdout:
        if b"Ctrl-C" in line:
            return up
    raise AssertionError(f"the lab did not come up: code {up.wait()}")


def gone(identity: tuple[int, int]) -> bool:
    end_at = time.monotonic() + 20
    while time.monotonic() < end_at:
        if processes.identity(identity[0]) != identity:
            return True
        time.sleep(0.05)
    return False


def test_a_killed_lab_is_cleaned_up_by_down(tmp_path: Path):
    before = leaks.snapshot()
    up = start(tmp_path)
    assert command(tmp_path, "power", "node01", "on").stdout == "node01 is on\n"
    (machine,) = json.loads(command(tmp_path, "list", "-o", "json").stdout)
    while not machine["status"]["qemu_pid"]:
        (machine,) = json.loads(command(tmp_path, "list", "-o", "json").stdout)
    qemu = processes.identity(machine["status"]["qemu_pid"])
    assert qemu is not None
    assert "address: ipmi://172.22.0.1:6230" in (tmp_path / "hosts.yaml").read_text()

    up.kill()
    up.wait()
    up.stdout.close()
    assert gone(qemu)  # a lab without its process has no machines running wild
    assert leaks.difference(before, leaks.snapshot())  # but what a kernel keeps is still there

    down = command(tmp_path, "down")
    assert (down.returncode, down.stderr) == (0, "")
    assert leaks.difference(before, leaks.snapshot()) == []
    assert not teardown.state_path(tmp_path).exists()
    assert (tmp_path / "node01" / "console.log").exists()
    again = command(tmp_path, "down")
    assert again.returncode == 1
    assert "there is no lab" in again.stderr


def test_down_ends_a_lab_that_is_up(tmp_path: Path):
    before = leaks.snapshot()
    up = start(tmp_path)
    second = command(tmp_path, "up")
    assert second.returncode == 1
    assert "there is a lab in" in second.stderr
    inside = command(tmp_path, "exec", "--", "ip", "-br", "addr", "show", "br0")
    assert "172.22.0.1/24" in inside.stdout

    down = command(tmp_path, "down")
    assert (down.returncode, down.stderr) == (0, "")
    assert b"The lab is down" in up.stdout.read()
    assert up.wait() == 0
    up.stdout.close()
    assert leaks.difference(before, leaks.snapshot()) == []
