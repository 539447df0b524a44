"""The three patch forms of Kubernetes as pure functions on JSON values.

JSON merge patch (RFC 7386), JSON patch (RFC 6902), and strategic merge patch, which behaves as
a merge patch but for its directives and the two lists of metadata that it merges by key.
Inputs are never changed; results may share parts with them.
"""

import copy
from typing import Any

from billet_server.apiserver.failure import Failure, bad_request

MAX_OPERATIONS = 10_000
"""JSON patch operations in one request; Kubernetes' own limit."""


class PatchRefused(Exception):
    """A well-formed JSON patch does not fit the object (or its ``test`` failed)."""


def merge(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7386 section 2): null deletes, lists are replaced."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


# --- JSON patch --------------------------------------------------------------------------------


def json_patch(target: Any, operations: Any) -> Any:
    """Apply a JSON patch (RFC 6902), all of it or nothing.

    Raises a 400 for a malformed patch, `PatchRefused` when an operation does not apply.
    """
    if not isinstance(operations, list):
        raise bad_request("a JSON patch must be a list of operations")
    if len(operations) > MAX_OPERATIONS:
        raise Failure(
            413,
            "RequestEntityTooLarge",
            f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, "
            f"got {len(operations)}",
            {},
        )
    document = copy.deepcopy(target)
    for operation in operations:
        if not isinstance(operation, dict):
            raise bad_request("every operation of a JSON patch must be an object")
        document = _operate(document, operation)
    return document


def _operate(document: Any, operation: dict[str, Any]) -> Any:
    name, path = operation.get("op"), _pointer(operation.get("path"))
    if name in ("add", "replace", "test") and "value" not in operation:
        raise bad_request(f'JSON patch operation "{name}" needs a value')
    # A later operation may write into it, and the patch may be applied again after a conflict.
    given = copy.deepcopy(operation.get("value"))
    match name:
        case "add":
            return _add(document, path, given)
        case "replace":
            _look(document, path)
            return _add(_remove(document, path), path, given)
        case "remove":
            return _remove(document, path)
        case "test":
            if not _equal(_look(document, path, missing=None), given):
                raise PatchRefused(f"testing value /{'/'.join(path)} failed")
            return document
        case "copy":
            value = copy.deepcopy(_look(document, _pointer(operation.get("from"))))
            return _add(document, path, value)
        case "move":
            source = _pointer(operation.get("from"))
            if path[: len(source)] == source and path != source:
                raise PatchRefused("a value cannot be moved into itself")
            value = _look(document, source)
            return _add(_remove(document, source), path, value)
    raise bad_request(f"unknown JSON patch operation {name!r}")


def _pointer(text: Any) -> list[str]:
    """Parse a JSON pointer (RFC 6901)."""
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise bad_request(f"{text!r} is not a JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _index(items: list[Any], part: str, *, adding: bool = False) -> int:
    if adding and part == "-":
        return len(items)
    if not part.isascii() or not part.isdigit() or (part != "0" and part.startswith("0")):
        raise PatchRefused(f"{part!r} is not an index of a list")
    index = int(part)
    if index >= len(items) + adding:
        raise PatchRefused(f"index {index} is outside the list")
    return index


_RAISE = object()


def _look(document: Any, path: list[str], missing: Any = _RAISE) -> Any:
    value = document
    for part in path:
        if isinstance(value, list):
            value = value[_index(value, part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        elif missing is not _RAISE:
            return missing
        else:
            raise PatchRefused(f"/{'/'.join(path)} does not exist")
    return value


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _look(document, path[:-1])
    if isinstance(parent, list):
        parent.insert(_index(parent, path[-1], adding=True), value)
    elif isinstance(parent, dict):
        parent[path[-1]] = value
    else:
        raise PatchRefused(f"/{'/'.join(path)} does not exist")
    return document


def _remove(document: Any, path: list[str]) -> Any:
    if not path:
        return None
    _look(document, path)
    parent = _look(document, path[:-1])
    if isinstance(parent, list):
        del parent[_index(parent, path[-1])]
    else:
        del parent[path[-1]]
    return document


def _equal(left: Any, right: Any) -> bool:
    """JSON equality: 1 equals 1.0, but neither equals true."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)


# --- strategic merge patch ---------------------------------------------------------------------

_MERGED_LISTS = {"finalizers": None, "ownerReferences": "uid"}
_DELETE_FROM = "$deleteFromPrimitiveList/"
_IGNORED = ("$setElementOrder/", "$retainKeys")


def strategic_merge(target: Any, patch: Any) -> Any:
    """Apply a strategic merge patch as far as Secrets and their like need it."""
    if not isinstance(patch, dict):
        return patch
    directive = patch.get("$patch")
    if directive == "delete":
        return {}
    result = dict(target) if isinstance(target, dict) and directive != "replace" else {}
    for key, value in patch.items():
        if key == "$patch" or key.startswith(_IGNORED):
            continue
        if key.startswith(_DELETE_FROM):
            field = key.removeprefix(_DELETE_FROM)
            result[field] = [item for item in result.get(field) or [] if item not in (value or [])]
        elif value is None:
            result.pop(key, None)
        elif key in _MERGED_LISTS and isinstance(value, list):
            result[key] = _merge_list(result.get(key) or [], value, _MERGED_LISTS[key])
        else:
            result[key] = strategic_merge(result.get(key), value)
    return result


def _merge_list(have: list[Any], patch: list[Any], key: str | None) -> list[Any]:
    if key is None:
        return have + [item for item in patch if item not in have]
    merged = {item.get(key): item for item in have}
    for item in patch:
        if not isinstance(item, dict):
            raise bad_request(f'every entry must be an object with "{key}"')
        if item.get("$patch") == "replace":
            merged = {}
        elif item.get("$patch") == "delete":
            merged.pop(item.get(key), None)
        else:
            merged[item.get(key)] = strategic_merge(merged.get(item.get(key)), item)
    return list(merged.values())
