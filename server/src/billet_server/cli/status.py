"""`billet status`: what every host does and waits for."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from billet_server.core.host import Host, parse_host
from billet_server.errors import ConfigError
from billet_server.ports import BARE_METAL_HOST, Object


@click.command(short_help="what every host does and waits for")
@click.argument("host", required=False)
@click.option("--kubeconfig", envvar=["BILLET_KUBECONFIG", "KUBECONFIG"], metavar="FILE")
@click.option("-n", "--namespace", metavar="NAME", help="[all]")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def status(host: str | None, kubeconfig: str | None, namespace: str | None, output: str) -> None:
    """Show state, step, progress, and what is waited for.

    \b
    Examples:
      billet status
      billet status node01 -o json
    """
    path = Path(kubeconfig or "/var/lib/billet/kubeconfig")
    if not path.is_file():
        raise ConfigError([f"no kubeconfig at {path}; name it by --kubeconfig or KUBECONFIG"])
    found = asyncio.run(_hosts(path, namespace, host))
    if host and not found:
        raise ConfigError([f"there is no host {host}"])
    if output == "json":
        click.echo(json.dumps(found, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("HOST", "STATE", "POWER", "STEP", "PROGRESS", "SINCE", "WAITS FOR / PROBLEM"):
        table.add_column(heading)
    now = datetime.now(UTC)
    for obj in found:
        table.add_row(*_row(parse_host(obj), now))
    Console().print(table)


async def _hosts(path: Path, namespace: str | None, name: str | None) -> list[Object]:
    from billet_server.kube.client import open_kube

    api = open_kube(path)
    try:
        listed = await api.list(BARE_METAL_HOST, namespace)
    finally:
        await api.close()
    return [obj for obj in listed.items if not name or obj["metadata"]["name"] == name]


def _row(host: Host, now: datetime) -> list[str]:
    status, progress, waiting = host.status, host.status.progress, host.status.waiting
    power = {True: "on", False: "off", None: "?"}[status.powered_on]
    text = status.error_message or (waiting.message if waiting else "")
    since: Any = (progress and progress.started_at) or (waiting and waiting.since)
    return [
        str(host.key),
        status.provisioning.state or "(new)",
        power,
        progress.step if progress else "",
        _figures(progress.percent, progress.done_bytes) if progress else "",
        f"{int((now - since).total_seconds())}s" if since else "",
        text,
    ]


def _figures(percent: int | None, done_bytes: int | None) -> str:
    parts = []
    if percent is not None:
        parts.append(f"{percent}%")
    if done_bytes is not None:
        parts.append(f"{done_bytes / 2**20:.0f} MiB")
    return " ".join(parts)
