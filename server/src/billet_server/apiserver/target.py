"""URL paths and query strings of the resource API, as values."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from billet_server.apiserver.admission import Validation
from billet_server.apiserver.failure import Failure, bad_request, invalid
from billet_server.apiserver.fielderrors import FieldError
from billet_server.apiserver.objects import DeleteOptions, WriteOptions
from billet_server.ports import CRD, Object


class Target(NamedTuple):
    """What a path names; ``namespace`` None: all namespaces or none; ``name`` "": a collection."""

    group: str
    version: str
    namespace: str | None
    plural: str
    name: str = ""
    subresource: str = ""


def parse_target(raw_path: str) -> Target | None:
    """Parse ``/api/v1/...`` and ``/apis/GROUP/VERSION/...``; None when it is neither.

    Segments are decoded one by one, so that an encoded slash stays within its segment.
    """
    parts = [unquote(part) for part in raw_path.strip("/").split("/")]
    match parts:
        case ["api", version, *rest]:
            group = ""
        case ["apis", group, version, *rest] if group:
            pass
        case _:
            return None
    match rest:
        case ["namespaces", name] if not group:
            return Target(group, version, None, "namespaces", name)
        case ["namespaces", name, ("status" | "finalize") as sub] if not group:
            return Target(group, version, None, "namespaces", name, sub)
        case ["namespaces", namespace, plural, *tail] if len(tail) <= 2:
            return Target(group, version, namespace, plural, *tail)
        case [plural, *tail] if len(tail) <= 2:
            return Target(group, version, None, plural, *tail)
    return None


_TRUE = ("true", "1", "t", "T", "TRUE", "True")


class ListQuery(NamedTuple):
    """Query parameters of list and watch, as text and numbers."""

    watch: bool = False
    labels: str = ""
    fields: str = ""
    limit: int = 0
    continue_token: str = ""
    version: str = ""
    version_match: str = ""
    timeout_s: int | None = None
    bookmarks: bool = False
    initial_events: bool = False


def parse_list_query(query: Mapping[str, str]) -> ListQuery:
    """Parse a list's or watch's parameters. Raises a 400."""
    version = query.get("resourceVersion", "")
    if version and not (version.isascii() and version.isdigit()):
        raise bad_request(f'resourceVersion: Invalid value: "{version}": must be a number')
    return ListQuery(
        watch=query.get("watch", "") in _TRUE,
        labels=query.get("labelSelector", ""),
        fields=query.get("fieldSelector", ""),
        limit=_number(query, "limit") or 0,
        continue_token=query.get("continue", ""),
        version=version,
        version_match=query.get("resourceVersionMatch", ""),
        timeout_s=_number(query, "timeoutSeconds"),
        bookmarks=query.get("allowWatchBookmarks", "") in _TRUE,
        initial_events=query.get("sendInitialEvents", "") in _TRUE,
    )


def _number(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise bad_request(f'{name}: Invalid value: "{text}": must be a number, 0 or more')
    return int(text)


def parse_write_options(
    query: Mapping[str, str], default: Validation, name: str = "CreateOptions"
) -> WriteOptions:
    """Parse ``dryRun`` and ``fieldValidation``. Raises a 422 that calls them ``name``."""
    dry_run, validation = query.get("dryRun", ""), query.get("fieldValidation") or default
    errors = _dry_run_errors(dry_run)
    match validation:
        case "Strict" | "Warn" | "Ignore" if not errors:
            return WriteOptions(dry_run == "All", validation)
        case "Strict" | "Warn" | "Ignore":
            pass
        case _:
            text = f'"{validation}": supported values: "", "Ignore", "Strict", "Warn"'
            errors.append(FieldError("fieldValidation", "Unsupported value", text))
    raise _bad_options(name, errors)


def parse_delete_options(query: Mapping[str, str], body: Object) -> DeleteOptions:
    """Parse DeleteOptions from the query or, where there is one, the body. Raises a 422."""
    listed = body.get("dryRun") or [query.get("dryRun", "")]
    if not isinstance(listed, list) or len(listed) > 1:
        raise bad_request('dryRun must be a list of at most "All"')
    propagation = body.get("propagationPolicy") or query.get("propagationPolicy", "")
    if not propagation and (body.get("orphanDependents") or
                            query.get("orphanDependents") in _TRUE):  # fmt: skip
        propagation = "Orphan"
    propagation = propagation or "Background"
    if propagation not in ("Orphan", "Background", "Foreground"):
        text = f'"{propagation}": supported values: "Background", "Foreground", "Orphan"'
        error = FieldError("propagationPolicy", "Unsupported value", text)
        raise _bad_options("DeleteOptions", [error])
    conditions = body.get("preconditions") or {}
    if not isinstance(conditions, dict):
        raise bad_request("preconditions must be an object")
    dry_run = str(listed[0])
    if errors := _dry_run_errors(dry_run):
        raise _bad_options("DeleteOptions", errors)
    return DeleteOptions(
        dry_run == "All",
        str(conditions.get("uid") or ""),
        str(conditions.get("resourceVersion") or ""),
        propagation,
    )


def _dry_run_errors(value: str) -> list[FieldError]:
    if value in ("", "All"):
        return []
    text = f'["{value}"]: supported values: "All"'
    return [FieldError("dryRun", "Unsupported value", text)]


def _bad_options(name: str, errors: Sequence[FieldError]) -> Failure:
    return invalid(CRD._replace(group="meta.k8s.io", kind=name), "", errors)
