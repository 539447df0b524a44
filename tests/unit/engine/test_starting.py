"""What a controller answers before its caches are filled, and what it never puts off."""

from billet_server.core.bootplan import AskAgain
from billet_server.core.effects import AddFinalizer, PowerOn, ReadPower
from billet_server.core.host import Status
from billet_server.core.terms import HostKey
from billet_server.core.turn import Step
from billet_server.engine.memo import Memo
from core_world import MAC
from engine_rig import NAME, NS, Rig


async def test_before_the_caches_are_filled_no_machine_is_sent_to_its_disk():
    assert isinstance(Rig().directory.boot_plan(MAC), AskAgain)


async def test_an_effect_is_never_put_off_as_mere_progress():
    """Effects without fields are empty tuples, which are false."""
    rig = Rig()
    memo = Memo(last_write_s=rig.clock.monotonic())
    patch = {"waiting": {"cause": "bmc"}}
    for effect in (ReadPower(), PowerOn(), AddFinalizer()):
        step = Step(Status(), effect, (), None)
        assert not rig.controller._too_soon(HostKey(NS, NAME), memo, patch, step)
    rest = Step(Status(), None, (), None)
    assert rig.controller._too_soon(HostKey(NS, NAME), memo, patch, rest)
    rig.controller.queue.close()
