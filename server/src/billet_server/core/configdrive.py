"""What goes on the config drive: the tree that cloud-init and Ignition read (OpenStack layout).

Pure. The keys of a Secret are Metal3's: ``userData``/``networkData``/``metaData``, falling back
to ``value``. Meta data starts from defaults that name the host; the user's keys overlay them.
"""

import json
from collections.abc import Mapping
from typing import Any

from billet_server.core.terms import HostKey

MAX_BYTES = 64 * 1024 * 1024
LABEL = "config-2"


def pick(data: Mapping[str, bytes], key: str) -> bytes | None:
    """Return the Secret's value for ``key``, else for ``value``, else None."""
    return data.get(key, data.get("value"))


def default_meta_data(key: HostKey, uid: str) -> dict[str, Any]:
    """Return Metal3's defaults; ``uuid`` is the host object's UID."""
    return {
        "uuid": uid,
        "name": key.name,
        "local-hostname": key.name,
        "local_hostname": key.name,
        "hostname": key.name,
        "metal3-name": key.name,
        "metal3-namespace": key.namespace,
    }


def render_tree(
    key: HostKey,
    uid: str,
    *,
    user_data: bytes | None,
    meta_data: Mapping[str, Any] | None,
    network_data: Mapping[str, Any] | None,
) -> dict[str, bytes]:
    """Return path -> content of all files."""
    meta = default_meta_data(key, uid) | dict(meta_data or {})
    tree = {"openstack/latest/meta_data.json": _json(meta)}
    if user_data is not None:
        tree["openstack/latest/user_data"] = user_data
    if network_data:
        tree["openstack/latest/network_data.json"] = _json(network_data)
    tree["openstack/latest/vendor_data.json"] = _json({})
    return tree


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, default=str).encode() + b"\n"
