"""Server-printed tables (meta.k8s.io/v1 Table), what ``kubectl get`` shows."""

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

from billet_server.apiserver.cells import COMPUTED, render_age
from billet_server.apiserver.definitions import Column, Definition
from billet_server.apiserver.jsonpath import parse_path

Object = dict[str, Any]
Cell = Callable[[Object, datetime], Any]

_NAME = Column("Name", "string", "name", "Name of the object", ".metadata.name")


def render_table(
    definition: Definition,
    items: Iterable[Object],
    list_meta: Object,
    include: Literal["Metadata", "Object", "None"],
    now: datetime,
) -> Object:
    """Return a Table of ``items``; ``list_meta`` becomes its metadata.

    ``include`` is the request's includeObject: what each row carries beside its cells. Events
    start with LAST SEEN, every other kind with NAME. A missing value is null (shown empty).
    """
    columns = definition.columns
    if not any(column.format == "name" for column in columns):
        columns = (_NAME, *columns)
    cells = [_cell(column) for column in columns]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_meta,
        "columnDefinitions": [
            {
                "name": column.name,
                "type": column.type,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            }
            for column in columns
        ],
        "rows": [
            {"cells": [cell(item, now) for cell in cells], "object": _row_object(item, include)}
            for item in items
        ],
    }


def _row_object(item: Object, include: str) -> Object | None:
    if include == "Object":
        return item
    if include == "None":
        return None
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": item.get("metadata") or {},
    }


@lru_cache(maxsize=512)
def _cell(column: Column) -> Cell:
    if column.json_path in COMPUTED:
        return COMPUTED[column.json_path]
    find = parse_path(column.json_path)

    def cell(item: Object, now: datetime) -> Any:
        found = find(item)
        return _render(column.type, found[0], now) if found else None

    return cell


def _render(column_type: str, value: Any, now: datetime) -> Any:
    """Follow the API server's custom resource tables: a value of another type is left out."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if column_type == "string":
        if isinstance(value, str):
            return value
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    if column_type == "date":
        return render_age(value, now) if isinstance(value, str) else None
    if column_type == "boolean":
        return value if isinstance(value, bool) else None
    if column_type == "integer":
        return int(value) if is_number else None
    return value if is_number else None
