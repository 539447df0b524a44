"""The demo image's disk: GPT, boot loaders for BIOS and UEFI, root file system; on plain files.

Neither loop devices nor mounts: sgdisk writes the table, mke2fs fills the root at an offset,
mtools the EFI system partition, and the BIOS loader's two block lists are patched here.
"""

import struct
import subprocess
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

SECTOR_BYTES = 512
MIB = 1024 * 1024
GRUB = Path("/usr/lib/grub")
BIOS_MODULES = ["biosdisk", "part_gpt", "ext2", "search", "search_fs_uuid", "configfile", "normal"]
EFI_MODULES = ["part_gpt", "fat", "ext2", "search", "search_fs_uuid", "configfile", "normal"]
MENU_MODULES = [
    "linux",
    "serial",
    "terminal",
    "echo",
    "test",
    "all_video",
    "gzio",
    "minicmd",
    "reboot",
]

Run = Callable[[Sequence[str]], None]
"""Runs a command to its end; raises when it fails."""


class Layout(NamedTuple):
    """Identities and places of the partitions: BIOS boot, EFI system, root; sizes in MiB."""

    disk_mib: int
    root_fs: str
    root_part: str
    bios_mib: tuple[int, int] = (1, 1)
    esp_mib: tuple[int, int] = (2, 34)

    @property
    def root_start_mib(self) -> int:
        """Where the root partition starts."""
        return self.esp_mib[0] + self.esp_mib[1]

    @property
    def root_size_mib(self) -> int:
        """Size of the root partition; the last MiB holds the second partition table."""
        return self.disk_mib - self.root_start_mib - 1


def new_layout(disk_mib: int) -> Layout:
    """A layout with fresh identities."""
    return Layout(disk_mib, str(uuid.uuid4()), str(uuid.uuid4()))


def patch_boot_sector(boot: bytes, table: bytes, core_lba: int) -> bytes:
    """GRUB's first stage for a disk whose core image starts at ``core_lba``: 512 bytes.

    ``boot`` is ``boot.img``, ``table`` the disk's present first sector, of which disk signature
    and partition table (from byte 440) stay. Offsets: grub-core/boot/i386/pc/boot.S,
    ``kernel_sector`` at 0x5c; two no-operations at 0x66 make it trust the BIOS's drive number.
    """
    if len(boot) != SECTOR_BYTES or len(table) != SECTOR_BYTES:
        raise ValueError("a boot sector has 512 bytes")
    sector = bytearray(boot[:440] + table[440:])
    struct.pack_into("<Q", sector, 0x5C, core_lba)
    sector[0x66:0x68] = b"\x90\x90"
    return bytes(sector)


