"""What a step may look at besides the object itself: plain facts, gathered by the engine."""

from datetime import datetime
from typing import NamedTuple

from billet_server.core.agents import AgentView
from billet_server.core.capacity import Seats
from billet_server.core.effects import Outcome
from billet_server.core.problems import Fault
from billet_server.core.terms import PowerState


class SecretSeen(NamedTuple):
    """The BMC Secret: its resourceVersion, or what is wrong with it."""

    version: str = ""
    fault: Fault | None = None


class PowerSeen(NamedTuple):
    """The last power reading and when it was taken."""

    state: PowerState
    at: datetime


class Stranger(NamedTuple):
    """When an agent of this boot called from a machine without this MAC, in words which."""

    at: datetime
    text: str


class BootSeen(NamedTuple):
    """When the boot services last saw this MAC at each stage; None: not since server start.

    ``rival_at``: when an agent with this boot's token, but not the one bound to it, was refused.
    """

    dhcp_at: datetime | None = None
    script_at: datetime | None = None
    kernel_at: datetime | None = None
    initramfs_at: datetime | None = None
    rival_at: datetime | None = None
    stranger: Stranger | None = None


class Seen(NamedTuple):
    """Observations of one pass.

    ``entropy`` is 32 fresh hex digits, for names a step must choose; ``mac_conflict`` names
    another host with the same bootMACAddress, ``bmc_conflict`` one with the same BMC;
    ``data_version`` changes with the Secrets for the config drive, `field=version` for each,
    "-" for one that is missing; ``started_at`` is when this
    server started (or the clock was set): before that nothing could be seen.
    """

    entropy: str
    started_at: datetime
    secret: SecretSeen = SecretSeen()
    power: PowerSeen | None = None
    agent: AgentView | None = None
    boot: BootSeen = BootSeen()
    mac_conflict: str = ""
    outcome: Outcome | None = None
    bmc_conflict: str = ""
    data_version: str = ""
    seats: Seats = Seats()


class Rules(NamedTuple):
    """Settings that decisions depend on; all times in seconds.

    ``agent_return_s`` is for an agent whose machine shows another agent already; ``job_start_s``
    until a job's first report, ``job_cancel_s`` until an unwanted job has stopped,
    ``job_stall_s`` without any news of a running job; ``soft_off_s`` a system may take to shut
    down before its power is cut; ``fast_track_s`` a host that is on waits in the ramdisk.
    ``max_…``: hosts at once, retries; 0 for no limit.
    ``image_rate_bytes_s``: of each machine's download, None for no limit.
    """

    ready_word: str = "ready"
    power_poll_s: float = 60.0
    boot_request_s: float = 900.0
    boot_script_s: float = 180.0
    agent_call_s: float = 600.0
    agent_lost_s: float = 60.0
    agent_return_s: float = 20.0
    job_start_s: float = 180.0
    job_cancel_s: float = 120.0
    job_stall_s: float = 900.0
    hand_over_s: float = 120.0
    retry_base_s: float = 10.0
    retry_cap_s: float = 600.0
    soft_off_s: float = 180.0
    fast_track_s: float = 3600.0
    give_up_deleting_after: int = 3
    max_inspecting: int = 50
    max_provisioning: int = 20
    max_cleaning: int = 50
    max_retries: int = 10
    max_provisioning_retries: int = 5
    image_rate_bytes_s: int | None = None
