"""`billet demo` on both roads at once, and what is left of one that is killed or broken off."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from billet_lab import leaks, processes, teardown
from vm_rig import TOP, left_behind

# pytest's own timeout ends the process without cleaning up: it is there for the worst only.
pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.timeout(2400)]

ROADS = {"bios": "ipmi", "uefi": "redfish"}
STORY_S = 2100.0
COLUMNS = "NAME STATUS PROVISIONING STATUS CONSUMER BMC HARDWARE PROFILE ONLINE ERROR AGE"
PHASES = ["start", "inspecting", "ready", "provisioning", "first boot", "total"]


async def demo(directory: Path, *argv: str) -> asyncio.subprocess.Process:
    """Start the command as a user would, its output in ``directory``/output."""
    directory.mkdir()
    with (directory / "output").open("wb") as output:
        return await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("billet")),
            *("demo", "--build-dir", str(TOP / "build"), "--dir", str(directory / "demo"), *argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=processes.die_with_parent(signal.SIGTERM),
        )


async def ended(process: asyncio.subprocess.Process) -> int:
    try:
        async with asyncio.timeout(STORY_S):
            return await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def output_of(directory: Path) -> str:
    return (directory / "output").read_text()


async def test_both_roads_lead_to_a_running_system(tmp_path: Path):
    before = leaks.snapshot()
    runs = {
        firmware: await demo(tmp_path / firmware, "--firmware", firmware, "--bmc", bmc)
        for firmware, bmc in ROADS.items()
    }
    codes = await asyncio.gather(*(ended(run) for run in runs.values()))
    for firmware, code in zip(runs, codes, strict=True):
        text = output_of(tmp_path / firmware)
        assert code == 0, text[-4000:]
        result = json.loads((tmp_path / firmware / "demo/result.json").read_text())
        check_result(result, firmware)
        check_tables(text)
        assert "the user's data was read: billet-token-" in text
    assert left_behind(before, tmp_path) == []


def check_result(result: dict[str, Any], firmware: str) -> None:
    assert result["state"] == "provisioned"
    assert result["userdata_token_seen"] is True
    assert (result["firmware"], result["bmc"]) == (firmware, ROADS[firmware])
    assert result["error"] == ""
    assert result["image_bytes"] == (TOP / "build/image/billet-demo.qcow2").stat().st_size
    assert {"billet", "kubectl", "api", "python"} <= set(result["versions"])
    assert [phase for phase in result["seconds"] if phase in PHASES] == PHASES
    assert all(value >= 0 for value in result["seconds"].values())
    assert {"provisioning/write", "inspecting/ramdisk"} <= set(result["steps"])
    assert len(result["agent_first_call_s"]) == 2


def check_tables(text: str) -> None:
    """The tables that kubectl printed: header, then the one host."""
    lines = [line.split() for line in text.splitlines()]
    rows = [lines[number + 1] for number, words in enumerate(lines) if words == COLUMNS.split()]
    assert all(row[0] == "metal3-node01" for row in rows)
    seen = [(state, "true" in row) for row in rows for state in row[1:3] if state.islower()]
    assert ("inspecting", False) in seen
    assert ("ready", False) in seen
    assert seen[-1] == ("provisioned", True)


async def under_way(directory: Path, process: asyncio.subprocess.Process) -> None:
    """Until the machine boots its ramdisk."""
    async with asyncio.timeout(STORY_S):
        while "inspecting · ramdisk" not in output_of(directory):
            assert process.returncode is None, output_of(directory)
            await asyncio.sleep(0.2)


async def test_a_killed_demo_is_cleaned_up_by_lab_down_or_by_the_next_demo(tmp_path: Path):
    before = leaks.snapshot()
    process = await demo(tmp_path / "one")
    await under_way(tmp_path / "one", process)
    lab = tmp_path / "one/demo/lab"
    state = teardown.read_state(lab)
    process.kill()
    await process.wait()
    async with asyncio.timeout(60):
        while any(processes.identity(known[0]) == known for known in state.processes):
            await asyncio.sleep(0.2)  # nothing runs on without the demo, and then

    billet = str(Path(sys.executable).with_name("billet"))
    down = await asyncio.create_subprocess_exec(billet, "lab", "down", "--dir", str(lab))
    assert await down.wait() == 0
    assert left_behind(before, tmp_path, state.lab_id) == []


async def test_a_demo_that_is_broken_off_cleans_up_and_keeps_its_logs(tmp_path: Path):
    before = leaks.snapshot()
    process = await demo(tmp_path / "one")
    await under_way(tmp_path / "one", process)
    state = teardown.read_state(tmp_path / "one/demo/lab")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert await ended(process) == 130, output_of(tmp_path / "one")
    assert left_behind(before, tmp_path, state.lab_id) == []
    text = output_of(tmp_path / "one")
    assert "Traceback" not in text
    assert "broken off and cleaned up; logs stay in" in text
    result = json.loads((tmp_path / "one/demo/result.json").read_text())
    assert result["state"] == "inspecting"
    assert "interrupted" in result["error"]
    assert (tmp_path / "one/demo/server.log").stat().st_size
    assert (tmp_path / "one/demo/lab/metal3-node01/console.log").stat().st_size


async def test_a_demo_whose_server_dies_says_where_and_how_in_one_paragraph(tmp_path: Path):
    before = leaks.snapshot()
    process = await demo(tmp_path / "one")
    await under_way(tmp_path / "one", process)
    state = teardown.read_state(tmp_path / "one/demo/lab")
    (server,) = [
        known
        for known in state.processes
        if (line := Path(f"/proc/{known[0]}/cmdline")).exists() and b"\0up\0" in line.read_bytes()
    ]
    assert processes.send(server, signal.SIGKILL)
    assert await ended(process) == 1
    last = output_of(tmp_path / "one").split("\nbillet: ")[-1].strip().splitlines()
    assert "Traceback" not in output_of(tmp_path / "one")
    assert len(last) <= 3
    assert "metal3-node01" in last[0]
    assert "is inspecting" in last[0]
    assert "server.log" in last[-1]
    assert left_behind(before, tmp_path, state.lab_id) == []
