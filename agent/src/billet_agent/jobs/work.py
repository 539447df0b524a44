"""What each kind of job does."""

from billet_agent.jobs.clean import clean
from billet_agent.jobs.context import JobContext
from billet_agent.jobs.deploy import deploy
from billet_agent.jobs.registry import Result, Run
from billet_agent.machine import Machine
from billet_wire import Clean, Deploy, HandOver, Inspect, InspectResult, JobParams


def worker(machine: Machine) -> Run:
    """Return the function that does jobs on a machine."""

    def run(params: JobParams, context: JobContext) -> Result:
        match params:
            case Inspect():
                return inspect(machine, context)
            case Clean():
                return clean(machine, params, context)
            case Deploy():
                return deploy(machine, params, context)
            case HandOver():
                # The agent leaves when it sees this job succeed; see billet_agent.agent.
                context.begin("hand-over", params.action)
                return None

    return run


def inspect(machine: Machine, context: JobContext) -> InspectResult:
    """Read the inventory afresh, when udev is done with what it found."""
    with context.step("inspect"):
        machine.settle()
        return machine.inventory()
