"""What tests of qcow2 share: images by qemu-img and by hand, and decoding in one call."""

import random
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from billet_agent.image.inflate import BadCluster, inflater
from billet_agent.plan.qcow2 import HEADER_BYTES, Header, Unsafe, inspect_header
from billet_agent.plan.qcow2_decoder import (
    BLOCK_BYTES,
    L1_BYTES,
    RETAIN_BYTES,
    Decoder,
    Piece,
    Unsupported,
)
from billet_agent.plan.qcow2_map import Refused

KIB, MIB = 1 << 10, 1 << 20
COMPRESSED, COPIED = 1 << 62, 1 << 63


def tool(*argv: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in argv]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done


def oracle(image: Path) -> bytes | None:
    """The disk inside as qemu-img sees it; None when qemu-img refuses."""
    raw = image.with_suffix(".oracle")
    raw.unlink(missing_ok=True)
    done = tool("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw, check=False)
    return raw.read_bytes() if done.returncode == 0 else None


class Canvas:
    """Collects pieces; each byte of the disk must come exactly once, none outside."""

    def __init__(self, header: Header) -> None:
        self.data = bytearray(b"\xa5" * header.virtual_bytes)
        self.seen = bytearray(header.virtual_bytes)
        self.cluster = header.cluster_bytes
        self.inflate = inflater(header.compression)

    def take(self, pieces: Iterator[Piece]) -> None:
        for guest, length, data, packed in pieces:
            assert guest >= 0
            assert 0 < length <= len(self.data) - guest
            content = bytes(length) if data is None else data
            if packed:
                content = self.unpack(bytes(content), length)
            assert len(content) == length
            self.data[guest : guest + length] = content
            assert self.seen.find(1, guest, guest + length) < 0, "a byte came twice"
            self.seen[guest : guest + length] = b"\1" * length

    def unpack(self, data: bytes, length: int) -> bytes:
        return self.inflate(data, self.cluster)[:length]

    def finished(self) -> bytes:
        assert self.seen.find(0) < 0, "some bytes never came"
        return bytes(self.data)


def decode(
    file: bytes,
    chunk: Callable[[], int] = lambda: 100_000,
    *,
    announced: bool = True,
    again: list[tuple[int, int]] | None = None,
    **limits: int,
) -> bytes:
    """Decode a file in chunks; ``again`` collects the ranges that were fetched twice."""
    header = inspect_header(file[:HEADER_BYTES], len(file))
    assert isinstance(header, Header), header
    decoder = Decoder(header, len(file) if announced else None, **limits)
    canvas = Canvas(header)
    at = 0
    limit = max(limits.get("retain_bytes", RETAIN_BYTES), 2 * header.cluster_bytes, L1_BYTES)
    while at < len(file):
        size = max(1, chunk())
        canvas.take(decoder.feed(file[at : at + size]))
        assert decoder.retained_bytes <= limit + 4 * BLOCK_BYTES
        at += size
    canvas.take(decoder.finish())
    while (wanted := decoder.missing()) is not None:
        if again is not None:
            again.append(wanted)
        canvas.take(decoder.feed_again(wanted[0], file[wanted[0] : wanted[1]]))
    return canvas.finished()


def verdict(file: bytes, **options: Any) -> bytes | str:
    """The disk inside, or the reason why there is none."""
    header = inspect_header(file[:HEADER_BYTES], len(file))
    if isinstance(header, Unsafe):
        return f"unsafe: {header.reason}"
    try:
        return decode(file, **options)
    except Refused as error:
        return f"refused: {error}"
    except Unsupported as error:
        return f"unsupported: {error}"
    except BadCluster as error:
        return f"cluster: {error}"


def deflate(data: bytes) -> bytes:
    """Compress as qcow2 does: no header, 4 KiB of history."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -12)
    return packer.compress(data) + packer.flush()


def packed_entry(host: int, length: int, bits: int = 16) -> int:
    """Render the L2 entry of a compressed cluster."""
    sectors = (host + length - 1) // 512 - host // 512
    return COMPRESSED | sectors << (62 - (bits - 8)) | host


def random_chunks(seed: int, most: int = 400_000) -> Callable[[], int]:
    noise = random.Random(seed)
    return lambda: noise.choice((1, 511, 4096, 65536, 262144, most, noise.randrange(1, most)))


class Handmade:
    """A small qcow2 file made field by field: what qemu-img would never write.

    Clusters of 64 KiB: 0 header, 1 refcounts, 2 L1, 3 L2, 4 and 5 data.
    """

    def __init__(self, version: int = 3, bits: int = 16, size: int = 4 * MIB) -> None:
        self.version, self.bits, self.size = version, bits, size
        self.cluster = 1 << bits
        self.entry = 8
        self.incompatible = 0
        self.kind = 0
        self.crypt = self.backing = self.backing_len = self.snapshots = 0
        self.snapshots_at = 0
        self.refcounts_at = self.cluster
        self.refcount_order = 4
        self.header_length = 104
        self.l1_at, self.l1_size = 2 * self.cluster, 1
        self.l1 = {0: COPIED | 3 * self.cluster}
        self.l2 = {0: COPIED | 4 * self.cluster, 2: COPIED | 5 * self.cluster}
        self.raw: dict[int, bytes] = {
            4 * self.cluster: b"four" * (self.cluster // 4),
            5 * self.cluster: b"FIVE" * (self.cluster // 4),
        }
        self.extension = b""
        self.length = 6 * self.cluster

    def build(self) -> bytes:
        out = bytearray(max(self.length, 72))
        head = struct.pack(
            ">4sIQIIQIIQQIIQ", b"QFI\xfb", self.version, self.backing, self.backing_len, self.bits,
            self.size, self.crypt, self.l1_size, self.l1_at, self.refcounts_at, 1,
            self.snapshots, self.snapshots_at,
        )  # fmt: skip
        if self.version >= 3:
            head += struct.pack(
                ">QQQII", self.incompatible, 0, 0, self.refcount_order, self.header_length
            )
            if self.header_length > 104:
                head += bytes([self.kind]).ljust(min(self.header_length, 4096) - 104, b"\0")
        head += self.extension
        parts = {0: head}
        for index, value in self.l1.items():
            parts[self.l1_at + 8 * index] = struct.pack(">Q", value & (2**64 - 1))
        for index, value in self.l2.items():
            parts[3 * self.cluster + 8 * index] = struct.pack(">Q", value & (2**64 - 1))
        for offset, data in {**parts, **self.raw}.items():
            end = min(len(out), offset + len(data))
            if end > offset:
                out[offset:end] = data[: end - offset]
        return bytes(out[: self.length])
