"""The machine's hardware, read from a root directory so that recorded trees can be read as well."""

from billet_agent.inventory.cpu import read_cpu, read_total_mib
from billet_agent.inventory.disks import read_disks
from billet_agent.inventory.dmi import read_firmware, read_physical_memory, read_vendor
from billet_agent.inventory.nics import read_nics
from billet_agent.inventory.sources import Sources
from billet_agent.plan.rootdisk import Choice, choose_root_disk
from billet_wire import InspectResult


def read_boot_mode(sources: Sources) -> str:
    """Return how the firmware started this kernel: "UEFI" or "legacy"."""
    return "UEFI" if (sources.root / "sys/firmware/efi").exists() else "legacy"


def read_inventory(sources: Sources, boot_mac: str | None = None) -> InspectResult:
    """Return everything; what a machine does not tell is empty."""
    disks = read_disks(sources)
    choice = choose_root_disk(disks)
    chosen = choice.disk.name if isinstance(choice, Choice) else None
    reason = choice.reason if isinstance(choice, Choice) else choice.summary
    return InspectResult(
        hostname=sources.hostname,
        cpu=read_cpu(sources),
        ram_mebibytes=read_physical_memory(sources) or read_total_mib(sources),
        disks=disks,
        nics=read_nics(sources, boot_mac),
        system_vendor=read_vendor(sources),
        firmware=read_firmware(sources),
        boot_mode=read_boot_mode(sources),
        root_disk=chosen,
        root_disk_reason=reason,
    )
