"""HardwareData objects: written and owned as Metal3 does.

One for each host, of the same name, owned by it. Its own finalizer keeps it for as long as the
host is there; another inspection's result is another object, so whoever watches sees it go and
come. The host's finalizer goes only after the data is gone.
"""

from typing import Any, Final

from billet_server import errors
from billet_server.core.host import Host
from billet_server.core.problems import Fault
from billet_server.core.terms import HostKey
from billet_server.engine.secrets import DataFault
from billet_server.ports import BARE_METAL_HOST, HARDWARE_DATA, KubeApi, Object

FINALIZER: Final = "baremetalhost.metal3.io/hardwareData"


async def put_hardware(api: KubeApi, host: Host, hardware: dict[str, Any]) -> None:
    """Write the object anew. Raises `errors.ApiError`, and `DataFault` where one stays in the way.

    A crash in between leaves none or the old one; the effect is then repeated.
    """
    await drop_hardware(api, host.key)
    try:
        await api.create(HARDWARE_DATA, _render(host, hardware))
    except errors.Conflict as error:
        found = await api.get(HARDWARE_DATA, *host.key)
        holders = ", ".join(found["metadata"].get("finalizers") or ()) or "nobody"
        text = f"{host.key}: the old HardwareData object does not go; its finalizers: {holders}"
        raise DataFault(Fault("inventory-refused", text, str(error))) from error


async def drop_hardware(api: KubeApi, key: HostKey) -> None:
    """Delete the object if there is one. Raises `errors.ApiError`."""
    try:
        found = await api.get(HARDWARE_DATA, *key)
        meta = found["metadata"]
        finalizers = meta.get("finalizers") or []
        if FINALIZER in finalizers:
            left = [name for name in finalizers if name != FINALIZER]
            guarded = {"finalizers": left, "resourceVersion": meta["resourceVersion"]}
            await api.patch(HARDWARE_DATA, *key, {"metadata": guarded})
        await api.delete(HARDWARE_DATA, *key, uid=meta["uid"])
    except errors.NotFound:
        return


def _render(host: Host, hardware: dict[str, Any]) -> Object:
    owner = {
        "apiVersion": BARE_METAL_HOST.api_version,
        "kind": BARE_METAL_HOST.kind,
        "name": host.key.name,
        "uid": host.uid,
        "controller": True,
    }
    return {
        "apiVersion": HARDWARE_DATA.api_version,
        "kind": HARDWARE_DATA.kind,
        "metadata": {
            "name": host.key.name,
            "namespace": host.key.namespace,
            "finalizers": [FINALIZER],
            "ownerReferences": [owner],
        },
        "spec": {"hardware": hardware},
    }
