"""Cleaning, leaving, reporting: the jobs' smaller parts."""

import itertools
from pathlib import Path

import pytest

from agent_rig import MIB, Recorder, digest, disk_report, file_machine, make_disk
from billet_agent.backoff import Backoff
from billet_agent.console import Console, printable, render_progress
from billet_agent.image.store import ImageReceiver, MemoryStore
from billet_agent.jobs.clean import clean
from billet_agent.jobs.context import JobContext
from billet_agent.jobs.handover import Action, leave
from billet_agent.jobs.registry import execute
from billet_agent.jobs.work import worker
from billet_agent.kexec import KexecError, LinuxKexec
from billet_agent.outbox import MOST_LINES, Outbox
from billet_agent.problems import ADVICE, JobCancelled, JobFailed, bounded, failure, show_bytes
from billet_agent.tools import Answer, Completed, MemoryTools
from billet_wire import (
    Clean,
    CleanResult,
    HandOver,
    HandOverResult,
    Inspect,
    Job,
    JobReport,
    Log,
    Progress,
)


def test_clean_wipes_what_it_may_and_tells_what_it_left(tmp_path: Path) -> None:
    disk, stick = make_disk(tmp_path / "vda", 4), make_disk(tmp_path / "sdb", 4)
    tools = MemoryTools({"wipefs": lambda call, _: b"", "udevadm": lambda call, _: b""})
    machine = file_machine(
        disk_report(disk), disk_report(stick, skip="removable", removable=True), tools=tools
    )
    result = clean(machine, Clean(), Recorder().context())
    assert result == CleanResult((str(disk),), ((str(stick), "removable"),))
    data = disk.read_bytes()
    assert data[:MIB] == data[-MIB:] == bytes(MIB)
    assert data[MIB : 2 * MIB] == b"old-data" * (MIB // 8)
    assert stick.read_bytes() == b"old-data" * (4 * MIB // 8)
    survey, wipe = [call for call in tools.calls if call[0] == "wipefs"]
    assert "--no-act" in survey
    assert wipe == ("wipefs", "--all", "--force", str(disk))


def test_partitions_are_wiped_before_their_disk(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "vda", 4)
    tools = MemoryTools({"wipefs": lambda call, _: b""})
    machine = file_machine(disk_report(disk), tools=tools)
    object.__setattr__(machine, "partitions", lambda name: (f"{name}1", f"{name}2"))
    clean(machine, Clean(), Recorder().context())
    nodes = [call[-1] for call in tools.calls if "--all" in call]
    assert nodes == [f"{disk}1", f"{disk}2", str(disk)]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda call, _: Completed(call, 1, stderr=b"wipefs: I/O error"), "exit status 1"),
        (None, "cannot be started"),
    ],
)
def test_a_disk_that_cannot_be_wiped(tmp_path: Path, answer: Answer | None, words: str) -> None:
    disk = make_disk(tmp_path / "vda", 4)
    tools = MemoryTools({"wipefs": answer} if answer else {})
    with pytest.raises(JobFailed, match=words) as caught:
        clean(file_machine(disk_report(disk), tools=tools), Clean(), Recorder().context())
    problem = caught.value.problem
    assert problem.problem == "clean"
    assert str(disk) in problem.message
    assert "wipefs" in problem.evidence


def test_a_disk_that_is_gone() -> None:
    gone = disk_report("/dev/null", name="/dev/gone", size_bytes=1)
    with pytest.raises(JobFailed, match="/dev/gone cannot be opened"):
        clean(file_machine(gone), Clean(), Recorder().context())


class NoKexec(LinuxKexec):
    """A kernel that starts no other."""

    def start(self) -> None:
        raise KexecError("the kernel refuses to start it: Invalid argument")


def test_a_kernel_that_cannot_be_started_after_all_is_no_obstacle() -> None:
    tools = MemoryTools({"reboot": lambda call, _: 0})
    lines: list[str] = []
    leave(tools, NoKexec(), "kexec", lines.append, sync=lambda: None, pause=lambda _: None)
    assert tools.calls[0] == ("reboot", "-f", "-f")
    assert lines[0] == "rebooting, because the kernel refuses to start it: Invalid argument"


@pytest.mark.parametrize(
    ("action", "first", "second"),
    [
        ("reboot", ("reboot", "-f", "-f"), ("systemctl", "reboot", "--force")),
        ("power-off", ("poweroff", "-f", "-f"), ("systemctl", "poweroff", "--force")),
    ],
)
def test_leaving_asks_the_kernel_first_and_then_goes_on_trying(
    action: Action, first: tuple[str, ...], second: tuple[str, ...]
) -> None:
    tools = MemoryTools({first[0]: lambda call, _: 1, "systemctl": lambda call, _: 0})
    order: list[str] = []
    lines: list[str] = []
    leave(
        tools,
        NoKexec(),
        action,
        lines.append,
        sync=lambda: order.append(f"sync after {len(tools.calls)}"),
        pause=lambda _: order.append("pause"),
    )
    assert order == ["sync after 0", "pause"]
    assert tools.calls[:2] == [first, second]
    assert "exit status 1" in lines[0]
    assert "had no effect" in lines[1]


def test_inspect_and_hand_over_as_jobs() -> None:
    machine = file_machine(tools=MemoryTools())
    report = execute(worker(machine), Job("i", Inspect()), JobContext())
    assert report.state == "succeeded"
    assert report.inspect == machine.inventory()
    report = execute(worker(machine), Job("h", HandOver()), JobContext())
    assert (report.kind, report.state) == ("hand-over", "succeeded")
    assert report.hand_over == HandOverResult("reboot")


