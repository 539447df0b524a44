"""The job ``clean``: no disk keeps a signature or a partition table."""

from billet_agent.disk import Disk
from billet_agent.jobs.context import JobContext
from billet_agent.machine import Machine
from billet_agent.problems import failure
from billet_agent.tools import ToolError
from billet_wire import CleanResult, DiskReport

_WIPEFS_S = 120.0


def clean(machine: Machine, context: JobContext) -> CleanResult:
    """Wipe the metadata of all internal disks. Raises JobFailed clean or disk-write."""
    with context.step("clean"):
        return clean_disks(machine, context, machine.disks())


def clean_disks(
    machine: Machine, context: JobContext, disks: tuple[DiskReport, ...]
) -> CleanResult:
    """Wipe each disk that is not marked ``skip``: its partitions' signatures, both ends."""
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
