"""Which hosts a command means: names, `namespace/name`, all, or a label selector."""

import difflib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import click

from billet_server import errors
from billet_server.apiserver.selectors import parse_label_selector
from billet_server.cli.completion import complete_host
from billet_server.ports import BARE_METAL_HOST, KubeApi, Object


class Choice(NamedTuple):
    """What the command line said about which hosts."""

    names: tuple[str, ...] = ()
    everything: bool = False
    selector: str = ""


def choice_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command HOST..., -A and -l; `chosen` makes a `Choice` of them."""
    for option in (
        click.option("-l", "--selector", metavar="LABELS", default="", help="Hosts with labels."),
        click.option(
            "-A", "--all", "everything", is_flag=True, help="All hosts (with -n: of a namespace)."
        ),
        click.argument("hosts", nargs=-1, metavar="HOST...", shell_complete=complete_host),
    ):
        command = option(command)
    return command


def chosen(hosts: Sequence[str], selector: str, *, everything: bool) -> Choice:
    """Return a checked choice. Raises UsageError unless there is exactly one way of choosing."""
    if hosts and (everything or selector):
        raise click.UsageError("either HOST names, or -A, or -l")
    if not hosts and not everything and not selector:
        raise click.UsageError("say which: HOST..., -A for all, or -l LABELS")
    try:
        parse_label_selector(selector)
    except Exception as error:
        raise click.UsageError(f"-l {selector}: {error}") from error
    return Choice(tuple(dict.fromkeys(hosts)), everything, selector)


async def find_hosts(
    api: KubeApi, choice: Choice, namespace: str | None, usual: str
) -> list[Object]:
    """Return the chosen hosts in order; names are looked for in namespace ``usual`` first.

    Raises ClickException with a suggestion where a name is not there or is there twice.
    """
    if choice.names:
        return [await _named(api, name, namespace, usual) for name in choice.names]
    selector = parse_label_selector(choice.selector)
    found = []
    for obj in await list_reachable(api, namespace, usual):
        labels = obj["metadata"].get("labels") or {}
        if all(requirement.matches(labels) for requirement in selector):
            found.append(obj)
    if not found:
        what = f"no host with {choice.selector}" if choice.selector else "no host"
        raise click.ClickException(f"there is {what}{_where(namespace)}")
    return found


async def list_reachable(api: KubeApi, namespace: str | None, usual: str) -> list[Object]:
    """Return the hosts of a namespace; of all (None), or where that is forbidden of ``usual``."""
    try:
        listed = await api.list(BARE_METAL_HOST, namespace)
    except errors.ApiError as error:
        if namespace is not None or error.status != 403:
            raise
        listed = await api.list(BARE_METAL_HOST, usual)
    return sorted(listed.items, key=full_name)


async def _named(api: KubeApi, name: str, namespace: str | None, usual: str) -> Object:
    space, _, bare = name.rpartition("/")
    if space and namespace not in (None, space):
        raise click.ClickException(f"{name} is not in namespace {namespace}, as -n says")
    space = space or namespace or ""
    try:
        return await api.get(BARE_METAL_HOST, space or usual, bare)
    except errors.NotFound as error:
        if not error.reason:  # the path itself is unknown: the kind is not served
            raise
    known = await list_reachable(api, space or None, usual)
    same = [obj for obj in known if obj["metadata"]["name"] == bare]
    if len(same) == 1:
        return same[0]
    if same:
        names = ", ".join(map(full_name, same))
        raise click.ClickException(f"there are several hosts {bare}: {names}; write one of these")
    text = f"there is no host {bare}{_where(space)}"
    raise click.ClickException(text + suggestion(bare, known))


def suggestion(name: str, known: Sequence[Object]) -> str:
    """Return "; did you mean ...?" for a name that is nearly one of the known hosts'."""
    by_name = {obj["metadata"]["name"]: full_name(obj) for obj in known}
    close = difflib.get_close_matches(name, by_name, n=2, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(by_name[one] for one in close)}?"
    return "; `billet status` lists them" if known else "; there are none at all"


def full_name(obj: Object) -> str:
    """Return namespace/name."""
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"


def _where(namespace: str | None) -> str:
    return f" in namespace {namespace}" if namespace else ""
