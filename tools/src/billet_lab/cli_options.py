"""What the commands of ``billet lab`` share: the directory option, and errors as messages."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from billet_lab import net, requirements, teardown
from billet_lab.control_socket import ControlError
from billet_lab.faults import FaultError
from billet_lab.lab import LabError
from billet_lab.specs import SpecError

T = TypeVar("T")
_ERRORS = (
    ControlError, FaultError, LabError, SpecError, net.NetError,
    requirements.RequirementError, teardown.StateError,
)  # fmt: skip

directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("billet-lab"),
    envvar="BILLET_LAB_DIR",
    show_default=True,
    show_envvar=True,
    help="The lab's directory: consoles, disks, hosts.yaml.",
)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; errors become one message and exit code 1."""
    try:
        return asyncio.run(work)
    except _ERRORS as error:
        raise click.ClickException(str(error)) from error


def print_table(table: Table) -> None:
    """Print a table as wide as it is: an address cut off with dots cannot be copied."""
    Console(width=1000).print(table)
