"""What Metal3 left on other objects of a host that it does not look after any more."""

import logging
from typing import Final

from billet_server import errors
from billet_server.core.host import Host
from billet_server.engine.secrets import GetSecret
from billet_server.ports import SECRET, KubeApi, Object

log = logging.getLogger(__name__)

HELD_BY: Final = "baremetalhost.metal3.io/secret"


async def release_secret(api: KubeApi, host: Host, get_secret: GetSecret) -> None:
    """Take Metal3's finalizer off the BMC Secret of a host that goes: nobody else would.

    Raises `errors.ApiError`, but for a server that may not write Secrets: then it is said.
    """
    namespace, name = host.key.namespace, host.spec.bmc.credentials_name
    secret = get_secret(namespace, name) if name else None
    meta: Object = secret["metadata"] if secret is not None else {}
    finalizers = meta.get("finalizers") or []
    if HELD_BY not in finalizers:
        return
    left = [each for each in finalizers if each != HELD_BY]
    guarded: Object = {"finalizers": left, "resourceVersion": meta["resourceVersion"]}
    try:
        await api.patch(SECRET, namespace, name, {"metadata": guarded})
    except errors.NotFound:
        return
    except errors.ApiError as error:
        if error.status != 403:
            raise
        text = "host %s: Secret %s keeps Metal3's finalizer: Secrets may not be patched: %s"
        log.warning(text, host.key, name, error)
