"""Deployments over a network in trouble: In an image and faults, Out the same disk as without."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent_rig import (
    MIB,
    QUICK,
    Page,
    Recorder,
    WebServer,
    digest,
    disk_report,
    file_machine,
    make_disk,
    make_gpt_image,
    run,
    to_qcow2,
    web_server,
)
from billet_agent.jobs.deploy import deploy
from billet_agent.problems import JobFailed
from billet_wire import Deploy, ImageSource, RootDeviceHints

TAG = {"ETag": '"v1"'}


@pytest.fixture(name="web")
def _web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture(name="image", params=["raw", "qcow2"])
def _image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    raw = make_gpt_image(tmp_path / "os.raw")
    return raw if request.param == "raw" else to_qcow2(raw)


def write(source: ImageSource, disk: Path, recorder: Recorder, stall_s: float = 1.0) -> None:
    hints = RootDeviceHints(device_name=str(disk))
    machine = file_machine(disk_report(disk), patience=QUICK._replace(stall_s=stall_s))
    deploy(machine, Deploy(source, hints), recorder.context())


def assert_written(image: Path, disk: Path) -> None:
    raw = image.with_suffix(".raw")
    with raw.open("rb") as left, disk.open("rb") as right:
        left.seek(MIB)
        right.seek(MIB)
        size = raw.stat().st_size - 2 * MIB
        assert left.read(size) == right.read(size)
    assert "No problems found" in run("sgdisk", "-v", disk)


def assert_not_bootable(disk: Path) -> None:
    data = disk.read_bytes()
    assert data[:MIB] == data[-MIB:] == bytes(MIB)


def test_ten_cuts_and_the_disk_is_the_same(web: WebServer, image: Path, tmp_path: Path) -> None:
    body, disk = image.read_bytes(), make_disk(tmp_path / "disk")
    cuts = [len(body) // 12] * 10
    web.pages["/os"] = Page(body, headers=TAG, cut_after=cuts)
    write(ImageSource(web.url("/os"), digest(body)), disk, Recorder())
    assert_written(image, disk)
    assert len(web.requests) == 11
    assert web.sent_bytes == len(body), "no byte was asked for twice"


def test_a_server_without_ranges_starts_over(web: WebServer, image: Path, tmp_path: Path) -> None:
    body, disk, recorder = image.read_bytes(), make_disk(tmp_path / "disk"), Recorder()
    web.pages["/os"] = Page(body, headers=TAG, ranges=False, cut_after=[len(body) - 5, MIB])
    write(ImageSource(web.url("/os"), digest(body)), disk, recorder)
    assert_written(image, disk)
    assert sum("starts over" in line for line in recorder.lines) == 2


def test_a_stall_is_cut_and_a_mirror_goes_on(web: WebServer, image: Path, tmp_path: Path) -> None:
    body, disk, recorder = image.read_bytes(), make_disk(tmp_path / "disk"), Recorder()
    web.pages["/os"] = Page(body, headers=TAG, stall_after=[len(body) // 2])
    web.pages["/copy"] = Page(body, headers={"ETag": '"mine"'})
    source = ImageSource(web.url("/os"), digest(body), mirrors=(web.url("/copy"),))
    write(source, disk, recorder, stall_s=0.2)
    assert_written(image, disk)
    assert web.sent_bytes == len(body)
    assert any(f"{web.url('/os')} and {web.url('/copy')}" in line for line in recorder.lines)


def test_a_corrupt_first_server(web: WebServer, image: Path, tmp_path: Path) -> None:
    body, disk, recorder = image.read_bytes(), make_disk(tmp_path / "disk"), Recorder()
    bad = body[: len(body) // 2] + b"!" + body[len(body) // 2 + 1 :]
    web.pages["/os"], web.pages["/copy"] = Page(bad), Page(body)
    source = ImageSource(web.url("/os"), digest(body), mirrors=(web.url("/copy"),))
    write(source, disk, recorder)
    assert_written(image, disk)
    (line,) = (line for line in recorder.lines if "starts over from" in line)
    assert digest(bad) in line
    assert digest(body) in line
    web.pages["/copy"] = Page(bad)
    with pytest.raises(JobFailed) as caught:
        write(source, disk, recorder)
    problem = caught.value.problem
    assert problem.problem == "image-checksum"
    assert all(words in problem.message for words in ("/copy", digest(bad), digest(body)))
    assert_not_bootable(disk)


def test_more_than_announced_never_gets_past(web: WebServer, tmp_path: Path) -> None:
    raw = make_gpt_image(tmp_path / "os.raw")
    body, disk = raw.read_bytes(), make_disk(tmp_path / "disk")
    web.pages["/os"] = Page(
        body, headers=TAG, cut_after=[MIB], content_range=f"bytes {MIB}-{len(body)}/{len(body) + 1}"
    )
    write(ImageSource(web.url("/os"), digest(body)), disk, Recorder())
    assert_written(raw, disk)
    assert [headers.get("Range") for _, headers in web.requests] == [None, f"bytes={MIB}-", None]


def test_the_limit_reaches_the_download(web: WebServer, tmp_path: Path) -> None:
    raw = make_gpt_image(tmp_path / "os.raw")
    body, disk, recorder = raw.read_bytes(), make_disk(tmp_path / "disk"), Recorder()
    web.pages["/os"] = Page(body, headers=TAG)
    source = ImageSource(web.url("/os"), digest(body))
    paused: list[float] = []
    context = recorder.context()
    context.pause = paused.append  # type: ignore[method-assign]
    limited = msgspec.structs.replace(source, rate_bytes_s=MIB)
    machine = file_machine(disk_report(disk))
    deploy(machine, Deploy(limited, RootDeviceHints(device_name=str(disk))), context)
    assert_written(raw, disk)
    # Nothing really sleeps here, so the debt of each piece is what time has not yet paid.
    assert sum(pause > 0 for pause in paused) > 100
