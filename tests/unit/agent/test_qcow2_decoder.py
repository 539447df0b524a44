"""One pass over qcow2 files, against qemu-img."""

import random
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from billet_agent.plan.qcow2 import HEADER_BYTES, Header, inspect_header
from billet_agent.plan.qcow2_decoder import BLOCK_BYTES, Changed, Decoder, Unsupported
from billet_agent.plan.qcow2_map import Refused
from qcow2_rig import COPIED, KIB, MIB, Canvas, Handmade, decode, oracle, random_chunks, tool

CLUSTERS = [512, 1024, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 2 * MIB]


def paint(path: Path, size: int, seed: int = 1) -> Path:
    """Make a raw file of text, noise, zeros and holes."""
    noise = random.Random(seed)
    with path.open("wb") as file:
        file.truncate(size)
        at = 0
        while at < size:
            length = min(size - at, noise.choice((512, 4096, 65536, 300_000, 700_000)))
            kind = noise.randrange(4)
            file.seek(at)
            if kind == 0:
                file.write(noise.randbytes(length))
            elif kind == 1:
                file.write((b"%x " % noise.getrandbits(64) * (length // 8 + 1))[:length])
            at += length
    return path


FORMS = ["plain", "zlib", "zstd", "v2", "v2 zlib"]


@pytest.mark.parametrize(
    ("form", "cluster"),
    [(form, cluster) for form in FORMS for cluster in CLUSTERS]
    + [("extended", cluster) for cluster in CLUSTERS if cluster >= 16 * KIB],
)
def test_what_qemu_img_converts(tmp_path: Path, cluster: int, form: str) -> None:
    raw = paint(tmp_path / "a.raw", 5 * MIB + 512)
    made = tmp_path / "a.qcow2"
    options = [f"cluster_size={cluster}"]
    options += {"zstd": ["compression_type=zstd"], "extended": ["extended_l2=on"]}.get(form, [])
    options += ["compat=0.10"] if form.startswith("v2") else []
    packed = ["-c"] if form.endswith(("zlib", "zstd")) else []
    tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *packed, "-o", ",".join(options),
         raw, made)  # fmt: skip
    again: list[tuple[int, int]] = []
    assert decode(made.read_bytes(), again=again) == raw.read_bytes()
    assert again == [], "what qemu-img converts needs one pass"


@st.composite
def recipes(draw: st.DrawFn) -> dict[str, object]:
    version = draw(st.sampled_from((2, 3, 3)))
    cluster = draw(st.sampled_from(CLUSTERS))
    return {
        "version": version,
        "cluster": cluster,
        "extended": version == 3 and cluster >= 16 * KIB and draw(st.booleans()),
        "compression": draw(st.sampled_from(("zlib", "zstd") if version == 3 else ("zlib",))),
        "size": draw(st.integers(1, 4000)) * 1024,
        "prealloc": draw(st.sampled_from(("off", "off", "metadata"))),
        "grow": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**32)),
        "writes": draw(st.integers(0, 12)),
    }


