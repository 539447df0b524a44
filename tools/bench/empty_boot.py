"""How long this machine takes to boot a Linux kernel that does nothing: the bound of every boot.

The init is a static program of a few bytes that prints one line and switches off. So a slower
machine can be told from a slower ramdisk.
"""

import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from billet_lab.qemu_args import QEMU, accel_args

LINE = b"empty init\n"
_BASE = 0x400000
_DEADLINE_S = 120.0


def render_init() -> bytes:
    """Return an ELF program (x86-64): write(1, LINE), sync, reboot(RB_POWER_OFF)."""
    code = b"".join(
        (
            b"\xb8\x01\0\0\0\xbf\x01\0\0\0",  # mov eax, SYS_write; mov edi, 1
            b"\xbe" + struct.pack("<I", _BASE + 0x100),  # mov esi, LINE
            b"\xba" + struct.pack("<I", len(LINE)) + b"\x0f\x05",  # mov edx, length; syscall
            b"\xb8\xa9\0\0\0",  # mov eax, SYS_reboot
            b"\xbf" + struct.pack("<I", 0xFEE1DEAD),
            b"\xbe" + struct.pack("<I", 0x28121969),
            b"\xba" + struct.pack("<I", 0x4321FEDC) + b"\x0f\x05",
            b"\xeb\xfe",  # and stay
        )
    )
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _BASE + 0x80, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = 0x100 + len(LINE)
    header += struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header.ljust(0x80, b"\0") + code.ljust(0x80, b"\0") + LINE


def render_cpio(init: bytes) -> bytes:
    """Return an initramfs ("newc") with /dev/console and /init."""
    entries = (
        ("dev", 0o040755, b"", 0),
        ("dev/console", 0o020600, b"", 5),
        ("init", 0o100755, init, 0),
    )
    made = b""
    for name, mode, data, major in (*entries, ("TRAILER!!!", 0, b"", 0)):
        minor = 1 if major else 0
        fields = (1, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name) + 1, 0)
        made += b"070701" + "".join(f"{field:08X}" for field in fields).encode()
        made += name.encode() + b"\0"
        made += b"\0" * (-len(made) % 4) + data
        made += b"\0" * (-len(made) % 4)
    return made


def empty_init_s(kernel: Path, *, memory_mib: int = 1024, cpus: int = 2) -> float:
    """Return seconds from starting QEMU (TCG) to its end, the kernel's power-off."""
    with tempfile.TemporaryDirectory(prefix="billet-empty-") as name:
        initramfs, serial = Path(name, "initramfs"), Path(name, "serial")
        initramfs.write_bytes(render_cpio(render_init()))
        argv = [
            *(QEMU, "-machine", "q35,hpet=off,graphics=off", *accel_args("tcg")),
            *("-m", str(memory_mib), "-smp", str(cpus), "-nodefaults", "-display", "none"),
            *("-kernel", str(kernel), "-initrd", str(initramfs), "-no-reboot"),
            *("-append", "console=ttyS0 panic=-1", "-serial", f"file:{serial}"),
        ]
        began = time.monotonic()
        subprocess.run(argv, check=True, timeout=_DEADLINE_S)
        seconds = time.monotonic() - began
        if LINE.strip() not in serial.read_bytes():
            tail = serial.read_bytes()[-600:].decode(errors="replace")
            raise SystemExit(f"the kernel did not get to its init:\n{tail}")
        return seconds


if __name__ == "__main__":
    print(f"{empty_init_s(Path(sys.argv[1])):.1f} s")
