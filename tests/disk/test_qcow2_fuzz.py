"""Bits flipped in qcow2 metadata: the decoder refuses, or sees what qemu-img sees."""

import random
import struct
import time
from pathlib import Path

import pytest

from billet_agent.plan.qcow2 import HEADER_BYTES, Header, inspect_header
from qcow2_rig import KIB, MIB, oracle, random_chunks, tool, verdict

ROUNDS = 150
SLOWEST_S = 20.0
FORMS = {
    "v3": ["cluster_size=65536"],
    "v2": ["compat=0.10", "cluster_size=4096"],
    "small": ["cluster_size=512"],
    "zstd": ["compression_type=zstd"],
    "extended": ["extended_l2=on", "cluster_size=16384"],
}


def make(folder: Path, options: list[str]) -> bytes:
    """Make an image with data, compressed, zero and discarded clusters."""
    path = folder / "base.qcow2"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", ",".join(options), path, "3M"]
    tool(*words)
    commands = [
        "write -c -P 3 0 65536", "write -P 5 131072 70000", "write -c -P 9 524288 65536",
        "write -z 262144 65536", "write -P 7 1000448 4096", "discard 131072 65536",
        "write -P 1 2097152 300032",
    ]  # fmt: skip
    for command in commands:
        tool("qemu-io", "-t", "unsafe", "-f", "qcow2", "-c", command, path, check=False)
    return path.read_bytes()


def metadata(file: bytes) -> list[range]:
    """Where header, refcounts, L1 and L2 tables are, and the first compressed bytes."""
    header = inspect_header(file[:HEADER_BYTES], len(file))
    assert isinstance(header, Header)
    cluster = header.cluster_bytes
    (refcounts,) = struct.unpack_from(">Q", file, 48)
    places = [range(120), range(refcounts, refcounts + 64)]
    places.append(range(header.l1_offset, header.l1_offset + 8 * header.l1_needed))
    for at in places[-1][::8]:
        l2 = int.from_bytes(file[at : at + 8], "big") & 0x00FF_FFFF_FFFF_FE00
        if l2:
            used = [n for n in range(l2, l2 + cluster, 8) if any(file[n : n + 8])]
            places += [range(n, n + 8) for n in used[:40]]
    return places


@pytest.mark.parametrize("form", FORMS)
def test_flipped_bits(tmp_path: Path, form: str) -> None:
    base = make(tmp_path, FORMS[form])
    places = metadata(base)
    clean = verdict(base)
    assert isinstance(clean, bytes)
    assert clean == oracle(tmp_path / "base.qcow2")
    refused = taken = 0
    for seed in range(ROUNDS):
        noise = random.Random(f"{form} {seed}")
        file = bytearray(base)
        for _ in range(noise.choice((1, 1, 2, 5))):
            at = noise.choice(noise.choice(places))
            file[at] ^= 1 << noise.randrange(8)
        if noise.random() < 0.1:
            del file[noise.randrange(64, len(file)) :]
        refused_now = judge(bytes(file), tmp_path / "flipped.qcow2", seed)
        refused += refused_now
        taken += not refused_now
    assert refused > ROUNDS / 10, "flips that are never noticed test nothing"
    assert taken > ROUNDS / 10, "flips that are always noticed test nothing"


def judge(file: bytes, path: Path, seed: int) -> bool:
    """Decode within bounds; return whether it was refused. What is taken qemu-img sees so too."""
    header = inspect_header(file[:HEADER_BYTES], len(file))
    if isinstance(header, Header) and header.virtual_bytes > 32 * MIB:
        return True  # the agent refuses what is bigger than the disk
    start = time.monotonic()
    found = verdict(file, chunk=random_chunks(seed, 64 * KIB), retain_bytes=seed % 2 * MIB)
    assert time.monotonic() - start < SLOWEST_S
    if isinstance(found, str):
        return True
    path.write_bytes(file)
    expected = oracle(path)
    assert expected is None or found == expected, f"seed {seed}"
    return False
