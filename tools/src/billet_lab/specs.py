"""What a lab is made of, as data: machines, disks, addresses. Pure; JSON by msgspec."""

import re
import uuid
from typing import Literal

import msgspec

from billet_lab.control import Firmware
from billet_lab.faults import Faults

DiskBus = Literal["virtio", "scsi", "nvme", "sata"]
BmcKind = Literal["ipmi", "redfish"]
Accel = Literal["kvm", "tcg"]

BRIDGE_ADDRESS = "172.22.0.1/24"
IPMI_PORT = 6230
REDFISH_PORT = 8000
MAX_MACHINES = 64

_SIZE = re.compile(r"(\d+)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_BUSES: dict[str, DiskBus] = {bus: bus for bus in ("virtio", "scsi", "nvme", "sata")}


class SpecError(ValueError):
    """A machine or disk nobody can build; the message says what is fit."""


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """One disk: size, the bus it hangs on, its serial number as the guest reads it."""

    size_bytes: int
    bus: DiskBus = "virtio"
    serial: str = ""


class MachineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One machine. Empty ``mac`` and ``uuid`` are filled in by `number_machines`."""

    name: str
    firmware: Firmware = "bios"
    bmc: BmcKind = "ipmi"
    memory_mib: int = 3072
    cpus: int = 2
    disks: tuple[Disk, ...] = (Disk(size_bytes=8 << 30),)
    mac: str = ""
    uuid: str = ""
    username: str = "admin"
    password: str = "admin"  # noqa: S105 - a lab's BMC, in a namespace of its own


class MachineJob(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a machine's process needs: ``python -m billet_lab.machine JOB.json``.

    ``disk_paths`` run parallel to ``machine.disks``. ``parent_pid`` is whose death ends it.
    """

    machine: MachineSpec
    accel: Accel
    tap: str
    bmc_host: str
    bmc_port: int
    disk_paths: tuple[str, ...]
    nvram_path: str
    console_path: str
    log_path: str
    run_dir: str
    parent_pid: int
    faults: Faults = msgspec.field(default_factory=Faults)


class MachineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a running machine; ``pid`` is its process (QEMU is a child of it)."""

    name: str
    firmware: Firmware
    mac: str
    uuid: str
    bmc_address: str
    username: str
    password: str
    console_path: str
    disk_paths: tuple[str, ...]
    control_path: str
    pid: int


class LabState(msgspec.Struct, frozen=True, kw_only=True):
    """What a lab has made, written before it is made, so that `down` finds it after a crash.

    ``processes`` are (pid, start time in clock ticks since boot), so that a recycled pid is
    never killed; the lab's own process comes first. ``files`` go when the lab does.
    """

    lab_id: str
    namespace: str
    directory: str
    run_dir: str
    accel: str = ""
    processes: tuple[tuple[int, int], ...] = ()
    machines: tuple[MachineInfo, ...] = ()
    files: tuple[str, ...] = ()


def parse_size(text: str) -> int:
    """Bytes of ``8G``, ``512MiB`` or ``4096`` (units are powers of 1024)."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise SpecError(f"{text!r} is not a size; write 8G, 512M or a number of bytes")
    return int(match[1]) * _UNITS[match[2].upper()]


def parse_disk(text: str) -> Disk:
    """``8G`` or ``8G:nvme`` (bus: virtio, scsi, nvme, sata)."""
    size, _, bus = text.partition(":")
    size_bytes = parse_size(size)
    if size_bytes < 1 << 20 or size_bytes % 512:
        raise SpecError(f"a disk of {size} is none: at least 1M and whole sectors of 512 bytes")
    if bus and bus not in _BUSES:
        raise SpecError(f"there is no disk bus {bus!r}; there are {', '.join(_BUSES)}")
    return Disk(size_bytes=size_bytes, bus=_BUSES[bus or "virtio"])


def number_machines(machines: tuple[MachineSpec, ...]) -> tuple[MachineSpec, ...]:
    """Fill in MACs, UUIDs and disk serials, the same ones for the same names and order."""
    if not 1 <= len(machines) <= MAX_MACHINES:
        raise SpecError(f"a lab has 1 to {MAX_MACHINES} machines, not {len(machines)}")
    for machine in machines:
        if re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?", machine.name) is None:
            raise SpecError(f"{machine.name!r} is no machine name: lower-case letters, digits, -")
    numbered = tuple(_numbered(machine, index) for index, machine in enumerate(machines))
    for what, values in (
        ("name", [machine.name for machine in numbered]),
        ("MAC", [machine.mac for machine in numbered]),
        ("UUID", [machine.uuid for machine in numbered]),
    ):
        if len(set(values)) < len(values):
            raise SpecError(f"two machines have the same {what}: {', '.join(values)}")
    return numbered


def _numbered(machine: MachineSpec, index: int) -> MachineSpec:
    return msgspec.structs.replace(
        machine,
        mac=(machine.mac or f"00:c2:fc:3b:e1:{index + 1:02x}").lower(),
        uuid=machine.uuid or str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{machine.name}.lab.billet")),
        disks=tuple(
            disk
            if disk.serial
            else msgspec.structs.replace(disk, serial=f"{machine.name}-{i}"[-20:])
            for i, disk in enumerate(machine.disks)
        ),
    )


def bmc_port(machine: MachineSpec, index: int) -> int:
    """IPMI: UDP 6230 and on, as with virtualbmc. Redfish: TCP 8000 and on."""
    return (IPMI_PORT if machine.bmc == "ipmi" else REDFISH_PORT) + index


def bmc_address(machine: MachineSpec, host: str, port: int) -> str:
    """The ``spec.bmc.address`` of a BareMetalHost for this machine."""
    if machine.bmc == "ipmi":
        return f"ipmi://{host}:{port}"
    return f"redfish+http://{host}:{port}/redfish/v1/Systems/{machine.name}"
