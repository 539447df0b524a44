"""Loading the kernel that the written disk would boot, to start it without the firmware."""

import contextlib
import os
from pathlib import Path

from billet_agent.jobs.context import JobContext
from billet_agent.kexec import KERNEL_BYTES, KexecError, Tree, joined
from billet_agent.machine import Machine
from billet_agent.plan.filesystem import FILESYSTEM_BYTES, filesystem_kind
from billet_agent.plan.loaders import NoStart, Start, choose_start
from billet_wire import HandOver, HandOverResult


def hand_over(
    machine: Machine, params: HandOver, disk: str | None, context: JobContext
) -> HandOverResult:
    """Decide how the machine is left; the agent leaves when it sees this job succeed.

    ``disk`` is what this agent wrote an image to. Where kexec is wanted and cannot be, the reason
    is in the result and the machine is rebooted.
    """
    context.begin("hand-over", params.action)
    if not params.kexec or params.action != "reboot":
        return HandOverResult(params.action)
    try:
        if disk is None:
            raise KexecError("this agent has written no image")
        words = load_written(machine, disk, context)
    except (KexecError, OSError) as error:
        context.log(f"no kexec, because {error}")
        return HandOverResult("reboot", str(error))
    context.log(words)
    return HandOverResult("kexec", words)


def load_written(machine: Machine, disk: str, context: JobContext) -> str:
    """Load the kernel that the disk's boot loader would start; return what it is, in words.

    Raises KexecError, JobCancelled.
    """
    for node in machine.partitions(disk):
        context.check()
        with Path(node).open("rb") as file:
            kind = filesystem_kind(file.read(FILESYSTEM_BYTES))
        if kind is None:
            continue
        with machine.kexec.mounted(node, kind) as tree:
            start = choose_start(tree)
            if isinstance(start, NoStart):
                raise KexecError(f"{node}: {start.reason}")
            if start is not None:
                _load(machine, tree, start, context)
                return f"kexec: /{start.kernel} of {node}, as {start.source} says"
    raise KexecError(
        f"no partition of {disk} has settings of a boot loader that are understood (GRUB, "
        "systemd-boot, extlinux on ext4, xfs or FAT)"
    )


def _load(machine: Machine, tree: Tree, start: Start, context: JobContext) -> None:
    with contextlib.ExitStack() as stack:

        def opened(path: str) -> int:
            number = tree.open(path)
            stack.callback(os.close, number)
            return number

        kernel = opened(start.kernel)
        if os.fstat(kernel).st_size > KERNEL_BYTES:
            raise KexecError(f"/{start.kernel} is too big for a kernel")
        initrd = joined([opened(path) for path in start.initrds], context.check)
        if initrd is not None:
            stack.callback(os.close, initrd)
        machine.kexec.load(kernel, initrd, start.arguments)
