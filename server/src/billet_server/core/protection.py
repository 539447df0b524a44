"""Whether a host's data may be wiped: the annotation ``billet.dev/protect-data``."""

from collections.abc import Mapping

from billet_server.core.annotations import PROTECT_DATA


def parse_protection(text: str) -> bool:
    """Return what ``true`` or ``false`` says. Raises ValueError with what is wrong."""
    word = text.strip().lower()
    if word not in {"true", "false"}:
        raise ValueError('is neither "true" nor "false"')
    return word == "true"


def protects_data(annotations: Mapping[str, str]) -> bool:
    """Return whether nothing may be wiped; a word that means nothing protects, to be safe."""
    value = annotations.get(PROTECT_DATA, "false").strip()
    try:
        return parse_protection(value or "false")
    except ValueError:
        return True
