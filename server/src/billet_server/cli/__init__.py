"""The command line: one file per command group; plug-ins by the entry point billet.commands.

Exit codes: 0 done, 1 it failed (the last line says why), 2 the command line was wrong, 130
interrupted.
"""

from billet_server.cli.root import run_cli

__all__ = ["run_cli"]
