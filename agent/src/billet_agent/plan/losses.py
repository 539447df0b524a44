"""What a wipe would take away: file systems, volumes, RAID members, keys, by what wipefs prints."""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from billet_agent.problems import JobFailed, failure, show_bytes

SHOWN = 12
"""So many are named one by one; of the rest the number is told."""

_TABLES = frozenset({"gpt", "dos", "pmbr", "mac", "sgi", "sun", "bsd", "atari"})
"""Partition tables: what counts is in the partitions."""


class Loss(NamedTuple):
    """A signature on a disk or partition of ``size_bytes``; ``kind`` is libblkid's TYPE."""

    node: str
    kind: str
    label: str
    size_bytes: int

    def __str__(self) -> str:
        label = f" {self.label!r}" if self.label else ""
        return f"{self.node}: {self.kind}{label}, {show_bytes(self.size_bytes)}"


class _Signature(msgspec.Struct):
    type: str | None = None
    label: str | None = None


class _Printed(msgspec.Struct):
    signatures: tuple[_Signature, ...]


def parse_wipefs(text: str, node: str, size_bytes: int) -> tuple[Loss, ...]:
    """Read ``wipefs --json --no-act --output TYPE,LABEL``; nothing printed: nothing there.

    One kind of signature may stand in several places of a disk. Raises ValueError.
    """
    if not text.strip():
        return ()
    found: dict[str, Loss] = {}
    for row in msgspec.json.decode(text, type=_Printed).signatures:
        kind = row.type or "unknown"
        if kind.lower() not in _TABLES:
            label = "".join(filter(str.isprintable, row.label or ""))
            found.setdefault(kind, Loss(node, kind, label[:64], size_bytes))
    return tuple(found.values())


def describe(losses: Iterable[Loss]) -> str:
    """Say what is there in one line."""
    shown = [str(loss) for loss in losses]
    more = f"; and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return "; ".join(shown[:SHOWN]) + more


def protected(losses: Iterable[Loss]) -> JobFailed | None:
    """Return the refusal to wipe any of these; None when there is nothing to lose."""
    held = tuple(losses)
    if not held:
        return None
    return failure(
        "data-protected",
        f"the host's data is protected, and this would be lost: {describe(held)}",
        evidence="\n".join(map(str, held)),
    )
