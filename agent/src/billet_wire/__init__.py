"""The messages that agent and server speak, and nothing else.

One WebSocket over TLS, dialled by the agent at ``wss://<billet.server>/agent/v1/link``; every
frame is one JSON text message whose ``type`` names one of the structs here. The agent opens
with `Hello`; the server answers `Welcome` or `Refused` and from then on may send `RunJob` and
`CancelJob`. The agent sends a `JobReport` on every change of a job (progress at most once a
second), `Log` lines, and `Goodbye` before it leaves on purpose.

Jobs are idempotent: a `RunJob` whose id the agent already knows starts nothing and is answered
with the job's present report. A job outlives the connection: after a reconnect `Hello.jobs`
tells where each one stands. One job runs at a time; a second one is refused with problem
``agent-busy``.
"""

from billet_wire.codec import MAX_MESSAGE_BYTES, WireError, decode_agent, decode_server, encode
from billet_wire.jobs import (
    Clean,
    Deploy,
    HandOver,
    ImageSource,
    Inspect,
    Job,
    JobParams,
    RootDeviceHints,
)
from billet_wire.messages import (
    PROTOCOL,
    STANDBY,
    AgentMessage,
    CancelJob,
    Goodbye,
    Hello,
    JobProblem,
    JobReport,
    JobState,
    Log,
    Progress,
    Refused,
    RunJob,
    ServerMessage,
    Welcome,
    reports_that_hold,
)
from billet_wire.reports import (
    CleanResult,
    CpuReport,
    DeployResult,
    DiskReport,
    FirmwareReport,
    HandOverResult,
    InspectResult,
    NicReport,
    VendorReport,
)

__all__ = [
    "MAX_MESSAGE_BYTES",
    "PROTOCOL",
    "STANDBY",
    "AgentMessage",
    "CancelJob",
    "Clean",
    "CleanResult",
    "CpuReport",
    "Deploy",
    "DeployResult",
    "DiskReport",
    "FirmwareReport",
    "Goodbye",
    "HandOver",
    "HandOverResult",
    "Hello",
    "ImageSource",
    "Inspect",
    "InspectResult",
    "Job",
    "JobParams",
    "JobProblem",
    "JobReport",
    "JobState",
    "Log",
    "NicReport",
    "Progress",
    "Refused",
    "RootDeviceHints",
    "RunJob",
    "ServerMessage",
    "VendorReport",
    "Welcome",
    "WireError",
    "decode_agent",
    "decode_server",
    "encode",
    "reports_that_hold",
]
