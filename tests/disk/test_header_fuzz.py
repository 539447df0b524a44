"""Headers of vmdk and vdi changed at random: refused, or opened by qemu-img as what we take it for.

Only metadata is changed, and what is taken is opened just as the agent has it opened: with an
explicit format. It must have our size and must lead qemu-img to no other file.
"""

import json
import random
import subprocess
from pathlib import Path

import pytest

from agent_rig import MIB, run
from billet_agent.plan.formats import DETECT_BYTES, inspect_image
from billet_agent.problems import JobFailed

ROUNDS = 250
FORMS = {
    "vmdk": ("vmdk", "adapter_type=lsilogic", (range(80), range(512, 1024))),
    "stream": ("vmdk", "subformat=streamOptimized", (range(80), range(512, 1024))),
    "vdi": ("vdi", "static=off", (range(64, 84), range(340, 460))),
}
TEXTS = (
    b'parentFileNameHint="%s"\n', b'#parentFileNameHint="%s"\n', b"parentCID=00000001\n",
    b'RW 16 FLAT "%s" 0\n', b'createType="monolithicFlat"\n', b'createType="custom"\n',
    b"PARENTFILENAMEHINT = %s\n", b"\0" * 32, b"\n" * 16,
)  # fmt: skip


def make(folder: Path, form: str, options: str) -> bytes:
    raw, path = folder / "raw", folder / "made"
    raw.write_bytes(random.Random(5).randbytes(MIB).ljust(4 * MIB, b"\0"))
    run("qemu-img", "convert", "-f", "raw", "-O", form, "-o", options, raw, path)
    return path.read_bytes()


def spoil(noise: random.Random, file: bytearray, places: tuple[range, ...], secret: Path) -> None:
    for _ in range(noise.choice((1, 1, 2, 4))):
        at = noise.choice(noise.choice(places))
        kind = noise.random()
        if kind < 0.5:
            file[at] ^= 1 << noise.randrange(8)
        elif kind < 0.75:
            size = noise.choice((4, 8))
            value = noise.choice((0, 1, 2, (1 << 32) - 1, 1 << 31, noise.getrandbits(20)))
            file[at : at + size] = value.to_bytes(size, "little")
        else:
            text = noise.choice(TEXTS).replace(b"%s", bytes(secret))
            # Behind the descriptor's last line, at one of its lines, or anywhere.
            end = file.index(b"\0", 512)
            lines = [n + 1 for n in range(512, end) if file[n : n + 1] == b"\n"]
            at = noise.choice((end, noise.choice(lines or [end]), noise.randrange(512, 11_000)))
            file[at : at + len(text)] = text
    if noise.random() < 0.05:
        del file[noise.randrange(0, 1024) :]


@pytest.mark.parametrize("form", FORMS)
def test_changed_headers(tmp_path: Path, form: str) -> None:
    driver, options, places = FORMS[form]
    base, path, secret = make(tmp_path, driver, options), tmp_path / "image", tmp_path / "secret"
    secret.write_bytes(b"secret" * 10_000)
    refused = opened = 0
    for seed in range(ROUNDS):
        file = bytearray(base)
        spoil(random.Random(f"{form} {seed}"), file, places, secret)
        try:
            found = inspect_image(bytes(file[:DETECT_BYTES]), None, "http://h/i", len(file))
        except JobFailed:
            refused += 1
            continue
        assert found.virtual_bytes is not None
        path.write_bytes(file)
        opened += judge(path, found.format, found.virtual_bytes, secret, f"{form} {seed}")
    assert refused > ROUNDS / 10, "changes that are never noticed test nothing"
    assert opened > ROUNDS / 10, "changes that are always noticed test nothing"


def judge(path: Path, driver: str, virtual_bytes: int, secret: Path, seed: str) -> bool:
    """Have qemu-img open it; return whether it could."""
    words = ["qemu-img", "info", "--output=json", "-f", driver, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in {0, 1}, f"{seed}: {done.returncode} {done.stderr}"
    assert secret.name not in done.stdout + done.stderr, f"{seed}: it was led to another file"
    if done.returncode != 0:
        return False
    seen = json.loads(done.stdout)
    assert "backing-filename" not in seen, seed
    assert seen["virtual-size"] <= virtual_bytes, f"{seed}: {seen}"
    return True
