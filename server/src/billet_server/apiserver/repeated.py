"""Fields that a JSON body has more than once: the last one counts, and clients are told.

Kubernetes does so with fieldValidation Warn, and refuses them with Strict; a parser of JSON
drops the earlier ones without a word.
"""

import json
from collections.abc import Iterator
from typing import Any


class _Repeating(dict[str, Any]):
    """An object whose text had some names more than once, with all that the text had."""

    pairs: tuple[tuple[str, Any], ...] = ()


def repeated_fields(body: bytes) -> list[str]:
    """Return the paths of repeated fields in a body that is known to be good JSON."""
    found = 0

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        fields = dict(pairs)
        if len(fields) == len(pairs):
            return fields
        found += 1
        repeating = _Repeating(fields)
        repeating.pairs = tuple(pairs)
        return repeating

    try:
        value = json.loads(body, object_pairs_hook=keep)
    except (ValueError, RecursionError):
        return []  # a number of thousands of digits; the parser proper has its own word on it
    return list(dict.fromkeys(_walk(value, ""))) if found else []


def _walk(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for place, item in enumerate(value):
            yield from _walk(item, f"{path}[{place}]")
    elif isinstance(value, dict):
        seen: set[str] = set()
        for name, item in value.pairs if isinstance(value, _Repeating) else value.items():
            here = f"{path}.{name}" if path else name
            if name in seen:
                yield here
            seen.add(name)
            yield from _walk(item, here)
