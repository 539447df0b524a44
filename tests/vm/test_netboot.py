"""A machine with an empty disk finds its ramdisk by DHCP, loader and HTTP; others find their disk.

QEMU machines under TCG in a network namespace of their own; the boot services run in it as
`netboot_world`. As "kernel" they serve iPXE itself, which Debian packages in the kernel's format
(ipxe.lkrn) and as an EFI program, with one feature (SRP) more than the loaders: when it says so
on the serial console, the machine really started what it was given.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from billet_lab import net
from billet_lab.processes import die_with_parent
from billet_lab.qemu_args import OVMF_VARS, QEMU, accel_args, firmware_args

pytestmark = [
    pytest.mark.vm,
    pytest.mark.root,
    pytest.mark.timeout(400),
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

MAC = "52:54:00:aa:00:01"
ADDRESS = "172.22.0.1"
IPXE = Path("/usr/lib/ipxe")
WORLD = Path(__file__).with_name("netboot_world.py")
DEADLINE_S = 100


class Link:
    """The namespace, the boot services in it, and the machine on its tap."""

    def __init__(self, folder: Path, stack: contextlib.AsyncExitStack) -> None:
        self.folder, self._stack = folder, stack
        self.namespace = f"bnb{os.getpid()}"
        self.world: asyncio.subprocess.Process
        self.dnsmasq_pid = 0
        self.seen: list[tuple[str, str]] = []
        self.power_on_s = 0.0

    async def begin(self, firmware="bios", plan="ramdisk", mode="dhcp") -> None:
        ramdisk = self.folder / "ramdisk"
        ramdisk.mkdir()
        kernel = "ipxe.lkrn" if firmware == "bios" else "ipxe.efi"
        shutil.copyfile(IPXE / kernel, ramdisk / "vmlinuz")
        (ramdisk / "initramfs").write_bytes(os.urandom(3 << 20))
        # As in life: the state directory is nobody's business.
        state_dir = self.folder / "private" / "state"
        state_dir.parent.mkdir(mode=0o700)
        await net.create(self.namespace, f"{ADDRESS}/24", ["tap0"])
        self._stack.push_async_callback(net.remove, self.namespace)
        given = {
            "interface": net.BRIDGE,
            "address": ADDRESS,
            "mode": mode,
            "state_dir": str(state_dir),
            "ramdisk_dir": str(ramdisk),
            "plans": {MAC: plan},
        }
        self.given = json.dumps(given)
        await self.serve()

    async def serve(self) -> None:
        self.world = await self.spawn(sys.executable, str(WORLD), self.given)
        ready = await self.event()
        assert ready["stage"] == "ready"
        self.dnsmasq_pid = ready["pid"]

    async def spawn(self, *argv: str, namespace: str = "") -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", namespace or self.namespace, *argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=die_with_parent(),
        )

        async def end() -> None:
            process.stdin.close()
            if argv[0] != sys.executable and process.returncode is None:
                process.terminate()
            await process.wait()

        self._stack.push_async_callback(end)
        return process

    async def event(self) -> dict:
        async with asyncio.timeout(DEADLINE_S):
            line = await self.world.stdout.readline()
        assert line, "the boot services ended"
        return json.loads(line)

    async def power_on(self, firmware: str, disk: Path) -> None:
        nvram = self.folder / "nvram"
        shutil.copyfile(OVMF_VARS, nvram)
        rom = ",romfile=" if firmware == "uefi" else ""
        self.power_on_s = time.monotonic()
        await self.spawn(
            *(QEMU, "-nodefaults", "-no-user-config", "-display", "none"),
            *firmware_args(firmware, nvram),
            *accel_args("tcg"),
            *("-m", "512", "-smp", "1", "-device", "virtio-rng-pci"),
            *("-serial", f"file:{self.folder / 'serial'}"),
            *("-netdev", "tap,id=net0,ifname=tap0,script=no,downscript=no"),
            *("-device", f"virtio-net-pci,netdev=net0,mac={MAC},bootindex=0{rom}"),
            *("-drive", f"file={disk},format=raw,if=none,id=disk0"),
            *("-device", "virtio-blk-pci,drive=disk0,bootindex=1"),
        )

    async def stage(self, stage: str) -> dict:
        """Wait until the machine reached a stage; every stage on the way goes to ``seen``."""
        while True:
            event = await self.event()
            assert event["mac"] == MAC
            self.seen.append((event["stage"], event["detail"]))
            print(f"{event['at'] - self.power_on_s:7.2f} s {event['stage']}: {event['detail']}")
            if event["stage"] == stage:
                return event

    async def serial(self, text: str) -> None:
        """Wait until the machine's serial console shows ``text``."""
        path, shown = self.folder / "serial", ""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while text not in shown:
                    await asyncio.sleep(0.1)
                    shown = path.read_text(errors="replace") if path.exists() else ""
        except TimeoutError:
            pytest.fail(f"{text!r} is not on the serial console:\n{shown[-4000:]}")


@pytest.fixture
async def link(tmp_path):
    async with contextlib.AsyncExitStack() as stack:
        yield Link(tmp_path, stack)


def empty_disk(folder: Path) -> Path:
    disk = folder / "disk"
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    return disk


def bios_disk(folder: Path) -> Path:
    """A disk whose boot sector writes to the first serial port and halts."""
    code = bytes.fromhex("31c0 8ed8 be157c baf803 ac 84c0 7403 ee ebf8 f4 ebfd")
    disk = empty_disk(folder)
    with disk.open("r+b") as file:
        file.write((code + b"BOOTED FROM DISK\r\n\0").ljust(510, b"\0") + b"\x55\xaa")
    return disk


