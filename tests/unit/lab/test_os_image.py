"""The demo image's parts that are plain text and bytes, and when it is built again."""

import hashlib
import json
import struct
import subprocess
from pathlib import Path

import pytest
import yaml

from billet_lab import os_image, os_image_disk, os_image_root
from billet_lab.os_image_disk import Layout, patch_boot_sector, patch_core_image

LAYOUT = Layout(512, "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222")


def test_boot_sector_keeps_the_table_and_points_to_the_core():
    boot = bytes(range(256)) * 2
    table = b"\xaa" * 512
    sector = patch_boot_sector(boot, table, 0x123456789A)
    assert len(sector) == 512
    assert sector[440:] == table[440:]
    assert sector[:0x5C] == boot[:0x5C]
    assert struct.unpack_from("<Q", sector, 0x5C) == (0x123456789A,)
    assert sector[0x66:0x68] == b"\x90\x90"
    assert sector[0x68:440] == boot[0x68:440]


@pytest.mark.parametrize(("boot", "table"), [(511, 512), (512, 0)])
def test_boot_sector_refuses_other_sizes(boot, table):
    with pytest.raises(ValueError, match="512"):
        patch_boot_sector(bytes(boot), bytes(table), 1)


@pytest.mark.parametrize(("size", "sectors"), [(512, 1), (513, 2), (1536, 3)])
def test_core_image_lists_the_sectors_after_its_first(size, sectors):
    image = patch_core_image(b"\x01" * size, 2048)
    assert len(image) == sectors * 512
    assert struct.unpack_from("<QHH", image, 500) == (2049, sectors - 1, 0x820)
    assert image[:500] == b"\x01" * 500


def test_partitions_follow_one_another_and_leave_room_for_the_second_table():
    bios_start, bios_size = LAYOUT.bios_mib
    esp_start, esp_size = LAYOUT.esp_mib
    assert bios_start >= 1
    assert bios_start + bios_size <= esp_start
    assert esp_start + esp_size <= LAYOUT.root_start_mib
    assert LAYOUT.root_start_mib + LAYOUT.root_size_mib < LAYOUT.disk_mib


def test_menu_names_kernel_root_and_both_consoles():
    menu = os_image_disk.render_menu(LAYOUT, "6.1.0-1-cloud-amd64")
    assert "linux /boot/vmlinuz-6.1.0-1-cloud-amd64" in menu
    assert f"root=PARTUUID={LAYOUT.root_part}" in menu
    assert "console=tty0 console=ttyS0" in menu
    assert LAYOUT.root_fs in os_image_disk.render_early_config(LAYOUT)
    assert LAYOUT.root_part in os_image_root.render_fstab(LAYOUT)


def test_boot_csv_is_ucs2_with_a_mark():
    text = os_image_disk.render_boot_csv()
    assert text[:2] == b"\xff\xfe"
    assert text.decode("utf-16").split(",")[0] == "grubx64.efi"


def test_cloud_init_asks_no_network_for_user_data():
    config = yaml.safe_load(os_image_root.CLOUD_CONFIG)
    assert config["datasource_list"] == ["ConfigDrive", "NoCloud", "None"]
    assert config["system_info"]["default_user"]["lock_passwd"] is True
    stages = [config[f"cloud_{stage}_modules"] for stage in ("init", "config", "final")]
    everything = [name for stage in stages for name in stage]
    assert len(everything) == len(set(everything))
    assert {"write_files", "runcmd", "ssh", "scripts_user", "phone_home"} <= set(everything)


def test_disk_of_a_small_tree_is_whole(tmp_path: Path):
    root, scratch = tmp_path / "root", tmp_path / "scratch"
    (root / "boot").mkdir(parents=True)
    (root / "boot/hello").write_text("hello")
    scratch.mkdir()
    image = tmp_path / "disk.raw"
    layout = Layout(256, LAYOUT.root_fs, LAYOUT.root_part)
    os_image_disk.make_disk(image, layout, root, scratch, os_image_disk.run_quietly)
    report = subprocess.run(
        ["sgdisk", "-v", str(image)], capture_output=True, text=True, check=False
    )
    assert "No problems found" in report.stdout
    with image.open("rb") as file:
        file.seek(layout.root_start_mib * os_image_disk.MIB)
        (tmp_path / "fs").write_bytes(file.read(layout.root_size_mib * os_image_disk.MIB))
    check = subprocess.run(
        ["e2fsck", "-fn", str(tmp_path / "fs")], capture_output=True, check=False
    )
    assert check.returncode == 0, check.stdout
    listing = subprocess.run(
        ["mdir", "-b", "-/", "-i", f"{image}@@{layout.esp_mib[0]}M"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in ("EFI/BOOT/BOOTX64.EFI", "EFI/debian/grubx64.efi", "EFI/debian/BOOTX64.CSV"):
        assert name.lower() in listing.lower()


def test_a_failing_command_says_what_it_said():
    with pytest.raises(RuntimeError, match="status 4: no room"):
        os_image_disk.run_quietly(["sh", "-c", "echo no room >&2; exit 4"])


def complete(out: Path, digest: str) -> None:
    for name in os_image.IMAGES:
        (out / name).write_bytes(name.encode())
    for name in os_image.SUM_FILES:
        (out / name).write_text("x")
    sizes = {name: len(name) for name in os_image.IMAGES}
    (out / "manifest.json").write_text(json.dumps({"inputs": digest, "bytes": sizes}))


def test_current_only_when_complete_and_from_these_inputs(tmp_path: Path):
    assert not os_image.is_current(tmp_path, "d")
    complete(tmp_path, "d")
    assert os_image.is_current(tmp_path, "d")
    assert not os_image.is_current(tmp_path, "e")
    (tmp_path / os_image.IMAGE).write_bytes(b"cut")
    assert not os_image.is_current(tmp_path, "d")
    complete(tmp_path, "d")
    (tmp_path / "images.md5sum").unlink()
    assert not os_image.is_current(tmp_path, "d")
    (tmp_path / "manifest.json").write_text("[]")
    assert not os_image.is_current(tmp_path, "d")


def test_sum_file_is_what_md5sum_checks(tmp_path: Path):
    digests = {}
    for name in ("b.raw", "a.qcow2"):
        (tmp_path / name).write_text(name)
        digests[name] = hashlib.md5(name.encode()).hexdigest()
    sums = tmp_path / "images.md5sum"
    sums.write_text(os_image.render_sums(digests))
    subprocess.run(["md5sum", "--strict", "-c", sums.name], cwd=tmp_path, check=True)
