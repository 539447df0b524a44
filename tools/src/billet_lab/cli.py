"""``billet lab``: virtual machines with BMCs, to try Billet out and to break it on purpose."""

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import cast, get_args

import click
from rich.console import Console
from rich.table import Table

from billet_lab import accel, cli_machines, manifests, processes, requirements, teardown
from billet_lab.cli_options import directory_option, print_table, run
from billet_lab.control import Firmware
from billet_lab.lab import Lab, LabError
from billet_lab.specs import BmcKind, MachineInfo, MachineSpec, SpecError, parse_disk, parse_size


@click.group(short_help="virtual machines with BMCs, to try out and to break")
def lab() -> None:
    """Virtual machines with BMCs, in a network of their own.

    \b
    Examples:
      billet lab up -n 2                       two BIOS machines with IPMI
      billet lab up --firmware uefi --bmc redfish --disk 8G --disk 20G:nvme
      billet lab list                          what there is and what it does
      billet lab console node01 -f             watch a machine boot
      billet lab fault node01 bmc_dead=on      break something
      billet lab exec -- ping -c 3 172.22.0.1  run a command in the lab's network
    """


@lab.command()
@click.option("-n", "count", type=click.IntRange(1, 64), default=1, show_default=True,
              help="How many machines; they are called node01 and on.")  # fmt: skip
@click.option("--firmware", type=click.Choice(get_args(Firmware)), default="bios",
              show_default=True, help="How they boot.")  # fmt: skip
@click.option("--bmc", type=click.Choice(get_args(BmcKind)), default="ipmi", show_default=True,
              help="What their BMCs speak.")  # fmt: skip
@click.option("--memory", default="3G", show_default=True, help="RAM of each machine.")
@click.option("--cpus", type=click.IntRange(1, 64), default=2, show_default=True,
              help="Processors of each machine.")  # fmt: skip
@click.option("--disk", "disks", multiple=True, default=["8G"], show_default=True,
              metavar="SIZE[:BUS]",
              help="A disk; may be repeated. BUS: virtio, scsi, nvme, sata.")  # fmt: skip
@click.option("--accel", "choice", type=click.Choice(["auto", "kvm", "tcg"]), default="auto",
              show_default=True,
              help="auto takes KVM only if a probe boots under it.")  # fmt: skip
@click.option("--namespace", default="metal3", show_default=True,
              help="Kubernetes namespace in hosts.yaml.")  # fmt: skip
@click.option("--keep-disks", is_flag=True, help="Keep disks for the next `up` in this directory.")
@directory_option
def up(
    *,
    count: int,
    firmware: str,
    bmc: str,
    memory: str,
    cpus: int,
    disks: tuple[str, ...],
    choice: str,
    namespace: str,
    keep_disks: bool,
    directory: Path,
) -> None:
    """Start a lab and keep it up until Ctrl-C.

    \b
    Machines start powered off. To have them provisioned:
      kubectl apply -f billet-lab/hosts.yaml
    """
    try:
        specs = [
            MachineSpec(
                name=f"node{number:02}",
                firmware=cast(Firmware, firmware),
                bmc=cast(BmcKind, bmc),
                memory_mib=parse_size(memory) >> 20,
                cpus=cpus,
                disks=tuple(parse_disk(disk) for disk in disks),
            )
            for number in range(1, count + 1)
        ]
        made = Lab(
            directory,
            specs,
            accel_choice=cast(accel.AccelChoice, choice),
            keep_disks=keep_disks,
        )
    except SpecError as error:
        raise click.UsageError(str(error)) from error
    run(_stay_up(made, namespace))


async def _stay_up(made: Lab, namespace: str) -> None:
    task = asyncio.current_task()
    assert task is not None
    stopped = False

    def stop() -> None:
        nonlocal stopped
        if not stopped:  # a second Ctrl-C must not break the taking down
            stopped = True
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    out = Console()
    with contextlib.suppress(asyncio.CancelledError):
        async with made:
            hosts = made.directory / "hosts.yaml"
            hosts.touch(mode=0o600)
            hosts.write_text(manifests.render_hosts(made.machines, namespace))
            out.print(f"accelerator: {made.accel} ({made.accel_reason})", soft_wrap=True)
            print_table(_reach_table(made.machines))
            out.print(
                f"network namespace: {made.namespace} (its host side: {made.host_address})\n"
                f"manifests: {hosts}\n"
                "Ctrl-C ends the lab.",
                soft_wrap=True,
            )
            await asyncio.get_running_loop().create_future()
    out.print("The lab is down; consoles and logs stay in", str(made.directory), soft_wrap=True)


def _reach_table(machines: list[MachineInfo]) -> Table:
    table = Table("NAME", "FIRMWARE", "MAC", "BMC", "USER", "PASSWORD", "CONSOLE", box=None)
    for machine in machines:
        table.add_row(
            machine.name, machine.firmware, machine.mac, machine.bmc_address,
            machine.username, machine.password, machine.console_path,
        )  # fmt: skip
    return table


@lab.command()
@directory_option
def down(directory: Path) -> None:
    """End a lab and remove all it made, also after a crash.

    Exit code 1 and a message when something could not be removed; run it again then.
    """
    run(_down(directory))


async def _down(directory: Path) -> None:
    state = teardown.read_state(directory)
    requirements.check_root()
    if state.processes:
        # The lab's own process takes everything down itself, if it is still there.
        await processes.end(state.processes[:1], grace_s=30.0)
    if teardown.state_path(directory).exists():
        troubles = await teardown.take_down(state)
        if troubles:
            raise LabError(
                "could not remove everything: "
                + "; ".join(troubles)
                + f". Once that is mended: billet lab down --dir {directory}"
            )
    click.echo(f"The lab in {directory} is down.")


for command in cli_machines.COMMANDS:
    lab.add_command(command)
