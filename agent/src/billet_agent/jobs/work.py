"""What each kind of job does."""

from billet_agent.jobs.clean import clean
from billet_agent.jobs.context import JobContext
from billet_agent.jobs.deploy import deploy
from billet_agent.jobs.kexec import hand_over
from billet_agent.jobs.registry import Result, Run
from billet_agent.machine import Machine
from billet_wire import Clean, Deploy, HandOver, Inspect, InspectResult, JobParams


def worker(machine: Machine) -> Run:
    """Return the function that does jobs on a machine."""
    written: str | None = None

    def run(params: JobParams, context: JobContext) -> Result:
        nonlocal written
        match params:
            case Inspect():
                return inspect(machine, context)
            case Clean():
                written = None
                return clean(machine, params, context)
            case Deploy():
                written = None
                result = deploy(machine, params, context)
                written = result.root_disk
                return result
            case HandOver():
                return hand_over(machine, params, written, context)

    return run


def inspect(machine: Machine, context: JobContext) -> InspectResult:
    """Read the inventory afresh, when udev is done with what it found."""
    with context.step("inspect"):
        machine.settle()
        return machine.inventory()
