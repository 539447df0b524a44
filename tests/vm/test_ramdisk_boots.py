"""The ramdisk boots from its two files alone, its tools work, and screen and serial line tell.

Direct kernel boot under TCG, without DHCP server or disk: nothing may depend on them.
"""

import asyncio
import contextlib
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

from billet_lab import console, leaks
from billet_lab.processes import die_with_parent
from billet_lab.qemu_args import QEMU, accel_args
from billet_lab.qmp import QmpClient

TOP = Path(__file__).resolve().parents[2]
RAMDISK = TOP / "build/ramdisk"
BUDGET_BYTES = 64 * 1024 * 1024
AGENT_LINE = r"billet-agent .*for server 192\.0\.2\.1:8443"
SETTINGS = (
    f"billet.server=192.0.2.1:8443 billet.ca=sha256:{'0' * 64} "
    "billet.ca-url=http://192.0.2.1:8080/ca.pem billet.token=x BOOTIF=01-52-54-00-12-34-56"
)

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def ramdisk() -> Path:
    subprocess.run([TOP / "ramdisk/build"], check=True, timeout=800)
    return RAMDISK


class Machine(NamedTuple):
    """Its serial console, and the way to its screen."""

    serial: Path
    qmp: Path

    async def wait_for_screen(self, text: str, deadline_s: float) -> None:
        """Wait until the VGA text memory (character and attribute in turn) holds ``text``."""
        client = await QmpClient.connect(self.qmp)
        dump = self.qmp.with_suffix(".vga")
        try:
            async with asyncio.timeout(deadline_s):
                arguments = {"val": 0xB8000, "size": 0x8000, "filename": str(dump)}
                while True:
                    await client.execute("pmemsave", arguments)
                    if text in dump.read_bytes()[::2].decode("latin-1"):
                        return
                    await asyncio.sleep(0.5)
        finally:
            await client.close()


@contextlib.asynccontextmanager
async def machine(folder: Path, words: str, memory_mib: int = 2048) -> AsyncIterator[Machine]:
    """A machine in the ramdisk, with a screen and a serial line."""
    here = Machine(folder / "serial", folder / "qmp")
    argv = [QEMU, *accel_args("tcg"), "-m", str(memory_mib), "-smp", "2", "-nodefaults"]
    argv += ["-display", "none", "-vga", "std", "-no-reboot", "-serial", f"file:{here.serial}"]
    argv += ["-qmp", f"unix:{here.qmp},server=on,wait=off"]
    argv += ["-netdev", "user,id=n,restrict=on", "-device", "virtio-net-pci,netdev=n"]
    argv += ["-kernel", str(RAMDISK / "vmlinuz"), "-initrd", str(RAMDISK / "initramfs")]
    argv += ["-append", f"console=tty0 console=ttyS0,115200 {words}"]
    process = await asyncio.create_subprocess_exec(*argv, preexec_fn=die_with_parent())
    try:
        yield here
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_every_tool_works(ramdisk: Path, tmp_path: Path):
    async with machine(tmp_path, f"billet.selfcheck {SETTINGS}") as here:
        await console.wait_for(
            here.serial, r"billet-selfcheck: (all tools work|\d+ tools do not)", deadline_s=120
        )
        text = console.plain(here.serial.read_bytes())
    assert "billet-selfcheck: FAIL" not in text
    passed = set(re.findall(r"billet-selfcheck: PASS (\S+)", text))
    assert {"qemu-img", "sgdisk", "wipefs", "efibootmgr", "modules", "python", "agent"} <= passed
    assert "billet-selfcheck: all tools work" in text


async def test_the_agent_speaks_on_screen_and_serial_line(ramdisk: Path, tmp_path: Path):
    async with machine(tmp_path, SETTINGS, memory_mib=768) as here:
        await console.wait_for(here.serial, AGENT_LINE, deadline_s=100)
        await here.wait_for_screen("for server 192.0.2.1:8443", deadline_s=30)
        # The user network gives an address and refuses the rest: the agent says so and goes on.
        await console.wait_for(here.serial, r"cannot reach server", deadline_s=60)
        assert "login:" not in console.plain(here.serial.read_bytes())


