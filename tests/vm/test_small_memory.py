"""A machine with less memory than its image has bytes: written, one byte wrong, data protected."""

import asyncio
import hashlib
import os
import re
import secrets
import subprocess
from pathlib import Path

import pytest

from billet_lab import console, leaks
from vm_rig import BOOTED_FROM_DISK, IMAGE, IMAGES, MIB, NAME, Rig, left_behind, rig

# pytest's own timeout ends the process without cleaning up: it is there for the worst only.
pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.timeout(1800)]

STEP_S = 600.0
STORY_S = 1700.0
MEMORY_MIB = 512
BIG = "big.qcow2"


def make_big(folder: Path) -> Path:
    """The demo's image with a further partition, full of what does not compress."""
    folder.mkdir()
    raw, made = folder / "big.raw", folder / BIG
    convert = ["qemu-img", "convert", "-O", "raw", IMAGES / IMAGE, raw]
    subprocess.run(convert, check=True)
    start = raw.stat().st_size
    subprocess.run(["truncate", "-s", f"+{MEMORY_MIB + 16}M", raw], check=True)
    subprocess.run(["sgdisk", "-e", "-n", "0:0:0", raw], check=True, stdout=subprocess.DEVNULL)
    noise = os.urandom(MIB)
    with raw.open("r+b") as file:
        file.seek(start + MIB)
        for number in range(MEMORY_MIB + 10):
            file.write(hashlib.sha512(b"%d" % number).digest() + noise[64:])
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, made]
    subprocess.run(convert, check=True)
    raw.unlink()
    return made


async def test_512_mib_and_an_image_that_is_bigger(tmp_path: Path):
    before = leaks.snapshot()
    big = make_big(tmp_path / "images")
    assert big.stat().st_size > MEMORY_MIB * MIB
    digest = hashlib.md5(big.read_bytes()).hexdigest()
    async with asyncio.timeout(STORY_S), rig(tmp_path, big.parent, memory_mib=MEMORY_MIB) as made:
        await made.register(online=True)
        host = await made.until_state("ready", STEP_S)
        assert host["status"]["hardware"]["ramMebibytes"] <= MEMORY_MIB
        await one_byte_is_wrong(made, big, digest)
        token = f"billet-token-{secrets.token_hex(8)}"
        await made.user_data(f"#!/bin/sh\necho {token} > /dev/ttyS0\n")
        await made.image(f"ok/{BIG}", digest)
        await made.until_state("provisioned", STEP_S)
        await console.wait_for(made.console, token, deadline_s=STEP_S)
        await its_data_is_protected(made)
    assert left_behind(before, tmp_path, made.lab.namespace) == []


async def one_byte_is_wrong(made: Rig, big: Path, digest: str) -> None:
    damaged = big.with_name("damaged.qcow2")
    body = bytearray(big.read_bytes())
    body[len(body) // 2] ^= 1
    damaged.write_bytes(body)
    await made.image("ok/damaged.qcow2", digest)
    host = await made.until(
        lambda host, _: (host["status"].get("problem") or {}).get("id") == "image-checksum",
        "image-checksum",
        STEP_S,
    )
    message = host["status"]["errorMessage"]
    assert digest in message
    assert hashlib.md5(body).hexdigest() in message
    assert made.disk_is_empty()
    assert BOOTED_FROM_DISK not in console.plain(made.console.read_bytes())
    damaged.unlink()


async def its_data_is_protected(made: Rig) -> None:
    key = "billet.dev/protect-data"
    await made.kubectl.run("annotate", "baremetalhost", NAME, f"{key}=true")
    await made.patch(image=None)
    host = await made.until(
        lambda host, _: (host["status"].get("problem") or {}).get("id") == "data-protected",
        "data-protected",
        STEP_S,
    )
    assert re.search(r"/dev/vda\d+: ext4 ", host["status"]["errorMessage"])
    assert made.disk_boots()
    await made.kubectl.run("annotate", "baremetalhost", NAME, f"{key}-")
    await made.until_state("ready", STEP_S)
    assert made.disk_is_empty()
    assert "will be lost: /dev/vda" in made.agent_log()
