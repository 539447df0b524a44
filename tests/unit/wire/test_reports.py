"""What an earlier disk job said of a disk is history once another one writes there."""

import pytest

from billet_wire import Clean, Deploy, HandOver, ImageSource, Inspect, Job, JobReport
from billet_wire import reports_that_hold as holding

BEFORE = {
    name: JobReport(name, kind, state)
    for name, kind, state in (
        ("seen", "inspect", "succeeded"),
        ("written", "deploy", "succeeded"),
        ("refused", "deploy", "failed"),
        ("wiped", "clean", "succeeded"),
        ("busy", "deploy", "running"),
    )
}
DEPLOY = Deploy(ImageSource("http://x/a.qcow2", "0" * 32), clean=True)


@pytest.mark.parametrize("params", [DEPLOY, Clean()])
def test_a_disk_job_ends_what_finished_ones_said(params):
    assert set(holding(BEFORE, Job("new", params))) == {"seen", "busy"}


@pytest.mark.parametrize("params", [Inspect(), HandOver()])
def test_other_jobs_leave_the_disk_as_it_was_told(params):
    assert holding(BEFORE, Job("new", params)) == BEFORE


def test_a_known_job_begins_nothing():
    assert holding(BEFORE, Job("written", DEPLOY)) == BEFORE
