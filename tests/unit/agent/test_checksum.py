"""Sum files in all layouts of the field, and those that settle nothing."""

import contextlib
import hashlib
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billet_agent.plan.checksum import Digest, find_digest, image_name, parse_digest
from billet_agent.problems import JobFailed

URL = "http://images.example/pool/os%20v1+x.qcow2?token=1"
NAME = "os v1+x.qcow2"
MD5, SHA256, SHA512 = "a1" * 16, "b2" * 32, "c3" * 64
OTHER = "d4" * 32


@pytest.mark.parametrize(
    "text",
    [
        SHA256,
        f"{SHA256}\n",
        f"\n# made today\n{SHA256}\r\n",
        f"{SHA256}  {NAME}\n",
        f"{SHA256} *{NAME}\n",
        f"{SHA256}\t{NAME}\n",
        f"{SHA256}  ./{NAME}\n",
        f"{SHA256}  /srv/images/{NAME}\n",
        f"{SHA256.upper()}  {NAME}\r\n",
        f"\ufeff{SHA256}  {NAME}",
        f"SHA256 ({NAME}) = {SHA256}\n",
        f"SHA256 (./{NAME}) = {SHA256.upper()}\n",
        f"SHA2-256({NAME})= {SHA256}\n",
        f"{NAME} {SHA256}\n",
        f"# {NAME}: 9 bytes\n{OTHER}  other.qcow2\n{SHA256}  {NAME}\n{OTHER}  x{NAME}\n",
        f"{SHA256}  {NAME}\n{SHA256}  {NAME}\n",
        f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{SHA256}  {NAME}\n-----BEGIN PGP\n",
        f"MD5 ({NAME}) = {MD5}\nSHA256 ({NAME}) = {SHA256}\n",
        f"sha256:{SHA256}\n",
        f"sha256:{SHA256.upper()}  {NAME}\n",
        f"SHA256:{SHA256} *{NAME}\n",
        f"{MD5}\n{SHA256}\n",
        f"{SHA256}  -\n",
        f"{SHA256} *-\r\n",
        f"SHA256(-)= {SHA256}\n",
        f"SHA-256 ({NAME}) = {SHA256}\n",
        f"sha256 ({NAME})={SHA256}",
        f"{NAME}: {SHA256}\n",
        f"{NAME} = {SHA256}\n",
        f"{SHA256}  pool\\{NAME}\n",
        f"{SHA256}  os%20v1+x.qcow2\n",
        f"{SHA256}  http://images.example/pool/os%20v1+x.qcow2\n",
        f"; made by hand\n{SHA256}  {NAME}\n",
        f"{OTHER}  {NAME}.asc\n{OTHER}  old-{NAME}\n{SHA256}  {NAME}\n",
        f"{SHA512} x\n{MD5}  y\n{SHA256}  {NAME}\n",
    ],
)
def test_layouts(text: str) -> None:
    assert find_digest(text, URL) == Digest("sha256", SHA256)


