"""Discovery documents: which groups, versions, resources there are, and what they can do.

Both forms of meta/v1: one document per group version, and the aggregated one
(apidiscovery.k8s.io, ``Accept: ...;as=APIGroupDiscoveryList``) that clients since 1.26 prefer.
"""

import platform
from collections.abc import Iterable
from typing import Any

from billet_server.apiserver.definitions import Definition
from billet_server.apiserver.forms import MediaRange, accepts_json
from billet_server.ports import Kind

REVIEWS = (
    Definition(
        Kind("authorization.k8s.io", "v1", "SelfSubjectAccessReview",
             "selfsubjectaccessreviews", namespaced=False),
        "selfsubjectaccessreview", "", verbs=("create",),
    ),
    Definition(
        Kind("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews",
             namespaced=False),
        "selfsubjectreview", "", verbs=("create",),
    ),
)  # fmt: skip
"""Questions that are answered and not stored."""

EMULATED_MINOR = 32
"""The Kubernetes release whose API this is; clients compare it with their own."""


def render_version() -> dict[str, str]:
    """Return ``/version``."""
    return {
        "major": "1",
        "minor": str(EMULATED_MINOR),
        "gitVersion": f"v1.{EMULATED_MINOR}.0-billet",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": f"{platform.system().lower()}/{platform.machine()}",
    }


Groups = dict[str, dict[str, list[Definition]]]


def group_definitions(definitions: Iterable[Definition]) -> Groups:
    """Return definitions by group and version, the core group ("") first."""
    groups: Groups = {"": {}}
    for definition in definitions:
        kind = definition.kind
        groups.setdefault(kind.group, {}).setdefault(kind.version, []).append(definition)
    return groups


def render_core_versions(address: str) -> dict[str, Any]:
    """Return ``/api``."""
    entry = {"clientCIDR": "0.0.0.0/0", "serverAddress": address}
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [entry]}


def render_group(groups: Groups, group: str) -> dict[str, Any]:
    """Return ``/apis/GROUP``."""
    versions = [{"groupVersion": f"{group}/{version}", "version": version}
                for version in groups[group]]  # fmt: skip
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": group,
        "versions": versions,
        "preferredVersion": versions[0],
    }


def render_groups(groups: Groups) -> dict[str, Any]:
    """Return ``/apis``."""
    listed = [render_group(groups, group) for group in groups if group]
    for entry in listed:
        del entry["kind"], entry["apiVersion"]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}


def render_resources(group: str, version: str, definitions: list[Definition]) -> dict[str, Any]:
    """Return ``/api/v1`` or ``/apis/GROUP/VERSION``."""
    resources: list[dict[str, Any]] = []
    for definition in definitions:
        kind = definition.kind
        entry: dict[str, Any] = {
            "name": kind.plural,
            "singularName": definition.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": list(definition.verbs),
        }
        if definition.short_names:
            entry["shortNames"] = list(definition.short_names)
        if definition.categories:
            entry["categories"] = list(definition.categories)
        resources.append(entry)
        if definition.has_status:
            resources.append(
                {
                    "name": f"{kind.plural}/status",
                    "singularName": "",
                    "namespaced": kind.namespaced,
                    "kind": kind.kind,
                    "verbs": ["get", "patch", "update"],
                }
            )
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": resources,
    }


def choose_aggregated(ranges: list[MediaRange]) -> str:
    """Return "v2" or "v2beta1" when a client prefers that aggregated form, else ""."""
    for media in ranges:
        if not accepts_json(media):
            continue
        if media.parameters.get("as") == "APIGroupDiscoveryList":
            version = media.parameters.get("v", "")
            is_known = media.parameters.get("g") == "apidiscovery.k8s.io"
            if is_known and version in ("v2", "v2beta1"):
                return version
        elif "as" not in media.parameters:
            return ""
    return ""


def aggregated_content_type(version: str) -> str:
    """Return the Content-Type that announces the aggregated form."""
    return f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"


def render_aggregated(groups: Groups, version: str, *, core: bool) -> dict[str, Any]:
    """Return the aggregated ``/api`` (``core``) or ``/apis``."""
    items = [
        {
            "metadata": {"name": group, "creationTimestamp": None} if group else
                        {"creationTimestamp": None},
            "versions": [
                {
                    "version": name,
                    "resources": [_aggregated_resource(entry) for entry in definitions],
                    "freshness": "Current",
                }
                for name, definitions in versions.items()
            ],
        }
        for group, versions in groups.items()
        if (group == "") == core
    ]  # fmt: skip
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": items,
    }


def _aggregated_resource(definition: Definition) -> dict[str, Any]:
    kind = definition.kind
    response = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    entry: dict[str, Any] = {
        "resource": kind.plural,
        "responseKind": response,
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": definition.singular,
        "verbs": list(definition.verbs),
    }
    if definition.short_names:
        entry["shortNames"] = list(definition.short_names)
    if definition.categories:
        entry["categories"] = list(definition.categories)
    if definition.has_status:
        entry["subresources"] = [
            {
                "subresource": "status",
                "responseKind": response,
                "verbs": ["get", "patch", "update"],
            }
        ]
    return entry
