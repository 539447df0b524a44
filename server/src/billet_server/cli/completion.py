"""Completion of host names: asks the API, briefly, and never fails."""

import asyncio
from typing import Any

import click
from click.shell_completion import CompletionItem

from billet_server.cli.connection import connect
from billet_server.ports import Object

PATIENCE_S = 2.0


def complete_host(ctx: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Return the hosts whose names begin with what was typed, with their state beside."""
    del param
    given: Any = ctx.params.get("hosts") or ()
    taken = {given} if isinstance(given, str) else set(given)
    more = [w for w in getattr(ctx.command, "more_words", ()) if taken and w.startswith(typed)]
    try:
        hosts = asyncio.run(_offer(ctx, typed))
    except Exception:
        hosts = []  # a shell shows whatever is said here in the middle of the line
    found = [item for item in hosts if item.value not in taken]
    return [CompletionItem(word) for word in more] + found


async def _offer(ctx: click.Context, typed: str) -> list[CompletionItem]:
    from billet_server.cli.choosing import list_reachable

    names = ("kubeconfig", "context", "namespace")
    connection = connect(ctx, {name: ctx.params.get(name) for name in names})
    api, usual = connection.open()
    try:
        async with asyncio.timeout(PATIENCE_S):
            hosts = await list_reachable(api, connection.namespace, usual)
    finally:
        await api.close()
    return offers(hosts, typed, usual)


def offers(hosts: list[Object], typed: str, usual: str) -> list[CompletionItem]:
    """Return plain names where they say enough, else namespace/name."""
    names = [obj["metadata"]["name"] for obj in hosts]
    found = []
    for obj in hosts:
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        is_plain = "/" not in typed and (names.count(name) == 1 or namespace == usual)
        value = name if is_plain else f"{namespace}/{name}"
        if value.startswith(typed):
            state = ((obj.get("status") or {}).get("provisioning") or {}).get("state") or "new"
            found.append(CompletionItem(value, help=state))
    return found
