"""``billet lab list|power|console|fault|exec``: commands on machines of a running lab."""

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import cast, get_args

import click
import msgspec
from rich.table import Table

from billet_lab import console, requirements, teardown
from billet_lab.cli_options import directory_option, print_table, run
from billet_lab.control import BootTarget
from billet_lab.control_socket import ControlError, MachineClient, MachineStatus, PowerAction
from billet_lab.faults import FaultError, Faults, parse_fault
from billet_lab.specs import LabState, MachineInfo
from billet_lab.vm import Boot

name_argument = click.argument("name")


@click.command("list")
@click.option("-o", "output", type=click.Choice(["table", "json"]), default="table",
              show_default=True, help="json: an object per machine.")  # fmt: skip
@directory_option
def list_machines(output: str, directory: Path) -> None:
    """Show the machines: power, boots, faults that are on."""
    state = _state(directory)
    rows = run(_statuses(state))
    if output == "json":
        entries = [
            {
                **msgspec.to_builtins(machine),
                "namespace": state.namespace,
                "status": None if isinstance(status, str) else msgspec.to_builtins(status),
            }
            for machine, status in rows
        ]
        click.echo(msgspec.json.format(msgspec.json.encode(entries), indent=2).decode())
        return
    table = Table("NAME", "POWER", "BOOTS", "LAST BOOT", "FAULTS", "BMC", box=None)
    for machine, status in rows:
        table.add_row(machine.name, *_cells(status), machine.bmc_address)
    print_table(table)


async def _statuses(state: LabState) -> list[tuple[MachineInfo, MachineStatus | str]]:
    async def ask(machine: MachineInfo) -> tuple[MachineInfo, MachineStatus | str]:
        try:
            return machine, await _client(machine).status()
        except ControlError as error:
            return machine, str(error)

    return list(await asyncio.gather(*(ask(machine) for machine in state.machines)))


def _cells(status: MachineStatus | str) -> tuple[str, str, str, str]:
    if isinstance(status, str):
        return "unknown", "?", status, ""
    last = status.boots[-1] if status.boots else None
    told = f"{_source(last.target)} ({_end(last)})" if last else "never"
    return (
        "on" if status.powered_on else "off",
        str(last.number if last else 0),
        told,
        _faults_text(status.faults) or "none",
    )


def _end(boot: Boot) -> str:
    return ": ".join(filter(None, [boot.end or "running", boot.detail]))


def _source(target: BootTarget) -> str:
    return "boot order" if target is BootTarget.NONE else target


def _faults_text(faults: Faults) -> str:
    on = {name: value for name, value in msgspec.structs.asdict(faults).items() if value}
    return " ".join(f"{name}={'on' if value is True else value}" for name, value in on.items())


@click.command()
@name_argument
@click.argument("action", type=click.Choice(get_args(PowerAction)))
@directory_option
def power(name: str, action: str, directory: Path) -> None:
    """Switch a machine, as a hand on its buttons would.

    on: power button. soft: ACPI power button. off, cut: pull the plug. reset: plug out and in.
    """
    client = _client(_machine(directory, name))
    status = run(client.power(cast(PowerAction, action)))
    click.echo(f"{name} is {'on' if status.powered_on else 'off'}")


@click.command("console")
@name_argument
@click.option("-f", "--follow", "following", is_flag=True, help="Go on until Ctrl-C.")
@directory_option
def show_console(name: str, following: bool, directory: Path) -> None:
    """Print a machine's serial console."""
    path = Path(_machine(directory, name).console_path)
    if not following:
        if path.exists():
            sys.stdout.buffer.write(path.read_bytes())
        return
    with contextlib.suppress(KeyboardInterrupt):
        run(_follow(path))


async def _follow(path: Path) -> None:
    async for data in console.follow(path):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


@click.command()
@name_argument
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@directory_option
def fault(name: str, settings: tuple[str, ...], directory: Path) -> None:
    """Set fault switches of a machine; without any, show them.

    \b
    bmc_dead=on              the BMC answers nothing
    bmc_slow_s=5             it thinks that long before each answer
    wrong_power_state=on     it tells the opposite of the truth
    ignore_boot_override=on  the machine boots from what it likes
    slow_post_s=60           and takes its time first
    link_down=on             the cable is out
    link_loss_percent=5      or bad
    link_delay_ms=50         or long
    disk_write_mib_s=5       the disks are slow
    disk_errors=on           writes fail, from the next boot on
    """
    client = _client(_machine(directory, name))
    try:
        wanted = dict(parse_fault(text) for text in settings)
    except FaultError as error:
        raise click.UsageError(str(error)) from error
    status = run(client.set_faults(wanted) if wanted else client.status())
    for key, value in msgspec.structs.asdict(status.faults).items():
        click.echo(f"{key}={_value(value)}")


def _value(value: bool | float) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else f"{value:g}"


@click.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="CMD...")
@directory_option
def execute(argv: tuple[str, ...], directory: Path) -> None:
    """Run a command in the lab's network; its exit code is this one's.

    \b
    Example: billet lab exec -- ipmitool -I lanplus -H 172.22.0.1 -p 6230 \\
                 -U admin -P admin power status
    """
    state = _state(directory)
    try:
        requirements.check_root()
    except requirements.RequirementError as error:
        raise click.ClickException(str(error)) from error
    sys.stdout.flush()
    os.execvp("ip", ["ip", "netns", "exec", state.namespace, *argv])


def _state(directory: Path) -> LabState:
    try:
        return teardown.read_state(directory)
    except teardown.StateError as error:
        raise click.ClickException(str(error)) from error


def _machine(directory: Path, name: str) -> MachineInfo:
    machines = {machine.name: machine for machine in _state(directory).machines}
    if name not in machines:
        raise click.ClickException(
            f"there is no machine {name!r} in {directory}; there are {', '.join(machines)}"
        )
    return machines[name]


def _client(machine: MachineInfo) -> MachineClient:
    return MachineClient(machine.name, Path(machine.control_path))


COMMANDS = (list_machines, power, show_console, fault, execute)
