"""``Warning:`` headers (RFC 7234 5.5) as a Kubernetes API server sends them.

Code 299, no agent. Its recorder leaves out repetitions, and cuts texts to 256 characters once
all together have more than 4,096; what comes then is left out.
"""

from collections.abc import Iterable

_MOST_CHARS = 4096
_CUT_CHARS = 256


def render_warnings(texts: Iterable[str]) -> list[str]:
    """Return one header value for each text, in order. Control characters become spaces."""
    clean = list(dict.fromkeys(map(_printable, texts)))
    if sum(map(len, clean)) > _MOST_CHARS:
        clean = _fitting([text[:_CUT_CHARS] for text in clean])
    return [f'299 - "{_escaped(text)}"' for text in clean]


def _fitting(texts: list[str]) -> list[str]:
    kept, chars = [], 0
    for text in texts:
        chars += len(text)
        if chars > _MOST_CHARS:
            break
        kept.append(text)
    return kept


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