def test_a_cancelled_job_is_reported_as_such() -> None:
    context = JobContext()
    context.cancel()
    report = execute(worker(file_machine()), Job("c", Clean()), context)
    assert (report.state, report.problem) == ("cancelled", None)
    with pytest.raises(JobCancelled):
        context.pause(0)


def test_context_publishes_steps_at_once_and_bytes_at_most_every_quarter_second() -> None:
    now = [0.0]
    seen: list[Progress] = []
    context = JobContext(seen.append, clock=lambda: now[0])
    with context.step("write", "to disk"):
        context.expect(1000)
        for done in range(0, 1001, 10):
            now[0] += 0.01
            context.advance(done)
        now[0] += 0.99
    assert seen[0] == Progress("write", message="to disk")
    assert len(seen) == 1 + 1.01 // 0.25 + 1
    assert seen[-1].percent == 100
    assert context.seconds == {"write": 2.0}


def test_console_shows_steps_problems_and_slow_progress() -> None:
    lines: list[str] = []
    ticks = itertools.count()
    console = Console(lines.append, clock=lambda: float(next(ticks)))
    console.welcomed("metal/node-1")
    console.line("calling")
    console.line("calling")
    half = Progress("write", 50.0, 512 << 20, 1 << 30, 64 << 20, 8.0)
    console.report(JobReport("d", "deploy", "running", Progress("write", message="to /dev/vda")))
    for _ in range(11):
        console.report(JobReport("d", "deploy", "running", half))
    bad = failure("image-short", "http://h/i ended early \x1b[2J").problem
    console.report(JobReport("d", "deploy", "failed", problem=bad))
    assert lines == [
        "billet metal/node-1: calling",
        "billet metal/node-1: deploy: write to /dev/vda",
        f"billet metal/node-1: deploy: {render_progress(half)}",
        "billet metal/node-1: deploy failed, image-short: http://h/i ended early ?[2J",
        f"billet metal/node-1:   what to do: {ADVICE['image-short']}",
    ]
    bar = "[##########..........] 50 %"
    assert render_progress(half) == f"write {bar} 512.00 MiB of 1.00 GiB 64.00 MiB/s 8 s left"
    assert render_progress(Progress("fetch", done_bytes=10)) == "fetch 10 B"
    for rate, eta, words in (
        (2048.0, 119.0, "2.00 KiB/s 119 s left"),
        (2048.0, 600.0, "2.00 KiB/s 10 min left"),
        (2048.0, 3e5, "2.00 KiB/s 83 h left"),
        (0.0, None, "stands still"),
    ):
        shown = render_progress(Progress("fetch", rate_bytes_s=rate, eta_s=eta))
        assert shown == f"fetch {words}"
    assert printable("a\tb\rc\n") == "a b?c?"


def test_outbox_keeps_the_latest_report_and_the_newest_lines() -> None:
    box = Outbox(uptime=lambda: 5.0)
    assert not box
    for index in range(MOST_LINES + 7):
        box.add_log("info", f"line {index}")
    running = JobReport("j", "deploy", "running")
    box.add_report(running)
    assert box.urgent.is_set()
    box.add_report(JobReport("j", "deploy", "running", Progress("write")))
    taken = box.take()
    assert not box.urgent.is_set()
    assert isinstance(taken[0], Log)
    assert "7 log lines were dropped" in taken[0].message
    assert taken[1] == Log("info", "line 7", 5.0)
    assert taken[-1] == JobReport("j", "deploy", "running", Progress("write"))
    assert len(taken) == MOST_LINES + 2
    box.add_report(JobReport("j", "deploy", "running", Progress("write", 10.0)))
    assert not box.urgent.is_set()
    box.add_report(JobReport("j", "deploy", "succeeded"))
    assert box.urgent.is_set()
    box.drop_reports()
    assert box.take() == []


def test_backoff_doubles_to_its_cap_less_jitter() -> None:
    pauses = Backoff(1, 10, chance=lambda: 0.0)
    assert [pauses.next_s() for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    pauses.reset()
    assert pauses.next_s() == 1
    assert Backoff(1, 10, chance=lambda: 1.0).next_s() == 0.75


def test_evidence_is_bounded_in_its_middle() -> None:
    problem = failure("disk-write", "x", evidence="a" * 3000 + "é" * 3000 + "z" * 3000).problem
    assert len(problem.evidence.encode()) <= 4096
    assert problem.evidence.startswith("aaa")
    assert problem.evidence.endswith("zzz")
    assert bounded("short") == "short"


def test_sizes_for_people() -> None:
    assert show_bytes(512) == "512 B"
    assert show_bytes(3 << 30) == "3.00 GiB (3221225472 B)"
    assert show_bytes(5 << 40).startswith("5.00 TiB")


def test_memory_store_asks_before_it_grows() -> None:
    free = [400 * MIB]
    store = MemoryStore(None, lambda: free[0])
    store.write(b"abc" * 1000)
    assert store.start(3) == b"abc"
    assert Path(store.path).read_bytes() == b"abc" * 1000
    free[0] = 10 * MIB
    with pytest.raises(JobFailed) as caught:
        store.write(bytes(40 * MIB))
    assert caught.value.problem.problem == "image-memory"
    store.close()
    assert not Path(store.path).exists()


def test_a_receiver_that_starts_over_hashes_afresh() -> None:
    opened: list[MemoryStore] = []

    def open_store(*_: object) -> MemoryStore:
        opened.append(MemoryStore(None, lambda: 1 << 33))
        return opened[-1]

    body = bytes(510) + b"\x55\xaa" + bytes(300_000)
    receiver = ImageReceiver("http://h/i", None, "md5", open_store)
    for _ in range(2):
        receiver.begin(len(body))
        receiver.write(memoryview(body))
    assert receiver.finish() == digest(body, "md5")
    assert opened[-1].size_bytes == len(body)
    assert len(opened) == 2
    receiver.close()
