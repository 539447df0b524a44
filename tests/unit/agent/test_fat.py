"""FAT12, FAT16 and FAT32 as mtools makes them, and damaged ones."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_rig import MIB, run
from billet_agent.plan.fat import Fat, FatError

BIG = random.Random(3).randbytes(300_000)


def build(folder: Path, size: int, *options: str) -> bytes:
    image, source = folder / "fat.img", folder / "big"
    with image.open("wb") as file:
        file.truncate(size)
    run("mformat", "-i", image, *options, "::")
    source.write_bytes(BIG)
    run("mmd", "-i", image, "::/EFI", "::/EFI/A folder with a very long name indeed")
    run(
        "mcopy", "-i", image, source, "::/EFI/A folder with a very long name indeed/Loader.Long.efi"
    )
    for index in range(40):
        run("mmd", "-i", image, f"::/EFI/d{index}")
    run("mcopy", "-i", image, source, "::/EFI/d39/BIG.EFI")
    return image.read_bytes()


@pytest.mark.parametrize(
    ("size", "options"),
    [(4 * MIB, ("-c", "4")), (32 * MIB, ("-c", "1")), (64 * MIB, ("-F", "-c", "1"))],
)
def test_kinds(tmp_path: Path, size: int, options: tuple[str, ...]) -> None:
    data = build(tmp_path, size, *options)
    fat = Fat(lambda offset, length: data[offset : offset + length])
    names = ["/EFI/A folder with a very long name indeed/Loader.Long.efi", "/EFI/d39/BIG.EFI"]
    assert fat.files() == names
    for name in names:
        assert fat.content(name, 1 << 20) == BIG
        assert fat.content(name, 1000) == BIG[:1000]


@given(st.binary(max_size=2000), st.data())
def test_any_bytes_end_in_an_answer_or_a_fat_error(data: bytes, draw: st.DataObject) -> None:
    sizes = draw.draw(
        st.sampled_from([bytes.fromhex("0002 01 0100 02 4000 0010 f8 0400"), bytes(13)])
    )
    image = (
        bytes(11) + sizes + data[:480].ljust(510 - 11 - len(sizes), b"\0") + b"\x55\xaa" + data * 40
    )
    try:
        files = Fat(lambda offset, length: image[offset : offset + length]).files()
    except FatError:
        return
    assert files == sorted(files)
