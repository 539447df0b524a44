"""Exit codes, one sentence for each error, plug-ins loaded late."""

import importlib.metadata
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest

from billet_server import errors
from billet_server.cli.root import root_with, run_cli


def plugin(name: str, target: str) -> importlib.metadata.EntryPoint:
    return importlib.metadata.EntryPoint(name, f"{__name__}:{target}", "billet.commands")


@click.group(short_help="things for tests")
def things() -> None:
    """Things."""


@things.command()
@click.option("--colour", type=click.Choice(["red", "green"]))
def paint(colour: str | None) -> None:
    """Paint it."""
    click.echo(f"painted {colour}")


@click.command()
@click.argument("how")
def fail(how: str) -> None:
    """Fail in every way."""
    raise {
        "config": errors.ConfigError(["--one is wrong", "--two is wrong"]),
        "billet": errors.BootError("cannot serve DHCP: no dnsmasq"),
        "click": click.ClickException("there is no lab"),
        "abort": click.Abort(),
        "interrupt": KeyboardInterrupt(),
        "exit": click.exceptions.Exit(7),
        "pipe": BrokenPipeError(),
        "group": ExceptionGroup("tasks", [ExceptionGroup("more", [errors.Gone("too old")])]),
        "defect": ValueError("five is right out"),
    }[how]


PLUGINS = [plugin("things", "things"), plugin("fail", "fail"), plugin("broken", "no_such_thing")]


def cli(*argv: str) -> int:
    return run_cli(argv, PLUGINS)


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("config", 2, "billet: --one is wrong\nbillet: --two is wrong\n"),
        ("billet", 1, "billet: cannot serve DHCP: no dnsmasq\n"),
        ("click", 1, "billet: there is no lab\n"),
        ("abort", 130, ""),
        ("interrupt", 130, "\n"),
        ("exit", 7, ""),
        ("group", 1, "billet: too old\n"),
    ],
)
def test_an_error_is_one_sentence_and_an_exit_code(capsys, how, code, said):
    assert cli("fail", how) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", said)


def test_a_defect_is_told_without_a_traceback_unless_asked_for(capsys, monkeypatch):
    assert cli("fail", "defect") == 1
    err = capsys.readouterr().err
    assert "ValueError: five is right out; please report it" in err
    assert "Traceback" not in err
    monkeypatch.setenv("BILLET_TRACEBACK", "1")
    assert cli("fail", "defect") == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["up", "--no-such"], "(billet up --help)"),
        (["no-such-command"], "No such command 'no-such-command'"),
        (["things", "paint", "--colour", "blue"], "(billet things paint --help)"),
        (["up", "--api-port", "many"], "'many' is not a valid integer"),
        (["up", "--state-names", "old", "--workers", "0"], "neither seed nor current"),
        (["up", "--dhcp", "proxy"], "needs --interface"),
        (["up", "--interface", "no-such-if0"], "there is no interface no-such-if0"),
        (["status", "--kubeconfig", "/no/such/file"], "there is no kubeconfig /no/such/file"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(capsys, argv, said):
    assert cli(*argv) == 2
    err = capsys.readouterr().err
    assert said in err
    assert all(line.startswith("billet: ") for line in err.splitlines())


def test_all_wrong_settings_are_told_at_once(capsys):
    wrong = ("--http-port", "0", "--workers", "0", "--kernel-argument", "a b", "--namespace", "A_b")
    assert cli("up", *wrong) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 4
    assert "'A_b' is no namespace" in err


def test_success_is_exit_code_0(capsys):
    assert cli("things", "paint", "--colour", "red") == 0
    assert capsys.readouterr().out == "painted red\n"
    for argv in (["--version"], ["--help"], ["-h"], ["up", "-h"], ["things", "--help"]):
        assert cli(*argv) == 0
        assert capsys.readouterr().out


def test_no_arguments_show_the_help(capsys):
    assert cli() == 2
    captured = capsys.readouterr()
    assert "Commands:" in captured.out + captured.err


def test_help_shows_plugins_by_their_own_words(capsys):
    assert cli("--help") == 0
    out = capsys.readouterr().out
    assert re.search(r"things +things for tests", out)
    assert re.search(r"broken +\(cannot be loaded\)", out)


def test_a_plugin_that_cannot_be_loaded_says_why_and_harms_no_other(capsys):
    assert cli("broken", "--any", "thing") == 1
    assert "the command broken cannot be loaded: AttributeError" in capsys.readouterr().err


def test_plugins_do_not_take_the_place_of_our_own_commands():
    root = root_with([plugin("up", "things")])
    command = root.get_command(click.Context(root, **root.context_settings), "up")
    assert command is not None
    assert command.short_help == "run the server"


def complete(words: str) -> set[str]:
    """What bash is offered after these words, by the real command with the real plug-ins."""
    environment = {
        **os.environ,
        "_BILLET_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    program = Path(sys.executable).with_name("billet")
    done = subprocess.run([program], env=environment, capture_output=True, text=True, check=True)
    return {line.partition(",")[2] for line in done.stdout.splitlines()}


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (
            "billet ",
            {
                "up",
                "status",
                "lab",
                "demo",
                "retry",
                "pause",
                "unpause",
                "detach",
                "attach",
                "reboot",
                "inspect",
                "power",
                "provision",
                "deprovision",
                "webhook-manifest",
                "move",
            },
        ),
        ("billet reboot --mode ", {"soft", "hard"}),
        ("billet up --dhcp ", {"dhcp", "proxy", "off"}),
        ("billet lab ", {"up", "down", "list", "power", "console", "fault", "exec"}),
        ("billet lab up --firmware ", {"bios", "uefi"}),
        ("billet demo --b", {"--bmc", "--build-dir"}),
    ],
)
def test_shells_complete_our_own_commands_and_those_of_plugins(words, offered):
    assert complete(words) == offered


def test_options_come_from_the_environment_too(capsys, monkeypatch):
    monkeypatch.setenv("BILLET_UP_STATE_NAMES", "old")
    assert cli("up") == 2
    assert "--state-names 'old'" in capsys.readouterr().err


def test_a_port_that_is_taken_is_told_with_the_port(capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code = cli("up", "--state-dir", str(tmp_path / "state"), "--api-port", str(port))
    assert code == 2
    assert str(port) in capsys.readouterr().err.splitlines()[-1]
