"""The connection to the image server ends ten times while a machine is written to."""

import asyncio
import hashlib
import json
import re
import sys
from pathlib import Path

import pytest

from billet_lab import console, leaks, net
from vm_rig import BOOTED_FROM_DISK, IMAGE, IMAGES, Host, Rig, left_behind, rig

# pytest's own timeout ends the process without cleaning up: it is there for the worst only.
pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.timeout(1800)]

STEP_S = 600.0
STORY_S = 1700.0
PARTS = 11
"""A connection ends after each part but the last."""


async def test_ten_cuts_cost_one_download_and_the_machine_runs_its_image(tmp_path: Path):
    before = leaks.snapshot()
    async with asyncio.timeout(STORY_S), rig(tmp_path) as made:
        await made.register(online=True)
        await made.until_state("ready", STEP_S)
        digest = hashlib.md5((IMAGES / IMAGE).read_bytes()).hexdigest()
        await made.image(f"cut/{PARTS}/{IMAGE}", digest)
        await made.until(lambda host, _: tells_how_fast(host), "how fast, how long", STEP_S)
        host = await made.until_state("provisioned", STEP_S)
        assert not host["status"].get("errorMessage")
        assert host["status"]["errorCount"] == 0, "no try of the server's was used up"
        await console.wait_for(made.console, BOOTED_FROM_DISK, deadline_s=STEP_S)
        await cost_little_more_than_once(made)
        assert re.search(r"% .* of .*iB .*iB/s .* left", console.plain(made.console.read_bytes()))
        log = made.agent_log()
        assert log.count("next try in") >= PARTS - 1, log
        assert "starts over" not in log
    assert left_behind(before, tmp_path, made.lab.namespace) == []


def tells_how_fast(host: Host) -> bool:
    progress = host["status"].get("progress") or {}
    rate, left = progress.get("rateBytesPerSecond", 0), progress.get("etaSeconds")
    total, done = progress.get("totalBytes", 0), progress.get("doneBytes", 0)
    return rate > 0 and left is not None and abs(left - (total - done) / rate) <= 1


async def cost_little_more_than_once(made: Rig) -> None:
    """The server's own count: what was on its way when a connection ended may come twice."""
    url = made.url(f"served/{IMAGE}")
    ask = f"import urllib.request as r; print(r.urlopen({url!r}, timeout=60).read().decode())"
    netns = ("ip", "netns", "exec", made.lab.namespace)
    out = await net.run_tool(*netns, sys.executable, "-c", ask)
    bodies, size = json.loads(out), (IMAGES / IMAGE).stat().st_size
    assert len(bodies) >= PARTS
    assert size <= sum(bodies) <= size * 1.1, bodies
