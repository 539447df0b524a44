"""One way for all commands that change hosts: choose, show, ask, write, wait, exit code."""

import asyncio
import functools
import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from billet_server import errors
from billet_server.cli.changes import (
    Change,
    Remark,
    SecretFile,
    change_json,
    kubectl_commands,
    merge_patch,
)
from billet_server.cli.choosing import Choice, choice_options, chosen, find_hosts
from billet_server.cli.connection import Connection, connection_options
from billet_server.cli.durations import DURATION
from billet_server.cli.goals import Goal
from billet_server.cli.waiting import Awaited, Result, await_hosts
from billet_server.core.annotations import PAUSED
from billet_server.core.host import Host, parse_host
from billet_server.core.terms import HostKey
from billet_server.ports import BARE_METAL_HOST, SECRET, KubeApi, Object

TIMED_OUT = 3
"""Exit code of a --wait that ended before the result."""


class Manner(NamedTuple):
    """How a change is to be made: what all such commands have in common."""

    connection: Connection
    choice: Choice
    output: str
    dry_run: bool
    yes: bool
    wait: bool = False
    timeout_s: float = 0.0


class Order(NamedTuple):
    """What to change on each host. ``risk``: what to ask about first ("": nothing)."""

    plan: Callable[[Host], Change]
    goal: Goal | None = None
    risk: Callable[[Host], str] = lambda _: ""


class Report:
    """What was said of one host."""

    def __init__(self, host: Host, change: Change) -> None:
        self.host, self.change = host, change
        self.written: Host | None = None
        self.error = ""
        self.result: Result | None = None

    def json(self, *, dry_run: bool) -> dict[str, Any]:
        """Return it for ``-o json``."""
        result = self.result or Result("failed" if self.error else "", self.error)
        return {
            "namespace": self.host.key.namespace,
            "name": self.host.key.name,
            "changes": change_json(self.change),
            "kubectl": kubectl_commands(self.host.key, self.change),
            "remarks": [{"effect": r.gravity, "text": r.text} for r in self.change.remarks],
            "applied": self.written is not None and not dry_run,
            "result": result.kind,
            "message": result.words,
        }


