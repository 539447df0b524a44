"""What dnsmasq needs before it can start: binary, powers, interface, port, files."""

import contextlib
import errno
import hashlib
import os
import pwd
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from billet_server.boot.dhcp import BIOS_LOADER, UEFI_LOADER, DhcpSettings
from billet_server.errors import BootError

LOADER_DIR = Path("/usr/lib/ipxe")
"""Where Debian's package ipxe puts the loaders."""

USER = "nobody"
_SEARCH = "/usr/sbin:/usr/bin:/sbin:/bin"
_SETGID, _SETUID, _SETPCAP = 6, 7, 8
_NEEDED = {10: "net_bind_service", 12: "net_admin", 13: "net_raw"}


class Ground(NamedTuple):
    """All that was prepared. ``owner`` is the uid that dnsmasq runs as, None: ours."""

    command: tuple[str, ...]
    tftp_root: Path
    lease_path: Path
    owner: int | None
    own_root: bool = False

    @contextlib.contextmanager
    def open_leases(self) -> Iterator[int]:
        """Yield a descriptor of the lease file, readable and writable for dnsmasq's user."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.lease_path, flags, 0o600)
        try:
            if self.owner is not None:
                os.fchown(descriptor, self.owner, -1)
            yield descriptor
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Remove the TFTP root where it is one of our own making."""
        if self.own_root:
            shutil.rmtree(self.tftp_root, ignore_errors=True)


def prepare(settings: DhcpSettings, loader_dir: Path = LOADER_DIR) -> Ground:
    """Check the machine and lay out files. Raises BootError that says what to do."""
    command, owner = _command()
    _check_interface(settings.interface, settings.server_address)
    _check_port(settings.interface)
    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        root = settings.tftp_root or _own_root(settings.state_dir, owner)
        _fill(root, loader_dir)
    except OSError as error:
        raise BootError(
            f"cannot lay out the boot files ({error}); check the state directory "
            f"{settings.state_dir} and that Debian's package ipxe is installed"
        ) from error
    return Ground(
        command, root, settings.state_dir / "dnsmasq.leases", owner, settings.tftp_root is None
    )


def _command() -> tuple[tuple[str, ...], int | None]:
    dnsmasq = shutil.which("dnsmasq", path=_SEARCH)
    setpriv = shutil.which("setpriv", path=_SEARCH)
    if dnsmasq is None or setpriv is None:
        raise BootError(
            "cannot serve DHCP: dnsmasq or setpriv is not installed; "
            "apt-get install dnsmasq-base util-linux, or set DHCP to off"
        )
    have = effective_capabilities()
    missing = sorted(name for bit, name in _NEEDED.items() if not have >> bit & 1)
    if missing:
        raise BootError(
            f"cannot serve DHCP: this process lacks the capabilities {', '.join(missing)}; "
            "run it as root or with these as ambient capabilities (systemd: "
            "AmbientCapabilities=), or set DHCP to off"
        )
    command = [setpriv, "--no-new-privs", "--pdeathsig=KILL"]
    caps = "-all," + ",".join(f"+{name}" for name in _NEEDED.values())
    drop = os.geteuid() == 0 and all(have >> bit & 1 for bit in (_SETUID, _SETGID, _SETPCAP))
    owner = None
    if drop:
        account = pwd.getpwnam(USER)
        owner = account.pw_uid
        command += [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
        command += [f"--inh-caps={caps}", f"--ambient-caps={caps}", f"--bounding-set={caps}"]
    return (*command, "--", dnsmasq, *(() if drop else ("--user=",))), owner


def effective_capabilities() -> int:
    """Return this process's effective capabilities as a bit mask (capabilities(7))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _check_interface(interface: str, address: str) -> None:
    try:
        socket.if_nametoindex(interface)
    except OSError as error:
        have = ", ".join(sorted(name for _, name in socket.if_nameindex()))
        raise BootError(
            f"cannot serve DHCP: there is no interface {interface}; this machine has {have}"
        ) from error
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        try:
            endpoint.bind((address, 0))
        except OSError as error:
            raise BootError(
                f"cannot serve DHCP on {interface}: {address} is not an address of this machine; "
                f"ip address add {address}/.. dev {interface}, or set another server address"
            ) from error


def _check_port(interface: str) -> None:
    # dnsmasq binds with SO_REUSEADDR, so two of them would share port 67 and both answer.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        try:
            endpoint.bind(("", 67))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise BootError(f"cannot serve DHCP on {interface}: {error.strerror}") from error
            raise BootError(
                f"cannot serve DHCP on {interface}: another DHCP server has UDP port 67 there; "
                "find it with: ss -lnup 'sport = :67', and stop it or use DHCP mode off"
            ) from error


def _own_root(state_dir: Path, owner: int | None) -> Path:
    """Return a folder that dnsmasq's user can reach; the same one again after a crash."""
    if owner is None:
        return state_dir / "tftp"
    mark = hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:12]
    return Path("/run/billet") / f"tftp-{mark}"


def _fill(root: Path, loader_dir: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name in (BIOS_LOADER, UEFI_LOADER):
        data = (loader_dir / name).read_bytes()
        target = root / name
        if not target.is_file() or target.read_bytes() != data:
            target.unlink(missing_ok=True)
            target.write_bytes(data)
        target.chmod(0o444)
