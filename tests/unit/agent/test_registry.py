"""What the agent says of its jobs is what is true of the machine now."""

import asyncio

from billet_agent.jobs.registry import Registry
from billet_wire import Clean, CleanResult, Deploy, DeployResult, ImageSource, Inspect, Job

IMAGE = Deploy(ImageSource("http://x/a.qcow2", "0" * 32))
WRITTEN = DeployResult("/dev/vda", "the only disk", 1, 2, "md5:0", "legacy", None, {})


def work(params, context):
    del context
    return WRITTEN if isinstance(params, Deploy) else CleanResult((), ())


async def done(registry: Registry, job: Job) -> None:
    registry.start(job)
    while {report.id: report.state for report in registry.reports}[job.id] == "running":
        await asyncio.sleep(0.01)


async def test_a_job_whose_work_was_undone_is_done_again_when_it_is_wanted_again():
    ran = []

    def counting(params, context):
        ran.append(params)
        return work(params, context)

    registry = Registry(counting, lambda report: None)
    for job in (Job("a", IMAGE), Job("b", IMAGE), Job("a", IMAGE), Job("a", IMAGE)):
        await done(registry, job)
    assert [report.id for report in registry.reports] == ["a"]
    assert len(ran) == 3  # the fourth order is the third one's


async def test_a_wiped_disk_holds_no_image_and_the_inventory_stays():
    registry = Registry(work, lambda report: None)
    for job in (Job("seen", Inspect()), Job("written", IMAGE), Job("wiped", Clean())):
        await done(registry, job)
    assert [report.id for report in registry.reports] == ["seen", "wiped"]
