"""Lists: which nodes, in which order, from where on. Pure.

Ironic's parameters; what is not understood is refused, never ignored: a filter that does
nothing shows somebody machines that he did not ask for.
"""

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any, Final, NamedTuple

from billet_server.core.host import Host
from billet_server.ironic.nodes import SINCE, driver_of
from billet_server.ironic.replies import IronicError

MOST: Final = 1000
"""Nodes in one page, as Ironic's ``max_limit``."""

_TRUE, _FALSE = ("true", "1", "yes", "on", "t", "y"), ("false", "0", "no", "off", "f", "n")
_UNSORTABLE: Final = frozenset(
    ("links", "ports", "states", "volume", "traits", "properties", "instance_info", "extra")
)
_NONE_HAS: Final = (
    *("owner", "lessee", "shard", "parent_node", "chassis_uuid", "conductor_group", "project"),
)
_KNOWN: Final = frozenset(
    (
        *("limit", "marker", "sort_key", "sort_dir", "fields", "detail", "provision_state"),
        *("maintenance", "associated", "driver", "instance_uuid", "fault", "resource_class"),
        *("retired", "sharded", "include_children"),
        *_NONE_HAS,
    )
)


class Query(NamedTuple):
    """What a list is asked for."""

    limit: int
    marker: str
    sort_key: str
    descending: bool
    fields: tuple[str, ...]
    detail: bool
    filters: dict[str, str]


def parse_query(given: Mapping[str, str], *, detail: bool = False) -> Query:
    """Read a list's parameters. Raises IronicError (400)."""
    unknown = sorted(set(given) - _KNOWN)
    if unknown:
        raise IronicError(400, f'Unknown argument: "{unknown[0][:60]}".')
    direction = given.get("sort_dir", "asc")
    if direction not in ("asc", "desc"):
        text = f"Invalid sort direction: {direction[:40]}. Acceptable values are 'asc' or 'desc'."
        raise IronicError(400, text)
    detail = detail or parse_bool("detail", given.get("detail", "false"))
    fields = parse_fields(given.get("fields", ""))
    if detail and fields:
        raise IronicError(400, "Can't fetch a subset of fields with 'detail' set.")
    plain = {"limit", "marker", "sort_key", "sort_dir", "fields", "detail"}
    filters = {key: value for key, value in given.items() if key not in plain}
    return Query(
        parse_limit(given.get("limit", "")),
        given.get("marker", ""),
        given.get("sort_key", ""),
        direction == "desc",
        fields,
        detail,
        filters,
    )


def parse_bool(name: str, text: str) -> bool:
    """Read a truth value. Raises IronicError (400)."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise IronicError(400, f'Invalid input for {name}: "{text[:40]}" is neither true nor false.')


def parse_limit(text: str) -> int:
    """Read a page's size; none, 0 and more than there may be: the most. Raises IronicError."""
    if not text:
        return MOST
    try:
        limit = int(text[:12])
    except ValueError:
        raise IronicError(400, f'Invalid input for limit: "{text[:12]}" is no number.') from None
    if limit < 0:
        raise IronicError(400, "Limit must be positive.")
    return min(limit or MOST, MOST)


def parse_fields(text: str) -> tuple[str, ...]:
    """Read a comma list of names."""
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def check_fields(fields: Iterable[str], node: Mapping[str, Any], minor: int) -> None:
    """Refuse fields that no node has, or not in this version. Raises IronicError."""
    wrong = [name for name in fields if name not in node]
    if wrong:
        raise IronicError(400, f'Field(s) "{", ".join(wrong)[:200]}" are not valid.')
    late = [name for name in fields if SINCE.get(name, 1) > minor]
    if late:
        text = f'Field "{late[0]}" is not there before version 1.{SINCE[late[0]]}.'
        raise IronicError(406, text)


def page(rows: list[dict[str, Any]], query: Query) -> tuple[list[dict[str, Any]], bool]:
    """Return one page of rows and whether more follow; ties are in the order of UUIDs.

    A row has ``uuid`` and the sort key. Raises IronicError (400) for a marker that is not there.
    """
    if query.sort_key:
        _check_sort_key(query.sort_key, rows)
    ordered = sorted(rows, key=itemgetter("uuid"), reverse=query.descending)
    if query.sort_key:
        name = query.sort_key
        ordered.sort(key=lambda row: _sortable(row[name]), reverse=query.descending)
    start = 0
    if query.marker:
        at = next((i for i, row in enumerate(ordered) if row["uuid"] == query.marker), None)
        if at is None:
            text = f"The marker {query.marker[:60]!r} is not in this list; begin it anew."
            raise IronicError(400, text)
        start = at + 1
    end = start + query.limit
    return ordered[start:end], len(ordered) > end


def _check_sort_key(name: str, rows: list[dict[str, Any]]) -> None:
    if name in _UNSORTABLE or (rows and name not in rows[0]):
        text = f'The sort_key value "{name[:60]}" is an invalid field for sorting.'
        raise IronicError(400, text)


def _sortable(value: Any) -> tuple[bool, str]:
    # Nothing comes first; flags and words compare as text.
    return (value is not None, str(value))


def matcher(filters: Mapping[str, str]) -> Callable[[Host, Mapping[str, Any]], bool]:
    """Return what tells whether a host and its summary pass all filters. Raises IronicError."""
    tests: list[Callable[[Host, Mapping[str, Any]], bool]] = []
    for name, value in filters.items():
        tests.append(_test(name, value))
    return lambda host, row: all(test(host, row) for test in tests)


def _test(name: str, value: str) -> Callable[[Host, Mapping[str, Any]], bool]:
    if name == "maintenance":
        wanted = parse_bool(name, value)
        return lambda _, row: row["maintenance"] is wanted
    if name == "associated":
        wanted = parse_bool(name, value)
        return lambda _, row: (row["instance_uuid"] is not None) is wanted
    if name in ("retired", "sharded"):
        wanted = parse_bool(name, value)
        return lambda *_: not wanted
    if name == "provision_state":
        words = value.split(",")
        return lambda _, row: row["provision_state"] in words
    if name == "instance_uuid":
        return lambda _, row: row["instance_uuid"] == value
    if name == "driver":
        return lambda host, _: driver_of(host) == value
    if name == "fault":
        return lambda host, _: (
            value == "power failure" and host.status.error_type == "power management error"
        )
    if name == "resource_class":
        return lambda host, _: host.spec.hardware_profile == value
    if name == "include_children":
        return lambda *_: True  # no node has any
    return lambda *_: not value
