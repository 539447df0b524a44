"""``billet-agent``: kernel line to settings to a running agent."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from billet_agent import VERSION
from billet_agent.agent import Agent
from billet_agent.console import Console, print_line
from billet_agent.inventory import read_boot_mode, read_inventory
from billet_agent.inventory.cpu import read_available_bytes
from billet_agent.inventory.disks import read_disks, read_partitions
from billet_agent.inventory.nics import read_macs
from billet_agent.inventory.sources import Sources
from billet_agent.jobs.handover import Action, leave
from billet_agent.jobs.work import worker
from billet_agent.machine import Machine
from billet_agent.settings import Settings, SettingsError, parse_settings, read_cmdline
from billet_agent.tools import HostTools

EXIT_SETTINGS = 2
EXIT_STILL_HERE = 3


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; on a real machine it is empty."""
    parser = argparse.ArgumentParser(
        prog="billet-agent",
        description="Billet's agent: runs in the ramdisk of the machine being provisioned.",
    )
    parser.add_argument("--version", action="version", version=VERSION)
    parser.add_argument(
        "--cmdline", type=Path, default=Path("/proc/cmdline"), help="file with the kernel line"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a word that overrides the kernel line, e.g. billet.server=HOST:PORT",
    )
    parser.add_argument(
        "--sysroot", type=Path, default=None, help="read sys/ and proc/ below this (for tests)"
    )
    parser.add_argument(
        "--no-reboot", action="store_true", help="end instead of rebooting or powering off"
    )
    return parser.parse_args(argv)


def read_settings(arguments: argparse.Namespace) -> Settings:
    """Return the settings of kernel line and flags. Raises SettingsError."""
    try:
        text = arguments.cmdline.read_text(errors="replace")
    except OSError as error:
        raise SettingsError([f"the kernel line cannot be read: {error}"]) from error
    return parse_settings({**read_cmdline(text), **read_cmdline(" ".join(arguments.set))})


def build_machine(sources: Sources, boot_mac: str | None) -> Machine:
    """Return the machine that jobs work on."""
    return Machine(
        tools=HostTools(),
        inventory=lambda: read_inventory(sources, boot_mac),
        disks=lambda: read_disks(sources),
        partitions=lambda disk: read_partitions(sources, disk),
        memory_available=lambda: read_available_bytes(sources),
        boot_mode=read_boot_mode(sources),
        architecture=sources.architecture,
    )


async def serve(settings: Settings, sources: Sources, *, may_reboot: bool) -> Action | None:
    """Run the agent to its end; return what it was to hand over with, if so."""
    machine = build_machine(sources, settings.boot_mac)
    console = Console()
    console.line(f"billet-agent {VERSION} for server {' or '.join(map(str, settings.servers))}")

    def go(action: Action) -> None:
        if may_reboot:
            leave(machine.tools, machine.kexec, action, console.line)

    agent = Agent(
        settings,
        run_job=worker(machine),
        macs=lambda: read_macs(sources),
        boot_mode=machine.boot_mode,
        leave=go,
        console=console,
    )
    await agent.run()
    return agent.handed_over


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit status: 2 for wrong settings, 3 when a reboot did not happen."""
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    try:
        settings = read_settings(arguments)
    except SettingsError as error:
        print_line("billet: the agent cannot start, its settings are wrong:")
        for fault in error.faults:
            print_line(f"billet:   {fault}")
        return EXIT_SETTINGS
    root: Path | None = arguments.sysroot
    sources = Sources.live() if root is None else Sources.recorded(root)
    may_reboot = not arguments.no_reboot
    handed_over = asyncio.run(serve(settings, sources, may_reboot=may_reboot))
    return EXIT_STILL_HERE if handed_over and may_reboot else 0


if __name__ == "__main__":
    sys.exit(main())
