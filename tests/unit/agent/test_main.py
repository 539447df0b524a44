"""The installed program, as the ramdisk's unit starts it."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_server import FakeServer, Pki, fake_server
from billet_wire import Goodbye, HandOver, Inspect, Job, JobReport, RunJob


@pytest.fixture(name="server")
async def _server(tmp_path: Path) -> AsyncIterator[FakeServer]:
    async with fake_server(Pki(tmp_path / "pki")) as server:
        yield server


async def start(server: FakeServer, folder: Path) -> asyncio.subprocess.Process:
    line = folder / "cmdline"
    settings = server.settings()
    line.write_text(
        f"console=ttyS0 billet.server={settings.server} billet.ca=sha256:{settings.ca_sha256} "
        f"billet.ca-url={settings.ca_url} billet.token={settings.token} "
        "BOOTIF=01-52-54-00-00-00-01\n"
    )
    root = folder / "root"
    (root / "sys/block/vda").mkdir(parents=True)
    (root / "sys/block/vda/size").write_text(str(10 << 21))
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "billet_agent", "--no-reboot"),
        *("--cmdline", str(line), "--sysroot", str(root)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def test_inspect_and_hand_over(server: FakeServer, tmp_path: Path) -> None:
    process = await start(server, tmp_path)
    await server.until(lambda: bool(server.hellos))
    await server.send(RunJob(Job("1", Inspect())))

    def result() -> JobReport | None:
        found = [m for m in server.messages if isinstance(m, JobReport) and m.id == "1"]
        return found[-1] if found and found[-1].state != "running" else None

    await server.until(lambda: result() is not None)
    report = result()
    assert report is not None
    assert report.inspect is not None, report.problem
    assert report.inspect.root_disk == "/dev/vda"
    await server.send(RunJob(Job("2", HandOver())))
    output, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0, output.decode()
    assert server.messages[-1] == Goodbye("reboot")
    text = output.decode()
    assert "billet metal/node-1: inspect succeeded" in text
    assert "leaving the machine to its disk: reboot" in text
    assert "the-token" not in text


async def test_sigterm_is_graceful(server: FakeServer, tmp_path: Path) -> None:
    process = await start(server, tmp_path)
    await server.until(lambda: bool(server.hellos))
    process.send_signal(signal.SIGTERM)
    output, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0, output.decode()
    await server.until(lambda: server.messages[-1:] == [Goodbye("stop")])
