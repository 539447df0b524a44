"""Kubernetes Events about hosts: one object per host, reason and message, counted up."""

import hashlib
import logging
from collections import OrderedDict
from typing import Final

from billet_server import errors
from billet_server.core.host import Host
from billet_server.core.turn import EventNote
from billet_server.ports import BARE_METAL_HOST, EVENT, Clock, KubeApi, Object

log = logging.getLogger(__name__)

COMPONENT: Final = "billet"
REMEMBERED: Final = 4096


class Recorder:
    """Writes Events; failing to write one is logged and never stops a host."""

    def __init__(self, api: KubeApi, clock: Clock) -> None:
        self._api, self._clock = api, clock
        self._counts: OrderedDict[str, int] = OrderedDict()

    async def record(self, host: Host, note: EventNote) -> None:
        """Create the Event or count it up."""
        log.log(
            logging.WARNING if note.type == "Warning" else logging.INFO,
            "host %s: %s: %s",
            host.key,
            note.reason,
            note.message,
        )
        text = f"{host.uid}/{note.type}/{note.reason}/{note.message}"
        # A name has room for 253 characters.
        name = (
            f"{host.key.name[:200].rstrip('.-')}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        )
        try:
            await self._write(host, note, name)
        except errors.ApiError as error:
            log.warning("event %s of host %s was not written: %s", note.reason, host.key, error)

    async def _write(self, host: Host, note: EventNote, name: str) -> None:
        now = self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        count = self._counts.pop(name, 0) + 1
        if count == 1:
            try:
                await self._api.create(EVENT, _render(host, note, name, now))
            except errors.Conflict:
                found = await self._api.get(EVENT, host.key.namespace, name)
                count = int(found.get("count", 1)) + 1
        if count > 1:
            patch: Object = {"count": count, "lastTimestamp": now}
            try:
                await self._api.patch(EVENT, host.key.namespace, name, patch)
            except errors.NotFound:
                count = 1
                await self._api.create(EVENT, _render(host, note, name, now))
        self._counts[name] = count
        while len(self._counts) > REMEMBERED:
            self._counts.popitem(last=False)


def _render(host: Host, note: EventNote, name: str, now: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": host.key.namespace},
        "involvedObject": {
            "apiVersion": BARE_METAL_HOST.api_version,
            "kind": BARE_METAL_HOST.kind,
            "name": host.key.name,
            "namespace": host.key.namespace,
            "uid": host.uid,
        },
        "type": note.type,
        "reason": note.reason,
        "message": note.message[:1024],
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": COMPONENT,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
