"""Starting tools: output, status, deadline, cancellation, limits; and the twin."""

import pytest

from billet_agent.tools import (
    PATHS,
    Completed,
    HostTools,
    Limits,
    MemoryTools,
    ToolError,
    Tools,
)

SHELL = HostTools({"sh": "/bin/sh", "gone": "/nowhere/gone", "prlimit": PATHS["prlimit"]})


def sh(script: str, **options: object) -> Completed:
    return SHELL.run(["sh", "-c", script], **{"deadline_s": 20.0, **options})  # type: ignore[arg-type]


def test_output_status_and_evidence() -> None:
    done = sh("echo out; echo err >&2; exit 3")
    assert (done.status, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    assert "exit status 3" in done.evidence
    assert "err" in done.evidence


def test_lines_by_cr_and_lf_as_they_come() -> None:
    lines: list[str] = []
    sh(r"printf '  (1.00/100%%)\r  (2.00/100%%)\rend\nlast'", on_line=lines.append)
    assert lines == ["  (1.00/100%)", "  (2.00/100%)", "end", "last"]


def test_stdin_and_environment() -> None:
    assert sh("cat; echo $LC_ALL $HOME", stdin=b"hello ").stdout == b"hello C\n"
    assert sh("exit 0", stdin=b"x" * 1_000_000).status == 0


def test_deadline_kills_the_whole_group() -> None:
    with pytest.raises(ToolError, match="did not end in 0 s"):
        sh("echo started; sleep 60 & wait", deadline_s=0.2)


def test_cancel() -> None:
    assert sh("sleep 60", cancelled=lambda: True).status < 0


def test_missing_and_unknown() -> None:
    with pytest.raises(ToolError, match="cannot be started"):
        SHELL.run(["gone"], deadline_s=1)
    with pytest.raises(ToolError, match="not in the table"):
        HostTools().run(["curl"], deadline_s=1)


def test_limits_hold() -> None:
    limits = Limits(address_space_bytes=64 << 20, cpu_s=5)
    assert sh("ulimit -v; ulimit -t; ulimit -c", limits=limits).stdout.split() == [
        b"65536",
        b"5",
        b"0",
    ]


def test_output_is_bounded() -> None:
    done = sh("head -c 6000000 /dev/zero; printf end")
    assert len(done.stdout) == 4 << 20
    assert done.stdout.endswith(b"end")


def test_every_path_is_absolute() -> None:
    assert all(path.startswith("/usr/") for path in PATHS.values())


def test_the_twin_answers_and_remembers() -> None:
    tools: Tools = MemoryTools({"wipefs": lambda call, _: 1, "efibootmgr": lambda call, _: b"a\nb"})
    lines: list[str] = []
    assert tools.run(["wipefs", "-a"], deadline_s=1).status == 1
    assert tools.run(["efibootmgr"], deadline_s=1, on_line=lines.append).text == "a\nb"
    assert lines == ["a", "b"]
    with pytest.raises(ToolError):
        tools.run(["qemu-img"], deadline_s=1)
    assert isinstance(tools, MemoryTools)
    assert [call[0] for call in tools.calls] == ["wipefs", "efibootmgr", "qemu-img"]
