"""What is known of the agent on a host."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from billet_wire import JobReport


class AgentView(NamedTuple):
    """What the gateway knows of the agent on a host; a snapshot.

    ``nonce`` is the boot nonce its token was bound to. ``goodbye`` is the reason it gave when
    it left on purpose. ``last_seen``, ``connected_at`` and ``reported_at`` (when a job's report
    last said anything new) are wall clock.
    """

    host_uid: str
    nonce: str
    agent_id: str
    connected: bool
    connected_at: datetime
    last_seen: datetime
    boot_mode: str
    uptime_s: float
    version: str
    jobs: Mapping[str, JobReport]
    goodbye: str | None = None
    reported_at: datetime | None = None
