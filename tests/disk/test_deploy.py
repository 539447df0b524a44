"""In, plan, out: images deployed on files and judged by the field's own tools."""

import os
from collections.abc import Iterator
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
    to_vdi,
    web_server,
)
from billet_agent.jobs.deploy import deploy
from billet_agent.machine import Machine
from billet_agent.problems import JobFailed
from billet_agent.tools import MemoryTools
from billet_wire import Deploy, DeployResult, ImageSource, RootDeviceHints

CONFIG_DRIVE = b"\0" * 32768 + b"\x01CD001" + bytes(34) + b"config-2".ljust(32) + os.urandom(5000)


@pytest.fixture(name="web")
def _web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


class Case:
    """One deployment: an image on the web, a disk, a job."""

    def __init__(self, web: WebServer, folder: Path) -> None:
        self.web, self.folder = web, folder
        self.recorder = Recorder()
        self.disk = make_disk(folder / "disk.raw")

    def publish(self, image: Path, name: str = "/image") -> ImageSource:
        body = image.read_bytes()
        self.web.pages[name] = Page(body)
        return ImageSource(self.web.url(name), digest(body))

    def machine(self, **options: object) -> Machine:
        report = disk_report(self.disk)
        return file_machine(report, **options)  # type: ignore[arg-type]

    def deploy(
        self, image: ImageSource, machine: Machine | None = None, drive: bytes | None = None
    ) -> DeployResult:
        hints = RootDeviceHints(device_name=str(self.disk))
        params = Deploy(image, hints, drive)
        return deploy(machine or self.machine(), params, self.recorder.context())

    def refused(self, image: ImageSource, machine: Machine | None = None, **more: object) -> object:
        with pytest.raises(JobFailed) as caught:
            self.deploy(image, machine, **more)  # type: ignore[arg-type]
        problem = caught.value.problem
        assert problem.message
        assert problem.advice
        return problem

    def assert_not_bootable(self) -> None:
        with self.disk.open("rb") as file:
            assert file.read(MIB) == bytes(MIB), "the disk's first MiB must be empty"
            file.seek(-MIB, os.SEEK_END)
            assert file.read(MIB) == bytes(MIB), "no backup GPT may be left"


@pytest.fixture(name="case")
def _case(web: WebServer, tmp_path: Path) -> Case:
    return Case(web, tmp_path)


def assert_same_content(image: Path, disk: Path) -> None:
    """Between partition table and the end, the disk holds what the image does."""
    with image.open("rb") as left, disk.open("rb") as right:
        left.seek(MIB)
        right.seek(MIB)
        size = image.stat().st_size - 2 * MIB
        assert left.read(size) == right.read(size)


@pytest.mark.parametrize("options", [(), ("-c",), ("-o", "compat=0.10"), ("-o", "extended_l2=on")])
def test_qcow2_lands_on_the_disk_bit_by_bit(case: Case, options: tuple[str, ...]) -> None:
    raw = make_gpt_image(case.folder / "os.raw")
    result = case.deploy(case.publish(to_qcow2(raw, *options)), drive=CONFIG_DRIVE)
    assert_same_content(raw, case.disk)
    verdict = run("sgdisk", "-v", case.disk)
    assert "No problems found" in verdict
    table = run("sgdisk", "-p", case.disk)
    assert "config-2" in table
    assert result.virtual_bytes == 40 * MIB
    assert result.checksum.startswith("sha256:")
    assert result.boot_entry is None
    assert case.recorder.steps == [
        "root-device", "checksum", "clean", "fetch", "write", "flush", "config-drive", "head"
    ]  # fmt: skip
    assert set(case.recorder.steps) - {"fetch"} == set(result.seconds)


def test_the_config_drive_is_readable_where_its_partition_says(case: Case) -> None:
    raw = make_gpt_image(case.folder / "os.raw")
    case.deploy(case.publish(to_qcow2(raw)), drive=CONFIG_DRIVE)
    info = run("sgdisk", "-i", "2", case.disk)
    first = int(next(line for line in info.splitlines() if "First sector" in line).split()[2])
    with case.disk.open("rb") as file:
        file.seek(first * 512)
        assert file.read(len(CONFIG_DRIVE)) == CONFIG_DRIVE


def test_raw_is_streamed_and_ends_the_same(case: Case) -> None:
    raw = make_gpt_image(case.folder / "os.raw")
    result = case.deploy(case.publish(raw), case.machine(memory_bytes=0), CONFIG_DRIVE)
    assert_same_content(raw, case.disk)
    assert "No problems found" in run("sgdisk", "-v", case.disk)
    assert result.image_bytes == 40 * MIB
    assert "image-header" not in case.recorder.steps


