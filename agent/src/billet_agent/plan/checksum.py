"""An image's wanted digest: from ``spec.image.checksum``, or from a sum file's text."""

import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from billet_agent.problems import JobFailed, failure

ALGORITHMS = {32: "md5", 64: "sha256", 128: "sha512"}
"""Which algorithm a digest of so many hex digits is of."""

SUM_FILE_BYTES = 1024 * 1024
"""A sum file is never bigger; what is, is not one."""

_DIGEST = re.compile(r"(?:[0-9a-fA-F]{32}|[0-9a-fA-F]{64}|[0-9a-fA-F]{128})")
_COREUTILS = re.compile(r"\\?([0-9a-fA-F]+)[ \t]+\*?(\S.*)")
_BSD = re.compile(
    r"(?:MD5|SHA(?:2-)?-?256|SHA(?:2-)?-?512)\s*\((.+)\)\s*=\s*([0-9a-fA-F]+)", re.IGNORECASE
)
_REVERSED = re.compile(r"(\S.*?)[ \t]+([0-9a-fA-F]+)")


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
    """Check a digest given as such. Raises JobFailed checksum-file."""
    word = text.strip()
    if not _DIGEST.fullmatch(word):
        raise failure(
            "checksum-file",
            f"spec.image.checksum is neither a URL nor 32, 64 or 128 hex digits: {word[:140]!r}",
        )
    digest = Digest(ALGORITHMS[len(word)], word.lower())
    if kind not in {"auto", digest.algorithm}:
        raise failure(
            "checksum-file",
            f"spec.image.checksumType is {kind}, but the checksum's {len(word)} digits are those "
            f"of {digest.algorithm}",
        )
    return digest


def find_digest(text: str, image_url: str, kind: str = "auto", source: str = "") -> Digest:
    """Find the image's digest in a sum file.

    Understands a lone digest, coreutils' ``HEX  name`` and ``HEX *name`` (also with ./name,
    /abs/name, tabs), BSD's ``SHA256 (name) = HEX``, ``name HEX``, comments, CRLF, signed files,
    either case. ``kind`` other than auto looks only at digests of that algorithm. Raises
    JobFailed checksum-file when the image is missing or listed with different digests.
    """
    where = f"sum file {source}" if source else "the sum file"
    lines = [line.strip() for line in text.lstrip("\ufeff").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if len(lines) == 1 and _DIGEST.fullmatch(lines[0]):
        return _of_kind({parse_digest(lines[0])}, kind, image_url, where, lines)
    wanted = image_name(image_url)
    found = {digest for name, digest in map(_entry, lines) if digest and _base(name) == wanted}
    return _of_kind({digest for digest in found if digest}, kind, wanted, where, lines)


def image_name(url: str) -> str:
    """Return the file name that a sum file lists for an image URL."""
    return unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]


def _base(name: str) -> str:
    return name.strip().rpartition("/")[2]


def _entry(line: str) -> tuple[str, Digest | None]:
    for pattern, name_at, digest_at in ((_BSD, 1, 2), (_COREUTILS, 2, 1), (_REVERSED, 1, 2)):
        match = pattern.fullmatch(line)
        if match and _DIGEST.fullmatch(match[digest_at]):
            value = match[digest_at].lower()
            return match[name_at], Digest(ALGORITHMS[len(value)], value)
    return "", None


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
    names = [_base(name) for name, digest in map(_entry, lines) if digest]
    if not names:
        return "no line of it holds a digest and a name"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"it lists {', '.join(names[:5])}{more}"


def _failed(message: str, lines: list[str]) -> JobFailed:
    return failure("checksum-file", message, evidence="\n".join(lines[:40]))
