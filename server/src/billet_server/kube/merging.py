"""Several kubeconfig files as one, as in a $KUBECONFIG that is a list."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

_SECTIONS: Final = (("clusters", "cluster"), ("contexts", "context"), ("users", "user"))
_FILES: Final = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


def merge_configs(files: Sequence[Path]) -> dict[str, Any]:
    """Return several kubeconfigs as one, by kubectl's rule: whatever is named first counts.

    File names in them, which are relative to their own kubeconfig, become absolute.
    """
    merged: dict[str, Any] = {}
    for file in files:
        content = yaml.safe_load(file.read_text()) or {}
        for section, single in _SECTIONS:
            known = merged.setdefault(section, [])
            names = {entry["name"] for entry in known}
            for entry in content.get(section) or ():
                if entry["name"] not in names:
                    known.append({**entry, single: _absolute(entry.get(single) or {}, file)})
        if content.get("current-context") and "current-context" not in merged:
            merged["current-context"] = content["current-context"]
    return merged


def _absolute(entry: Mapping[str, Any], file: Path) -> dict[str, Any]:
    paths = {key: str(file.parent.resolve() / entry[key]) for key in _FILES if entry.get(key)}
    return {**entry, **paths}
