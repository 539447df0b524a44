"""How many hosts there are of each sort, kept up to date by each change of one of them."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from billet_server.core.states import is_known
from billet_server.ports import Metrics, Object

NEW: Final = "none"
"""How the state of a host without one is called; label values are not empty."""

OTHER: Final = "unknown"
MOST_WORDS: Final = 200
"""A foreign hand may write any word into a status: it must not make series without end."""

_WORD = re.compile(r"[a-z][a-z0-9-]{0,39}")


class Census:
    """Hosts per state, wait and problem as gauges."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._words: set[str] = set()
        self._counts: Counter[tuple[str, str]] = Counter()

    def changed(self, old: Object | None, new: Object | None) -> None:
        """Take in one change of one host; None: it is not there."""
        before = self._sorts(old) if old is not None else ()
        after = self._sorts(new) if new is not None else ()
        if before == after:
            return
        for sort in before:
            self._move(sort, -1)
        for sort in after:
            self._move(sort, 1)

    def _sorts(self, obj: Object) -> tuple[tuple[str, str], ...]:
        status = _mapping(obj.get("status"))
        state = str(_mapping(status.get("provisioning")).get("state") or NEW)
        sorts = [("billet_hosts", state if is_known(state) or state == NEW else OTHER)]
        if cause := _mapping(status.get("waiting")).get("cause"):
            sorts.append(("billet_hosts_waiting", self._word(cause)))
        if problem := _mapping(status.get("problem")).get("id"):
            sorts.append(("billet_hosts_with_problem", self._word(problem)))
        return tuple(sorts)

    def _word(self, word: Any) -> str:
        if not isinstance(word, str) or not _WORD.fullmatch(word):
            return OTHER
        if word not in self._words:
            if len(self._words) >= MOST_WORDS:
                return OTHER
            self._words.add(word)
        return word

    def _move(self, sort: tuple[str, str], by: int) -> None:
        self._counts[sort] += by
        self._metrics.set(sort[0], self._counts[sort], sort[1])


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
