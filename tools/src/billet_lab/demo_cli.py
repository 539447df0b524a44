"""`billet demo`: the whole road on one virtual machine."""

import asyncio
import signal
import sys
from pathlib import Path

import click
from rich.console import Console

from billet_lab.demo import Demo, DemoError, Options
from billet_lab.lab import LabError


@click.command(short_help="a virtual machine from its BMC to a running system")
@click.option("--firmware", type=click.Choice(["bios", "uefi"]), default="bios", show_default=True)
@click.option("--bmc", type=click.Choice(["ipmi", "redfish"]), default="ipmi", show_default=True)
@click.option("--accel", type=click.Choice(["auto", "kvm", "tcg"]), default="auto")
@click.option("--memory", "memory_mib", default=3072, show_default=True, help="MiB")
@click.option("--build-dir", default="build", show_default=True, type=click.Path(path_type=Path))
@click.option("--stay/--no-stay", default=None, help="Stay up afterwards. [on a terminal]")
def demo(
    *, firmware: str, bmc: str, accel: str, memory_mib: int, build_dir: Path, stay: bool | None
) -> None:
    r"""Register, inspect and provision one virtual machine over the whole real chain.

    \b
    Examples:
      billet demo
      billet demo --firmware uefi --bmc redfish --no-stay
    """
    options = Options(
        directory=(build_dir / "demo").absolute(),
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
        asyncio.run(_run(options, console, stay=linger))
    except (DemoError, LabError) as error:
        raise click.ClickException(str(error)) from error


async def _run(options: Options, console: Console, *, stay: bool) -> None:
    task = asyncio.current_task()
    assert task is not None
    stop = asyncio.Event()
    lingering = False

    def interrupted() -> None:
        # While lingering an interrupt is the normal end; before, it breaks the run off.
        stop.set()
        if not lingering:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupted)
    try:
        async with Demo(options, console).run() as result:
            total = result.seconds.get("total", 0.0)
            console.print(f"\n[bold green]provisioned[/bold green] in {total:.0f} s")
            if stay:
                lingering = True
                console.print("Ctrl-C ends it and cleans up.")
                await stop.wait()
    except asyncio.CancelledError:
        raise click.exceptions.Exit(130) from None
