"""Label and field selectors: parsed once, then matched against stored objects."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from billet_server.apiserver.failure import bad_request
from billet_server.ports import EVENT, NAMESPACE, SECRET, Kind

_KEY = r"(?:[A-Za-z0-9][-A-Za-z0-9._]*/)?[A-Za-z0-9](?:[-A-Za-z0-9._]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9._]*[A-Za-z0-9])?)?"
_EXISTS = re.compile(rf"(!?)\s*({_KEY})")
_EQUALS = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})")
_IN = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
_COMPARE = re.compile(rf"({_KEY})\s*([<>])\s*(-?[0-9]+)")


class Requirement(NamedTuple):
    """One part of a label selector; ``operator``: in, notin, exists, absent, lt, gt."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels satisfy it. Absent keys satisfy notin, as in Kubernetes."""
        value = labels.get(self.key)
        match self.operator:
            case "exists":
                return value is not None
            case "absent":
                return value is None
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
        if value is None or not re.fullmatch(r"-?[0-9]+", value):
            return False
        (bound,) = self.values
        return int(value) < int(bound) if self.operator == "lt" else int(value) > int(bound)


LabelSelector = tuple[Requirement, ...]


def matches_labels(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether labels satisfy every requirement."""
    return all(requirement.matches(labels) for requirement in selector)


def _split(text: str) -> list[str]:
    """Split at commas outside parentheses."""
    return re.split(r",(?![^()]*\))", text)


def parse_label_selector(text: str) -> LabelSelector:
    """Parse ``a=b,c!=d,e in (f,g),h notin (i),j,!k``. Raises a 400."""
    if not text.strip():
        return ()
    return tuple(_parse_requirement(part.strip(), text) for part in _split(text))


def _parse_requirement(part: str, text: str) -> Requirement:
    if match := _EXISTS.fullmatch(part):
        return Requirement(match[2], "absent" if match[1] else "exists")
    if match := _EQUALS.fullmatch(part):
        return Requirement(match[1], "notin" if match[2] == "!=" else "in", frozenset({match[3]}))
    if match := _IN.fullmatch(part):
        values = frozenset(value.strip() for value in match[3].split(","))
        if all(re.fullmatch(_VALUE, value) for value in values):
            return Requirement(match[1], match[2], values)
    if match := _COMPARE.fullmatch(part):
        return Requirement(match[1], "lt" if match[2] == "<" else "gt", frozenset({match[3]}))
    raise bad_request(f'unable to parse requirement: "{part}" in label selector "{text}"')


class FieldTerm(NamedTuple):
    """One part of a field selector: a dotted path that must (not) equal a value."""

    path: str
    equal: bool
    value: str


FieldSelector = tuple[FieldTerm, ...]

_COMMON = frozenset({"metadata.name", "metadata.namespace"})
_MORE: Mapping[Kind, frozenset[str]] = {
    EVENT: frozenset(
        {f"involvedObject.{field}" for field in
         ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")}
        | {"reason", "reportingComponent", "source", "type"}
    ),
    SECRET: frozenset({"type"}),
    NAMESPACE: frozenset({"status.phase", "name"}),
}  # fmt: skip


def parse_field_selector(text: str, kind: Kind) -> FieldSelector:
    """Parse ``metadata.name=x,type!=y``. Raises a 400 also for fields a kind cannot select by."""
    terms: list[FieldTerm] = []
    for part in re.split(r"(?<!\\),", text) if text else ():
        match = re.fullmatch(r"([^=!]+)(==|=|!=)(.*)", part)
        if not match:
            raise bad_request(f"invalid field selector: '{text}'; can't understand '{part}'")
        path, value = match[1].strip(), re.sub(r"\\(.)", r"\1", match[3])
        if path not in _COMMON | _MORE.get(kind, frozenset()):
            raise bad_request(f"field label not supported: {path}")
        terms.append(FieldTerm(path, match[2] != "!=", value))
    return tuple(terms)


def matches_fields(selector: FieldSelector, obj: Mapping[str, Any]) -> bool:
    """Whether an object has (or lacks) the wanted values; a missing field is ""."""
    return all((_field(obj, term.path) == term.value) == term.equal for term in selector)


def wanted_value(selector: FieldSelector, path: str) -> str | None:
    """Return the value that a field must have, when the selector pins one."""
    return next((term.value for term in selector if term.path == path and term.equal), None)


def _field(obj: Mapping[str, Any], path: str) -> str:
    if path == "name":
        path = "metadata.name"
    if path == "source":
        source = obj.get("source") or {}
        return str(source.get("component") or obj.get("reportingComponent") or "")
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return "" if value is None else str(value)
