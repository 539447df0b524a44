"""Label selectors of objects (``matchLabels``, ``matchExpressions``), checked once, then matched.

Meaning and limits are those of Kubernetes' ``labels.Requirement``, whose operators the
`BareMetalMachineProviderSpec` takes in any case: ``!``, ``=``, ``==``, ``!=``, ``in``, ``notin``,
``exists``, ``gt``, ``lt``.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

_PART: Final = r"[A-Za-z0-9](?:[-A-Za-z0-9._]{0,61}[A-Za-z0-9])?"
_KEY: Final = re.compile(rf"(?:[a-z0-9](?:[-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_PART}")
_VALUE: Final = re.compile(rf"(?:{_PART})?")
_WHOLE: Final = re.compile(r"[-+]?[0-9]{1,18}")

OPERATORS: Final = ("!", "=", "==", "!=", "in", "notin", "exists", "gt", "lt")


class Requirement(NamedTuple):
    """One condition on one label; ``operator`` is one of `OPERATORS`."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels satisfy it; a label that is absent satisfies ``!=`` and ``notin``."""
        value = labels.get(self.key)
        match self.operator:
            case "exists":
                return value is not None
            case "!":
                return value is None
            case "=" | "==" | "in":
                return value in self.values
            case "!=" | "notin":
                return value not in self.values
        if value is None or not _WHOLE.fullmatch(value):
            return False
        bound = int(self.values[0])
        return int(value) > bound if self.operator == "gt" else int(value) < bound

    def __str__(self) -> str:
        values = ", ".join(self.values)
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({values})"
            case "gt" | "lt":
                return f"{self.key} {'>' if self.operator == 'gt' else '<'} {values}"
        return f"{self.key}{self.operator}{values}"


Selector = tuple[Requirement, ...]


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether labels satisfy every requirement; an empty selector is satisfied by all."""
    return all(requirement.matches(labels) for requirement in selector)


def requirement_fault(requirement: Requirement) -> str:
    """Return what is wrong with a requirement, "" when nothing is."""
    key, operator, values = requirement
    if not _KEY.fullmatch(key):
        return f"{key!r} is not a label key"
    if operator not in OPERATORS:
        return f"operator {operator!r} is not one of {' '.join(OPERATORS)}"
    if bad := [value for value in values if not _VALUE.fullmatch(value)]:
        return f"{bad[0]!r} is not a label value"
    count = len(values)
    if operator in ("in", "notin") and not count:
        return f"operator {operator!r} needs at least one value"
    if operator in ("=", "==", "!=", "gt", "lt") and count != 1:
        return f"operator {operator!r} needs exactly one value, not {count}"
    if operator in ("exists", "!") and count:
        return f"operator {operator!r} takes no values"
    if operator in ("gt", "lt") and not _WHOLE.fullmatch(values[0]):
        return f"operator {operator!r} needs an integer, not {values[0]!r}"
    return ""