@pytest.mark.parametrize("size_mib", [40, 64])
def test_vdi_and_a_disk_of_the_images_own_size(case: Case, size_mib: int) -> None:
    raw = make_gpt_image(case.folder / "os.raw", size_mib)
    made = raw.with_suffix(".vdi")
    run("qemu-img", "convert", "-f", "raw", "-O", "vdi", raw, made)
    case.deploy(case.publish(made))
    assert_same_content(raw, case.disk)
    assert "No problems found" in run("sgdisk", "-v", case.disk)


def test_vmdk(case: Case) -> None:
    raw = make_gpt_image(case.folder / "os.raw")
    made = raw.with_suffix(".vmdk")
    run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", raw, made)
    case.deploy(case.publish(made))
    assert_same_content(raw, case.disk)


def test_mbr_image_gets_its_config_drive_as_fourth_partition(case: Case) -> None:
    raw = case.folder / "os.raw"
    make_disk(raw, 40, fill=False)
    script = "label: dos\nstart=2048, size=20480, type=83\nstart=24576, size=20480, type=83\n"
    (case.folder / "script").write_text(script)
    run("sh", "-c", f"sfdisk -q {raw} < {case.folder / 'script'}")
    with raw.open("r+b") as file:
        file.write(b"\xfa\xfc")
    case.deploy(case.publish(to_qcow2(raw)), drive=CONFIG_DRIVE)
    table = run("sfdisk", "--dump", case.disk)
    third = next(line for line in table.splitlines() if "disk.raw3" in line)
    first = int(third.partition("start=")[2].partition(",")[0])
    with case.disk.open("rb") as file:
        file.seek(first * 512)
        assert file.read(len(CONFIG_DRIVE)) == CONFIG_DRIVE


def test_a_file_system_inside_passes_fsck(case: Case) -> None:
    raw = make_gpt_image(case.folder / "os.raw")
    part = case.folder / "root.ext4"
    make_disk(part, 28, fill=False)
    run("mke2fs", "-q", "-t", "ext4", "-F", part)
    with raw.open("r+b") as file:
        file.seek(20480 * 512)
        file.write(part.read_bytes())
    case.deploy(case.publish(to_qcow2(raw, "-c")), drive=CONFIG_DRIVE)
    with case.disk.open("rb") as file:
        file.seek(20480 * 512)
        part.write_bytes(file.read(28 * MIB))
    run("fsck.ext4", "-f", "-n", part)


def test_the_sum_file_is_used(case: Case, web: WebServer) -> None:
    raw = make_gpt_image(case.folder / "os.raw")
    image = case.publish(to_qcow2(raw), "/images/os.qcow2")
    md5 = digest(web.pages["/images/os.qcow2"].body, "md5")
    web.pages["/sums"] = Page(f"{'0' * 32}  other.qcow2\n{md5}  os.qcow2\n".encode())
    result = case.deploy(ImageSource(image.url, web.url("/sums"), "md5", "qcow2"))
    assert result.checksum == f"md5:{md5}"


def test_checksum_mismatch_leaves_no_bootable_disk(case: Case) -> None:
    raw = make_gpt_image(case.folder / "os.raw")
    for image in (raw, to_qcow2(raw)):
        source = case.publish(image)
        actual, wanted = source.checksum, "0" * 64
        problem = case.refused(ImageSource(source.url, wanted))
        assert problem.problem == "image-checksum"
        assert actual in problem.message
        assert wanted in problem.message
        assert source.url in problem.message
        case.assert_not_bootable()


def test_a_raw_image_with_a_wrong_digest_is_wiped_even_without_cleaning(case: Case) -> None:
    raw = make_gpt_image(case.folder / "os.raw")
    source = case.publish(raw)
    hints = RootDeviceHints(device_name=str(case.disk))
    params = Deploy(ImageSource(source.url, "0" * 64), hints, clean=False)
    with pytest.raises(JobFailed, match="wanted is"):
        deploy(case.machine(), params, case.recorder.context())
    case.assert_not_bootable()


def test_image_larger_than_the_disk(case: Case) -> None:
    raw = make_gpt_image(case.folder / "os.raw", 80)
    for image in (raw, to_qcow2(raw)):
        problem = case.refused(case.publish(image))
        assert problem.problem == "image-too-large"
        assert str(80 * MIB) in problem.message
        assert str(64 * MIB) in problem.message
        case.assert_not_bootable()


def test_image_that_does_not_fit_in_memory(case: Case) -> None:
    source = case.publish(to_vdi(make_gpt_image(case.folder / "os.raw", 60)))
    problem = case.refused(source, case.machine(memory_bytes=100 * MIB))
    assert problem.problem == "image-memory"
    assert str(100 * MIB) in problem.message


