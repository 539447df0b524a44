"""Who this process is, and the keys that all replicas of one cluster must share.

An agent pins one CA and shows a token made with one key, whichever replica it calls. On a
cluster both are in the Secret ``billet-identity`` beside the Lease: the first replica writes
what its state directory has (so a server that outgrows its machine keeps its agents), the
others take it from there. A server with the embedded API keeps its files to itself.
"""

import base64
import binascii
import fcntl
import logging
import os
import secrets
import socket
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from billet_server import errors, pki
from billet_server.ports import SECRET, KubeApi, Object

log = logging.getLogger(__name__)

SECRET_NAME: Final = "billet-identity"  # noqa: S105 - an object's name
LEAST_KEY_BYTES: Final = 16
_CERT, _KEY, _TOKEN = "ca.crt", "ca.key", "agent-token.key"


class OwnName:
    """The process's name as a Lease holder: ``NAME_SUFFIX``, where the suffix is the folder's.

    Held by a lock on ``state_dir``/identity, so no two processes have one name, and a server
    that was killed and started again in its folder is known to be the only one of that name:
    it need not wait for its own Lease to run out. Raises ConfigError when the lock is taken.
    """

    def __init__(self, state_dir: Path, name: str = "") -> None:
        path = state_dir / "identity"
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            fault = (
                f"{state_dir} is in use by another Billet server: stop it, or choose another "
                "state directory"
            )
            raise errors.ConfigError([fault]) from error
        suffix = os.read(self._descriptor, 64).decode(errors="replace").strip()
        if len(suffix) != 8 or not suffix.isalnum():
            suffix = secrets.token_hex(4)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, suffix.encode(), 0)
        self.text = f"{name or socket.gethostname()}_{suffix}"

    def close(self) -> None:
        """Let the name go."""
        os.close(self._descriptor)


def token_key(state_dir: Path) -> bytes:
    """Return the key of agents' tokens, making it on first use."""
    path = state_dir / _TOKEN
    if not path.exists():
        pki.write_private(path, secrets.token_bytes(32))
    return path.read_bytes()


async def share_identity(api: KubeApi, namespace: str, state_dir: Path) -> None:
    """Make CA and token key of this state directory those of the cluster.

    Raises ConfigError when the Secret is not usable, ApiError when the API fails.
    """
    try:
        found = await api.get(SECRET, namespace, SECRET_NAME)
    except errors.NotFound:
        try:
            found = await api.create(SECRET, _own(namespace, state_dir))
            log.info("the CA is shared by the Secret %s/%s", namespace, SECRET_NAME)
        except errors.Conflict:  # another replica was first
            found = await api.get(SECRET, namespace, SECRET_NAME)
    files = _read(found, f"{namespace}/{SECRET_NAME}")
    for path in _paths(state_dir):
        if not path.exists() or path.read_bytes() != files[path.name]:
            log.info("%s is taken from the Secret %s/%s", path.name, namespace, SECRET_NAME)
            pki.write_private(path, files[path.name])


def _paths(state_dir: Path) -> tuple[Path, ...]:
    return state_dir / "pki" / _KEY, state_dir / "pki" / _CERT, state_dir / _TOKEN


def _own(namespace: str, state_dir: Path) -> Object:
    pki.ensure_authority(state_dir / "pki")
    token_key(state_dir)
    data = {path.name: path.read_bytes() for path in _paths(state_dir)}
    return {
        "metadata": {
            "name": SECRET_NAME,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/name": "billet"},
        },
        "type": "Opaque",
        "data": {name: base64.b64encode(value).decode() for name, value in data.items()},
    }


def _read(secret: Object, where: str) -> dict[str, bytes]:
    """Return the Secret's files, checked. Raises ConfigError."""
    data = secret.get("data") or {}
    faults: list[str] = []
    files: dict[str, bytes] = {}
    for name in (_CERT, _KEY, _TOKEN):
        try:
            files[name] = base64.b64decode(data[name], validate=True)
        except KeyError:
            faults.append(f"it has no {name}")
        except (binascii.Error, TypeError, ValueError):
            faults.append(f"its {name} is not base64")
    if not faults:
        faults = _faults(files)
    if faults:
        advice = (
            "Restore it, or delete it and restart every server: they then agree on a new CA,"
            " and machines in the ramdisk boot anew"
        )
        raise errors.ConfigError([f"Secret {where}: {'; '.join(faults)}. {advice}"])
    return files


def _faults(files: dict[str, bytes]) -> list[str]:
    faults = []
    if len(files[_TOKEN]) < LEAST_KEY_BYTES:
        faults.append(f"its {_TOKEN} has fewer than {LEAST_KEY_BYTES} bytes")
    try:
        cert = x509.load_pem_x509_certificate(files[_CERT])
        key = serialization.load_pem_private_key(files[_KEY], None)
    except (ValueError, TypeError) as error:
        return [*faults, f"its {_CERT} or {_KEY} cannot be read ({error})"]
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != cert.public_key().public_bytes(*form):
        faults.append(f"its {_CERT} and {_KEY} do not belong together")
    return faults
