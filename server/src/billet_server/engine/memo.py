"""What the process remembers of a host between passes: caches only, all of it may be lost."""

from dataclasses import dataclass, field
from datetime import datetime

from billet_server.core.effects import Outcome
from billet_server.core.seen import BootSeen, PowerSeen


@dataclass(slots=True)
class Memo:
    """Volatile facts of one host object (``uid``): a new object of the name starts afresh."""

    uid: str = ""
    power: PowerSeen | None = None
    outcome: Outcome | None = None
    boot: BootSeen = field(default_factory=BootSeen)
    last_write_s: float = float("-inf")
    last_pass_s: float = float("-inf")
    rival_noted_s: float = float("-inf")
    api_failures: int = 0
    paused: bool = False
    resumed_at: datetime | None = None
