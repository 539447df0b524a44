"""What a step may ask for: a closed set. A step asks for at most one; it sees the `Outcome`.

Every effect may be performed twice (a crash between doing and recording repeats it), so each is
idempotent or harmless when repeated.
"""

from typing import Any, NamedTuple

from billet_server.core.download import Download
from billet_server.core.host import Image
from billet_server.core.problems import Fault
from billet_server.core.terms import BootMode, PowerState
from billet_wire import RootDeviceHints


class AddFinalizer(NamedTuple):
    """Put our finalizer on the object."""


class RemoveFinalizer(NamedTuple):
    """Take our finalizer off; the object then goes away."""


class RemoveAnnotations(NamedTuple):
    """Take annotations off; one whose value is no longer the one given here stays."""

    values: tuple[tuple[str, str], ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The annotations' keys."""
        return tuple(key for key, _ in self.values)


class CheckBmc(NamedTuple):
    """Try this Secret version at this address; the outcome carries the power state."""

    version: str
    address: str


class ReadPower(NamedTuple):
    """Ask the BMC for the power state."""


class PowerOn(NamedTuple):
    """Switch on."""


class PowerOff(NamedTuple):
    """Switch off; ``soft`` asks the operating system first and cuts the power when it refuses."""

    soft: bool


class PowerCycle(NamedTuple):
    """Restart without being off; ``soft`` asks the operating system where the BMC can."""

    soft: bool


class NetworkBoot(NamedTuple):
    """Off, next boot from the network, on. With ``spec.disablePowerOff`` restarted instead."""

    nonce: str
    mode: BootMode | None


class SetDiskBoot(NamedTuple):
    """Next boot from disk; the power stays as it is."""

    mode: BootMode | None


class RestartFromDisk(NamedTuple):
    """Off, next boot from disk, on. With ``spec.disablePowerOff`` restarted instead."""

    mode: BootMode | None


class StartInspect(NamedTuple):
    """Give the agent the job."""

    job_id: str


class StartClean(NamedTuple):
    """Give the agent the job."""

    job_id: str
    protect_data: bool = False


class StartDeploy(NamedTuple):
    """Read the Secrets, make the config drive, give the agent the job."""

    job_id: str
    image: Image
    hints: RootDeviceHints | None
    clean: bool
    download: Download = Download()
    protect_data: bool = False


class StartHandOver(NamedTuple):
    """Give the agent the job."""

    job_id: str
    kexec: bool = False


class CancelJob(NamedTuple):
    """Stop a job that is no longer wanted."""

    job_id: str


class PutHardwareData(NamedTuple):
    """Write the HardwareData object of the same name."""

    hardware: dict[str, Any]


class SetArchitecture(NamedTuple):
    """Write ``spec.architecture`` where it is still empty."""

    architecture: str


class ForgetAgent(NamedTuple):
    """Drop the host's agent session."""


Effect = (
    AddFinalizer
    | RemoveFinalizer
    | RemoveAnnotations
    | CheckBmc
    | ReadPower
    | PowerOn
    | PowerOff
    | PowerCycle
    | NetworkBoot
    | SetDiskBoot
    | RestartFromDisk
    | StartInspect
    | StartClean
    | StartDeploy
    | StartHandOver
    | CancelJob
    | PutHardwareData
    | SetArchitecture
    | ForgetAgent
)


class Outcome(NamedTuple):
    """How the last effect ended: ``fault`` None is success; ``power`` where it was read.

    ``basis`` is that of the step which asked: an edit meanwhile makes the fault an old one.
    """

    effect: Effect
    fault: Fault | None = None
    power: PowerState | None = None
    basis: str = ""
