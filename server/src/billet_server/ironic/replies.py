"""Ironic's error form and its microversions. Pure."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from billet_server.errors import BilletError

VERSION: Final = "X-OpenStack-Ironic-API-Version"
MINIMUM: Final = "X-OpenStack-Ironic-API-Minimum-Version"
MAXIMUM: Final = "X-OpenStack-Ironic-API-Maximum-Version"
LEAST: Final = 1
MOST: Final = 115
"""Ironic 39; each field is left out for clients of before the version that brought it."""

_FORM = re.compile(r"1\.([0-9]{1,4})")


class IronicError(BilletError):
    """An answer that is not success: HTTP status, and one sentence or two for a person."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def error_body(status: int, text: str) -> dict[str, str]:
    """Return Ironic's error form: an object whose only member is JSON in a string."""
    code = "Client" if status < 500 else "Server"
    fault = {"faultcode": code, "faultstring": text, "debuginfo": None}
    return {"error_message": json.dumps(fault, ensure_ascii=False)}


def version_headers(minor: int | None) -> dict[str, str]:
    """Return what goes with every answer; ``minor`` None: the request's was refused."""
    spoken = {} if minor is None else {VERSION: f"1.{minor}"}
    return {MINIMUM: f"1.{LEAST}", MAXIMUM: f"1.{MOST}"} | spoken


def negotiate(headers: Mapping[str, str]) -> int:
    """Return the minor version that a request asks for; without a header 1.1.

    Raises IronicError: 406 for one that is not spoken, 400 for what is no version.
    """
    asked = headers.get(VERSION, "")
    if not asked:
        services = headers.get("OpenStack-API-Version", "").split(",")
        words = [each.split() for each in services]
        asked = next((w[1] for w in words if len(w) == 2 and w[0] == "baremetal"), "")
    if not asked:
        return LEAST
    if asked.lower() == "latest":
        return MOST
    match = _FORM.fullmatch(asked)
    if match is None and not re.fullmatch(r"[0-9]{1,4}\.[0-9]{1,4}", asked):
        text = f"Invalid value for {VERSION} header: {asked[:40]!r} is not like 1.{MOST}."
        raise IronicError(400, text)
    if match is None or not LEAST <= int(match[1]) <= MOST:
        raise IronicError(
            406,
            f"Version {asked} was requested but is not acceptable here. The supported version"
            f" range is: [1.{LEAST}, 1.{MOST}].",
        )
    return int(match[1])


def root_document(base: str) -> dict[str, Any]:
    """Return what ``GET /`` says."""
    version = _version(base)
    return {
        "name": "OpenStack Ironic API",
        "description": "Billet's view of its BareMetalHosts in the form of Ironic.",
        "default_version": version,
        "versions": [version],
    }


def v1_document(base: str) -> dict[str, Any]:
    """Return what ``GET /v1`` says."""
    names = ("nodes", "ports", "drivers", "conductors")
    listed = {
        name: [{"href": f"{base}/v1/{name}/", "rel": "self"}, _bookmark(base, name)]
        for name in names
    }
    links = [{"href": f"{base}/v1/", "rel": "self"}]
    return {"id": "v1", "links": links, "version": _version(base), **listed}


def _bookmark(base: str, name: str) -> dict[str, str]:
    return {"href": f"{base}/{name}/", "rel": "bookmark"}


def _version(base: str) -> dict[str, Any]:
    return {
        "id": "v1",
        "status": "CURRENT",
        "min_version": f"1.{LEAST}",
        "version": f"1.{MOST}",
        "links": [{"href": f"{base}/v1/", "rel": "self"}],
    }
