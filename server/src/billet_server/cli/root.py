"""The root command, its plug-ins, and the one place where errors become exit codes."""

import importlib.metadata
import sys
from collections.abc import Sequence

import click

from billet_server.cli.status import status
from billet_server.cli.up import up
from billet_server.errors import BilletError, ConfigError

_CONTEXT = {"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "BILLET"}


@click.group(context_settings=_CONTEXT)
@click.version_option(importlib.metadata.version("billet-server"), prog_name="billet")
def billet() -> None:
    """Billet takes machines from a BMC address to a running system.

    \b
    Examples:
      billet up --interface br0        serve the provisioning network on br0
      billet status                    what every host does and waits for
      billet lab up -n 2               two virtual machines with BMCs

    Shell completion: eval "$(_BILLET_COMPLETE=bash_source billet)"
    """


billet.add_command(up)
billet.add_command(status)


def run_cli(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code and never raise."""
    for plugin in importlib.metadata.entry_points(group="billet.commands"):
        if plugin.name not in billet.commands:
            billet.add_command(_Late(plugin))
    try:
        result = billet.main(args=list(argv), prog_name="billet", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ConfigError as error:
        for fault in error.faults:
            click.echo(f"billet: {fault}", err=True)
        return 2
    except BilletError as error:
        click.echo(f"billet: {error}", err=True)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1


class _Late(click.Command):
    """A plug-in's command, imported only when it is called or its help is shown."""

    def __init__(self, plugin: importlib.metadata.EntryPoint) -> None:
        super().__init__(plugin.name, short_help=f"the {plugin.name} commands")
        self._plugin = plugin

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: object,
    ) -> click.Context:
        """Hand the arguments to the real command."""
        command: click.Command = self._plugin.load()
        return command.make_context(info_name, args, parent, **extra)
