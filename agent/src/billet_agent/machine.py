"""The machine that jobs work on: its readers and tools, each replaceable by a recorded one."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from billet_agent.image.fetch import Patience
from billet_agent.kexec import Kexec, LinuxKexec
from billet_agent.tools import ToolError, Tools
from billet_wire import DiskReport, InspectResult


@dataclass(frozen=True)
class Machine:
    """What jobs may ask and use.

    ``inventory`` and ``disks`` read afresh at each call; ``partitions`` gives the device nodes
    of a disk's partitions; ``memory_available`` bytes that can be used without swapping.
    """

    tools: Tools
    inventory: Callable[[], InspectResult]
    disks: Callable[[], tuple[DiskReport, ...]]
    partitions: Callable[[str], tuple[str, ...]]
    memory_available: Callable[[], int]
    boot_mode: str
    architecture: str
    patience: Patience = field(default_factory=Patience)
    kexec: Kexec = field(default_factory=LinuxKexec)
    new_guid: Callable[[], str] = lambda: str(uuid.uuid4())

    def settle(self) -> None:
        """Wait until udev has made the device nodes; without udev there is nothing to wait for."""
        try:
            self.tools.run(["udevadm", "settle", "--timeout=30"], deadline_s=40)
        except ToolError:
            return