SIGNED = f"""-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA512
Comment: two headers

# {NAME}: 9 bytes
- -----a line that was escaped
- {OTHER}  -dash.qcow2
SHA256 ({NAME}) = {SHA256}
-----BEGIN PGP SIGNATURE-----

{OTHER}  {NAME}
=abcd
-----END PGP SIGNATURE-----
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_of_a_signed_file_only_what_is_signed_counts(end: str) -> None:
    text = SIGNED.replace("\n", end)
    assert find_digest(text, URL) == Digest("sha256", SHA256)
    assert find_digest(text, "http://h/-dash.qcow2") == Digest("sha256", OTHER)


@pytest.mark.parametrize(
    ("listed", "url"),
    [
        ("a\\\\b.img", "http://h/a%5Cb.img"),
        ("a\\nb.img", "http://h/a%0Ab.img"),
        ("a\\rb.img", "http://h/a%0Db.img"),
    ],
)
def test_names_that_coreutils_escapes(listed: str, url: str) -> None:
    assert find_digest(f"\\{SHA256}  {listed}\n", url).hex == SHA256
    assert find_digest(f"\\SHA256 ({listed}) = {SHA256}\n", url).hex == SHA256


@pytest.mark.parametrize("name", ["plain.qcow2", "with space.img", "new\nline.img", "back\\.img"])
@pytest.mark.parametrize("tool", ["md5sum", "sha256sum", "sha512sum"])
@pytest.mark.parametrize("layout", [[], ["--tag"], ["--binary"]])
def test_what_coreutils_writes(tmp_path: Path, name: str, tool: str, layout: list[str]) -> None:
    (tmp_path / name).write_bytes(b"image")
    (tmp_path / "other").write_bytes(b"other")
    command = [tool, *layout, "--", "other", f"./{name}"]
    text = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, text=True).stdout
    kind = tool.removesuffix("sum")
    wanted = hashlib.new(kind, b"image").hexdigest()
    assert find_digest(text, f"http://h/{quote(name)}", kind) == Digest(kind, wanted)


@pytest.mark.parametrize("kind", ["md5", "sha256", "sha512"])
def test_what_openssl_writes(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a b.img").write_bytes(b"image")
    command = ["openssl", "dgst", f"-{kind}", "a b.img"]
    text = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, text=True).stdout
    wanted = hashlib.new(kind, b"image").hexdigest()
    assert find_digest(text, "http://h/a%20b.img") == Digest(kind, wanted)


def test_type_by_length_or_as_asked() -> None:
    text = f"{MD5}  {NAME}\n{SHA256}  {NAME}\n{SHA512}  {NAME}\n"
    assert find_digest(text, URL).algorithm == "sha512"
    assert find_digest(text, URL, "md5") == Digest("md5", MD5)
    assert find_digest(text, URL, "sha256") == Digest("sha256", SHA256)
    assert find_digest(MD5, URL, "md5") == Digest("md5", MD5)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("", "auto", "it is empty"),
        (f"{SHA256}  other.qcow2\n", "auto", "it lists other.qcow2"),
        (f"{SHA256}  osXv1+x.qcow2\n", "auto", "does not list"),
        (f"{SHA256}  -\n{OTHER}  other.qcow2\n", "auto", "it lists -, other.qcow2"),
        (f"{SHA256}\n{OTHER}\n", "auto", "twice"),
        (f"{SHA256}  -\n{OTHER}  -\n", "auto", "twice"),
        (f"SHA512/256 ({NAME}) = {SHA256}\n", "auto", "does not list"),
        (f"SHA3-256 ({NAME}) = {SHA256}\n", "auto", "does not list"),
        (f"MD5 ({NAME}) = {SHA256}\n", "auto", "no line of it"),
        (f"md5:{SHA256}  {NAME}\n", "auto", "no line of it|does not list"),
        (f"# {SHA256}  {NAME}\n", "auto", "it is empty"),
        (f"{SHA256}  {NAME}.sig\n", "auto", "it lists os v1[+]x.qcow2.sig"),
        (f"{SHA256}  {NAME}\n{OTHER}  {NAME}\n", "auto", "twice"),
        (f"{SHA256}  {NAME}\n{OTHER}  ./{NAME}\n", "auto", "twice"),
        (f"{SHA256}  {NAME}\n", "md5", "only sha256"),
        (SHA256, "md5", "only sha256"),
        ("<!DOCTYPE html>\n<html>", "auto", "web page"),
        (f"{SHA256[:-1]}  {NAME}\n", "auto", "no line of it"),
        ("\n".join(f"{OTHER} f{i}" for i in range(9)), "auto", "and 4 more"),
    ],
)
def test_what_settles_nothing(text: str, kind: str, words: str) -> None:
    with pytest.raises(JobFailed, match=words) as caught:
        find_digest(text, URL, kind, source="http://images.example/sums")
    assert caught.value.problem.problem == "checksum-file"
    assert "http://images.example/sums" in caught.value.problem.message


def test_both_digests_of_a_conflict_are_told() -> None:
    with pytest.raises(JobFailed) as caught:
        find_digest(f"{SHA256}  {NAME}\n{OTHER}  {NAME}\n", URL)
    assert SHA256 in caught.value.problem.message
    assert OTHER in caught.value.problem.message


def test_digest_given_as_such() -> None:
    assert parse_digest(f" {MD5.upper()} ") == Digest("md5", MD5)
    assert str(parse_digest(SHA512, "sha512")) == f"sha512:{SHA512}"
    assert parse_digest(f"SHA256:{SHA256.upper()}", "sha256") == Digest("sha256", SHA256)
    for text, kind in (
        (SHA256, "md5"),
        ("abc", "auto"),
        (f"md5:{SHA256}", "auto"),
        (f"sha1:{SHA256}", "auto"),
        (f"sha256:{SHA256}", "md5"),
        (f"sha256: {SHA256}", "auto"),
        ("", "auto"),
    ):
        with pytest.raises(JobFailed):
            parse_digest(text, kind)


def test_image_name() -> None:
    assert image_name(URL) == NAME
    assert image_name("http://h/a/b.img/") == "b.img"
    assert image_name("http://h") == ""


@given(st.text(), st.sampled_from(["auto", "md5", "sha256", "sha512"]))
def test_any_text_gives_a_digest_or_a_named_problem(text: str, kind: str) -> None:
    with contextlib.suppress(JobFailed):
        assert kind in {"auto", find_digest(text, URL, kind).algorithm}