@pytest.mark.parametrize("form", ["vdi", "vmdk"])
def test_image_bigger_than_memory_is_held_at_the_disks_end(case: Case, form: str) -> None:
    raw = make_gpt_image(case.folder / "os.raw")
    made = raw.with_suffix(f".{form}")
    run("qemu-img", "convert", "-f", "raw", "-O", form, raw, made)
    case.deploy(case.publish(made), case.machine(memory_bytes=0), CONFIG_DRIVE)
    assert_same_content(raw, case.disk)
    assert "No problems found" in run("sgdisk", "-v", case.disk)
    assert any("held at the disk's end" in line for line in case.recorder.lines)
    assert made.read_bytes()[:512] not in case.disk.read_bytes()


def test_a_wrong_digest_held_at_the_disks_end_is_wiped(case: Case) -> None:
    source = case.publish(to_vdi(make_gpt_image(case.folder / "os.raw")))
    machine = case.machine(memory_bytes=0)
    problem = case.refused(ImageSource(source.url, "0" * 64), machine)
    assert problem.problem == "image-checksum"
    case.assert_not_bootable()


def test_no_disk_fits(case: Case) -> None:
    source = case.publish(make_gpt_image(case.folder / "os.raw"))
    params = Deploy(source, RootDeviceHints(serial_number="nowhere"))
    with pytest.raises(JobFailed) as caught:
        deploy(case.machine(), params, case.recorder.context())
    assert caught.value.problem.problem == "root-device"
    assert "serialNumber" in caught.value.problem.message
    assert str(case.disk) in caught.value.problem.message


def test_qcow2_that_reaches_for_other_files(case: Case) -> None:
    raw = make_gpt_image(case.folder / "os.raw")
    base = to_qcow2(raw)
    child = case.folder / "child.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, child)
    outside = case.folder / "outside.qcow2"
    data = f"data_file={case.folder / 'secret.raw'},data_file_raw=on"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", data, outside, "40M")
    for image, words in ((child, "backing file"), (outside, "external data file")):
        problem = case.refused(case.publish(image))
        assert problem.problem == "image-unsafe"
        assert words in problem.message
        case.assert_not_bootable()


def test_not_a_qcow2(case: Case, web: WebServer) -> None:
    page = b"<!DOCTYPE html><html><body>No such image here</body></html>"
    web.pages["/page"] = Page(page)
    source = ImageSource(web.url("/page"), digest(page), format="qcow2")
    problem = case.refused(source)
    assert problem.problem == "image-format"
    assert "web page" in problem.message
    case.assert_not_bootable()


def test_a_boot_mode_that_the_image_cannot_serve(case: Case) -> None:
    bios_only = make_gpt_image(case.folder / "bios.raw", esp=False)
    uefi_only = make_gpt_image(case.folder / "uefi.raw", boot_code=False)
    for image, mode in ((bios_only, "UEFI"), (uefi_only, "legacy")):
        for variant in (image, to_qcow2(image), to_vdi(image)):
            case.recorder.progress.clear()
            machine = case.machine(boot_mode=mode)
            problem = case.refused(case.publish(variant), machine)
            assert problem.problem == "image-boot"
            assert mode in problem.message
            case.assert_not_bootable()
            # What is held is looked at before the first byte of it is written.
            assert ("write" in case.recorder.steps) == (variant.suffix != ".vdi")


def test_uefi_boot_entry_from_the_images_boot_list(case: Case) -> None:
    listing = (
        "BootCurrent: 0003\nTimeout: 0 seconds\nBootOrder: 0003,0001\n"
        "Boot0001* debian\tHD(15,GPT,old)\nBoot0003* UEFI PXEv4\tPciRoot(0x0)\n"
    )
    tools = _WithFirmware(listing)
    image = case.publish(to_qcow2(make_gpt_image(case.folder / "os.raw")))
    result = case.deploy(image, case.machine(boot_mode="UEFI", tools=tools))
    assert result.boot_entry == "debian"
    calls = [call for call in tools.firmware.calls if len(call) > 1]
    assert calls[0] == ("efibootmgr", "--bootnum", "0001", "--delete-bootnum")
    assert calls[1][-2:] == ("--loader", "\\EFI\\debian\\shimx64.efi")
    assert calls[1][2:6] == ("--disk", str(case.disk), "--part", "15")


class _WithFirmware:
    """Real tools, but for efibootmgr."""

    def __init__(self, listing: str) -> None:
        from billet_agent.tools import HostTools

        self._real = HostTools()
        self.firmware = MemoryTools({"efibootmgr": lambda call, _: listing.encode()})

    def run(self, argv: list[str], **options: object) -> object:
        tools = self.firmware if argv[0] == "efibootmgr" else self._real
        return tools.run(argv, **options)  # type: ignore[attr-defined]
