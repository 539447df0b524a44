r"""The part of JSONPath that CRD printer columns use, compiled once per column.

``.a.b``, ``.a['b.c']``, ``.a\.b`` (a dot in a name), ``[0]``, ``[-1]``, ``[*]``, and filters that
compare one field with a literal: ``[?(@.type=="Ready")]``. Like the API server, a missing
step yields nothing.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

Step = Callable[[Any], Iterator[Any]]

_STEP = re.compile(
    r"""\.(?P<name>(?:\\.|[^.\[\\])+)
      | \[(?P<index>-?\d+)\]
      | \[(?P<all>\*)\]
      | \[(?P<quote>['"])(?P<key>.*?)(?P=quote)\]
      | \[\?\(\s*@(?P<field>(?:\.[\w-]+)+)\s*(?P<op>==|!=)\s*(?P<literal>.+?)\s*\)\]
    """,
    re.VERBOSE,
)


def parse_path(path: str) -> Callable[[Any], list[Any]]:
    """Return a function from an object to the values at ``path``. Raises ValueError."""
    text = path.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    steps: list[Step] = []
    position = 0
    while position < len(text):
        match = _STEP.match(text, position)
        if match is None:
            raise ValueError(f"cannot read JSONPath {path!r} at {text[position:]!r}")
        steps.append(_step(match))
        position = match.end()

    def find(value: Any) -> list[Any]:
        values = [value]
        for step in steps:
            values = [found for value in values for found in step(value)]
        return values

    return find


def _step(match: re.Match[str]) -> Step:
    if match["index"] is not None:
        return _element(int(match["index"]))
    if match["all"]:
        return _elements
    if match["field"]:
        return _matching(match["field"].split(".")[1:], match["op"], match["literal"])
    name = match["name"]
    return _field(match["key"] if name is None else re.sub(r"\\(.)", r"\1", name))


def _field(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and value.get(name) is not None:
            yield value[name]

    return step


def _element(index: int) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= index < len(value):
            yield value[index]

    return step


def _elements(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()


def _matching(fields: list[str], operator: str, literal: str) -> Step:
    if literal[:1] == literal[-1:] == "'":
        wanted: Any = literal[1:-1]
    else:
        wanted = json.loads(literal)

    def step(value: Any) -> Iterator[Any]:
        for element in value if isinstance(value, list) else ():
            found = element
            for name in fields:
                found = found.get(name) if isinstance(found, dict) else None
            if (found == wanted) == (operator == "=="):
                yield element

    return step
