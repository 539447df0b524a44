"""An image's wanted digest: from ``spec.image.checksum``, or from a sum file's text."""

import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from billet_agent.problems import JobFailed, failure

ALGORITHMS = {32: "md5", 64: "sha256", 128: "sha512"}
"""Which algorithm a digest of so many hex digits is of."""

SUM_FILE_BYTES = 1024 * 1024
"""A sum file is never bigger; what is, is not one."""

_DIGEST = re.compile(
    r"(?:(md5|sha256|sha512):)?([0-9a-f]{32}|[0-9a-f]{64}|[0-9a-f]{128})", re.IGNORECASE
)
_COREUTILS = re.compile(r"(\\?)(\S+)[ \t]+\*?(\S.*)")
_BSD = re.compile(
    r"(\\?)(MD5|SHA(?:2-)?-?256|SHA(?:2-)?-?512)\s*\((.+)\)\s*=\s*([0-9a-f]+)", re.IGNORECASE
)
_REVERSED = re.compile(r"(\S.*?)[ \t]*(?::|=|[ \t])[ \t]*(\S+)")
_ESCAPED = re.compile(r"\\(.)")
_SIGNED = re.compile(
    r"-----BEGIN PGP SIGNED MESSAGE-----\n(?:[^\n]+\n)*\n(.*?)(?:\n-----BEGIN PGP|\Z)", re.DOTALL
)
_NAMELESS = frozenset({"", "-"})
"""What stands for no name: nothing, or the standard input that was hashed."""


class Digest(NamedTuple):
    """What an image must hash to; ``hex`` is lower case."""

    algorithm: str
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def is_url(checksum: str) -> bool:
    """Tell whether ``spec.image.checksum`` is a sum file's URL."""
    return checksum.lower().startswith(("http://", "https://"))


def parse_digest(text: str, kind: str = "auto") -> Digest:
    """Check a digest given as such, with or without ``sha256:`` before it.

    Raises JobFailed checksum-file.
    """
    word = text.strip()
    digest = _digest(word)
    if digest is None:
        raise failure(
            "checksum-file",
            f"spec.image.checksum is neither a URL nor 32, 64 or 128 hex digits: {word[:140]!r}",
        )
    if kind not in {"auto", digest.algorithm}:
        raise failure(
            "checksum-file",
            f"spec.image.checksumType is {kind}, but the checksum's {len(digest.hex)} digits are "
            f"those of {digest.algorithm}",
        )
    return digest


def find_digest(text: str, image_url: str, kind: str = "auto", source: str = "") -> Digest:
    """Find the image's digest in a sum file.

    Understands digests alone (one of an algorithm), coreutils' ``HEX  name`` and ``HEX *name``
    (also with ./name, /abs/name, tabs, escaped names), BSD's ``SHA256 (name) = HEX``, openssl's
    ``SHA2-256(name)= HEX``, ``name HEX``, ``name: HEX``, ``sha256:HEX``, comments, CRLF, signed
    files, either case. ``kind`` other than auto looks only at digests of that algorithm. Raises
    JobFailed checksum-file when the image is missing or listed with different digests.
    """
    where = f"sum file {source}" if source else "the sum file"
    lines = _lines(text)
    entries = [entry for line in lines if (entry := _entry(line))]
    if entries and all(name in _NAMELESS for name, _ in entries):
        found = {digest for _, digest in entries}
        return _of_kind(found, kind, image_name(image_url) or image_url, where, lines)
    wanted = image_name(image_url)
    found = {digest for name, digest in entries if _is_named(name, wanted)}
    return _of_kind(found, kind, wanted, where, lines)


def image_name(url: str) -> str:
    """Return the file name that a sum file lists for an image URL."""
    return unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]


def _lines(text: str) -> list[str]:
    """Return what a sum file says: without signature, comments, empty lines."""
    plain = text.lstrip("\ufeff").replace("\r\n", "\n")
    signed = _SIGNED.search(plain)
    if signed:
        plain = "\n".join(line.removeprefix("- ") for line in signed[1].split("\n"))
    lines = [line.strip() for line in plain.splitlines()]
    return [line for line in lines if line and not line.startswith(("#", ";"))]


def _base(name: str) -> str:
    return name.strip().rpartition("/")[2]


def _is_named(name: str, wanted: str) -> bool:
    """Tell whether a listed name, perhaps with a path or as in a URL, is the image's."""
    base = _base(name)
    return wanted in {base, unquote(base), base.rpartition("\\")[2]}


def _digest(word: str) -> Digest | None:
    match = _DIGEST.fullmatch(word)
    if match is None:
        return None
    algorithm = ALGORITHMS[len(match[2])]
    if (match[1] or algorithm).lower() != algorithm:
        return None
    return Digest(algorithm, match[2].lower())


def _entry(line: str) -> tuple[str, Digest] | None:
    """Return a line's name (empty: none) and digest, or None."""
    alone = _digest(line)
    if alone:
        return "", alone
    match = _BSD.fullmatch(line)
    if match:
        tag = f"{match[2].lower().replace('2-', '').replace('-', '')}:{match[4]}"
        return _named(match[3], _digest(tag), escaped=bool(match[1]))
    match = _COREUTILS.fullmatch(line)
    if match and _digest(match[2]):
        return _named(match[3], _digest(match[2]), escaped=bool(match[1]))
    match = _REVERSED.fullmatch(line)
    return _named(match[1], _digest(match[2]), escaped=False) if match else None


def _named(name: str, digest: Digest | None, *, escaped: bool) -> tuple[str, Digest] | None:
    """Undo coreutils' escapes: a backslash before the line says that there are some."""
    if digest is None:
        return None
    letters = {"n": "\n", "r": "\r"}
    if escaped:
        name = _ESCAPED.sub(lambda match: letters.get(match[1], match[1]), name)
    return name, digest


def _of_kind(found: set[Digest], kind: str, wanted: str, where: str, lines: list[str]) -> Digest:
    fitting = {digest for digest in found if kind in {"auto", digest.algorithm}}
    by_algorithm: dict[str, set[Digest]] = {}
    for digest in fitting:
        by_algorithm.setdefault(digest.algorithm, set()).add(digest)
    for algorithm, digests in sorted(by_algorithm.items()):
        if len(digests) > 1:
            listed = " and ".join(sorted(digest.hex for digest in digests))
            raise _failed(f"{where} lists {wanted} twice, with {algorithm} {listed}", lines)
    if fitting:
        return max(fitting, key=lambda digest: len(digest.hex))
    if found:
        kinds = ", ".join(sorted({digest.algorithm for digest in found}))
        raise _failed(f"{where} has only {kinds} of {wanted}, spec.image asks for {kind}", lines)
    raise _failed(f"{where} does not list {wanted}; {_guess(lines)}", lines)


def _guess(lines: list[str]) -> str:
    if not lines:
        return "it is empty"
    if lines[0].lower().startswith(("<!doctype", "<html", "<?xml")):
        return "it is a web page, not a sum file"
    names = [_base(entry[0]) for line in lines if (entry := _entry(line))]
    if not names:
        return "no line of it holds a digest and a name"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"it lists {', '.join(names[:5])}{more}"


def _failed(message: str, lines: list[str]) -> JobFailed:
    return failure("checksum-file", message, evidence="\n".join(lines[:40]))