def manner_options(*, wait: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command HOST..., -A, -l, the API's options, --dry-run, --wait, -o, -y.

    It is called with ``manner`` in their place.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def wrapped(
            *,
            connection: Connection,
            hosts: tuple[str, ...],
            everything: bool,
            selector: str,
            **params: Any,
        ) -> Any:
            choice = chosen(hosts, selector, everything=everything)
            rest = {name: params.pop(name) for name in Manner._fields if name in params}
            return command(manner=Manner(connection, choice, **rest), **params)

        for option in (*(_WAIT_OPTIONS if wait else ()), *_OPTIONS):
            wrapped = option(wrapped)
        return choice_options(connection_options(wrapped))

    return decorate


def changing(*, wait: bool = True) -> Callable[[Callable[..., Order]], Callable[..., Any]]:
    """Make a command of a function that returns an `Order`: it is carried out."""

    def decorate(command: Callable[..., Order]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(manner: Manner, **params: Any) -> int:
            return asyncio.run(carry_out(command(**params), manner))

        return manner_options(wait=wait)(run)

    return decorate


_OPTIONS = (
    click.option("-y", "--yes", is_flag=True, help="Ask nothing."),
    click.option(
        "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="json: a list."
    ),
    click.option("--dry-run", is_flag=True, help="Say what would be set, set nothing."),
)
_WAIT_OPTIONS = (
    click.option(
        "--timeout",
        "timeout_s",
        type=DURATION,
        default="1h",
        show_default=True,
        help="How long to --wait: 90s, 30m, 2h.",
    ),
    click.option("-w", "--wait", is_flag=True, help="Follow to the result; a problem is exit 1."),
)


async def carry_out(order: Order, manner: Manner) -> int:
    """Change the chosen hosts; return the exit code."""
    api, usual = manner.connection.open()
    try:
        return await carry_out_on(api, order, manner, usual)
    finally:
        await api.close()


async def carry_out_on(api: KubeApi, order: Order, manner: Manner, usual: str) -> int:
    """Like `carry_out`, on a given API whose context has the namespace ``usual``."""
    found = await find_hosts(api, manner.choice, manner.connection.namespace, usual)
    reports = [Report(host, order.plan(host)) for host in map(parse_host, found)]
    if not manner.dry_run:
        _ask(reports, order, manner)
    for report in reports:
        if not manner.dry_run:
            await _write(api, report)
        if manner.output != "json":
            _print(report, dry_run=manner.dry_run)
    if manner.wait and not manner.dry_run and order.goal is not None:
        await _wait(api, reports, order.goal, manner)
    if manner.output == "json":
        click.echo(json.dumps([one.json(dry_run=manner.dry_run) for one in reports], indent=2))
    return _exit_code(reports)


def _ask(reports: list[Report], order: Order, manner: Manner) -> None:
    if manner.yes:
        return
    changed = [one for one in reports if one.change.edits]
    risks = [(one.host.key, text) for one in changed if (text := order.risk(one.host))]
    many = not manner.choice.names and len(changed) > 1
    if not risks and not many:
        return
    for key, text in risks:
        click.echo(f"{key}: {text}", err=True)
    if many and not risks:
        names = ", ".join(str(one.host.key) for one in changed)
        click.echo(f"this changes {len(changed)} hosts: {names}", err=True)
    if not sys.stdin.isatty():
        raise click.UsageError("nothing was changed: this needs --yes where nobody can be asked")
    click.confirm("Go on?", abort=True, err=True)


async def _write(api: KubeApi, report: Report) -> None:
    namespace, name = report.host.key
    try:
        for secret in report.change.secrets:
            await _put_secret(api, namespace, secret)
        report.written = report.host
        if report.change.edits:
            patch = merge_patch(report.change.edits)
            patch.setdefault("metadata", {})["uid"] = report.host.uid
            written = await api.patch(BARE_METAL_HOST, namespace, name, patch)
            report.written = parse_host(written)
    except errors.ApiError as error:
        report.written, report.error = None, str(error)


async def _put_secret(api: KubeApi, namespace: str, secret: SecretFile) -> None:
    import base64

    body: Object = {
        "metadata": {"namespace": namespace, "name": secret.name},
        "type": "Opaque",
        "data": {secret.key: base64.b64encode(secret.content).decode()},
    }
    try:
        await api.create(SECRET, body)
    except errors.Conflict:
        await api.patch(SECRET, namespace, secret.name, {"data": body["data"]})


def _print(report: Report, *, dry_run: bool) -> None:
    key, change = report.host.key, report.change
    if report.error:
        click.echo(f"billet: {key}: {report.error}", err=True)
        return
    for edit in change.edits:
        click.echo(f"{key}: {edit}{' (not set: --dry-run)' if dry_run else ''}")
    for command in kubectl_commands(key, change):
        click.echo(f"  {command}")
    if not change.edits:
        click.echo(f"{key}: nothing to change")
    for remark in change.remarks:
        click.echo(f"  {_LEADS[remark.gravity]}: {remark.text}")


_LEADS = {"note": "note", "waits": "waits", "never": "has no effect"}


async def _wait(api: KubeApi, reports: list[Report], goal: Goal, manner: Manner) -> None:
    to_stderr = manner.output == "json"

    def say(text: str) -> None:
        click.echo(text, err=to_stderr)
        sys.stdout.flush()

    awaited: dict[HostKey, Awaited] = {}
    for report in reports:
        if report.written is None:
            continue
        hopeless = _hopeless(report.written, report.change.remarks)
        if hopeless:
            report.result = Result("failed", f"there is nothing to wait for: {hopeless}")
            say(f"{report.host.key}: failed: {report.result.words}")
        else:
            awaited[report.host.key] = Awaited(report.written, goal)
    results = await await_hosts(api, awaited, manner.timeout_s, say) if awaited else {}
    for report in reports:
        report.result = results.get(report.host.key, report.result)


def _hopeless(host: Host, remarks: tuple[Remark, ...]) -> str:
    if PAUSED in host.annotations:
        return "the host is paused"
    return next((remark.text for remark in remarks if remark.gravity == "never"), "")


def _exit_code(reports: list[Report]) -> int:
    if any(one.error or (one.result and one.result.kind == "failed") for one in reports):
        return 1
    timed_out = any(one.result and one.result.kind == "timeout" for one in reports)
    return TIMED_OUT if timed_out else 0
