"""What a controller answers before its caches are filled, and what it never puts off."""

from billet_server.core.bootplan import AskAgain
from billet_server.core.effects import AddFinalizer, PowerOn, ReadPower
from billet_server.core.host import Host, Spec, Status
from billet_server.core.terms import HostKey
from billet_server.core.turn import Step
from billet_server.engine.controller import Controller
from billet_server.engine.memo import Memo
from billet_server.ports import BARE_METAL_HOST
from core_world import MAC
from engine_rig import NAME, NS, Rig, running_rig


async def test_before_the_caches_are_filled_no_machine_is_sent_to_its_disk():
    assert isinstance(Rig().directory.boot_plan(MAC), AskAgain)


async def test_an_effect_is_never_put_off_as_mere_progress():
    """Effects without fields are empty tuples, which are false."""
    rig = Rig()
    host = Host(HostKey(NS, NAME), "uid", 1, "1", Spec(), Status())
    memo = Memo(last_write_s=rig.clock.monotonic())
    patch = {"waiting": {"cause": "bmc"}}
    for effect in (ReadPower(), PowerOn(), AddFinalizer()):
        step = Step(Status(), effect, (), None)
        assert not rig.controller._too_soon(host, memo, patch, step)
    rest = Step(Status(), None, (), None)
    assert rig.controller._too_soon(host, memo, patch, rest)
    rig.controller.queue.close()


async def test_hosts_of_other_namespaces_are_not_read_when_some_are_named():
    def narrow(rig):
        rig.api.put_namespace("lab")
        rig.controller = Controller(
            rig.api, rig.bmcs, rig.agents, rig.clock, workers=4, namespaces=["lab"]
        )

    async with running_rig(prepare=narrow) as rig:
        elsewhere = await rig.host()
        await rig.clock.advance(30)
        assert await rig.host() == elsewhere, "not even a finalizer"
        mine = {**elsewhere, "metadata": {"name": NAME, "namespace": "lab"}}
        await rig.api.create(BARE_METAL_HOST, mine)
        await rig.clock.advance(30)
        made = await rig.api.get(BARE_METAL_HOST, "lab", NAME)
        assert made["status"]["provisioning"]["state"] == "registering"
        assert len(rig.controller.hosts) == 1
