"""`billet status`: what every host does and waits for."""

import asyncio
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import click
from rich.console import Console, RenderableType
from rich.live import Live

from billet_server import errors
from billet_server.cli.choosing import suggestion
from billet_server.cli.completion import complete_host
from billet_server.cli.connection import Connection, connection_options
from billet_server.cli.status_view import render_details, render_table, summary_line
from billet_server.core.host import parse_host
from billet_server.ports import BARE_METAL_HOST, KubeApi, Object

AGAIN_S = 2.0
"""Pause before an API that does not answer is asked again."""

Show = Callable[[list[Object], str], None]
"""Takes all hosts, and a remark ("" or why they may be out of date)."""


@click.command(short_help="what every host does and waits for")
@click.argument("host", required=False, shell_complete=complete_host)
@connection_options
@click.option(
    "-A", "--all-namespaces", is_flag=True, help="Of all namespaces, which is the default."
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "wide", "json"]),
    default="table",
    show_default=True,
    help="wide: more columns. json: the objects.",
)
@click.option("-w", "--watch", is_flag=True, help="Go on until Ctrl-C.")
def status(
    host: str | None,
    connection: Connection,
    output: str,
    *,
    watch: bool,
    all_namespaces: bool,
) -> None:
    """Show state, step, progress, and what is waited for or wrong; HOST: all about that one.

    \b
    Examples:
      billet status
      billet status -w                 live
      billet status node01             with evidence, advice, next try
      billet status metal3/node01 -o json

    With -w and a pipe, each change is one line (table, wide) or one object on a line (json).
    """
    if all_namespaces and connection.namespace:
        raise click.UsageError("either -A or -n")
    asyncio.run(_run(connection, host, output, watch=watch))


async def _run(connection: Connection, host: str | None, output: str, *, watch: bool) -> None:
    space, _, name = (host or "").rpartition("/")
    namespace, wanted = space or connection.namespace, name or None
    api, _ = connection.open()
    try:
        if not watch:
            found = await list_hosts(api, namespace, wanted)
            if wanted and not found:
                where = f" in namespace {namespace}" if namespace else ""
                known = await list_hosts(api, namespace, None)
                text = f"there is no host {name}{where}"
                raise click.ClickException(text + suggestion(name, known))
            print_hosts(found, wanted, output)
        elif sys.stdout.isatty() and output != "json":
            await _live(api, namespace, wanted, output)
        else:
            await follow_hosts(api, namespace, wanted, _line_printer(output))
    finally:
        await api.close()


async def list_hosts(api: KubeApi, namespace: str | None, name: str | None) -> list[Object]:
    """Return the hosts of a namespace (None: all), of one name (None: any), in order."""
    listed = await api.list(BARE_METAL_HOST, namespace)
    return _sorted({_key(obj): obj for obj in listed.items if _is_wanted(obj, name)})


async def follow_hosts(
    api: KubeApi, namespace: str | None, name: str | None, show: Show, *, again_s: float = AGAIN_S
) -> None:
    """Call ``show`` with all hosts now and at each change, for ever; outlives API outages."""
    known: dict[tuple[str, str], Object] = {}
    while True:
        try:
            listed = await api.list(BARE_METAL_HOST, namespace)
            known = {_key(obj): obj for obj in listed.items if _is_wanted(obj, name)}
            show(_sorted(known), "")
            watch = api.watch(BARE_METAL_HOST, namespace, resource_version=listed.resource_version)
            async for event in watch:
                if event.type == "BOOKMARK" or not _is_wanted(event.object, name):
                    continue
                if event.type == "DELETED":
                    known.pop(_key(event.object), None)
                else:
                    known[_key(event.object)] = event.object
                show(_sorted(known), "")
        except errors.Gone:
            continue
        except errors.Unavailable as error:
            show(_sorted(known), f"{error}; trying again every {again_s:.0f} s")
            await asyncio.sleep(again_s)


def print_hosts(found: list[Object], name: str | None, output: str) -> None:
    """Print hosts once: a table, or (``name``) all about one, or JSON."""
    if output == "json":
        click.echo(json.dumps(found, indent=2))
        return
    if sys.stdout.isatty() and output != "wide":
        Console().print(_render(found, name, output))
        return
    # A pipe has no width, and wide means it: what is cut or wrapped cannot be searched or copied.
    console = Console(width=1000, color_system=None)
    with console.capture() as capture:
        console.print(_render(found, name, output))
    for line in capture.get().splitlines():
        click.echo(line.rstrip())


def _render(found: list[Object], name: str | None, output: str) -> RenderableType:
    hosts, now = [parse_host(obj) for obj in found], datetime.now(UTC)
    if name and output == "table":
        return render_details(hosts, now)
    return render_table(hosts, now, wide=output == "wide")


async def _live(api: KubeApi, namespace: str | None, name: str | None, output: str) -> None:
    latest: list[Object] = []
    remark = "asking the API"

    def show(found: list[Object], text: str) -> None:
        nonlocal latest, remark
        latest, remark = found, text

    def picture() -> RenderableType:
        return remark or _render(latest, name, output)

    # The picture is made anew four times a second: times since then go on without any change.
    with Live(get_renderable=picture, console=Console(), refresh_per_second=4):
        await follow_hosts(api, namespace, name, show)


def _line_printer(output: str) -> Show:
    said: dict[tuple[str, str], str] = {}

    def show(found: list[Object], remark: str) -> None:
        if remark:
            click.echo(f"billet: {remark}", err=True)
        for obj in found:
            line = json.dumps(obj) if output == "json" else summary_line(parse_host(obj))
            if said.get(_key(obj)) != line:
                said[_key(obj)] = line
                click.echo(line)
        for gone in set(said) - {_key(obj) for obj in found}:
            del said[gone]
            if output != "json":
                click.echo(f"{'/'.join(gone)} is gone")
        sys.stdout.flush()

    return show


def _is_wanted(obj: Object, name: str | None) -> bool:
    return name is None or obj["metadata"]["name"] == name


def _key(obj: Object) -> tuple[str, str]:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _sorted(known: dict[tuple[str, str], Object]) -> list[Object]:
    return [known[key] for key in sorted(known)]
