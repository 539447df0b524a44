"""`billet demo`: the whole road on one virtual machine."""

import asyncio
import signal
import sys
from pathlib import Path

import click
from rich.console import Console

from billet_lab.cli_options import run
from billet_lab.demo import Demo, DemoError, Options


@click.command(short_help="a virtual machine from its BMC to a running system")
@click.option("--firmware", type=click.Choice(["bios", "uefi"]), default="bios", show_default=True,
              help="How the machine boots.")  # fmt: skip
@click.option("--bmc", type=click.Choice(["ipmi", "redfish"]), default="ipmi", show_default=True,
              help="What its BMC speaks.")  # fmt: skip
@click.option("--accel", type=click.Choice(["auto", "kvm", "tcg"]), default="auto",
              show_default=True, help="auto takes KVM only if a probe boots under it.")  # fmt: skip
@click.option("--memory", "memory_mib", type=click.IntRange(min=1), default=3072, show_default=True,
              metavar="MIB", help="RAM of the machine.")  # fmt: skip
@click.option("--build-dir", default="build", show_default=True, type=click.Path(path_type=Path),
              metavar="DIR", help="Where ramdisk/ and image/ are and demo/ is made.")  # fmt: skip
@click.option("--dir", "directory", type=click.Path(path_type=Path),
              metavar="DIR", help="Where it writes. [BUILD-DIR/demo]")  # fmt: skip
@click.option("--stay/--no-stay", default=None, help="Stay up afterwards. [on a terminal]")
def demo(
    *,
    firmware: str,
    bmc: str,
    accel: str,
    memory_mib: int,
    build_dir: Path,
    directory: Path | None,
    stay: bool | None,
) -> None:
    """Register, inspect and provision one virtual machine over the whole real chain.

    \b
    Examples:
      billet demo
      billet demo --firmware uefi --bmc redfish --no-stay
    """
    options = Options(
        directory=(directory or build_dir / "demo").absolute(),
        ramdisk_dir=(build_dir / "ramdisk").absolute(),
        image_dir=(build_dir / "image").absolute(),
        firmware=firmware,  # type: ignore[arg-type]
        bmc=bmc,  # type: ignore[arg-type]
        accel=accel,  # type: ignore[arg-type]
        memory_mib=memory_mib,
    )
    console = Console(width=None if sys.stdout.isatty() else 200)
    linger = sys.stdin.isatty() if stay is None else stay
    try:
        run(_run(options, console, stay=linger))
    except DemoError as error:
        raise click.ClickException(str(error)) from error


async def _run(options: Options, console: Console, *, stay: bool) -> None:
    """Run the demo; exits with 128 and the signal's number when it was broken off."""
    task = asyncio.current_task()
    assert task is not None
    stop = asyncio.Event()
    broken_off = 0
    lingering = False

    def interrupted(number: signal.Signals) -> None:
        # While lingering a signal is the normal end; before, the first one breaks the run off
        # and the next ones must not break the cleaning up.
        nonlocal broken_off
        if lingering:
            stop.set()
        elif not broken_off:
            broken_off = 128 + number
            console.print("breaking off, cleaning up …", style="yellow")
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupted, number)
    try:
        async with Demo(options, console).run() as result:
            lingering = True
            total = result.seconds["total"]
            console.print(f"\n[bold green]provisioned[/bold green] in {total:.0f} s")
            if stay:
                console.print("Everything stays up; Ctrl-C ends it and cleans up.")
                await stop.wait()
    except asyncio.CancelledError:
        console.print(f"broken off and cleaned up; logs stay in {options.directory}")
        raise click.exceptions.Exit(broken_off) from None
