from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from billet_server.core.terms import HostKey
from billet_server.gateway.agentlog import (
    MAX_CHARS,
    MAX_FILE_BYTES,
    MAX_LINES,
    AgentLogs,
    log_path,
    render_line,
)
from billet_server.gateway.sessions import MAX_JOBS, Sessions
from billet_wire import Hello, JobReport, Log

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOST = HostKey("metal", "node-1")


class Wire:
    async def send(self, message):
        raise AssertionError("nothing is sent here")

    async def close(self, reason):
        raise AssertionError("nothing is closed here")


def hello(agent_id="a", jobs=()):
    return Hello("t", agent_id, (), "UEFI", 1.0, "1", jobs=jobs)


def report(job_id, state="running"):
    return JobReport(job_id, "inspect", state)


def test_the_same_agent_of_the_same_boot_goes_on():
    sessions, first, second = Sessions(), Wire(), Wire()
    session, replaced = sessions.open((HOST, "u", "n"), hello(jobs=(report("1"),)), first, NOW)
    assert replaced is None
    later = NOW + timedelta(seconds=5)
    told = hello(jobs=(report("1", "succeeded"),))
    again, replaced = sessions.open((HOST, "u", "n"), told, second, later)
    assert again is session
    assert replaced is first
    assert (again.view().connected_at, set(again.view().jobs)) == (later, {"1"})


def test_what_an_agent_no_longer_tells_is_no_longer_so():
    sessions = Sessions()
    jobs = (report("1"), report("2"))
    sessions.open((HOST, "u", "n"), hello(jobs=jobs), Wire(), NOW)
    again, _ = sessions.open((HOST, "u", "n"), hello(jobs=jobs[1:]), Wire(), NOW)
    assert set(again.view().jobs) == {"2"}


def test_another_agent_or_another_boot_starts_afresh():
    for opening, nonce in ((hello("b"), "n"), (hello("a"), "m")):
        sessions = Sessions()
        sessions.open((HOST, "u", "n"), hello(jobs=(report("1"),)), Wire(), NOW)
        session, _ = sessions.open((HOST, "u", nonce), opening, Wire(), NOW)
        assert not session.view().jobs
        assert len(sessions) == 1


def test_a_repeated_report_is_no_news():
    session, _ = Sessions().open((HOST, "u", "n"), hello(), Wire(), NOW)
    assert session.report(report("1"), NOW)
    assert not session.report(report("1"), NOW)
    assert session.report(report("1", "succeeded"), NOW)


def test_jobs_are_bounded_oldest_first():
    session, _ = Sessions().open((HOST, "u", "n"), hello(), Wire(), NOW)
    for number in range(MAX_JOBS + 3):
        session.report(report(str(number)), NOW)
    assert len(session.jobs) == MAX_JOBS
    assert "2" not in session.jobs
    assert "3" in session.jobs


def test_sessions_are_bounded_but_live_agents_are_never_dropped():
    sessions = Sessions(most=2)
    for uid in "abc":
        sessions.open((HOST, uid, "n"), hello(), Wire(), NOW)
    assert len(sessions) == 3
    left = sessions.get("b")
    assert left is not None
    left.connection = None
    sessions.open((HOST, "d", "n"), hello(), Wire(), NOW)
    assert sessions.get("b") is None
    assert sessions.get("a") is not None


@given(st.text(max_size=3000))
def test_a_log_line_is_one_printable_line(text):
    line = render_line(Log("info", text, 1.0))
    assert len(line.splitlines()) == 1
    assert not any(ord(character) < 32 or character == "\x7f" for character in line)
    assert len(line) < 2100


@given(st.text(max_size=80), st.text(max_size=80))
def test_a_log_file_stays_in_its_folder(tmp_path_factory, namespace, name):
    folder = tmp_path_factory.getbasetemp()
    path = log_path(folder, HostKey(namespace, name))
    assert path.parent == folder
    assert path.resolve().parent == folder.resolve()


def test_the_ring_keeps_the_latest_lines_and_the_file_rotates(tmp_path):
    logs = AgentLogs(tmp_path)
    text = "x" * 1990
    for number in range(MAX_FILE_BYTES // 2000 + 2):
        logs.add(HOST, "u", Log("info", f"{number} {text}", 0.0))
    assert len(logs.lines("u")) == MAX_LINES
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "metal_node-1.log",
        "metal_node-1.log.1",
    ]


def test_a_disk_that_does_not_take_lines_costs_no_agent(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    logs = AgentLogs(blocked)
    for _ in range(2):
        logs.add(HOST, "u", Log("info", "hello", 0.0))
    assert len(logs.lines("u")) == 2
    assert caplog.text.count("kept in memory only") == 1


def test_all_rings_together_are_bounded():
    logs = AgentLogs()
    line = "x" * 1990
    hosts = MAX_CHARS // (MAX_LINES * len(line)) + 10
    for number in range(hosts):
        for _ in range(MAX_LINES):
            logs.add(HOST, f"u{number}", Log("info", line, 0.0))
    assert logs.lines("u0") == []
    assert len(logs.lines(f"u{hosts - 1}")) == MAX_LINES
