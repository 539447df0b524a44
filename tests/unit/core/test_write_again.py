"""An image that was written and then written over is not taken for the one on the disk."""

from billet_server.core.host import Image
from billet_server.core.states import State
from core_world import IMAGE, World, spec

OTHER = Image("http://172.22.0.1/images/b.qcow2", "0" * 32)


def test_an_edit_there_and_back_writes_again():
    world = World(spec=spec(online=True, image=IMAGE))
    world.run(lambda: world.disk == IMAGE.url)
    # Written and proved, but before the server acts on it people change their minds, twice.
    world.edit(online=True, image=OTHER)
    world.run(lambda: world.disk == f"part of {OTHER.url}")
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONED)
    assert world.disk == IMAGE.url
    assert world.status.provisioning.image == IMAGE
