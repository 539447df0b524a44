"""What dnsmasq answers to each kind of client, asked by a client of our own; no machine boots.

QEMU's BIOS ROM is iPXE itself, so that plain PXE ROMs get `undionly.kpxe` is only seen here.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from billet_lab import net
from billet_lab.processes import die_with_parent

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

HERE = Path(__file__).parent
ADDRESS = "172.22.0.1"
SCRIPT = f"http://{ADDRESS}:8080/boot.ipxe"


@pytest.fixture(params=["dhcp", "proxy"])
async def ask(request, tmp_path):
    """The boot services in one namespace, and how to ask them from another."""
    namespace, other = f"bnd{os.getpid()}", f"bnd{os.getpid()}c"
    async with contextlib.AsyncExitStack() as stack:
        await net.create(namespace, f"{ADDRESS}/24", [])
        stack.push_async_callback(net.remove, namespace)
        await net.run_tool("ip", "netns", "add", other)
        stack.push_async_callback(net.remove, other)
        ours = f"link add veth0 type veth peer name veth1 netns {other}\n"
        ours += f"link set veth0 master {net.BRIDGE} up\n"
        await net.run_tool("ip", "-n", namespace, "-batch", "-", stdin=ours)
        theirs = "link set veth1 up\naddr add 172.22.0.3/24 dev veth1\n"
        await net.run_tool("ip", "-n", other, "-batch", "-", stdin=theirs)
        given = {
            "interface": net.BRIDGE,
            "address": ADDRESS,
            "mode": request.param,
            "state_dir": str(tmp_path / "state"),
            "ramdisk_dir": str(tmp_path),
            "plans": {},
        }
        await stack.enter_async_context(serving(namespace, given))

        async def question(**client):
            asked = json.dumps(
                {"ipxe": False, "tftp": False, "proxy": "", "vendor": "PXEClient", **client}
            )
            argv = (sys.executable, str(HERE / "dhcp_client.py"), "veth1", asked)
            return json.loads(await net.run_tool("ip", "netns", "exec", other, *argv))

        question.mode = request.param
        yield question


@contextlib.asynccontextmanager
async def serving(namespace, given):
    """The world process; it ends when its input does."""
    world = await asyncio.create_subprocess_exec(
        *("ip", "netns", "exec", namespace, sys.executable),
        *(str(HERE / "netboot_world.py"), json.dumps(given)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=die_with_parent(),
    )
    try:
        async with asyncio.timeout(30):
            assert json.loads(await world.stdout.readline())["stage"] == "ready"
        yield
    finally:
        world.stdin.close()
        await world.wait()


async def test_each_client_is_given_its_way(ask):
    bios = await ask(arch=0)
    assert (bios["file"], bios["server"]) == ("undionly.kpxe", ADDRESS)
    if ask.mode == "dhcp":
        assert bios["address"].startswith("172.22.0.")
        for arch in (7, 9):
            assert (await ask(arch=arch))["file"] == "snponly.efi"
        http = await ask(arch=16, vendor="HTTPClient:Arch:00016:UNDI:003001")
        assert http["file"] == f"http://{ADDRESS}:8080/boot/loader/snponly.efi"
        assert bytes.fromhex(http["options"]["60"]) == b"HTTPClient"
        assert (await ask(arch=6))["file"] == "", "32-bit UEFI has no loader of ours"
    else:
        assert bios["address"] == "0.0.0.0"
        assert bytes.fromhex(bios["options"]["60"]) == b"PXEClient"
        for arch in (7, 9):
            uefi = await ask(arch=arch, proxy=ADDRESS)
            assert (uefi["file"], uefi["server"]) == ("snponly.efi", ADDRESS)
    ipxe = await ask(arch=0, ipxe=True)
    assert (ipxe["file"], ipxe["server"]) == (SCRIPT, ADDRESS)
    assert ("175" in ipxe["options"]) == (ask.mode == "dhcp"), "no-pxedhcp only where it is true"


async def test_the_loaders_are_there_for_a_process_without_powers(ask):
    if ask.mode != "dhcp":
        pytest.skip("the same folder in both modes")
    for arch, name in ((0, "undionly.kpxe"), (7, "snponly.efi")):
        answer = await ask(arch=arch, tftp=True)
        assert answer["file"] == name
        assert answer["size"] == (Path("/usr/lib/ipxe") / name).stat().st_size
