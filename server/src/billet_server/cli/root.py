"""The root command, its plug-ins, and the one place where errors become exit codes."""

import copy
import importlib.metadata
import os
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

import click

from billet_server.cli import host_commands, image_commands
from billet_server.cli.connection import AS_PLUGIN, check_root_options, root_options
from billet_server.cli.move_command import move
from billet_server.cli.power_command import power
from billet_server.cli.status import status
from billet_server.cli.up import up
from billet_server.cli.webhook_manifest import webhook_manifest
from billet_server.errors import BilletError, ConfigError

PLUGINS = "billet.commands"
"""Entry point group: each entry's name is a command's, its object a `click.Command`."""

_CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "auto_envvar_prefix": "BILLET",
    "max_content_width": 100,
}


class Root(click.Group):
    """The root group; plug-ins are imported when they are called or listed, and only then."""

    plugins: Mapping[str, importlib.metadata.EntryPoint] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of our own commands and of all plug-ins."""
        return sorted({*super().list_commands(ctx), *self.plugins})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; a plug-in that cannot be loaded is one that says so."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in self.plugins:
            return own
        try:
            loaded = self.plugins[cmd_name].load()
        except Exception as error:
            return _broken(cmd_name, f"{type(error).__name__}: {error}")
        return loaded if isinstance(loaded, click.Command) else _broken(cmd_name, "no command")


@click.group(cls=Root, context_settings=_CONTEXT)
@root_options
@click.version_option(importlib.metadata.version("billet-server"), prog_name="billet")
@click.pass_context
def billet(ctx: click.Context, /, **_: object) -> None:
    """Billet takes machines from a BMC address to a running system.

    \b
    Examples:
      billet up --interface br0      serve the provisioning network on br0
      billet status -w               what every host does and waits for, live
      billet status node01           everything about one host
      billet reboot node01 --wait    an annotation, and its result
      billet lab up -n 2             two virtual machines with BMCs

    Any option may also come from the environment: BILLET_, command, option, in capitals, such as
    BILLET_UP_INTERFACE. Shell completion: eval "$(_BILLET_COMPLETE=bash_source billet)"
    Beside kubectl, all commands are there as `kubectl billet ...` too.
    """
    group = ctx.command
    assert isinstance(group, click.Group)
    check_root_options(ctx, group)


for _command in (
    *(up, status, power, move),
    *(host_commands.retry, host_commands.pause, host_commands.unpause, host_commands.inspect),
    *(host_commands.detach, host_commands.attach, host_commands.reboot),
    *(image_commands.provision, image_commands.deprovision),
    webhook_manifest,
):
    billet.add_command(_command)


def root_with(plugins: Iterable[importlib.metadata.EntryPoint]) -> click.Group:
    """Return the root command with these plug-ins."""
    group = copy.copy(billet)
    assert isinstance(group, Root)
    group.plugins = {plugin.name: plugin for plugin in plugins}
    return group


def installed_plugins() -> Iterable[importlib.metadata.EntryPoint]:
    """Return the plug-ins that are installed beside us."""
    return importlib.metadata.entry_points(group=PLUGINS)


def run_cli(
    argv: Sequence[str],
    plugins: Iterable[importlib.metadata.EntryPoint] | None = None,
    *,
    as_plugin: bool = False,
) -> int:
    """Run the command line; return the exit code and never raise.

    ``plugins`` None: those that are installed. ``as_plugin``: as `kubectl billet`.
    """
    root = root_with(installed_plugins() if plugins is None else plugins)
    name = "kubectl billet" if as_plugin else "billet"
    if as_plugin:
        root.context_settings = {**root.context_settings, "obj": AS_PLUGIN}
    try:
        result = root.main(
            list(argv), prog_name=name, complete_var="_BILLET_COMPLETE", standalone_mode=False
        )
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except SystemExit as stop:  # shell completion ends that way
        return stop.code if isinstance(stop.code, int) else 1
    except (click.exceptions.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:
        return _report(_first_cause(error))


def _report(error: BaseException) -> int:
    """Say in one line what went wrong, on stderr; return the exit code."""
    match error:
        case click.exceptions.NoArgsIsHelpError():
            error.show()
            return error.exit_code
        case click.UsageError():
            command = error.ctx.command_path if error.ctx else "billet"
            _say(f"{error.format_message()} ({command} --help)")
            return error.exit_code
        case click.ClickException():
            _say(error.format_message())
            return error.exit_code
        case ConfigError():
            for fault in error.faults:
                _say(fault)
            return 2
        case BilletError():
            _say(str(error))
            return 1
        case KeyboardInterrupt():
            return 130
    hint = "BILLET_TRACEBACK=1 shows where"
    if os.environ.get("BILLET_TRACEBACK"):
        traceback.print_exception(error)
        hint = "the trace is above"
    _say(f"failed unexpectedly: {type(error).__name__}: {error}; please report it ({hint})")
    return 1


def _first_cause(error: BaseException) -> BaseException:
    """Return what made a group of tasks fail: the first error in it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _say(text: str) -> None:
    click.echo(f"billet: {text}", err=True)


def _broken(name: str, why: str) -> click.Command:
    def fail() -> NoReturn:
        raise click.ClickException(f"the command {name} cannot be loaded: {why}")

    settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(
        name, callback=fail, short_help="(cannot be loaded)", context_settings=settings
    )
