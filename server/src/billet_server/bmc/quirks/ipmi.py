"""Deviations of IPMI BMCs, by manufacturer (IANA enterprise number of Get Device ID)."""

UEFI_DISK_SELECTOR = {10876: 0x24, 47488: 0x24}
"""Boot-flag device byte for a disk in UEFI mode where 0x08 is not obeyed: Supermicro."""
