"""Which file system begins here."""

FILESYSTEM_BYTES = 4096
"""So much of its start tells."""


def filesystem_kind(start: bytes) -> str | None:
    """Return ``ext4`` (of all ext kinds), ``xfs`` or ``vfat``, or None for any other."""
    if start[0x438:0x43A] == b"\x53\xef":
        return "ext4"
    if start[:4] == b"XFSB":
        return "xfs"
    if start[0x52:0x55] == b"FAT" or start[0x36:0x39] == b"FAT":
        return "vfat"
    return None
