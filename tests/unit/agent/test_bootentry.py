"""Loaders of an ESP, efibootmgr's listing, and what becomes of old entries."""

from pathlib import Path

import pytest

from agent_rig import MIB, file_machine, make_gpt_image
from billet_agent.boot import set_boot_entry
from billet_agent.disk import Disk
from billet_agent.plan.bootentry import (
    Entries,
    Loader,
    choose_loader,
    csv_paths,
    order_with_first,
    parse_entries,
    stale_entries,
)
from billet_agent.plan.fat import Fat, FatError
from billet_agent.plan.layout import Place
from billet_agent.problems import JobFailed
from billet_agent.tools import Answer, Completed, MemoryTools

CSV = "shimx64.efi,debian,,This is the boot entry for debian\n".encode("utf-16")
FILES = ["/EFI/BOOT/BOOTX64.EFI", "/EFI/debian/BOOTX64.CSV", "/EFI/debian/shimx64.efi"]
ESP = Place(15, MIB, 8 * MIB)
V17 = """BootCurrent: 0003
Timeout: 0 seconds
BootOrder: 0003,0001,0000
Boot0000* UiApp\tFvVol(7cb8bdc9)/FvFile(462caa21)
Boot0001* debian\tHD(15,GPT,aaaa)/File(\\EFI\\debian\\shimx64.efi)
Boot0003* UEFI PXEv4 (MAC:525400000001)\tPciRoot(0x0)/Pci(0x2,0x0)
Boot0007  billet\tHD(1,GPT,bbbb)
"""


def test_listing_is_read() -> None:
    entries = parse_entries(V17)
    assert entries.order == ("0003", "0001", "0000")
    assert entries.labels["0003"] == "UEFI PXEv4 (MAC:525400000001)"
    assert entries.labels["0007"] == "billet"
    assert stale_entries(entries, "Debian") == ["0001", "0007"]
    assert parse_entries("No BootOrder is set; firmware will attempt recovery\n").order == ()


def test_order() -> None:
    entries = Entries({"0003": "PXE", "0009": "debian"}, ("0003", "0009"))
    assert order_with_first(entries, "debian") == ["0009", "0003"]
    assert order_with_first(Entries(entries.labels, ("0009", "0003")), "debian") is None
    assert order_with_first(entries, "gone") is None


FALLBACK = Loader("\\EFI\\BOOT\\BOOTX64.EFI", "billet")
SHIM = "\\EFI\\debian\\shimx64.efi"


def listed(text: str) -> dict[str, bytes]:
    return {FILES[1]: text.encode("utf-16")}


@pytest.mark.parametrize(
    ("files", "csv", "loader"),
    [
        (FILES, {FILES[1]: CSV}, Loader(SHIM, "debian")),
        (FILES, {FILES[1]: b""}, FALLBACK),
        (FILES, listed("..\\x.efi,evil"), FALLBACK),
        (FILES, listed("gone.efi,debian"), FALLBACK),
        (FILES, listed("SHIMX64.EFI,\x1b[2Jx,"), Loader(SHIM, "[2Jx")),
        (["/efi/boot/bootx64.efi"], {}, Loader("\\efi\\boot\\bootx64.efi", "billet")),
        (["/EFI/BOOT/BOOTAA64.EFI"], {}, None),
        ([], {}, None),
    ],
)
def test_loader(files: list[str], csv: dict[str, bytes], loader: Loader | None) -> None:
    assert choose_loader(files, "x86_64", csv) == loader


def test_boot_lists_of_the_architecture_come_first() -> None:
    files = ["/EFI/a/BOOT.CSV", "/EFI/b/BOOTX64.CSV", "/EFI/c/bootaa64.csv"]
    assert csv_paths(files, "x86_64") == ["/EFI/b/BOOTX64.CSV", "/EFI/a/BOOT.CSV"]
    assert csv_paths(files, "aarch64") == ["/EFI/c/bootaa64.csv", "/EFI/a/BOOT.CSV"]


@pytest.fixture(name="disk", scope="module")
def _disk(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_gpt_image(tmp_path_factory.mktemp("esp") / "os.raw"))


def enter(disk: str, answer: Answer) -> tuple[tuple[str | None, str], MemoryTools]:
    tools = MemoryTools({"efibootmgr": answer})
    with Disk(disk) as opened:
        return set_boot_entry(file_machine(tools=tools, boot_mode="UEFI"), opened, ESP), tools


def test_the_entry_is_made_first_and_network_stays(disk: str) -> None:
    listings = iter([V17, "", "", "", V17.replace("0001*", "0008*")])

    def answer(call: tuple[str, ...], _: bytes | None) -> bytes:
        return next(listings, "").encode()

    (label, words), tools = enter(disk, answer)
    assert label == "debian"
    assert "shimx64" in words
    assert tools.calls[1:3] == [
        ("efibootmgr", "--bootnum", "0001", "--delete-bootnum"),
        ("efibootmgr", "--bootnum", "0007", "--delete-bootnum"),
    ]
    assert tools.calls[-1] == ("efibootmgr", "--bootorder", "0008,0003,0001,0000")


def test_a_firmware_that_takes_no_entry_falls_back(disk: str) -> None:
    (label, words), _ = enter(disk, lambda call, _: Completed(call, 2, stderr=b"no space"))
    assert label is None
    assert "removable-media loader" in words


def test_an_esp_that_is_none(tmp_path: Path) -> None:
    blank = tmp_path / "blank"
    blank.write_bytes(bytes(10 * MIB))
    with pytest.raises(JobFailed, match="no FAT boot sector") as caught:
        enter(str(blank), lambda call, _: b"")
    assert caught.value.problem.problem == "image-boot"


def test_fat_reads_long_and_short_names(disk: str) -> None:
    with Disk(disk) as opened:
        fat = Fat(lambda offset, length: opened.read(ESP.offset_bytes + offset, length))
        assert fat.files() == [
            "/EFI/BOOT/BOOTX64.EFI",
            "/EFI/debian/BOOTX64.CSV",
            "/EFI/debian/grubx64.efi",
            "/EFI/debian/shimx64.efi",
        ]
        assert fat.content("/EFI/debian/BOOTX64.CSV", 1000) == CSV
        assert fat.content("/EFI/debian/BOOTX64.CSV", 4) == CSV[:4]
        with pytest.raises(FatError):
            fat.content("/EFI/nothing", 4)
