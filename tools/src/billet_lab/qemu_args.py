"""QEMU's command line for one boot of a machine: a pure function of its spec and boot target.

Every boot is a QEMU process of its own, started paused (``-S``) so that faults are in place
before the first instruction. A guest's reset or power-off pauses it again and is told by QMP's
SHUTDOWN event; `vm` then decides.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from billet_lab.control import BootTarget, Firmware
from billet_lab.specs import Accel, Disk, MachineJob

QEMU = "qemu-system-x86_64"
OVMF_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
OVMF_VARS = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
NIC_ID = "net0"
_MIB = 1 << 20

_ACCEL = {
    "kvm": ["-accel", "kvm", "-cpu", "host"],
    "tcg": ["-accel", "tcg,thread=multi", "-cpu", "max"],
}


def accel_args(accel: Accel) -> list[str]:
    """The accelerator and the processor that goes with it."""
    return list(_ACCEL[accel])


def firmware_args(firmware: Firmware, nvram: Path) -> list[str]:
    """Machine type and firmware. BIOS: SeaBIOS and the NIC's iPXE write to the serial port.

    No HPET: a guest under TCG was seen to hang for good right after it chose it as its clock.
    """
    if firmware == "bios":
        return ["-machine", "q35,hpet=off,graphics=off"]
    return [
        "-machine",
        "q35,hpet=off",
        "-drive",
        f"if=pflash,format=raw,readonly=on,file={OVMF_CODE}",
        "-drive",
        f"if=pflash,format=raw,file={_quoted(nvram)}",
        # Nobody boots over IPv6 here, and OVMF spends a minute on finding that out.
        *("-fw_cfg", "name=opt/org.tianocore/IPv6Support,string=n"),
        *("-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n"),
    ]


def serial_socket(job: MachineJob) -> Path:
    """Where one person at a time can type at the serial console; the log takes its output."""
    return Path(job.run_dir) / "serial.sock"


def boot_indexes(target: BootTarget, disks: int) -> tuple[int, list[int]]:
    """Boot order as (the NIC's index, one per disk); the lowest is tried first.

    Only a network boot asked for puts the NIC first; else it comes after all disks, so that a
    machine whose disks are empty falls through to the network, as servers do from the factory.
    """
    if target is BootTarget.PXE:
        return 0, list(range(1, disks + 1))
    return disks, list(range(disks))


def render_argv(
    job: MachineJob, target: BootTarget, *, qmp_fd: int, disk_errors: bool
) -> list[str]:
    """The whole command line. ``qmp_fd``: a listening unix socket that QEMU inherits."""
    machine = job.machine
    nic_index, disk_indexes = boot_indexes(target, len(machine.disks))
    return [
        QEMU,
        *("-name", machine.name, "-uuid", machine.uuid),
        *("-nodefaults", "-no-user-config", "-display", "none", "-S"),
        *("-action", "reboot=shutdown,shutdown=pause"),
        *firmware_args(machine.firmware, Path(job.nvram_path)),
        *accel_args(job.accel),
        *("-m", str(machine.memory_mib), "-smp", str(machine.cpus)),
        "-smbios",
        f"type=1,manufacturer=Billet,product=Lab machine,serial={machine.name},uuid={machine.uuid}",
        *("-chardev", f"socket,id=qmp,fd={qmp_fd},server=on,wait=off"),
        *("-mon", "chardev=qmp,mode=control"),
        "-chardev",
        (
            f"socket,id=console,path={_quoted(serial_socket(job))},server=on,wait=off,"
            f"logfile={_quoted(job.console_path)},logappend=on"
        ),
        *("-serial", "chardev:console"),
        *("-device", "virtio-rng-pci"),
        *nic_args(job, nic_index),
        *disk_args(machine.disks, job.disk_paths, disk_indexes, disk_errors=disk_errors),
    ]


def nic_args(job: MachineJob, bootindex: int) -> list[str]:
    """The NIC on its tap. UEFI gets no option ROM: OVMF's own PXE client is what is tested."""
    rom = ",romfile=" if job.machine.firmware == "uefi" else ""
    return [
        "-netdev",
        f"tap,id={NIC_ID},ifname={job.tap},script=no,downscript=no",
        "-device",
        f"virtio-net-pci,id=nic0,netdev={NIC_ID},mac={job.machine.mac},bootindex={bootindex}{rom}",
    ]


def disk_args(
    disks: Sequence[Disk], paths: Sequence[str], indexes: Sequence[int], *, disk_errors: bool
) -> list[str]:
    """Each disk as a raw file with a write-back cache, as real disks have: a flush is a flush.

    With ``disk_errors`` every write fails with EIO: the machine finds its disk and may read it.
    """
    args: list[str] = []
    if any(disk.bus == "scsi" for disk in disks):
        args += ["-device", "virtio-scsi-pci,id=scsi0"]
    for number, (disk, path, index) in enumerate(zip(disks, paths, indexes, strict=True)):
        node = f"disk{number}"
        args += [
            "-blockdev",
            (
                f"driver=file,node-name={node}-file,filename={_quoted(path)},"
                "cache.direct=off,cache.no-flush=off,discard=unmap,auto-read-only=off"
            ),
        ]
        lower = f"{node}-file"
        if disk_errors:
            args += ["-blockdev", _failing(node, lower)]
            lower = f"{node}-failing"
        args += ["-blockdev", f"driver=raw,node-name={node},file={lower},discard=unmap"]
        args += ["-device", _disk_device(disk, node, number, index)]
    return args


def throttle_of(number: int, disk: Disk, write_mib_s: float) -> dict[str, Any]:
    """Arguments of QMP's block_set_io_throttle that limit a disk's writes; 0 lifts the limit."""
    name = f"drive{number}"
    if disk.bus == "virtio":
        # What has the drive is the device behind the PCI one, which only its path names.
        name = f"/machine/peripheral/{name}/virtio-backend"
    limits = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)
    return {"id": name, **limits, "bps_wr": round(write_mib_s * _MIB)}


def _failing(node: str, lower: str) -> str:
    rules = [
        f"inject-error.{i}.event=none,inject-error.{i}.iotype={kind},inject-error.{i}.errno=5"
        for i, kind in enumerate(("write", "write-zeroes", "discard"))
    ]
    return f"driver=blkdebug,node-name={node}-failing,image={lower},{','.join(rules)}"


def _disk_device(disk: Disk, node: str, number: int, bootindex: int) -> str:
    common = f"drive={node},id=drive{number},serial={disk.serial},bootindex={bootindex}"
    policy = "werror=report,rerror=report,write-cache=on"
    match disk.bus:
        case "virtio":
            return f"virtio-blk-pci,{common},{policy}"
        case "scsi":
            return f"scsi-hd,bus=scsi0.0,{common},{policy}"
        case "sata":
            return f"ide-hd,bus=ide.{number},{common},{policy}"
        case "nvme":
            return f"nvme,{common}"


def _quoted(path: Path | str) -> str:
    """A path inside a QEMU option: a comma is doubled."""
    return str(path).replace(",", ",,")
