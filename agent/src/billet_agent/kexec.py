"""Starting a kernel from the written disk without the machine's firmware (kexec_file_load(2)).

The disk is mounted read-only, without its journal being replayed, only while kernel and initramfs
are loaded; files are opened inside it (openat2(2), RESOLVE_IN_ROOT), whatever its links say.
"""

import contextlib
import ctypes
import os
import platform
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from billet_agent.plan import loaders

TEXT_BYTES = 1 << 20
KERNEL_BYTES = 256 << 20
_INITRD_BYTES = 1 << 30
_COPY_BYTES = 1 << 20

_KEXEC_FILE_LOAD = {"x86_64": 320, "aarch64": 294}
_NO_INITRAMFS = 4
_OPENAT2 = 437
_IN_ROOT = 0x10 | 0x02  # RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_REBOOT_KEXEC = 0x45584543
_MOUNT_FLAGS = 1 | 2 | 4 | 8  # MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
_DETACH = 2
_OPTIONS = {"ext4": b"noload", "xfs": b"norecovery,nouuid", "vfat": b""}
_libc = ctypes.CDLL(None, use_errno=True)


class KexecError(Exception):
    """Why a kernel cannot be started from here; the text reads on after "because"."""


class Tree(loaders.Tree, Protocol):
    """A file system that is only read, and whose files can be handed to the kernel."""

    def open(self, path: str) -> int:
        """Return a descriptor of a regular file. Raises KexecError."""


class Kexec(Protocol):
    """What starting another kernel needs of the running one."""

    def mounted(self, node: str, kind: str) -> AbstractContextManager[Tree]:
        """Mount a partition for reading. Raises KexecError."""

    def load(self, kernel: int, initrd: int | None, arguments: str) -> None:
        """Load a kernel from descriptors. Raises KexecError."""

    def start(self) -> None:
        """Start what was loaded; returns only by raising KexecError."""


class FolderTree:
    """A folder as a `Tree`: no link leads out of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def text(self, path: str) -> str | None:
        """Return up to 1 MiB of a regular file as text, or None."""
        try:
            with os.fdopen(self.open(path), "rb") as file:
                return file.read(TEXT_BYTES).decode(errors="replace")
        except (KexecError, OSError):
            return None

    def names(self, path: str) -> Sequence[str]:
        """Return the names in a folder; none where there is no folder."""
        try:
            number = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return ()
        try:
            return sorted(os.listdir(number))  # noqa: PTH208 - a descriptor has no path
        finally:
            os.close(number)

    def open(self, path: str) -> int:
        """Return a descriptor of a regular file. Raises KexecError."""
        try:
            number = self._open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise KexecError(f"/{path} cannot be opened: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise KexecError(f"/{path} is not a file")
        return number

    def _open(self, path: str, flags: int) -> int:
        top = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            how = struct.pack("QQQ", flags | os.O_CLOEXEC, 0, _IN_ROOT)
            name = os.fsencode(path)
            return _checked(_libc.syscall(_OPENAT2, top, name, how, len(how)))
        finally:
            os.close(top)


class LinuxKexec:
    """The kernel that runs here."""

    @contextlib.contextmanager
    def mounted(self, node: str, kind: str) -> Iterator[Tree]:
        """Mount a partition read-only, without its journal. Raises KexecError."""
        folder = Path(tempfile.mkdtemp(prefix="billet-boot-"))
        try:
            call = (os.fsencode(node), os.fsencode(folder), kind.encode())
            try:
                _checked(_libc.mount(*call, ctypes.c_ulong(_MOUNT_FLAGS), _OPTIONS[kind]))
            except OSError as error:
                words = f"{node} ({kind}) cannot be mounted: {error.strerror}"
                raise KexecError(words) from error
            try:
                yield FolderTree(folder)
            finally:
                _libc.umount2(os.fsencode(folder), _DETACH)
        finally:
            folder.rmdir()

    def load(self, kernel: int, initrd: int | None, arguments: str) -> None:
        """Load a kernel; it is proved by its signature where the firmware demands that."""
        machine = platform.machine()
        number = _KEXEC_FILE_LOAD.get(machine)
        if number is None:
            raise KexecError(f"kexec is not known for {machine}")
        text = arguments.encode("ascii") + b"\0"
        flags = ctypes.c_ulong(_NO_INITRAMFS if initrd is None else 0)
        files = kernel, -1 if initrd is None else initrd
        try:
            _checked(_libc.syscall(number, *files, ctypes.c_ulong(len(text)), text, flags))
        except OSError as error:
            raise KexecError(f"the kernel refuses to load it: {error.strerror}") from error

    def start(self) -> None:
        """Stop the devices and jump. Raises KexecError when it did not happen."""
        try:
            _checked(_libc.reboot(_REBOOT_KEXEC))
        except OSError as error:
            raise KexecError(f"the kernel refuses to start it: {error.strerror}") from error
        raise KexecError("the kernel came back from starting another one")


def joined(opened: Sequence[int], check: Callable[[], None]) -> int | None:
    """Return one descriptor of all initramfs files one after the other, each from a multiple of 4.

    Raises KexecError when they are absurdly big.
    """
    if not opened:
        return None
    if sum(os.fstat(number).st_size for number in opened) > _INITRD_BYTES:
        raise KexecError("its initramfs is bigger than 1 GiB")
    if len(opened) == 1:
        return os.dup(opened[0])
    whole = os.memfd_create("initramfs", os.MFD_CLOEXEC)
    for number in opened:
        left = size = os.fstat(number).st_size
        while left:
            check()
            count = os.sendfile(whole, number, None, min(left, _COPY_BYTES))
            if count == 0:
                break
            left -= count
        os.lseek(whole, -size % 4, os.SEEK_CUR)
        os.ftruncate(whole, os.lseek(whole, 0, os.SEEK_CUR))
    return whole


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)