def patch_core_image(core: bytes, core_lba: int) -> bytes:
    """GRUB's core image, padded to sectors, its block list pointing to its place on the disk.

    The first sector (diskboot.S) loads the others: at byte 500 the start (64 bit), the number
    of sectors (16 bit) and the memory segment 0x820.
    """
    sectors = -(-len(core) // SECTOR_BYTES)
    image = bytearray(core.ljust(sectors * SECTOR_BYTES, b"\0"))
    struct.pack_into("<QHH", image, 500, core_lba + 1, sectors - 1, 0x820)
    return bytes(image)


def render_early_config(layout: Layout) -> str:
    """What is built into both core images: find the root file system, go on there."""
    return (
        f"search.fs_uuid {layout.root_fs} root\n"
        "set prefix=($root)/boot/grub\n"
        "configfile $prefix/grub.cfg\n"
    )


def render_menu(layout: Layout, release: str) -> str:
    """``grub.cfg``: one entry, no waiting, on the screen and on the first serial line."""
    arguments = (
        f"root=PARTUUID={layout.root_part} ro quiet systemd.show_status=yes "
        "console=tty0 console=ttyS0,115200n8"
    )
    return (
        "serial --unit=0 --speed=115200\n"
        "terminal_input console serial\n"
        "terminal_output console serial\n"
        "set timeout=0\n"
        "set default=0\n"
        'menuentry "Debian" {\n'
        f"  linux /boot/vmlinuz-{release} {arguments}\n"
        f"  initrd /boot/initrd.img-{release}\n"
        "}\n"
    )


def render_boot_csv() -> bytes:
    """``BOOTX64.CSV``: file, label, arguments, description; UCS-2 (shim's fallback format)."""
    return "grubx64.efi,Debian,,Debian on the disk\n".encode("utf-16")


def make_disk(image: Path, layout: Layout, root: Path, scratch: Path, run: Run) -> None:
    """Write the raw ``image`` from the directory ``root``. ``run`` runs commands."""
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(layout.disk_mib * MIB)
    _partition(image, layout, run)
    offset = layout.root_start_mib * MIB
    run(
        [
            *("mke2fs", "-q", "-F", "-t", "ext4", "-m", "1", "-L", "root", "-U", layout.root_fs),
            *("-J", "size=16", "-E", f"offset={offset},lazy_itable_init=1,lazy_journal_init=1"),
            *("-d", str(root), str(image), f"{layout.root_size_mib}M"),
        ]
    )
    early = scratch / "early.cfg"
    early.write_text(render_early_config(layout))
    _embed_bios(image, layout, early, scratch, run)
    esp = _make_esp(layout, early, scratch, run)
    with image.open("r+b") as file:
        file.seek(layout.esp_mib[0] * MIB)
        file.write(esp.read_bytes())


def _partition(image: Path, layout: Layout, run: Run) -> None:
    bios, esp = layout.bios_mib, layout.esp_mib
    root = (layout.root_start_mib, layout.root_size_mib)
    argv = ["sgdisk", "--clear"]
    for number, (start, size), kind, name in (
        (1, bios, "ef02", "bios"),
        (2, esp, "ef00", "esp"),
        (3, root, "8304", "root"),
    ):
        first = start * MIB // SECTOR_BYTES
        last = first + size * MIB // SECTOR_BYTES - 1
        argv += [f"--new={number}:{first}:{last}", f"--typecode={number}:{kind}"]
        argv += [f"--change-name={number}:{name}"]
    run([*argv, f"--partition-guid=3:{layout.root_part}", str(image)])


def _embed_bios(image: Path, layout: Layout, early: Path, scratch: Path, run: Run) -> None:
    core = scratch / "core.img"
    run(
        [
            *("grub-mkimage", "-O", "i386-pc", "-d", str(GRUB / "i386-pc"), "-o", str(core)),
            *("-p", "/boot/grub", "-c", str(early), *BIOS_MODULES, *MENU_MODULES),
        ]
    )
    lba = layout.bios_mib[0] * MIB // SECTOR_BYTES
    code = patch_core_image(core.read_bytes(), lba)
    if len(code) > layout.bios_mib[1] * MIB:
        raise ValueError(f"GRUB's core image ({len(code)} bytes) is larger than its partition")
    with image.open("r+b") as file:
        table = file.read(SECTOR_BYTES)
        boot = (GRUB / "i386-pc" / "boot.img").read_bytes()
        file.seek(0)
        file.write(patch_boot_sector(boot, table, lba))
        file.seek(lba * SECTOR_BYTES)
        file.write(code)


def _make_esp(layout: Layout, early: Path, scratch: Path, run: Run) -> Path:
    esp, loader, csv = scratch / "esp.img", scratch / "grubx64.efi", scratch / "BOOTX64.CSV"
    run(
        [
            *("grub-mkimage", "-O", "x86_64-efi", "-d", str(GRUB / "x86_64-efi")),
            *("-o", str(loader), "-p", "/boot/grub", "-c", str(early)),
            *EFI_MODULES,
            *MENU_MODULES,
        ]
    )
    csv.write_bytes(render_boot_csv())
    esp.unlink(missing_ok=True)
    with esp.open("wb") as file:
        file.truncate(layout.esp_mib[1] * MIB)
    run(["mkfs.vfat", "-F", "32", "-n", "ESP", str(esp)])
    run(["mmd", "-i", str(esp), "::/EFI", "::/EFI/BOOT", "::/EFI/debian"])
    for source, target in (
        (loader, "EFI/BOOT/BOOTX64.EFI"),
        (loader, "EFI/debian/grubx64.efi"),
        (csv, "EFI/debian/BOOTX64.CSV"),
    ):
        run(["mcopy", "-i", str(esp), str(source), f"::/{target}"])
    return esp


def convert(raw: Path, target: Path, run: Run) -> None:
    """A compressed qcow2 (version 3, zlib: what every reader knows) of ``raw``."""
    unfinished = target.with_name(target.name + ".new")
    run(
        [
            *("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-m", "4", "-W"),
            *("-o", "compat=1.1,lazy_refcounts=off", str(raw), str(unfinished)),
        ]
    )
    unfinished.replace(target)


def run_quietly(argv: Sequence[str]) -> None:
    """Run a command; its output shows only in the error. Raises RuntimeError."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        text = (done.stderr or done.stdout).strip()
        raise RuntimeError(f"{argv[0]} ended with status {done.returncode}: {text[-1500:]}")
