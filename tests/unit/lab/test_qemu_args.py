from pathlib import Path

import pytest

from billet_lab.control import BootTarget
from billet_lab.qemu_args import boot_indexes, disk_args, render_argv, throttle_of
from billet_lab.specs import Disk, MachineJob, MachineSpec, number_machines


def job(**changes):
    (machine,) = number_machines((MachineSpec(name="node01", **changes),))
    return MachineJob(
        machine=machine,
        accel="tcg",
        tap="tap0",
        bmc_host="172.22.0.1",
        bmc_port=6230,
        disk_paths=tuple(f"/d/disk{i}.raw" for i in range(len(machine.disks))),
        nvram_path="/d/nvram,1.fd",
        console_path="/d/console.log",
        log_path="/d/machine.log",
        run_dir="/run/x",
        parent_pid=1,
    )


def line(made, target=BootTarget.NONE, *, disk_errors=False):
    return " ".join(render_argv(made, target, qmp_fd=7, disk_errors=disk_errors))


@pytest.mark.parametrize(
    ("target", "disks", "expected"),
    [
        (BootTarget.NONE, 1, (1, [0])),
        (BootTarget.HDD, 2, (2, [0, 1])),
        (BootTarget.CD, 1, (1, [0])),
        (BootTarget.PXE, 2, (0, [1, 2])),
        (BootTarget.NONE, 0, (0, [])),
    ],
)
def test_disks_come_first_unless_the_network_is_asked_for(target, disks, expected):
    assert boot_indexes(target, disks) == expected


def test_bios_and_uefi_take_different_firmware():
    bios, uefi = line(job()), line(job(firmware="uefi"))
    assert "q35,hpet=off,graphics=off" in bios
    assert "pflash" not in bios
    assert "OVMF_CODE_4M.fd" in uefi
    assert "file=/d/nvram,,1.fd" in uefi  # a comma is doubled
    assert "romfile=," not in bios
    assert "romfile=" in uefi


def test_the_machine_can_be_recognised_from_inside_and_outside():
    made = job()
    text = line(made)
    assert f"serial=node01,uuid={made.machine.uuid}" in text
    assert "manufacturer=Billet,product=Lab machine" in text
    assert "mac=00:c2:fc:3b:e1:01" in text
    assert "ifname=tap0" in text
    assert "fd=7,server=on" in text
    assert "logfile=/d/console.log,logappend=on" in text


def test_the_network_boot_order_reaches_the_devices():
    assert "bootindex=1 -blockdev" in line(job())
    assert "bootindex=0 -blockdev" in line(job(), BootTarget.PXE)


@pytest.mark.parametrize(
    ("bus", "device"),
    [
        ("virtio", "virtio-blk-pci,drive=disk0,id=drive0,serial=s"),
        ("scsi", "scsi-hd,bus=scsi0.0,drive=disk0,id=drive0"),
        ("sata", "ide-hd,bus=ide.0,drive=disk0"),
        ("nvme", "nvme,drive=disk0,id=drive0,serial=s"),
    ],
)
def test_disks_hang_on_their_bus_and_honour_flushes(bus, device):
    text = " ".join(
        disk_args([Disk(size_bytes=1, bus=bus, serial="s")], ["/d"], [0], disk_errors=False)
    )
    assert device in text
    assert "cache.no-flush=off" in text
    assert ("virtio-scsi-pci" in text) == (bus == "scsi")


def test_failing_disks_have_a_failing_layer():
    assert "blkdebug" not in line(job())
    assert "driver=blkdebug,node-name=disk0-failing,image=disk0-file" in line(
        job(), disk_errors=True
    )


def test_a_slow_disk_is_slow_in_writes_only():
    limit = throttle_of(1, Disk(size_bytes=1, bus="scsi"), 2.5)
    assert limit.pop("id") == "drive1"
    assert limit.pop("bps_wr") == 2621440
    assert not any(limit.values())
    virtio = throttle_of(0, Disk(size_bytes=1), 0)
    assert virtio.pop("id") == "/machine/peripheral/drive0/virtio-backend"
    assert not any(virtio.values())
    assert "id=drive0," in line(job())


def test_no_secret_is_on_the_command_line():
    assert "hush-hush" not in line(job(password="hush-hush"))
    assert Path(line(job()).split()[0]).name == "qemu-system-x86_64"
