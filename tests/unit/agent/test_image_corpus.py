"""Hostile and odd files that are no qcow2 (those are in test_qcow2_corpus), each with its verdict.

What is taken has the size that qemu-img sees, and qemu-img opens no other file for it.
"""

import functools
import gzip
import json
import random
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_rig import MIB, make_gpt_image, run, to_qcow2
from billet_agent.plan.formats import DETECT_BYTES, inspect_image
from billet_agent.problems import JobFailed

URL = "http://images.example/os"
SIZE = 8 * MIB
Build = Callable[[], bytes]


@functools.lru_cache(maxsize=32)
def made(form: str, *options: str) -> bytes:
    """Return an image of ``SIZE`` with some data, made by qemu-img."""
    with tempfile.TemporaryDirectory() as folder:
        raw, path = Path(folder, "raw"), Path(folder, "made")
        raw.write_bytes(random.Random(5).randbytes(MIB).ljust(SIZE, b"\0"))
        words = ["-o", ",".join(options)] if options else []
        run("qemu-img", "convert", "-f", "raw", "-O", form, *words, raw, path)
        return path.read_bytes()


@functools.lru_cache(maxsize=2)
def real(form: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        raw = make_gpt_image(Path(folder, "os.raw"))
        return (raw if form == "raw" else to_qcow2(raw)).read_bytes()


def edit(build: Build, *changes: tuple[int, bytes]) -> Build:
    def edited() -> bytes:
        data = bytearray(build())
        for at, new in changes:
            data[at : at + len(new)] = new
        return bytes(data)

    return edited


def swap(build: Build, old: bytes, new: bytes) -> Build:
    def swapped() -> bytes:
        data = build()
        assert old in data
        return data.replace(old, new.ljust(len(old), b"\n"), 1)

    return swapped


def sparse(*options: str) -> Build:
    return lambda: made("vmdk", *options)


def vdi() -> bytes:
    return made("vdi")


def le32(value: int) -> bytes:
    return struct.pack("<I", value)


def le64(value: int) -> bytes:
    return struct.pack("<Q", value)


SPARSE = sparse()
STREAM = sparse("subformat=streamOptimized")
HINT = b'parentFileNameHint="/etc/shadow"\n'
END = b"ddb.adapterType"
FLAT = b'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 99 FLAT "%s" 0\n'
MBR = b"\x55\xaa"
TAKEN = "taken"

CORPUS: list[tuple[str, Build, str | None, str, str]] = [
    # vmdk: what stands alone, and what names other files.
    ("vmdk", SPARSE, None, TAKEN, ""),
    ("vmdk as declared", SPARSE, "vmdk", TAKEN, ""),
    ("vmdk for streams", STREAM, None, TAKEN, ""),
    ("vmdk, version 4 of ESX", sparse("compat6"), None, TAKEN, ""),
    ("vmdk said to be qcow2", SPARSE, "qcow2", "image-format", "is vmdk, not qcow2"),
    ("vmdk said to be raw", SPARSE, "raw", "image-format", "is vmdk, not raw"),
    ("a descriptor of a device", lambda: FLAT % b"/dev/sda", None, "image-format", "descriptor"),
    ("a descriptor of a path upwards", lambda: FLAT % b"../../etc/shadow", "vmdk", "image-format",
     "descriptor"),
    ("a descriptor of a URL", lambda: FLAT % b"http://10.0.0.1/", None, "image-format", "descript"),
    ("a descriptor behind a line", lambda: b"\n" + FLAT % b"/dev/sda", None, "image-format",
     "is text"),
    ("a descriptor in CRLF", lambda: (FLAT % b"/dev/sda").replace(b"\n", b"\r\n"), None,
     "image-format", "descriptor"),
    ("two extents", sparse("subformat=twoGbMaxExtentSparse"), None, "image-format", "descriptor"),
    ("a flat one", sparse("subformat=monolithicFlat"), None, "image-format", "descriptor"),
    ("an extent of ESX 2", lambda: b"COWD".ljust(4096, b"\1"), None, "image-unsafe", "self-cont"),
    ("no capacity", edit(SPARSE, (12, le64(0))), None, "image-unsafe", "in other files"),
    ("a parent", swap(SPARSE, END, HINT + END), None, "image-unsafe", "a parent"),
    ("a parent in a comment", swap(SPARSE, END, b"#" + HINT + END), None, "image-unsafe", "parent"),
    ("a parent within a line", swap(SPARSE, END, b"ddb.x" + HINT + END), None, "image-unsafe",
     "a parent"),
    ("a parent behind the descriptor's end", edit(SPARSE, (36, le64(1)), (19 * 512, HINT)), None,
     "image-unsafe", "a parent"),
    ("a parent where the header does not look", edit(
        SPARSE, (28, le64(40)), (40 * 512, b'createType="monolithicSparse"\n'), (2048, HINT)),
     None, "image-unsafe", "a parent"),
    ("a parent by its CID", swap(SPARSE, b"parentCID=ffffffff", b"parentCID=12345678"), None,
     "image-unsafe", "a parent"),
    ("a parent in the stream's descriptor", edit(STREAM, (2000, HINT)), None, "image-unsafe",
     "a parent"),
    ("no type", swap(SPARSE, b"createType", b"createTypo"), None, "image-unsafe", "type is None"),
    ("a type of several files", swap(SPARSE, b'"monolithicSparse"', b'"fullDevice"'), None,
     "image-unsafe", "type is fulldevice"),
    ("a snapshot", swap(SPARSE, b'"monolithicSparse"', b'"vmfsSparse"'), None, "image-unsafe",
     "type is vmfssparse"),
    ("a descriptor far away", edit(SPARSE, (28, le64(1 << 40))), None, "image-unsafe", "not at"),
    ("a descriptor without end", edit(SPARSE, (36, le64((1 << 64) - 1))), None, "image-unsafe",
     "not at its start"),
    ("a header that is cut", lambda: SPARSE()[:300], None, "image-unsafe", "self-contained"),
    # vdi.
    ("vdi", vdi, None, TAKEN, ""),
    ("vdi, all of it there", lambda: made("vdi", "static=on"), "vdi", TAKEN, ""),
    ("vdi said to be raw", vdi, "raw", "image-format", "is vdi, not raw"),
    ("vdi of an undo log", edit(vdi, (76, le32(3))), None, "image-unsafe", "type 3"),
    ("vdi that differs from another", edit(vdi, (76, le32(4))), None, "image-unsafe", "type 4"),
    ("vdi of type 0", edit(vdi, (76, le32(0))), None, "image-unsafe", "type 0"),
    ("vdi whose header is cut", lambda: vdi()[:200], None, "image-format", "cut"),
    ("vdi without a size", edit(vdi, (368, le64(0))), None, "image-format", "disk is 0"),
    ("vdi of half a sector", edit(vdi, (368, le64(SIZE + 1))), None, "image-format", "sectors"),
    ("vdi linked to another", edit(vdi, (424, b"\1" * 16)), None, "image-unsafe", "another image"),
    ("vdi with a parent", edit(vdi, (440, b"\1" * 16)), None, "image-unsafe", "another image"),
    ("vdi of version 9", edit(vdi, (68, le32(9 << 16))), None, "image-unsafe", "version 9.0"),
    # Formats that are not written.
    ("vhd", lambda: made("vpc"), None, "image-format", "is vhd, none of"),
    ("vhd, fixed", lambda: made("vpc", "subformat=fixed"), None, "image-format", "no known format"),
    ("vhd said to be vdi", lambda: made("vpc"), "vdi", "image-format", "is vhd, not vdi"),
    ("vhdx", lambda: made("vhdx"), None, "image-format", "is vhdx"),
    ("vhdx said to be qcow2", lambda: made("vhdx"), "qcow2", "image-format", "is vhdx"),
    ("qed", lambda: made("qed"), None, "image-format", "is qed"),
    ("qed said to be qcow2", lambda: made("qed"), "qcow2", "image-format", "is qed"),
    ("qcow, the first", lambda: made("qcow"), None, "image-unsafe", "version 1"),
    ("parallels", lambda: made("parallels"), None, "image-format", "no known format"),
    ("luks", lambda: b"LUKS\xba\xbe\0\2".ljust(65536, b"\3"), None, "image-format", "is luks"),
    ("luks said to be raw", lambda: b"LUKS\xba\xbe\0\1".ljust(65536, b"\3"), "raw", "image-format",
     "is luks"),
    ("an ISO", lambda: bytes(32769) + b"CD001\1".ljust(40000, b"\0"), None, "image-format", "9660"),
    ("zip", lambda: b"PK\3\4".ljust(65536, b"\3"), None, "image-format", "is zip"),
    ("bzip2", lambda: b"BZh9".ljust(65536, b"\3"), None, "image-format", "is bzip2"),
    # What is no image.
    ("nothing", lambda: b"", None, "image-format", "is empty"),
    ("one byte", lambda: b"\0", None, "image-format", "no known format"),
    ("zeros", lambda: bytes(65536), None, "image-format", "no known format"),
    ("noise", lambda: random.Random(1).randbytes(510) + bytes(4096), "raw", "image-format", "kno"),
    ("a web page", lambda: b"\xef\xbb\xbf\n<!DOCTYPE html>", None, "image-format", "a web page"),
    ("an error in XML", lambda: b"<?xml version='1.0'?><Error>", "qcow2", "image-format", "a web"),
    ("an error in words", lambda: b"404 page not found\n", None, "image-format", "is text"),
    ("an ELF program", lambda: b"\x7fELF\2\1\1".ljust(65536, b"\0"), None, "image-format", "known"),
    ("a file system without a partition table", lambda: bytes(1080) + b"\x53\xef" + bytes(65536),
     "raw", "image-format", "no known format"),
    # Files of two minds: the one that a tool could take for the other.
    ("raw", lambda: real("raw"), None, TAKEN, ""),
    ("qcow2", lambda: real("qcow2"), "qcow2", TAKEN, ""),
    ("qcow2 with a boot sector", edit(lambda: real("qcow2"), (510, MBR)), "raw", "image-format",
     "is qcow2, not raw"),
    ("qcow2 with a GPT", edit(lambda: real("qcow2"), (512, b"EFI PART")), "raw", "image-format",
     "is qcow2, not raw"),
    ("vmdk with a boot sector", edit(SPARSE, (510, MBR)), "raw", "image-format", "is vmdk"),
    ("vdi with a boot sector", edit(vdi, (510, MBR)), "raw", "image-format", "is vdi, not raw"),
    ("luks with a boot sector", lambda: b"LUKS\xba\xbe".ljust(510, b"\0") + MBR, "raw",
     "image-format", "is luks, not raw"),
    ("gzip with a boot sector", lambda: b"\x1f\x8b\x08".ljust(510, b"\0") + MBR, "raw",
     "image-format", "is gzip"),
    ("vhdx with a boot sector", lambda: b"vhdxfile".ljust(510, b"\0") + MBR, None, "image-format",
     "is vhdx"),
    ("a descriptor with a boot sector", lambda: (FLAT % b"/dev/sda").ljust(510, b"\n") + MBR, "raw",
     "image-format", "descriptor"),
    ("an ISO that is a disk too", lambda: bytes(510) + MBR + bytes(32257) + b"CD001", None, TAKEN,
     ""),
    ("a disk that ends like a vhd", lambda: real("raw") + b"conectix".ljust(512, b"\0"), None,
     TAKEN, ""),
]  # fmt: skip


def test_the_corpus_is_as_big_as_promised() -> None:
    names = [name for name, *_ in CORPUS]
    assert len(names) == len(set(names)) >= 60


@pytest.mark.parametrize(
    ("build", "declared", "problem", "words"),
    [pytest.param(*row, id=name) for name, *row in CORPUS],
)
def test_corpus(
    tmp_path: Path, build: Build, declared: str | None, problem: str, words: str
) -> None:
    data = build()
    if problem == TAKEN:
        found = inspect_image(data[:DETECT_BYTES], declared, URL, len(data))
        assert_as_qemu_sees(tmp_path, data, found.format, found.virtual_bytes)
        return
    with pytest.raises(JobFailed) as caught:
        inspect_image(data[:DETECT_BYTES], declared, URL, len(data))
    assert caught.value.problem.problem == problem
    assert words in caught.value.problem.message
    assert URL in caught.value.problem.message
    assert caught.value.problem.advice


def assert_as_qemu_sees(folder: Path, data: bytes, form: str, virtual_bytes: int | None) -> None:
    path = folder / "image"
    path.write_bytes(data)
    words = ["qemu-img", "info", "--output=json", "-f", form, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout)
    assert "backing-filename" not in seen
    if virtual_bytes is not None:
        assert seen["virtual-size"] == virtual_bytes
    extents = seen.get("format-specific", {}).get("data", {}).get("extents", [])
    assert {extent["filename"] for extent in extents} <= {str(path)}


def test_bombs_are_seen_for_what_they_are() -> None:
    """A GiB of zeros in a MiB, and one that unpacks to a qcow2 with a backing file."""
    bomb = gzip.compress(bytes(64 * MIB), 9)
    assert len(bomb) < MIB
    hidden = gzip.compress(b"QFI\xfb\0\0\0\2" + bytes(100))
    for data in (bomb, hidden):
        for declared in ("qcow2", "vmdk", "vdi"):
            with pytest.raises(JobFailed, match=f"is gzip, not {declared}"):
                inspect_image(data[:DETECT_BYTES], declared, URL, len(data))
