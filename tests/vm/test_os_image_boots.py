"""The demo image boots from a disk in BIOS and UEFI mode and does what its config drive says."""

import asyncio
import contextlib
import hashlib
import io
import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pycdlib
import pytest

from billet_lab import console
from billet_lab.processes import die_with_parent
from billet_lab.qemu_args import OVMF_VARS, QEMU, accel_args, firmware_args

TOP = Path(__file__).resolve().parents[2]
IMAGES = TOP / "build/image"
IMAGE = IMAGES / "billet-demo.qcow2"
DEVICES = {"bios": "virtio-blk-pci", "uefi": "nvme,serial=billet"}

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def image() -> Path:
    command = [sys.executable, "-m", "billet_lab.os_image", "--out", str(IMAGES)]
    subprocess.run(command, check=True, timeout=800)
    return IMAGE


def config_drive(path: Path, user_data: str, network: dict) -> None:
    meta = {"uuid": "7a1f0c52-3f0c-4b58-9d9f-0d9a3c0a4c11", "hostname": "billet-vm", "name": "vm"}
    files = {
        "user_data": user_data.encode(),
        "meta_data.json": json.dumps(meta).encode(),
        "network_data.json": json.dumps(network).encode(),
    }
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="config-2")
    iso.add_directory("/OPENSTACK", rr_name="openstack", joliet_path="/openstack")
    folder = "/openstack/latest"
    iso.add_directory(folder.upper(), rr_name="latest", joliet_path=folder)
    for number, (name, data) in enumerate(files.items()):
        place = f"{folder.upper()}/F{number}.;1"
        iso.add_fp(io.BytesIO(data), len(data), place, rr_name=name, joliet_path=f"{folder}/{name}")
    iso.write(str(path))
    iso.close()


@contextlib.asynccontextmanager
async def machine(folder: Path, firmware: str) -> AsyncIterator[Path]:
    """A machine whose first disk is a copy-on-write child of the image; its serial console."""
    serial, disk, nvram = folder / "serial", folder / "disk.qcow2", folder / "nvram"
    shutil.copy(OVMF_VARS, nvram)
    child = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(IMAGE), str(disk)]
    subprocess.run(child, check=True)
    argv = [QEMU, *accel_args("tcg"), *firmware_args(firmware, nvram), "-m", "1024", "-smp", "2"]
    argv += ["-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{serial}"]
    argv += ["-netdev", "user,id=n,restrict=on"]
    argv += ["-device", "virtio-net-pci,netdev=n,mac=52:54:00:12:34:56,romfile="]
    argv += ["-drive", f"if=none,id=d,file={disk}", "-device", f"{DEVICES[firmware]},drive=d"]
    argv += ["-drive", f"if=none,id=c,format=raw,readonly=on,file={folder / 'config.iso'}"]
    argv += ["-device", "virtio-blk-pci,drive=c"]
    process = await asyncio.create_subprocess_exec(*argv, preexec_fn=die_with_parent())
    try:
        yield serial
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
async def test_user_data_runs(image: Path, tmp_path: Path, firmware: str):
    token = secrets.token_hex(8)
    report = f"echo token {token} $(hostname) $(ip -4 -br a show scope global) >/dev/ttyS0"
    script = f"#!/bin/sh\n{report}\n"
    cloud = (
        "#cloud-config\n"
        "write_files:\n- {path: /run/from-user-data, content: written}\n"
        "users:\n- default\n- {name: alice, groups: [sudo]}\n"
        "ssh_authorized_keys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJpbGxldA== tester]\n"
        f"runcmd:\n- {report}\n"
        "- echo more $(cat /run/from-user-data) $(id -un alice)"
        " $(grep -c tester ~debian/.ssh/authorized_keys) $(systemctl is-active ssh) >/dev/ttyS0\n"
    )
    link = {"id": "n0", "type": "phy", "ethernet_mac_address": "52:54:00:12:34:56", "mtu": 1500}
    static = {
        "links": [link],
        "networks": [
            {
                "id": "a",
                "link": "n0",
                "type": "ipv4",
                "ip_address": "10.0.2.77",
                "netmask": "255.255.255.0",
                "routes": [],
            }
        ],
        "services": [],
    }
    user_data, network = (script, {}) if firmware == "bios" else (cloud, static)
    config_drive(tmp_path / "config.iso", user_data, network)
    async with machine(tmp_path, firmware) as serial:
        said = await console.wait_for(serial, rf"token {token} (\S+) .* (10\.\S+)", deadline_s=240)
        assert said[1] == "billet-vm"
        assert said[2] == ("10.0.2.15/24" if firmware == "bios" else "10.0.2.77/24")
        if firmware == "uefi":
            await console.wait_for(serial, "more written alice 1 active", deadline_s=60)
        await console.wait_for(serial, "billet-vm login:", deadline_s=120)


def test_sum_files_list_three_images_that_are_there(image: Path):
    for kind in ("md5", "sha256"):
        lines = (IMAGES / f"images.{kind}sum").read_text().splitlines()
        assert len(lines) == 3
        for line in lines:
            digest, name = line.split("  ")
            with (IMAGES / name).open("rb") as file:
                assert hashlib.file_digest(file, kind).hexdigest() == digest
    assert any(line.endswith("  billet-demo.qcow2") for line in lines)


def test_the_image_is_a_plain_version_3_qcow2(image: Path):
    command = ["qemu-img", "info", "--output=json", str(image)]
    info = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert info["format"] == "qcow2"
    assert "backing-filename" not in info
    assert info["format-specific"]["data"]["compat"] == "1.1"
    assert info["format-specific"]["data"]["compression-type"] == "zlib"


def test_unchanged_inputs_build_nothing(image: Path):
    before = image.stat().st_mtime_ns
    command = [sys.executable, "-m", "billet_lab.os_image", "--out", str(IMAGES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    assert image.stat().st_mtime_ns == before