def cook(recipe: dict[str, object], folder: Path) -> Path:
    """Make an image by qemu-img and qemu-io after a recipe."""
    path = folder / "made.qcow2"
    size, cluster = recipe["size"], recipe["cluster"]
    options = [f"cluster_size={cluster}", f"preallocation={recipe['prealloc']}"]
    if recipe["version"] == 2:
        options.append("compat=0.10")
    else:
        options.append(f"compression_type={recipe['compression']}")
        options.append(f"extended_l2={'on' if recipe['extended'] else 'off'}")
    tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", ",".join(options), path, size)
    noise = random.Random(recipe["seed"])
    commands = []
    for _ in range(recipe["writes"]):
        at = noise.randrange(size // 512) * 512
        length = min(size - at, noise.choice((512, 4096, 65536, 400_000)) // 512 * 512)
        pattern = noise.randrange(1, 256)
        kind = noise.choice(("write", "write", "packed", "zero", "discard", "unmap"))
        if kind == "packed":
            at = at // cluster * cluster
            commands.append(f"write -c -P {pattern} {at} {min(cluster, size - at)}")
        elif kind == "zero":
            commands.append(f"write -z {at} {length}")
        elif kind == "unmap":
            commands.append(f"write -z -u {at} {length}")
        elif kind == "discard":
            commands.append(f"discard {at} {length}")
        else:
            commands.append(f"write -P {pattern} {at} {length}")
    words = [word for command in commands for word in ("-c", command)]
    if words:
        # "write -c" on a cluster that is there is refused: what came before stays.
        tool("qemu-io", "-t", "unsafe", "-f", "qcow2", *words, path, check=False)
    if recipe["grow"]:  # with small clusters the L1 table moves to the file's end
        assume(whole(recipe, path))  # resize refuses the others
        tool("qemu-img", "resize", "-q", "-f", "qcow2", path, size + 16 * MIB)
        tool("qemu-io", "-t", "unsafe", "-f", "qcow2", "-c", f"write -P 7 {size} 4096", path)
    return path


SLOW = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def whole(recipe: dict[str, object], image: Path) -> bool:
    """Tell whether qemu-io 7.2 has left an image alone: some of tiny clusters it damages itself.

    That is by "write -c"; it marks them so (incompatible feature bit 1, version 3).
    """
    return recipe["version"] == 2 or not image.read_bytes()[79] & 2


@SLOW
@given(recipes(), st.integers(0, 2**32), st.booleans())
def test_any_image_in_any_chunks(
    tmp_path: Path, recipe: dict[str, object], seed: int, announced: bool
) -> None:
    folder = tmp_path / "cooked"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    image = cook(recipe, folder)
    assume(whole(recipe, image))
    expected = oracle(image)
    assert expected is not None
    assert decode(image.read_bytes(), random_chunks(seed), announced=announced) == expected
    # With next to no memory for what cannot be placed yet, the same comes out.
    small = decode(image.read_bytes(), random_chunks(seed), announced=announced, retain_bytes=0)
    assert small == expected


def backwards(clusters: int = 60) -> tuple[bytes, bytes]:
    """An image whose L2 and L1 tables lie behind all data, and what it holds."""
    cluster = 64 * KIB
    made = Handmade(size=clusters * cluster)
    places = {n: (2 + (n * 7) % clusters) * cluster for n in range(clusters)}
    made.l1_at = (clusters + 3) * cluster
    made.l1 = {0: COPIED | (clusters + 2) * cluster}
    made.l2 = {}
    content = {n: random.Random(n).randbytes(cluster) for n in range(clusters)}
    table = b"".join((COPIED | places[n]).to_bytes(8, "big") for n in range(clusters))
    made.raw = {places[n]: content[n] for n in range(clusters)}
    made.raw[(clusters + 2) * cluster] = table
    made.length = (clusters + 4) * cluster
    return made.build(), b"".join(content[n] for n in range(clusters))


def test_tables_at_the_very_end_need_a_second_fetch() -> None:
    file, expected = backwards()
    again: list[tuple[int, int]] = []
    assert decode(file, again=again, retain_bytes=0) == expected
    assert again
    assert all(start % BLOCK_BYTES == 0 and start < end <= len(file) for start, end in again)
    again.clear()
    assert decode(file, again=again) == expected
    assert again == [], "with 16 MiB to retain, one pass is enough"


def test_tables_in_the_wrong_order_are_reached_in_the_end() -> None:
    """L1 at the end, L2 at the start, data between: three rounds of fetching again."""
    cluster = 64 * KIB
    made = Handmade(size=300 * cluster)
    made.l2 = {n: COPIED | (4 + n) * cluster for n in range(300)}
    made.raw = {(4 + n) * cluster: bytes([n % 251 + 1]) * cluster for n in range(300)}
    made.l1_at = 310 * cluster
    made.length = 311 * cluster
    again: list[tuple[int, int]] = []
    expected = b"".join(bytes([n % 251 + 1]) * cluster for n in range(300))
    assert decode(made.build(), again=again, retain_bytes=0) == expected
    assert again[0][0] == 0


def test_bytes_that_changed_meanwhile_are_not_taken() -> None:
    file, _ = backwards()
    header = inspect_header(file[:HEADER_BYTES], len(file))
    assert isinstance(header, Header)
    decoder = Decoder(header, len(file), retain_bytes=0)
    canvas = Canvas(header)
    canvas.take(decoder.feed(file))
    canvas.take(decoder.finish())
    wanted = decoder.missing()
    assert wanted is not None
    start, end = wanted
    for wrong in (file[start : end - 1], b"", bytes([file[start] ^ 1]) + file[start + 1 : end]):
        with pytest.raises(Changed):
            canvas.take(decoder.feed_again(start, wrong))


def test_memory_stays_bounded_when_the_tables_come_last() -> None:
    file, _ = backwards(400)
    header = inspect_header(file[:HEADER_BYTES], len(file))
    assert isinstance(header, Header)
    decoder = Decoder(header, len(file), retain_bytes=2 * MIB)
    canvas, most = Canvas(header), 0
    for at in range(0, len(file), 50_000):
        canvas.take(decoder.feed(file[at : at + 50_000]))
        most = max(most, decoder.retained_bytes)
    assert most <= 2 * MIB + 3 * BLOCK_BYTES


def test_data_is_not_retained_once_every_table_is_known(tmp_path: Path) -> None:
    raw = paint(tmp_path / "a.raw", 20 * MIB)
    made = tmp_path / "a.qcow2"
    tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, made)
    file = made.read_bytes()
    header = inspect_header(file[:HEADER_BYTES], len(file))
    assert isinstance(header, Header)
    decoder, canvas = Decoder(header, len(file)), Canvas(header)
    held = []
    for at in range(0, len(file), BLOCK_BYTES):
        canvas.take(decoder.feed(file[at : at + BLOCK_BYTES]))
        held.append(decoder.retained_bytes)
    assert max(held[4:]) <= BLOCK_BYTES


def test_a_map_that_is_too_big_is_left_to_qemu_img() -> None:
    made = Handmade(size=512 * MIB)
    made.l2 = {n: COPIED | (6 + 2 * (n * 37 % 8192)) * 64 * KIB for n in range(8192)}
    with pytest.raises(Unsupported, match="wait for their place"):
        decode(made.build(), announced=False, map_rows=1000)
    wide = Handmade(bits=9, size=1 << 40)
    wide.l1_size = 1 << 28
    header = inspect_header(wide.build()[:HEADER_BYTES])
    assert isinstance(header, Header)
    with pytest.raises(Unsupported, match="L1 table"):
        Decoder(header)


def test_clusters_used_twice_are_given_twice_or_left_to_qemu_img() -> None:
    made = Handmade()
    made.l2 = {0: 4 << 16, 7: 4 << 16}
    plain = decode(made.build())
    assert plain[: 64 * KIB] == plain[7 * 64 * KIB : 8 * 64 * KIB] == b"four" * (16 * KIB)


def test_the_end_of_the_file_may_cut_the_last_cluster() -> None:
    made = Handmade()
    made.length -= 1024
    image = decode(made.build())
    assert image[2 * 64 * KIB : 3 * 64 * KIB] == (b"FIVE" * (16 * KIB))[:-1024] + bytes(1024)


def test_asking_what_is_missing_before_the_end_is_a_defect() -> None:
    header = inspect_header(Handmade().build())
    assert isinstance(header, Header)
    with pytest.raises(ValueError, match="not ended"):
        Decoder(header).missing()


def test_refused_tells_what_and_where() -> None:
    made = Handmade()
    made.l2[1] = (4 << 16) + 512
    with pytest.raises(Refused, match="guest byte 65536 is not aligned"):
        decode(made.build())
