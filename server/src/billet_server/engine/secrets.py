"""Reading what Secrets hold: BMC credentials, and the data of config drives."""

import base64
import binascii
import json
from collections.abc import Callable
from typing import Any

import yaml

from billet_server.core import configdrive
from billet_server.core.host import Host, SecretReference, Spec
from billet_server.core.problems import Fault
from billet_server.core.seen import SecretSeen
from billet_server.core.terms import Credentials, Secret
from billet_server.ports import Object

GetSecret = Callable[[str, str], Object | None]


class DataFault(Exception):
    """A Secret for the config drive cannot be used; carries the `Fault`."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def decode(secret: Object) -> dict[str, bytes]:
    """Return a Secret's data; a value that is not base64 reads as empty."""
    values = {}
    for key, text in (secret.get("data") or {}).items():
        try:
            values[key] = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError, TypeError):
            values[key] = b""
    return values


def read_credentials(host: Host, get: GetSecret) -> tuple[SecretSeen, Credentials | None]:
    """Return what is known of the host's BMC Secret and, where it is good, the credentials.

    Values are stripped of white space, as Metal3 does: files end in newlines.
    """
    name = host.spec.bmc.credentials_name
    if not name:
        text = f"{host.key}: spec.bmc.credentialsName is empty"
        return SecretSeen("", Fault("bmc-secret-missing", text)), None
    secret = get(host.key.namespace, name)
    if secret is None:
        text = f"{host.key}: Secret {name} with the BMC's credentials does not exist"
        return SecretSeen("", Fault("bmc-secret-missing", text)), None
    version = str(secret["metadata"].get("resourceVersion", ""))
    data, found, missing = decode(secret), [], []
    for key in ("username", "password"):
        try:
            value = data.get(key, b"").decode().strip()
        except UnicodeDecodeError:
            value = ""
        found.append(value)
        if not value:
            missing.append(key)
    if missing:
        text = f"{host.key}: Secret {name} has no usable {' and '.join(missing)}"
        return SecretSeen(version, Fault("bmc-secret-malformed", text)), None
    return SecretSeen(version), Credentials(found[0], Secret(found[1]))


def data_version(host: Host, get: GetSecret) -> str:
    """Return what changes with every Secret that the config drive is made of."""
    versions = []
    for field, reference in _references(host.spec).items():
        if reference is not None and reference.name:
            secret = get(host.key.namespace, reference.name)
            version = secret["metadata"].get("resourceVersion", "") if secret else "-"
            versions.append(f"{field}={version}")
    return ",".join(versions)


def _references(spec: Spec) -> dict[str, SecretReference | None]:
    return {
        "userData": spec.user_data,
        "networkData": spec.image_network_data,
        "metaData": spec.meta_data,
    }


def config_drive_tree(host: Host, get: GetSecret) -> dict[str, bytes]:
    """Return the files of the host's config drive. Raises `DataFault`."""
    spec = host.spec
    user = _value(host, "userData", spec.user_data, get)
    return configdrive.render_tree(
        host.key,
        host.uid,
        user_data=user,
        meta_data=_mapping(host, "metaData", spec.meta_data, get),
        network_data=_mapping(host, "networkData", spec.image_network_data, get),
    )


def _value(
    host: Host, field: str, reference: SecretReference | None, get: GetSecret
) -> bytes | None:
    if reference is None or not reference.name:
        return None
    namespace = reference.namespace or host.key.namespace
    where = f"{host.key}: spec.{field} refers to Secret {namespace}/{reference.name}"
    if namespace != host.key.namespace:
        text = f"{where}, which is not in the host's own namespace"
        raise DataFault(Fault("user-data-malformed", text))
    secret = get(namespace, reference.name)
    if secret is None:
        raise DataFault(Fault("user-data-missing", f"{where}, which does not exist"))
    value = configdrive.pick(decode(secret), field)
    if value is None:
        text = f"{where}, which has neither key {field!r} nor 'value'"
        raise DataFault(Fault("user-data-malformed", text))
    if len(value) > configdrive.MAX_BYTES // 2:
        text = f"{where}, whose {len(value)} bytes do not fit a config drive"
        raise DataFault(Fault("user-data-malformed", text))
    return value


def _mapping(
    host: Host, field: str, reference: SecretReference | None, get: GetSecret
) -> dict[str, Any] | None:
    value = _value(host, field, reference, get)
    if value is None:
        return None
    try:
        # JSON is YAML, but far faster by its own parser.
        parsed = json.loads(value) if value.lstrip()[:1] == b"{" else _load_yaml(value)
    except (ValueError, yaml.YAMLError) as error:
        text = f"{host.key}: spec.{field} is neither YAML nor JSON: {error}"
        raise DataFault(Fault("user-data-malformed", text)) from error
    if not isinstance(parsed, dict):
        text = f"{host.key}: spec.{field} holds {type(parsed).__name__}, not a mapping"
        raise DataFault(Fault("user-data-malformed", text))
    return parsed


def _load_yaml(value: bytes) -> Any:
    return yaml.load(value, Loader=yaml.CSafeLoader)
