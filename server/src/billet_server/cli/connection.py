"""Which API a command talks to: kubectl's options, and the kubeconfig where none is given."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from billet_server import errors
from billet_server.ports import KubeApi

DEFAULT_KUBECONFIG = "/var/lib/billet/kubeconfig"
"""What `billet up` writes beside its own API."""

AS_PLUGIN = "billet.as_plugin"
"""The root context's ``obj`` in `kubectl billet`, where kubectl's own file comes first."""

_NAMES = ("kubeconfig", "context", "namespace")
_VARIABLES = ["BILLET_KUBECONFIG", "KUBECONFIG"]


class Connection(NamedTuple):
    """Where the API is, and the namespace asked for (None: not said)."""

    kubeconfig: tuple[Path, ...]
    context: str | None = None
    namespace: str | None = None

    def open(self) -> tuple[KubeApi, str]:
        """Return a client and the context's own namespace. Raises ConfigError."""
        from billet_server.kube.client import LightKube
        from billet_server.kube.config import build_client, read_config

        config = read_config(self.kubeconfig, self.context)
        api = LightKube(build_client(config), config.cluster.server)
        return api, config.context.namespace or "default"


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --kubeconfig, --context, -n; it is called with ``connection``."""

    @functools.wraps(command)
    def wrapped(*args: object, **params: Any) -> Any:
        given = {name: params.pop(name) for name in _NAMES}
        return command(*args, connection=connect(click.get_current_context(), given), **params)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


_OPTIONS = (
    click.option(
        "--kubeconfig",
        envvar=_VARIABLES,
        metavar="FILE",
        help=f"How to reach the API. [$KUBECONFIG, {DEFAULT_KUBECONFIG}, ~/.kube/config]",
    ),
    click.option("--context", metavar="NAME", help="A context of that file. [its current one]"),
    click.option("-n", "--namespace", metavar="NAME", help="Hosts of this namespace."),
)


def root_options(group: Callable[..., Any]) -> Callable[..., Any]:
    """Let the same options stand before the command, as in `kubectl billet -n metal3 status`."""
    for name in ("-n/--namespace", "--context", "--kubeconfig"):
        names = name.split("/")
        group = click.option(*names, allow_from_autoenv=False, hidden=True)(group)
    return group


def check_root_options(ctx: click.Context, group: click.Group) -> None:
    """Refuse options before a command that does not take them."""
    command = group.get_command(ctx, ctx.invoked_subcommand or "")
    if command is None:
        return
    known = {param.name for param in command.params} if _takes_connection(command) else set()
    for name in _NAMES:
        if ctx.params.get(name) is not None and name not in known:
            text = f"{ctx.invoked_subcommand} takes no --{name} before it"
            raise click.UsageError(text, ctx)


def _takes_connection(command: click.Command) -> bool:
    return {param.name for param in command.params}.issuperset(_NAMES)


def connect(ctx: click.Context, given: dict[str, str | None]) -> Connection:
    """Return the connection of a command's options, else those before it, else the defaults.

    Raises ConfigError when no kubeconfig is there.
    """
    before = ctx.find_root().params
    for name in _NAMES:
        if ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE and before.get(name):
            given[name] = before[name]
    files = kubeconfig_files(given["kubeconfig"], as_plugin=ctx.find_root().obj == AS_PLUGIN)
    return Connection(files, given["context"], given["namespace"])


def kubeconfig_files(given: str | None, *, as_plugin: bool = False) -> tuple[Path, ...]:
    """Return the files to read: those named (a list as in $KUBECONFIG), else the usual one."""
    if given:
        named = [Path(part).expanduser() for part in given.split(os.pathsep) if part]
        # As kubectl does it: of a list, files that are not there are passed over.
        found = tuple(path for path in named if path.is_file())
        if found:
            return found
        raise errors.ConfigError([_no_kubeconfig(", ".join(map(str, named)))])
    usual = [Path(DEFAULT_KUBECONFIG), Path("~/.kube/config").expanduser()]
    for path in reversed(usual) if as_plugin else usual:
        if path.is_file():
            return (path,)
    raise errors.ConfigError([_no_kubeconfig(" or ".join(map(str, usual)))])


def _no_kubeconfig(what: str) -> str:
    return (
        f"there is no kubeconfig {what}; name one by --kubeconfig or KUBECONFIG"
        " (the demo's is build/demo/state/kubeconfig)"
    )
