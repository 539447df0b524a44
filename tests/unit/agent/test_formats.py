"""Headers: what is told from the first bytes, and what is refused before any tool opens it."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billet_agent.plan.formats import detect_format, inspect_image
from billet_agent.plan.qcow2 import Header, Unsafe, inspect_header
from billet_agent.problems import JobFailed

URL = "http://h/i"
GIB = 1 << 30


def qcow2(
    version: int = 3,
    backing: tuple[int, int] = (0, 0),
    bits: int = 16,
    size: int = GIB,
    crypt: int = 0,
    l1: tuple[int, int] = (2, 0x30000),
    snapshots: tuple[int, int] = (0, 0),
    incompatible: int = 0,
    length: int = 104,
    extension: bytes = b"",
    kind: int = 0,
) -> bytes:
    head = struct.pack(
        ">4sIQIIQIIQQIIQ",
        b"QFI\xfb",
        version,
        *backing,
        bits,
        size,
        crypt,
        *l1,
        0x10000,
        1,
        *snapshots,
    )
    if version == 3:
        head += struct.pack(">QQQII", incompatible, 0, 0, 4, length)
        head += bytes([kind]).ljust(8, b"\0")[: max(0, length - 104)]
    return (head + extension).ljust(4096, b"\0")


@pytest.mark.parametrize("version", [2, 3])
def test_good_headers(version: int) -> None:
    header = inspect_header(qcow2(version), 1 << 20)
    assert header == Header(version, 65536, GIB, 2, 0, "zlib", 0x30000, False)


def test_compression_types() -> None:
    zstd = inspect_header(qcow2(incompatible=8, length=112, kind=1))
    assert isinstance(zstd, Header)
    assert zstd.compression == "zstd"
    assert isinstance(inspect_header(qcow2(incompatible=8, length=112, kind=7)), Unsafe)


@pytest.mark.parametrize(
    ("data", "words", "damaged"),
    [
        (b"", "no qcow2 header", True),
        (b"QFI\xfb" + bytes(20), "no qcow2 header", True),
        (qcow2(version=1), "version 1", False),
        (qcow2(version=4), "version 4", False),
        (qcow2(backing=(200, 9), extension=bytes(96) + b"/etc/pass"), "(/etc/pass)", False),
        (qcow2(2, backing=(200, 0)), "backing file", False),
        (qcow2(bits=8), "cluster size", True),
        (qcow2(bits=22), "cluster size", True),
        (qcow2(crypt=2), "encrypted", False),
        (qcow2(incompatible=4), "external data file", False),
        (qcow2(incompatible=1 << 9), "unknown incompatible features (0x200)", False),
        (qcow2(incompatible=2), "marked corrupt", True),
        (qcow2(extension=struct.pack(">II", 0x44415441, 6) + b"/dev/x"), "(/dev/x)", False),
        (qcow2(2, extension=struct.pack(">II", 0x44415441, 3) + b"a\nb"), "(a?b)", False),
        (qcow2(length=99), "header length", True),
        (qcow2(size=0), "no size", True),
        (qcow2(size=1 << 62), "L1 table has", True),
        (qcow2(l1=(2, 12345)), "not aligned", True),
        (qcow2(l1=(2, 1 << 40)), "beyond the end", True),
        (qcow2(snapshots=(1 << 20, 0)), "snapshots", True),
        (qcow2(snapshots=(1, 1 << 40)), "beyond the end", True),
        (qcow2()[:90], "cut", True),
    ],
)
def test_refused_headers(data: bytes, words: str, damaged: bool) -> None:
    found = inspect_header(data, 1 << 20)
    assert isinstance(found, Unsafe)
    assert words in found.reason
    assert found.damaged is damaged
    if data[:4] == b"QFI\xfb":
        with pytest.raises(JobFailed) as caught:
            inspect_image(data, "qcow2", URL, 1 << 20)
        wanted = "image-format" if damaged else "image-unsafe"
        assert caught.value.problem.problem == wanted
        assert URL in caught.value.problem.message


@given(st.binary(max_size=400), st.integers(0, 1 << 30))
def test_any_bytes_behind_the_magic(data: bytes, size: int) -> None:
    assert isinstance(inspect_header(b"QFI\xfb" + data, size), Header | Unsafe)


def at(offset: int, magic: bytes, length: int = 65536) -> bytes:
    return bytes(offset) + magic + bytes(length - offset - len(magic))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"", "empty"),
        (qcow2(), "qcow2"),
        (at(510, b"\x55\xaa"), "raw"),
        (at(512, b"EFI PART"), "raw"),
        (at(4096, b"EFI PART"), "raw"),
        (at(0, b"KDMV"), "vmdk"),
        (at(0, b"# Disk DescriptorFile"), "vmdk-descriptor"),
        (at(64, b"\x7f\x10\xda\xbe"), "vdi"),
        (at(0, b"vhdxfile"), "vhdx"),
        (at(0, b"LUKS\xba\xbe"), "luks"),
        (at(32769, b"CD001"), "iso"),
        (b"\x1f\x8b\x08rest", "gzip"),
        (b"\xfd7zXZ\0rest", "xz"),
        (b"  \n<!DOCTYPE html><p>", "web page"),
        (b"Not found\n", "text"),
        (bytes(65536), "unknown"),
    ],
)
def test_detection(data: bytes, name: str) -> None:
    assert detect_format(data) == name
    if name not in {"qcow2", "raw", "vmdk", "vdi"}:
        with pytest.raises(JobFailed) as caught:
            inspect_image(data, None, URL)
        assert caught.value.problem.problem == "image-format"


def test_the_declared_format_must_be_the_real_one() -> None:
    assert inspect_image(qcow2(), "qcow2", URL).virtual_bytes == GIB
    assert inspect_image(at(510, b"\x55\xaa"), "raw", URL).virtual_bytes is None
    for data, declared in ((qcow2(), "raw"), (at(510, b"\x55\xaa"), "qcow2")):
        with pytest.raises(JobFailed, match=f"not {declared}"):
            inspect_image(data, declared, URL)


def vmdk(descriptor: str, capacity: int = 2048) -> bytes:
    head = struct.pack("<4sIIQQQQ", b"KDMV", 1, 3, capacity, 128, 1, 20)
    return head.ljust(512, b"\0") + descriptor.encode().ljust(20 * 512, b"\0")


@pytest.mark.parametrize(
    ("descriptor", "capacity", "words"),
    [
        ('CID=1\nparentCID=1234\ncreateType="monolithicSparse"\n', 2048, "parent"),
        ('parentCID=ffffffff\nparentFileNameHint="/x"\ncreateType="x"', 2048, "parent"),
        ('createType="monolithicFlat"\n', 2048, "type is monolithicflat"),
        ('createType="monolithicSparse"\n', 0, "other files"),
        ("", 2048, "type is None"),
    ],
)
def test_vmdks_that_are_not_whole(descriptor: str, capacity: int, words: str) -> None:
    with pytest.raises(JobFailed, match=words) as caught:
        inspect_image(vmdk(descriptor, capacity), "vmdk", URL)
    assert caught.value.problem.problem == "image-unsafe"


def test_a_whole_vmdk() -> None:
    data = vmdk('parentCID=ffffffff\ncreateType="streamOptimized"\n')
    assert inspect_image(data, None, URL).virtual_bytes == 1 << 20
