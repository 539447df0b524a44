"""`billet retry, pause, unpause, detach, attach, reboot, inspect, power`: annotations by name."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import yaml

from billet_server.cli import goals, verbs
from billet_server.cli.applying import Order, changing
from billet_server.core.host import Host


@click.command(short_help="try again now what waits for its next try")
@changing()
def retry() -> Order:
    """Set billet.dev/retry: whatever waits for its next try is tried now.

    \b
    Examples:
      billet retry node01
      billet retry node01 --wait       exit code 1 if it fails again, with the problem
      billet retry -l rack=a1 --yes
    """
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Order(lambda host: verbs.retry(host, stamp), goals.retried)


@click.command(short_help="do nothing to a host until it is unpaused")
@click.option(
    "--reason", default="billet pause", show_default=True, help="The annotation's value; free text."
)
@changing(wait=False)
def pause(reason: str) -> Order:
    """Set baremetalhost.metal3.io/paused: nothing is done to the host, its status stays as it is.

    \b
    Examples:
      billet pause node01 --reason "changing the mainboard, ask Ines"
      billet pause -n metal3 -A --yes
    """
    return Order(lambda host: verbs.pause(host, reason))


@click.command(short_help="go on with a paused host")
@changing(wait=False)
def unpause() -> Order:
    """Remove baremetalhost.metal3.io/paused.

    \b
    Example:
      billet unpause node01
    """
    return Order(verbs.unpause)


@click.command(short_help="let go of a machine without touching it")
@click.option("--force", is_flag=True, help="Also in the middle of an inspection or a write.")
@click.option(
    "--delete-action",
    type=click.Choice(["delete", "delay"]),
    help="Deleting the object meanwhile: drop it at once, or wait for attach. [delete]",
)
@changing()
def detach(*, force: bool, delete_action: str | None) -> Order:
    """Set baremetalhost.metal3.io/detached: the machine is left alone, its power included.

    \b
    Examples:
      billet detach node01 --wait
      billet detach node01 --delete-action delay
    """

    def plan(host: Host) -> Any:
        return verbs.detach(host, force=force, delete_action=delete_action or "")

    return Order(plan, goals.detached)


@click.command(short_help="take a detached machine back")
@changing()
def attach() -> Order:
    """Remove baremetalhost.metal3.io/detached.

    \b
    Example:
      billet attach node01 --wait
    """
    return Order(verbs.attach, goals.attached)


@click.command(short_help="reboot a running machine, or hold it off")
@click.option(
    "--mode",
    type=click.Choice(["soft", "hard"]),
    default="soft",
    show_default=True,
    help="soft: the system is asked to shut down first. hard: the power is cut.",
)
@click.option("--force", is_flag=True, help="Also in ready, inspecting, provisioning.")
@click.option("--hold", metavar="KEY", help="Switch off, and keep off until --release KEY.")
@click.option("--release", metavar="KEY", help="Undo --hold KEY.")
@changing()
def reboot(mode: str, *, force: bool, hold: str | None, release: str | None) -> Order:
    """Set reboot.metal3.io, which the server removes when it is done.

    \b
    Examples:
      billet reboot node01 --wait
      billet reboot node01 --mode hard
      billet reboot node01 --hold maintenance      off, until
      billet reboot node01 --release maintenance   it is released
    """
    if hold and release:
        raise click.UsageError("either --hold or --release")
    if release:
        return Order(lambda host: verbs.release(host, release), goals.let_go)

    def plan(host: Host) -> Any:
        return verbs.reboot(host, mode=mode, force=force, key=hold or "")

    return Order(plan, goals.held if hold else goals.rebooted)


@click.command(short_help="inspect again, or say what the hardware is")
@click.option(
    "--hardware",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="JSON or YAML: hardware details, or a HardwareData object. -: standard input.",
)
@changing()
def inspect(hardware: str | None) -> Order:
    """Set inspect.metal3.io: the machine boots the ramdisk and reports its hardware again.

    With --hardware, inspect.metal3.io/hardwaredetails: the file is taken as the result.

    \b
    Examples:
      billet inspect node01 --wait
      billet inspect node01 --hardware node01.json
    """
    if hardware is None:
        return Order(verbs.inspect, goals.inspected)
    details = json.dumps(read_hardware(hardware), separators=(",", ":"))
    return Order(lambda host: verbs.set_hardware(host, details), goals.hardware_taken)


def read_hardware(file: str) -> dict[str, Any]:
    """Return the hardware details of a file. Raises UsageError."""
    text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise click.UsageError(f"--hardware {file} is neither JSON nor YAML: {error}") from error
    if isinstance(content, dict) and content.get("kind") == "HardwareData":
        content = (content.get("spec") or {}).get("hardware")
    elif isinstance(content, dict) and content.get("kind") == "BareMetalHost":
        content = (content.get("status") or {}).get("hardware")
    if not isinstance(content, dict) or not content:
        raise click.UsageError(f"--hardware {file} holds no hardware details, such as cpu and nics")
    return content