def uefi_disk(folder: Path) -> Path:
    """A disk that is one FAT file system with a loader at the removable media path."""
    disk = empty_disk(folder)
    for argv in (
        ("mformat", "-i", disk, "-F", "::"),
        ("mmd", "-i", disk, "::/EFI", "::/EFI/BOOT"),
        ("mcopy", "-i", disk, IPXE / "ipxe.efi", "::/EFI/BOOT/BOOTX64.EFI"),
    ):
        subprocess.run(argv, check=True, timeout=20)
    return disk


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
async def test_an_empty_machine_starts_its_ramdisk(link, firmware):
    await link.begin(firmware)
    await link.power_on(firmware, empty_disk(link.folder))
    await link.stage("script")
    stages = [stage for stage, _ in link.seen]
    assert stages[0] == "dhcp"
    assert ("loader" in stages) == (firmware == "uefi"), "QEMU's BIOS ROM is iPXE itself"
    assert link.seen[-1] == ("script", "ramdisk for metal/node-1")
    kernel = await link.stage("kernel")
    assert kernel["detail"] == f"{(link.folder / 'ramdisk/vmlinuz').stat().st_size} bytes"
    assert (await link.stage("initramfs"))["detail"] == f"{3 << 20} bytes"
    await link.serial("SRP AoE")


async def test_beside_another_dhcp_server_a_bios_machine_boots_by_proxy_dhcp(link):
    await link.begin("bios", mode="proxy")
    other, near, far = f"{link.namespace}o", "veth0", "veth1"
    await net.run_tool("ip", "netns", "add", other)
    link._stack.push_async_callback(net.run_tool, "ip", "netns", "del", other)
    ours = f"link add {near} type veth peer name {far} netns {other}\n"
    ours += f"link set {near} master {net.BRIDGE} up\n"
    await net.run_tool("ip", "-n", link.namespace, "-batch", "-", stdin=ours)
    theirs = f"link set {far} up\naddr add 172.22.0.2/24 dev {far}\n"
    await net.run_tool("ip", "-n", other, "-batch", "-", stdin=theirs)
    await link.spawn(
        *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root"),
        *(f"--interface={far}", "--bind-interfaces", "--no-ping", "--pid-file="),
        *("--dhcp-range=172.22.0.200,172.22.0.220,10m", f"--dhcp-leasefile={link.folder}/leases"),
        namespace=other,
    )
    await link.power_on("bios", empty_disk(link.folder))
    await link.stage("script")
    assert ("dhcp", "offered proxy beside another DHCP server") in link.seen
    await link.stage("initramfs")
    assert "172.22.0.2" in (link.folder / "leases").read_text()


async def test_a_bios_machine_not_meant_to_netboot_goes_on_to_its_disk(link):
    await link.begin("bios", plan="metal/node-1 is provisioned")
    await link.power_on("bios", bios_disk(link.folder))
    await link.stage("script")
    assert link.seen[-1] == ("script", "disk: metal/node-1 is provisioned")
    await link.serial("Billet: booting from disk: metal/node-1 is provisioned")
    await link.serial("BOOTED FROM DISK")


async def test_a_uefi_machine_not_meant_to_netboot_goes_on_to_its_disk(link):
    await link.begin("uefi", plan="metal/node-1 is provisioned")
    await link.power_on("uefi", uefi_disk(link.folder))
    await link.stage("script")
    await link.serial('BdsDxe: failed to start Boot0002 "UEFI PXEv4')
    await link.serial('BdsDxe: starting Boot0001 "UEFI')
    await link.serial("SRP AoE")


async def test_dnsmasq_is_unprivileged_comes_back_and_never_outlives_the_server(link):
    await link.begin()
    first = link.dnsmasq_pid
    status = Path(f"/proc/{first}/status").read_text()
    assert "\nUid:\t65534\t65534\t65534\t65534\n" in status
    assert "\nNoNewPrivs:\t1\n" in status
    assert "\nCapEff:\t0000000000003400\n" in status, "NET_BIND_SERVICE, NET_ADMIN, NET_RAW only"
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(30):
        while len(found := await dnsmasqs(link.namespace)) != 1 or first in found:
            await asyncio.sleep(0.05)
    link.world.kill()
    await link.world.wait()
    async with asyncio.timeout(30):
        while await dnsmasqs(link.namespace):
            await asyncio.sleep(0.05)
    await link.serve()


async def test_a_second_dhcp_server_on_the_link_is_refused_in_words(link):
    await link.begin()
    given = {
        "interface": net.BRIDGE,
        "address": ADDRESS,
        "mode": "dhcp",
        "state_dir": str(link.folder / "second"),
        "ramdisk_dir": str(link.folder),
        "plans": {},
        "http_port": 8081,
    }
    argv = ("ip", "netns", "exec", link.namespace, sys.executable, str(WORLD), json.dumps(given))
    second = await asyncio.create_subprocess_exec(*argv, stderr=subprocess.PIPE)
    async with asyncio.timeout(30):
        _, words = await second.communicate()
    assert second.returncode == 1
    assert b"another DHCP server has UDP port 67 there" in words


async def dnsmasqs(namespace: str) -> list[int]:
    """The dnsmasq processes in a namespace."""
    found = []
    for pid in await net.pids(namespace):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == "dnsmasq\n":
                found.append(pid)
    return found
