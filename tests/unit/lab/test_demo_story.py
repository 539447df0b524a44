import io

import pytest
from rich.console import Console

from billet_lab.demo_story import Ledger, Timeline, View, fit_table, read_view, render_figures


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def host(state="", step="", **progress):
    status = {"provisioning": {"state": state}}
    if step:
        status["progress"] = {"step": step, **progress}
    return {"status": status}


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        ({}, ""),
        ({"percent": 0}, "0 %"),
        ({"percent": 45, "doneBytes": 53 << 20, "totalBytes": 118 << 20}, "45 %, 53 of 118 MiB"),
        ({"rateBytesPerSecond": 12 << 20, "etaSeconds": 5}, "12 MiB/s, 5 s left"),
        ({"doneBytes": 5}, ""),
    ],
)
def test_figures_say_what_is_known(progress, text):
    assert render_figures(progress) == text


def test_a_host_without_status_has_a_view():
    assert read_view({}) == View()
    assert read_view({"status": {"errorMessage": "no"}}).error == "no"


TABLE = """\
NAME     PROVISIONING STATUS   CONSUMER   AGE
node01   ready                            1s
"""


def test_a_table_gets_narrower_gaps_only_where_that_makes_it_fit():
    assert fit_table(TABLE, 45) == TABLE
    assert fit_table(TABLE, 20) == TABLE
    assert fit_table(TABLE, 44).splitlines() == [
        "NAME    PROVISIONING STATUS  CONSUMER  AGE",
        "node01  ready                          1s",
    ]
    assert fit_table("", 10) == ""


def test_the_ledger_books_phases_and_their_steps():
    clock = Clock()
    ledger = Ledger(clock)
    for at, phase, step in [
        (100, "start", ""),
        (102, "inspecting", "boot"),
        (105, "inspecting", "ramdisk"),
        (112, "ready", ""),
        (113, "provisioning", "boot"),
        (120, "provisioning", "write"),
        (130, "provisioning", "boot"),
    ]:
        clock.now = at
        ledger.enter(phase, step)
    clock.now = 131
    ledger.end()
    clock.now = 999
    ledger.end()
    assert ledger.seconds() == {
        "start": 2, "inspecting": 10, "ready": 1, "provisioning": 18, "total": 31,
    }  # fmt: skip
    assert ledger.step_seconds() == {
        "inspecting/boot": 3, "inspecting/ramdisk": 7,
        "provisioning/boot": 8, "provisioning/write": 10,
    }  # fmt: skip


def shown(story, *, terminal=False):
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, width=200, force_terminal=terminal, no_color=True)
    with Timeline(console, Ledger(clock)) as timeline:
        for at, seen in story:
            clock.now = 100 + at
            timeline.see(seen)
    return out.getvalue()


STORY = [
    (0, host("inspecting", "boot", message="power [cycling]")),
    (1, host("inspecting", "boot", message="power [cycling]")),
    (5, host("provisioning", "write", percent=10, message="to /dev/vda")),
    (7, host("provisioning", "write", percent=20, message="to /dev/vda")),
    (16, host("provisioning", "write", percent=30, message="to /dev/vda")),
    (17, host("provisioning", "write", percent=40, message="to /dev/vda")),
]


def test_without_a_terminal_changes_and_now_and_then_a_sign_of_life():
    lines = [" ".join(line.split()) for line in shown(STORY).splitlines()]
    assert lines == [
        "0.0s inspecting · boot: power [cycling]",
        "5.0s provisioning · write: to /dev/vda",
        "16.0s provisioning · write: 30 %",
    ]


def test_on_a_terminal_a_live_line_shows_how_far_it_is():
    text = shown(STORY, terminal=True)
    assert "40 %" in text
    assert "\x1b[2K" in text  # the line is taken away again


def test_an_error_is_told_once():
    sick = host("provisioning")
    sick["status"]["errorMessage"] = "no [disk]"
    assert shown([(0, sick), (1, sick)]).count("no [disk]") == 1
