"""The scripts that iPXE runs, as text. Pure; nothing of a host's can break out of its line.

iPXE reads a script line by line, splits on blanks, knows ``${...}``, ``&&``, ``||``, ``#`` and
``:label``. Everything variable here is either of a set that holds none of these characters
(`check_argument`, `parse_mac`, nonces) or is reduced to one (`printable`).
"""

import re
from typing import NamedTuple

from billet_server.core.bootplan import DiskBoot, RamdiskBoot, check_argument

MAX_REASON_CHARS = 160
MAX_COMMAND_LINE_BYTES = 2047
"""x86 Linux keeps 2048 bytes of command line, the last one zero (COMMAND_LINE_SIZE)."""

_MAC = re.compile(r"([0-9a-f]{2})[:-]?" * 5 + r"([0-9a-f]{2})", re.IGNORECASE)
_NONCE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UNPRINTABLE = re.compile(r"[^A-Za-z0-9 .,:/()_+@-]")

# The disk. BIOS: iPXE itself starts the first disk's boot sector, since firmware that is told
# "network" often has no next entry. UEFI: leave with an error, for only then does the boot
# manager take the next entry (UEFI 2.10 section 3.1.1: success ends in its menu).
_TO_DISK = """\
iseq ${platform} pcbios || goto leave
sanboot --no-describe --drive 0x80 ||
echo Billet: the first disk does not boot, going back to the firmware
:leave
exit 1
"""


class InvalidMac(ValueError):
    """Text that is not an Ethernet address."""


class Urls(NamedTuple):
    """Paths of one boot's files on the boot HTTP server; iPXE resolves them against it."""

    kernel: str
    initramfs: str


def parse_mac(text: str) -> str:
    """Return an Ethernet address in lower case with colons. Raises `InvalidMac`.

    Takes ``52:54:00:ab:cd:ef``, ``52-54-00-AB-CD-EF`` and ``525400abcdef``.
    """
    match = _MAC.fullmatch(text)
    if match is None:
        raise InvalidMac(f"{printable(text, 40)!r} is not an Ethernet address")
    return ":".join(match.groups()).lower()


def printable(text: str, limit: int = MAX_REASON_CHARS) -> str:
    """Return ``text`` reduced to characters that mean nothing to iPXE, at most ``limit``."""
    clean = " ".join(_UNPRINTABLE.sub(" ", text).split())
    return clean if len(clean) <= limit else clean[: limit - 2].rstrip() + ".."


def boot_urls(nonce: str, mac: str) -> Urls:
    """Return the paths of a boot's kernel and initramfs.

    The nonce makes them unguessable, the MAC lets any replica check that it is still current.
    The MAC has hyphens: iPXE takes whatever stands before a colon for a URL's scheme.
    """
    if not _NONCE.fullmatch(nonce):
        raise ValueError(f"boot nonce {nonce!r} has characters outside the allowed set")
    query = f"?mac={mac.replace(':', '-')}"
    return Urls(f"/boot/{nonce}/vmlinuz{query}", f"/boot/{nonce}/initramfs{query}")


def render_bootstrap() -> str:
    """Return the first script, the same for all: asks again with the MAC that booted.

    DHCP can only hand out one address for all machines, and iPXE expands settings only inside
    scripts. ``netX`` is the interface that was configured last: the one that booted.
    """
    return (
        """\
#!ipxe
set wait:int32 1
:ask
chain --replace --autofree /boot/script?mac=${netX/mac:hexhyp} ||
echo Billet: the boot server did not give a script for ${netX/mac}, trying again in ${wait} s
sleep ${wait}
inc wait ${wait}
iseq ${wait} 64 || goto ask
echo Billet: giving up on the network
"""
        + _TO_DISK
    )


def render_disk(plan: DiskBoot) -> str:
    """Return the script that says why and goes on to the disk."""
    return f"#!ipxe\necho Billet: booting from disk: {printable(plan.reason)}\n{_TO_DISK}"


def render_ramdisk(plan: RamdiskBoot, mac: str) -> str:
    """Return the script that fetches and starts the ramdisk, with growing pauses on failure.

    ``initrd=`` names the file for the kernel's EFI stub, BOOTIF is the interface that booted
    (pxelinux's form: hardware type 01, hyphens). Raises ValueError when an argument, the nonce
    or the MAC is outside its character set, or the command line is longer than Linux keeps.
    """
    mac = parse_mac(mac)
    urls = boot_urls(plan.nonce, mac)
    arguments = ["initrd=initramfs", *plan.arguments, f"BOOTIF=01-{mac.replace(':', '-')}"]
    line = " ".join(check_argument(argument) for argument in arguments)
    if len(line) > MAX_COMMAND_LINE_BYTES:
        raise ValueError(
            f"kernel command line of {plan.host} has {len(line)} bytes, "
            f"Linux keeps {MAX_COMMAND_LINE_BYTES}"
        )
    return f"""\
#!ipxe
echo Billet: starting the ramdisk for {printable(str(plan.host))}
set wait:int32 1
:fetch
imgfree
kernel {urls.kernel} {line} || goto failed
initrd --name initramfs {urls.initramfs} || goto failed
boot || goto failed
:failed
echo Billet: the ramdisk did not start, trying again in ${{wait}} s
sleep ${{wait}}
inc wait ${{wait}}
iseq ${{wait}} 64 || goto fetch
echo Billet: giving up on the ramdisk of {printable(str(plan.host))}
imgfree
exit 1
"""
