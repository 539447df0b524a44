"""`billet move`: hosts from one API to another, or to and from a file."""

import asyncio
import json
from pathlib import Path
from typing import NamedTuple

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from billet_server import errors
from billet_server.cli.choosing import list_reachable, suggestion
from billet_server.cli.completion import complete_host
from billet_server.cli.connection import Connection, connection_options, kubeconfig_files
from billet_server.cli.durations import DURATION
from billet_server.core.host import parse_host
from billet_server.core.terms import HostKey
from billet_server.move.archive import read_archive, render_archive, write_archive
from billet_server.move.bundle import Bundle, key_of
from billet_server.move.mover import MoveError, Mover
from billet_server.move.survey import Item, read_bundle, survey
from billet_server.ports import KubeApi, Object

POLL_S = 2.0


class Wanted(NamedTuple):
    """What the command line asked for."""

    names: tuple[str, ...]
    namespace: str | None
    output: str
    yes: bool
    undo: bool = False
    keep_paused: bool = False
    wait_s: float = 0.0


@click.command(short_help="move hosts to another API and back, machines untouched")
@click.argument("hosts", nargs=-1, metavar="[HOST]...", shell_complete=complete_host)
@connection_options
@click.option("--to", metavar="KUBECONFIG", help="Where to; what is moved is in --kubeconfig.")
@click.option("--to-context", metavar="NAME", help="A context of that file. [its current one]")
@click.option(
    "--to-file", type=click.Path(dir_okay=False), metavar="FILE", help="A copy of hosts, to keep."
)
@click.option(
    "--from-file",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Restore such a copy.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file of --to-file.")
@click.option("-y", "--yes", is_flag=True, help="Do it; without this it is only shown.")
@click.option("--wait", is_flag=True, help="Wait for hosts that are in the middle of something.")
@click.option(
    "--timeout",
    "timeout_s",
    type=DURATION,
    default="1h",
    show_default=True,
    help="How long to --wait: 90s, 30m, 2h.",
)
@click.option("--undo", is_flag=True, help="Take back a move that broke off early.")
@click.option("--keep-paused", is_flag=True, help="With --from-file: leave the hosts paused.")
@click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", help="[table]"
)
def move(
    *,
    hosts: tuple[str, ...],
    connection: Connection,
    to: str | None,
    to_context: str | None,
    to_file: str | None,
    from_file: str | None,
    output: str,
    timeout_s: float,
    overwrite: bool,
    yes: bool,
    wait: bool,
    undo: bool,
    keep_paused: bool,
) -> int:
    """Move hosts with their Secrets, HardwareData and status; all, or those named.

    Without --yes it shows what would be moved and what is in the way. Machines keep running and
    are not inspected again. Broken off, it is run again and goes on.

    \b
    Examples:
      billet move --to ~/.kube/config          what would happen
      billet move --to ~/.kube/config --yes
      billet move --kubeconfig ~/.kube/config --to /var/lib/billet/kubeconfig --yes
      billet move --to-file hosts.yaml         a backup, with Secrets; mode 0600
      billet move --from-file hosts.yaml --yes
    """
    ways = [way for way in (to or to_context, to_file, from_file) if way]
    if len(ways) != 1:
        raise click.UsageError("say one of --to KUBECONFIG, --to-file FILE, --from-file FILE")
    if keep_paused and not from_file:
        raise click.UsageError("--keep-paused is for --from-file")
    if undo and (to_file or from_file):
        raise click.UsageError("--undo is for --to")
    wanted = Wanted(
        hosts, connection.namespace, output, yes, undo, keep_paused, timeout_s if wait else 0.0
    )
    if to_file:
        return asyncio.run(_to_file(connection, wanted, Path(to_file), overwrite=overwrite))
    if from_file:
        return asyncio.run(_from_file(connection, wanted, Path(from_file)))
    files = kubeconfig_files(to) if to else connection.kubeconfig
    return asyncio.run(_between(connection, Connection(files, to_context), wanted))


async def _between(connection: Connection, other: Connection, wanted: Wanted) -> int:
    source, usual = connection.open()
    target, _ = other.open()
    try:
        items = await _survey(source, target, wanted, usual)
        end = asyncio.get_running_loop().time() + wanted.wait_s
        while (
            wanted.yes and any(map(_only_busy, items)) and asyncio.get_running_loop().time() < end
        ):
            names = ", ".join(f"{item.key} ({item.busy})" for item in items if _only_busy(item))
            click.echo(f"waiting for {names}", err=True)
            await asyncio.sleep(POLL_S)
            items = await _survey(source, target, wanted, usual)
        return await run_items(items, Mover(source, target, _say(wanted)), wanted)
    finally:
        await source.close()
        await target.close()


async def _survey(source: KubeApi, target: KubeApi, wanted: Wanted, usual: str) -> list[Item]:
    known = await list_reachable(source, wanted.namespace, usual)
    items = await survey([obj for obj in known if _is_named(key_of(obj), wanted)], source, target)
    items = [item for item in items if _is_named(item.key, wanted)]
    _check_names(wanted, [item.key for item in items], known)
    return items


def _is_named(key: HostKey, wanted: Wanted) -> bool:
    if wanted.namespace not in (None, key.namespace):
        return False
    return not wanted.names or key.name in wanted.names or str(key) in wanted.names


