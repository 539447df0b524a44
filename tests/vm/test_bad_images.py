"""One machine is given one bad image after another, says what is wrong each time, boots none."""

import asyncio
import hashlib
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from billet_lab import console, leaks
from vm_rig import BOOTED_FROM_DISK, IMAGE, IMAGES, NAME, SUMS, Rig, left_behind, rig

# pytest's own timeout ends the process without cleaning up: it is there for the worst only.
pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.timeout(2400)]

STEP_S = 600.0
STORY_S = 2200.0
ANY = "0" * 32


class Bad(NamedTuple):
    what: str
    place: str
    checksum: str  # a digest, "right" for the file's own, or a sum file's name
    problem: str
    words: str
    spec: dict[str, Any] = {}


CASES = (
    Bad("there is none", "ok/none.qcow2", ANY, "image-fetch", "answered 404"),
    Bad("reset", "reset/small.qcow2", ANY, "image-fetch", "broke off"),
    Bad("redirect loop", "loop/0", ANY, "image-fetch", "redirects more than"),
    Bad("short", "short/small.qcow2", ANY, "image-short", "of the announced"),
    Bad("other bytes", "ok/small.qcow2", ANY, "image-checksum", f"wanted is {ANY}"),
    Bad("not in the sum file", "ok/small.qcow2", SUMS, "checksum-file", "small.qcow2"),
    Bad("twice in the sum file", "ok/small.qcow2", "twice", "checksum-file", "small.qcow2"),
    Bad("no qcow2", "ok/junk.qcow2", "right", "image-format", "is text"),
    Bad("backing file", "ok/child.qcow2", "right", "image-unsafe", "backing file"),
    Bad("data file", "ok/outside.qcow2", "right", "image-unsafe", "data file"),
    Bad("too large", "ok/huge.qcow2", "right", "image-too-large", "64.00 GiB"),
    Bad(
        "no such disk",
        "ok/small.qcow2",
        "right",
        "root-device",
        "SN-NOWHERE",
        {"rootDeviceHints": {"serialNumber": "SN-NOWHERE"}},
    ),
)


def make_images(folder: Path) -> Path:
    folder.mkdir()
    create = ["qemu-img", "create", "-q", "-f", "qcow2"]
    (folder / "small.raw").write_bytes(b"\xeb" * (1 << 20))
    convert = ["qemu-img", "convert", "-O", "qcow2", "small.raw", "small.qcow2"]
    for argv in (
        convert,
        [*create, "-b", "small.qcow2", "-F", "qcow2", "child.qcow2"],
        [*create, "-o", "data_file=small.raw,data_file_raw=on", "outside.qcow2", "1M"],
        [*create, "huge.qcow2", "64G"],
    ):
        subprocess.run(argv, cwd=folder, check=True)
    (folder / "junk.qcow2").write_text("This is not an image at all.\n" * 1000)
    (folder / "twice").write_text(f"{ANY}  a/small.qcow2\n{'1' * 32}  b/small.qcow2\n")
    for name in (IMAGE, SUMS):
        (folder / name).symlink_to(IMAGES / name)
    return folder


async def test_no_bad_image_boots_and_each_is_named(tmp_path: Path):
    before = leaks.snapshot()
    images = make_images(tmp_path / "images")
    async with asyncio.timeout(STORY_S), rig(tmp_path, images) as made:
        await made.register(online=True)
        await made.until_state("ready", STEP_S)
        for case in CASES:
            await is_named(made, images, case)
        await nothing_was_booted(made)
        await missing_user_data_is_waited_for(made)
        await console.wait_for(made.console, BOOTED_FROM_DISK, deadline_s=STEP_S)
    assert left_behind(before, tmp_path, made.lab.namespace) == []


async def is_named(made: Rig, images: Path, case: Bad) -> None:
    checksum = case.checksum
    if checksum == "right":
        checksum = hashlib.md5((images / Path(case.place).name).read_bytes()).hexdigest()
    elif checksum != ANY:
        checksum = made.url(f"ok/{checksum}")
    await made.patch(**case.spec)
    await made.image(case.place, checksum)

    def told(host: dict[str, Any], _: object) -> bool:
        problem = host["status"].get("problem") or {}
        return problem.get("id") == case.problem and case.words in problem.get("message", "")

    host = await made.until(told, f"{case.what}: {case.problem} … {case.words}", STEP_S)
    status = host["status"]
    assert status["errorType"] == "provisioning error", case
    assert status["operationalStatus"] == "error", case
    assert status["provisioning"]["state"] == "provisioning", case
    assert f"({case.problem}); " in status["errorMessage"], case  # and what to do
    assert made.disk_is_empty(), case
    async with asyncio.timeout(STEP_S):
        while not [event for event in await warnings(made) if case.words in event["message"]]:
            await asyncio.sleep(0.5)


async def warnings(made: Rig) -> list[dict[str, Any]]:
    return [event for event in await made.events("ProvisioningError") if event["type"] == "Warning"]


async def nothing_was_booted(made: Rig) -> None:
    assert made.server_log().count("NetworkBoot(") == 1  # one ramdisk for all of it
    assert BOOTED_FROM_DISK not in console.plain(made.console.read_bytes())
    table = await made.kubectl.run("get", "baremetalhost", NAME)
    assert "(root-device)" in table


async def missing_user_data_is_waited_for(made: Rig) -> None:
    name = {"name": f"{NAME}-user-data", "namespace": "metal3"}
    await made.patch(userData=name, rootDeviceHints=None)
    await made.image(f"ok/{IMAGE}", made.url(f"ok/{SUMS}"))
    host = await made.until(
        lambda host, _: (host["status"].get("problem") or {}).get("id") == "user-data-missing",
        "user-data-missing",
        STEP_S,
    )
    assert f"{NAME}-user-data" in host["status"]["errorMessage"]
    await made.user_data("#!/bin/sh\n")
    host = await made.until_state("provisioned", STEP_S)
    assert not host["status"].get("errorMessage")
    assert made.disk_boots()
