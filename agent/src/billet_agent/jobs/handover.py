"""Leaving the machine to its disk: everything on the medium, then kexec, reboot or power off."""

import os
import time
from collections.abc import Callable
from typing import Literal

from billet_agent.kexec import Kexec, KexecError
from billet_agent.tools import ToolError, Tools

Action = Literal["reboot", "power-off", "kexec"]

_COMMANDS: dict[Action, tuple[tuple[str, ...], ...]] = {
    "reboot": (("reboot", "-f", "-f"), ("systemctl", "reboot", "--force"), ("reboot", "-f")),
    "power-off": (
        ("poweroff", "-f", "-f"),
        ("systemctl", "poweroff", "--force"),
        ("poweroff", "-f"),
    ),
}
_TOOL_S = 20.0
_PATIENCE_S = 15.0


def leave(
    tools: Tools,
    kexec: Kexec,
    action: Action,
    log: Callable[[str], None],
    *,
    sync: Callable[[], None] = os.sync,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Sync, then try one way after the other; returns if none of them works.

    A kernel that cannot be started after all is no obstacle: the machine is rebooted.

    Nothing in the ramdisk is worth an orderly stop, so the kernel is asked first (reboot(8) with
    two -f): the system manager would wait its whole stop time for this very process, which stays
    alive to try the next command.
    """
    sync()
    if action == "kexec":
        try:
            kexec.start()
        except KexecError as error:
            log(f"rebooting, because {error}")
        action = "reboot"
    for command in _COMMANDS[action]:
        try:
            done = tools.run(command, deadline_s=_TOOL_S)
        except ToolError as error:
            log(f"{action}: {error}")
            continue
        if done.status != 0:
            log(f"{action}: {done.evidence}")
            continue
        pause(_PATIENCE_S)
        log(f"{action}: {' '.join(command)} had no effect")
