"""Images written while they arrive: each form, on files and loop devices, against the raw one."""

import gzip
import hashlib
import lzma
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent_rig import (
    MIB,
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
from billet_agent.image.unpack import zstd
from billet_agent.jobs.deploy import deploy
from billet_agent.problems import JobFailed
from billet_wire import Deploy, ImageSource, JobProblem, RootDeviceHints

SIZE_MIB = 40


@pytest.fixture(name="web")
def _web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture(name="raw", scope="module")
def _raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with a partition table, noise, text and holes."""
    raw = make_gpt_image(tmp_path_factory.mktemp("raw") / "os.raw", SIZE_MIB)
    with raw.open("r+b") as file:
        for number, at in enumerate(range(4 * MIB, 36 * MIB, 3 * MIB)):
            file.seek(at + 512 * number)
            file.write(os.urandom(1_000_000) if number % 2 else b"some text %d\n" % number * 50_000)
    return raw


def write(web: WebServer, image: bytes, disk: str, recorder: Recorder, **more: str) -> None:
    web.pages["/image"] = page = Page(image, headers={"ETag": '"one"'})
    source = ImageSource(web.url("/image"), more.get("checksum") or digest(page.body))
    params = Deploy(source, RootDeviceHints(device_name=disk))
    deploy(file_machine(disk_report(disk), memory_bytes=0), params, recorder.context())


def refused(web: WebServer, image: bytes, disk: str, **more: str) -> JobProblem:
    with pytest.raises(JobFailed) as caught:
        write(web, image, disk, Recorder(), **more)
    assert is_empty(disk), "what was refused must not boot"
    return caught.value.problem


def is_empty(disk: str) -> bool:
    with open(disk, "rb") as file:
        head = file.read(MIB)
        file.seek(-MIB, os.SEEK_END)
        return head == bytes(MIB) == file.read(MIB)


def assert_same(raw: Path, disk: str) -> None:
    with raw.open("rb") as left, open(disk, "rb") as right:
        left.seek(MIB)
        right.seek(MIB)
        for _ in range(raw.stat().st_size // MIB - 2):
            assert left.read(MIB) == right.read(MIB)
    assert "No problems found" in run("sgdisk", "-v", disk)


FORMS = {
    "plain": (),
    "v2": ("-o", "compat=0.10"),
    "v2 zlib": ("-c", "-o", "compat=0.10"),
    "zlib 512": ("-c", "-o", "cluster_size=512"),
    "zlib 64k": ("-c",),
    "zlib 2M": ("-c", "-o", "cluster_size=2M"),
    "zstd 4k": ("-c", "-o", "compression_type=zstd,cluster_size=4k"),
    "zstd 64k": ("-c", "-o", "compression_type=zstd"),
    "extended": ("-o", "extended_l2=on"),
    "in any order": ("-c", "-W", "-m", "8"),
}


@pytest.mark.parametrize("form", FORMS)
def test_qcow2_on_a_file(web: WebServer, raw: Path, tmp_path: Path, form: str) -> None:
    disk = str(make_disk(tmp_path / "disk", 64))
    recorder = Recorder()
    write(web, to_qcow2(raw, *FORMS[form]).read_bytes(), disk, recorder)
    assert_same(raw, disk)
    assert "image-header" not in recorder.steps, "it was not held"
    assert len(web.requests) == 1


@pytest.fixture(name="loop")
def _loop(tmp_path: Path) -> Iterator[Callable[[int], str]]:
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    names: list[str] = []

    def attach(sector: int) -> str:
        backing = make_disk(tmp_path / f"disk-{sector}", 64)
        argv = ("losetup", "--find", "--show", "--sector-size", sector, backing)
        names.append(run(*argv).strip())
        return names[-1]

    try:
        yield attach
    finally:
        for name in names:
            run("losetup", "--detach", name)


@pytest.mark.root
@pytest.mark.parametrize("form", ["zlib 64k", "zlib 512", "plain", "raw", "raw.zst"])
def test_on_a_block_device(
    web: WebServer, raw: Path, loop: Callable[[int], str], form: str
) -> None:
    disk = loop(512)
    body = raw.read_bytes()
    if form == "raw.zst":
        body = zstd.compress(body)
    elif form != "raw":
        body = to_qcow2(raw, *FORMS[form]).read_bytes()
    write(web, body, disk, Recorder())
    assert_same(raw, disk)


@pytest.mark.parametrize(
    "pack", [gzip.compress, lzma.compress, zstd.compress], ids=["gzip", "xz", "zstd"]
)
@pytest.mark.parametrize("parts", [1, 3])
def test_compressed_raw(
    web: WebServer, raw: Path, tmp_path: Path, pack: Callable[[bytes], bytes], parts: int
) -> None:
    body = raw.read_bytes()
    cut = len(body) // parts + 1
    packed = b"".join(pack(body[at : at + cut]) for at in range(0, len(body), cut))
    disk = str(make_disk(tmp_path / "disk", 64))
    write(web, packed, disk, Recorder())
    assert_same(raw, disk)


def test_compressed_files_that_are_refused(web: WebServer, raw: Path, tmp_path: Path) -> None:
    disk = str(make_disk(tmp_path / "disk", 64))
    whole = gzip.compress(raw.read_bytes(), 1)
    problem = refused(web, whole[: len(whole) // 2], disk)
    assert problem.problem == "image-format"
    assert "in the middle of the gzip stream" in problem.message
    problem = refused(web, gzip.compress(to_qcow2(raw).read_bytes(), 1), disk)
    assert "compressed qcow2" in problem.message
    assert "qemu-img convert -c" in problem.advice
    bomb = gzip.compress(raw.read_bytes()[:MIB] + bytes(300 * MIB), 1)
    assert len(bomb) < 3 * MIB
    assert refused(web, bomb, disk).problem == "image-too-large"
    xz = lzma.compress(raw.read_bytes()[: 4 * MIB], filters=[
        {"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 512 * MIB}
    ])  # fmt: skip
    problem = refused(web, xz, disk)
    assert problem.problem == "image-format"
    assert "xz" in problem.message


@pytest.mark.parametrize("form", ["zlib 64k", "plain", "zstd 64k", "raw", "raw.gz"])
def test_a_damaged_byte_is_told_by_both_digests(
    web: WebServer, raw: Path, tmp_path: Path, form: str
) -> None:
    body = raw.read_bytes()
    if form == "raw.gz":
        body = gzip.compress(body, 1)
    elif form != "raw":
        body = to_qcow2(raw, *FORMS[form]).read_bytes()
    damaged = bytearray(body)
    damaged[len(body) // 2] ^= 0x55
    problem = refused(
        web, bytes(damaged), str(make_disk(tmp_path / "disk", 64)), checksum=digest(body)
    )
    assert problem.problem == "image-checksum"
    assert digest(body) in problem.message
    assert digest(bytes(damaged)) in problem.message


def late_table(folder: Path) -> tuple[Path, Path]:
    """An image whose L1 table was moved to its end, as growing an image does; and its disk."""
    raw = make_gpt_image(folder / "late.raw", SIZE_MIB)
    with raw.open("r+b") as file:
        file.seek(4 * MIB)
        file.write(os.urandom(30 * MIB))
    made = to_qcow2(raw)
    run("qemu-img", "resize", "-f", "qcow2", made, "600M")
    run("qemu-img", "resize", "-f", "raw", raw, "600M")
    disk = folder / "disk"
    with disk.open("wb") as file:
        file.truncate(700 * MIB)
    return made, disk


def test_what_does_not_fit_the_pass_is_fetched_again(web: WebServer, tmp_path: Path) -> None:
    made, disk = late_table(tmp_path)
    recorder = Recorder()
    write(web, made.read_bytes(), str(disk), recorder)
    assert_same(tmp_path / "late.raw", str(disk))
    assert any("were fetched twice" in line for line in recorder.lines)
    ranges = [headers["Range"] for _, headers in web.requests if "Range" in headers]
    assert len(ranges) > 1
    assert "image-header" not in recorder.steps


def test_without_ranges_it_is_held_after_all(web: WebServer, tmp_path: Path) -> None:
    made, disk = late_table(tmp_path)
    web.pages["/image"] = Page(made.read_bytes(), ranges=False)
    source = ImageSource(web.url("/image"), digest(made.read_bytes()))
    params = Deploy(source, RootDeviceHints(device_name=str(disk)))
    recorder = Recorder()
    deploy(file_machine(disk_report(disk)), params, recorder.context())
    assert_same(tmp_path / "late.raw", str(disk))
    assert any("qemu-img converts it" in line for line in recorder.lines)
    assert "image-header" in recorder.steps


CHILD = """
import sys
sys.path[:0] = sys.argv[4].split(":")
from pathlib import Path
from agent_rig import Recorder, disk_report, file_machine
from billet_agent.jobs.deploy import deploy
from billet_wire import Deploy, ImageSource, RootDeviceHints

def memory(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) // 1024

disk, url, checksum = sys.argv[1:4]
params = Deploy(ImageSource(url, checksum), RootDeviceHints(device_name=disk))
idle = memory("VmRSS")
deploy(file_machine(disk_report(disk), memory_bytes=0), params, Recorder().context())
print(memory("VmHWM") - idle)
"""


@pytest.mark.parametrize("form", ["plain", "zlib 64k", "raw", "raw.zst"])
def test_memory_does_not_grow_with_the_image(web: WebServer, tmp_path: Path, form: str) -> None:
    raw = make_gpt_image(tmp_path / "big.raw", SIZE_MIB)
    noise = os.urandom(MIB)
    with raw.open("r+b") as file:
        for at in range(SIZE_MIB, 400):
            file.seek(at * MIB)
            file.write(hashlib.sha256(b"%d" % at).digest() + noise[32:])
    if form == "raw":
        body = raw.read_bytes()
    elif form == "raw.zst":
        body = zstd.compress(raw.read_bytes(), 1)
    else:
        body = to_qcow2(raw, *FORMS[form]).read_bytes()
    assert len(body) > 300 * MIB or form == "raw.zst"
    web.pages["/image"] = Page(body)
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(420 * MIB)
    paths = ":".join(path for path in sys.path if path)
    argv = [sys.executable, "-c", CHILD, disk, web.url("/image"), digest(body), paths]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 96, "MiB above the idle agent"