def _check_names(wanted: Wanted, found: list[HostKey], known: list[Object]) -> None:
    for name in wanted.names:
        same = [key for key in found if name in (key.name, str(key))]
        if not same:
            text = f"there is no host {name}{suggestion(name.rpartition('/')[2], known)}"
            raise click.ClickException(text)
        if len(same) > 1:
            keys = ", ".join(map(str, same))
            raise click.ClickException(f"there are several hosts {name}: {keys}")


async def run_items(items: list[Item], mover: Mover, wanted: Wanted) -> int:
    """Show the items and, when told to and nothing is in the way, move them; the exit code."""
    blocked = [item for item in items if item.blockers]
    ready = wanted.yes and (wanted.undo or not blocked)
    failures: dict[HostKey, str] = {}
    if wanted.output != "json":
        _show(items)
    for item in items if ready else ():
        try:
            await (
                mover.undo(item)
                if wanted.undo
                else mover.move(item, keep_paused=wanted.keep_paused)
            )
        except (MoveError, errors.ApiError) as error:
            failures[item.key] = str(error)
            click.echo(f"billet: {item.key}: {error}", err=True)
    if wanted.output == "json":
        click.echo(json.dumps([_json(item, failures, done=ready) for item in items], indent=2))
    if failures:
        click.echo("billet: not all is moved; run it again to go on, --undo goes back", err=True)
        return 1
    if blocked and not wanted.undo:
        click.echo(f"billet: nothing was moved: {len(blocked)} in the way, see above", err=True)
        return 1
    if items and not wanted.yes and wanted.output != "json":
        click.echo("Nothing was changed. --yes does it.")
    return 0


def _only_busy(item: Item) -> bool:
    return bool(item.busy) and len(item.blockers) == 1


def _say(wanted: Wanted) -> "_Sayer":
    return _Sayer(to_stderr=wanted.output == "json")


class _Sayer:
    def __init__(self, *, to_stderr: bool) -> None:
        self._to_stderr = to_stderr

    def __call__(self, key: HostKey, text: str) -> None:
        """Say a step at once: whoever follows must know how far it came."""
        click.echo(f"{key}: {text}", err=self._to_stderr)


def _show(items: list[Item]) -> None:
    if not items:
        click.echo("There is nothing to move.")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("HOST", "STATE", "WITH", "SO FAR", "IN THE WAY / NOTE"):
        table.add_column(heading, overflow="fold", no_wrap=not heading.startswith("IN"))
    for item in items:
        words = [f"IN THE WAY: {text}" for text in item.blockers] or list(item.notes)
        cells = (str(item.key), _state(item), _with(item), item.phase, "; ".join(words))
        table.add_row(*map(Text, cells))
    console = Console() if Console().is_terminal else Console(width=1000, color_system=None)
    with console.capture() as capture:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def _state(item: Item) -> str:
    obj = item.bundle.host if item.bundle else item.there
    return (parse_host(obj).status.provisioning.state if obj else "") or "new"


def _with(item: Item) -> str:
    if item.bundle is None:
        return ""
    count = len(item.bundle.secrets)
    parts = [f"{count} Secret{'' if count == 1 else 's'}"] if count else []
    return ", ".join([*parts, *(["HardwareData"] if item.bundle.hardware else [])])


def _json(item: Item, failures: dict[HostKey, str], *, done: bool) -> dict[str, object]:
    error = failures.get(item.key, "")
    return {
        "namespace": item.key.namespace,
        "name": item.key.name,
        "state": _state(item),
        "soFar": item.phase,
        "secrets": [key_of(one).name for one in item.bundle.secrets] if item.bundle else [],
        "blockers": list(item.blockers),
        "notes": list(item.notes),
        "done": done and not error,
        "error": error,
    }


async def _to_file(connection: Connection, wanted: Wanted, path: Path, *, overwrite: bool) -> int:
    api, usual = connection.open()
    try:
        known = await list_reachable(api, wanted.namespace, usual)
        hosts = [obj for obj in known if _is_named(key_of(obj), wanted)]
        _check_names(wanted, list(map(key_of, hosts)), known)
        if not hosts:
            raise click.ClickException("there are no hosts")
        bundles: list[Bundle] = [await read_bundle(api, obj) for obj in hosts]
    finally:
        await api.close()
    write_archive(path, render_archive(bundles), overwrite=overwrite)
    secrets = sum(len(bundle.secrets) for bundle in bundles)
    click.echo(f"{path}: {len(hosts)} hosts, {secrets} Secrets; mode 0600")
    return 0


async def _from_file(connection: Connection, wanted: Wanted, path: Path) -> int:
    bundles = read_archive(path.read_text(encoding="utf-8"), str(path))
    chosen = [bundle for bundle in bundles if _is_named(bundle.key, wanted)]
    _check_names(wanted, [one.key for one in chosen], [bundle.host for bundle in bundles])
    api, _ = connection.open()
    try:
        items = await survey((), None, api, chosen)
        items = [item._replace(blockers=_without_busy(item)) for item in items]
        return await run_items(items, Mover(None, api, _say(wanted)), wanted)
    finally:
        await api.close()


def _without_busy(item: Item) -> tuple[str, ...]:
    """What a host was in the middle of when it was copied is begun anew; that blocks nothing."""
    return tuple(text for text in item.blockers if not item.busy or not text.startswith(item.busy))
