"""A read-only look into a FAT file system, enough for an EFI system partition.

No mount, no tool: what a stranger's image holds is read with bounds on every count. Source:
Microsoft's FAT specification 1.03.
"""

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

Read = Callable[[int, int], bytes]
"""``read(offset, length)`` gives bytes of the partition; fewer at its end."""

_FAT_BYTES = 8 << 20
_CHAIN = 4096
_FILES = 4096
_DEPTH = 6
_LONG, _VOLUME, _FOLDER = 0x0F, 0x08, 0x10


class FatError(ValueError):
    """The partition is no FAT file system, or a damaged one."""


class _Entry(NamedTuple):
    name: str
    folder: bool
    cluster: int
    size: int


class Fat:
    """A FAT12, FAT16 or FAT32 file system."""

    def __init__(self, read: Read) -> None:
        """Read the boot sector and the first FAT. Raises FatError."""
        self._read = read
        boot = read(0, 512)
        if len(boot) < 512 or boot[510:] != b"\x55\xaa":
            raise FatError("there is no FAT boot sector")
        sector, per_cluster, reserved, copies, roots, small, _, fat16 = struct.unpack_from(
            "<HBHBHHBH", boot, 11
        )
        large, fat32 = struct.unpack_from("<II", boot, 32)
        if sector not in {512, 1024, 2048, 4096} or per_cluster not in {1 << n for n in range(8)}:
            raise FatError("its FAT boot sector has impossible sizes")
        fat_sectors = fat16 or fat32
        root_sectors = -(-roots * 32 // sector)
        data = reserved + copies * fat_sectors + root_sectors
        clusters = ((small or large) - data) // per_cluster
        if not reserved or not copies or clusters < 1 or fat_sectors * sector > _FAT_BYTES:
            raise FatError("its FAT boot sector has impossible values")
        self._bits = 12 if clusters < 4085 else 16 if clusters < 65525 else 32
        self._clusters = clusters
        self._cluster_bytes = per_cluster * sector
        self._data = data * sector
        self._table = read(reserved * sector, fat_sectors * sector)
        self._root = (data - root_sectors) * sector, roots * 32
        self._root_cluster = struct.unpack_from("<I", boot, 44)[0] if self._bits == 32 else 0

    def files(self) -> list[str]:
        """Return the paths of all files, like /EFI/BOOT/BOOTX64.EFI, sorted. Raises FatError."""
        return sorted(path for path, entry in self._walk() if not entry.folder)

    def content(self, path: str, limit_bytes: int) -> bytes:
        """Return the first bytes of a file of `files`. Raises FatError when it is not there."""
        for name, entry in self._walk():
            if name == path and not entry.folder:
                length = min(entry.size, limit_bytes)
                return self._chain(entry.cluster, length)[:length]
        raise FatError(f"there is no file {path}")

    def _walk(self) -> Iterator[tuple[str, _Entry]]:
        folders: list[tuple[str, int, bytes]] = [("", 0, self._root_folder())]
        count = 0
        while folders:
            path, depth, raw = folders.pop()
            for entry in _entries(raw):
                count += 1
                if count > _FILES:
                    raise FatError(f"it has more than {_FILES} files")
                name = f"{path}/{entry.name}"
                yield name, entry
                if entry.folder and depth < _DEPTH:
                    limit = _CHAIN * self._cluster_bytes
                    folders.append((name, depth + 1, self._chain(entry.cluster, limit)))

    def _root_folder(self) -> bytes:
        if self._bits == 32:
            return self._chain(self._root_cluster, _CHAIN * self._cluster_bytes)
        return self._read(*self._root)

    def _chain(self, cluster: int, length: int) -> bytes:
        parts, seen = [], 0
        while length > seen * self._cluster_bytes and 2 <= cluster < self._clusters + 2:
            if seen >= _CHAIN:
                raise FatError("one of its cluster chains does not end")
            at = self._data + (cluster - 2) * self._cluster_bytes
            parts.append(self._read(at, self._cluster_bytes))
            cluster, seen = self._next(cluster), seen + 1
        return b"".join(parts)

    def _next(self, cluster: int) -> int:
        try:
            if self._bits == 32:
                return int(struct.unpack_from("<I", self._table, cluster * 4)[0]) & 0x0FFFFFFF
            if self._bits == 16:
                return int(struct.unpack_from("<H", self._table, cluster * 2)[0])
            pair = int(struct.unpack_from("<H", self._table, cluster + cluster // 2)[0])
        except struct.error as error:
            raise FatError("its FAT is shorter than its clusters") from error
        return pair >> 4 if cluster % 2 else pair & 0xFFF


def _entries(raw: bytes) -> Iterator[_Entry]:
    """Yield a folder's entries; long names are put together from the slots before the short one."""
    long_name = ""
    for at in range(0, len(raw) - 31, 32):
        slot = raw[at : at + 32]
        if slot[0] == 0:
            return
        if slot[0] == 0xE5:
            long_name = ""
        elif slot[11] & 0x3F == _LONG:
            part = (slot[1:11] + slot[14:26] + slot[28:32]).decode("utf-16-le", errors="replace")
            long_name = part.partition("\0")[0] + ("" if slot[0] & 0x40 else long_name)
        else:
            name = long_name or _short_name(slot)
            long_name = ""
            high, low, size = struct.unpack_from("<H4xHI", slot, 20)
            if not slot[11] & _VOLUME and name not in {".", ".."} and "/" not in name:
                yield _Entry(name, bool(slot[11] & _FOLDER), high << 16 | low, size)


def _short_name(slot: bytes) -> str:
    base, extension = slot[:8].decode("cp437").rstrip(), slot[8:11].decode("cp437").rstrip()
    if slot[12] & 0x08:
        base = base.lower()
    if slot[12] & 0x10:
        extension = extension.lower()
    return f"{base}.{extension}" if extension else base
