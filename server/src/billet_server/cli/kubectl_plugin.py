"""`kubectl billet ...`: kubectl finds the programs kubectl-billet and kubectl_complete-billet."""

import sys
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem, ShellComplete

from billet_server.cli.connection import AS_PLUGIN
from billet_server.cli.root import installed_plugins, root_with, run_cli

FILES, NO_FILES = 0, 4
"""Directives of the completion protocol (cobra): default is file names; no file names."""


def main() -> None:
    """Run as kubectl-billet."""
    sys.exit(run_cli(sys.argv[1:], as_plugin=True))


def complete() -> None:
    """Run as kubectl_complete-billet: kubectl gives the words so far, the last to be completed."""
    words = sys.argv[1:] or [""]
    for line in completions(words[:-1], words[-1]):
        click.echo(line)
    sys.exit(0)


def completions(words: Sequence[str], typed: str) -> list[str]:
    """Return the answer's lines: value and, after a tab, its meaning; last the directive."""
    root = root_with(installed_plugins())
    settings = {**root.context_settings, "obj": AS_PLUGIN}
    shell = ShellComplete(root, settings, "kubectl billet", "_BILLET_COMPLETE")
    found: list[CompletionItem] = shell.get_completions(list(words), typed)
    wants_file = any(item.type in ("file", "dir") for item in found)
    lines = [
        f"{item.value}\t{item.help.splitlines()[0]}" if item.help else str(item.value)
        for item in found
        if item.type == "plain"
    ]
    return [*lines, f":{FILES if wants_file else NO_FILES}"]