LEFT_OUT = {
    "drivers/nvme/target/*": "the other end of a storage network",
    "drivers/scsi/scsi_debug.ko": "a controller that is none",
    "drivers/ata/pata_legacy.ko": "looks for ports of old machines, where others are",
    "drivers/block/drbd/*": "storage of clusters",
    "drivers/block/rbd.ko": "storage of clusters",
    "drivers/block/null_blk/*": "a disk that is none",
    "drivers/block/zram/*": "a disk that is none",
}
"""What of the kernel's storage and network drivers the ramdisk does not have, and why."""

DRIVERS = ("net/ethernet", "nvme", "ata", "scsi", "message", "block", "md", "mmc", "usb/storage")


def test_every_driver_of_storage_and_network_cards_is_there(ramdisk: Path):
    release = json.loads((ramdisk / "manifest.json").read_text())["kernel"]
    (package,) = (TOP / "build/debs").glob(f"linux-image-{release}_*.deb")
    listing = subprocess.run(
        ["dpkg-deb", "-c", package], capture_output=True, text=True, check=True
    )
    found = {name.partition("/kernel/")[2] for name in listing.stdout.split() if "/kernel/" in name}
    of_kernel = {
        name
        for name in found
        if name.endswith(".ko") and name.startswith(tuple(f"drivers/{top}/" for top in DRIVERS))
    }
    left = of_kernel - set((ramdisk / "base/modules.txt").read_text().splitlines())
    unexplained = {name for name in left if not any(fnmatch(name, glob) for glob in LEFT_OUT)}
    assert unexplained == set()
    assert all(any(fnmatch(name, glob) for name in left) for glob in LEFT_OUT), "LEFT_OUT is stale"
    assert len(of_kernel) > 250


def test_manifest_tells_what_is_there(ramdisk: Path):
    manifest = json.loads((ramdisk / "manifest.json").read_text())
    sizes = [(ramdisk / name).stat().st_size for name in ("vmlinuz", "initramfs")]
    assert [manifest["vmlinuz_bytes"], manifest["initramfs_bytes"]] == sizes
    assert sum(sizes) < BUDGET_BYTES
    digest = subprocess.run(
        ["sha256sum", str(ramdisk / "initramfs")], capture_output=True, text=True, check=True
    )
    assert digest.stdout.split()[0] == manifest["initramfs_sha256"]


def test_unchanged_inputs_build_nothing(ramdisk: Path):
    before = {path: path.stat().st_mtime_ns for path in ramdisk.iterdir() if path.is_file()}
    done = subprocess.run(
        [TOP / "ramdisk/build"], capture_output=True, text=True, check=True, timeout=60
    )
    after = {path: path.stat().st_mtime_ns for path in ramdisk.iterdir() if path.is_file()}
    before.pop(ramdisk / "turn", None)
    after.pop(ramdisk / "turn", None)
    assert done.stderr == ""
    assert after == before


def test_a_build_that_breaks_half_way_says_why_and_leaves_nothing(ramdisk: Path, tmp_path: Path):
    """It breaks in the chroot, where diskimage-builder has mounted /proc, /sys and /dev."""
    hook = tmp_path / "elements/broken/install.d/99-broken"
    hook.parent.mkdir(parents=True)
    hook.write_text("#!/bin/sh\necho the reason is this\nexit 7\n")
    hook.chmod(0o755)
    before = leaks.snapshot()
    done = subprocess.run(
        [TOP / "ramdisk/build", "--out", tmp_path / "out", "--element", "broken"],
        env={**os.environ, "ELEMENTS_PATH": str(tmp_path / "elements"), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 1
    assert "ramdisk: not built" in done.stderr
    assert "the reason is this" in done.stderr
    assert "install 99-broken" in done.stderr
    assert not (tmp_path / "out/initramfs").exists()
    left = leaks.difference(before, leaks.snapshot())
    assert [line for line in left if str(tmp_path) in line or "loop" in line] == []
    assert list(tmp_path.glob("billet-*")) == []
