"""The job ``clean``: no disk keeps a signature or a partition table."""

import os
from collections.abc import Sequence
from pathlib import Path

from billet_agent.disk import Disk
from billet_agent.jobs.context import JobContext
from billet_agent.machine import Machine
from billet_agent.plan.losses import Loss, describe, parse_wipefs, protected
from billet_agent.problems import failure
from billet_agent.tools import ToolError
from billet_wire import Clean, CleanResult, DiskReport

_WIPEFS_S = 120.0


def clean(machine: Machine, params: Clean, context: JobContext) -> CleanResult:
    """Wipe the metadata of all internal disks.

    Raises JobFailed clean, disk-write, data-protected.
    """
    with context.step("clean"):
        return clean_disks(machine, context, machine.disks(), protect=params.protect_data)


def clean_disks(
    machine: Machine, context: JobContext, disks: tuple[DiskReport, ...], *, protect: bool
) -> CleanResult:
    """Wipe each disk that is not marked ``skip``: its partitions' signatures, both ends.

    What will be lost is told before any of it is; with ``protect`` nothing is wiped then.
    """
    account_for(machine, context, [disk.name for disk in disks if not disk.skip], protect=protect)
    wiped: list[str] = []
    skipped: list[tuple[str, str]] = []
    for disk in disks:
        context.check()
        if disk.skip:
            skipped.append((disk.name, disk.skip))
            continue
        context.begin("clean", f"wiping {disk.name}")
        _clean_disk(machine, disk.name)
        context.log(f"wiped the metadata of {disk.name}")
        wiped.append(disk.name)
    machine.settle()
    return CleanResult(tuple(wiped), tuple(skipped))


def account_for(
    machine: Machine, context: JobContext, disks: Sequence[str], *, protect: bool
) -> None:
    """Tell what wiping these disks takes away. Raises JobFailed clean, data-protected."""
    nodes = [node for disk in disks for node in (*machine.partitions(disk), disk)]
    losses: list[Loss] = []
    for node in nodes:
        try:
            losses += _losses(machine, node)
        except (ToolError, ValueError, OSError) as error:
            words = f"what is on {node} cannot be told: {error}"
            if protect:
                raise failure("clean", words, evidence=str(error)) from error
            context.log(words)
    if protect and (refusal := protected(losses)) is not None:
        raise refusal
    if losses:
        context.begin("clean", f"wiping {describe(losses)}")
        context.log(f"will be lost: {describe(losses)}")


def _losses(machine: Machine, node: str) -> tuple[Loss, ...]:
    argv = ["wipefs", "--no-act", "--json", "--output", "TYPE,LABEL", node]
    done = machine.tools.run(argv, deadline_s=_WIPEFS_S)
    if done.status != 0:
        raise ValueError(f"wipefs ended with status {done.status}")
    with Path(node).open("rb") as file:
        size_bytes = file.seek(0, os.SEEK_END)
    return parse_wipefs(done.text, node, size_bytes)


def _clean_disk(machine: Machine, name: str) -> None:
    with Disk(name) as disk:
        for node in (*machine.partitions(name), name):
            _wipe_signatures(machine, node)
        disk.wipe_edges()
        disk.reread_table()


def _wipe_signatures(machine: Machine, node: str) -> None:
    try:
        done = machine.tools.run(["wipefs", "--all", "--force", node], deadline_s=_WIPEFS_S)
    except ToolError as error:
        raise failure(
            "clean", f"wiping {node} failed: {str(error).splitlines()[0]}", evidence=str(error)
        ) from error
    if done.status != 0:
        raise failure(
            "clean",
            f"wipefs could not wipe {node} (exit status {done.status})",
            evidence=done.evidence,
        )
