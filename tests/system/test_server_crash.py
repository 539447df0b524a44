"""kill -9 of the server in every state: the host reaches its goal with no hand on it."""

import pytest

from server_rig import IMAGE, Machine, eventually

NAME = "metal3-node01"


@pytest.fixture
def box(request, machine) -> Machine:
    return machine(getattr(request, "param", "ipmi"))


redfish = pytest.mark.parametrize("box", ["redfish"], indirect=True)


async def to_ready(user, box):
    await user.register(box)
    await user.until_state("ready")


async def test_registering_and_inspecting(user, box, billet):
    box.switch("bmc_dead=on")
    await user.register(box)
    await user.until_state("registering")
    await billet.crash()
    box.switch("bmc_dead=off")
    post = box.hold("post")
    await user.until_state("inspecting")
    await eventually(lambda: box.show()["powered_on"])
    nonce = (await user.host())["status"]["boot"]["nonce"]
    await billet.crash()  # while the machine is in its firmware
    post.set()
    box.hold("inspect")
    await eventually(lambda: box.jobs("inspect"))
    await billet.crash()  # while the agent inspects
    box.release("inspect")
    host = await user.until_state("ready")
    assert host["status"]["hardware"]["nics"][0]["mac"] == box.mac
    assert len(box.jobs("inspect")) == 1
    assert len(box.agents) == 1, "the boot went on, it was not begun anew"
    assert any(nonce in script for script in box.scripts)


async def test_inspection_that_ends_while_the_server_is_down(user, box, billet):
    gate = box.hold("inspect")
    await user.register(box)
    await eventually(lambda: box.jobs("inspect"))
    billet.kill()
    gate.set()
    await eventually(lambda: next(iter(box.agent.jobs.values())).state == "succeeded")
    await billet.restart()
    await user.until_state("ready")
    assert len(box.jobs("inspect")) == 1


@redfish
async def test_ready(user, box, billet):
    await to_ready(user, box)
    await billet.crash()
    await user.until_off()
    billet.kill()
    assert not box.show()["powered_on"]
    await billet.restart()
    await user.provision()
    await user.until_state("provisioned")
    assert len(box.jobs("inspect")) == 1


@redfish
async def test_provisioning(user, box, billet):
    await to_ready(user, box)
    await user.until_off()
    post = box.hold("post")
    await user.provision()
    await eventually(lambda: box.show()["powered_on"])
    await billet.crash()  # before the deploy job
    post.set()
    gate = box.hold("deploy")
    await eventually(lambda: box.jobs("deploy"))
    await billet.crash()  # while the image is half written
    assert box.disk == "half"
    await eventually(box.agent.connected.is_set)
    billet.kill()
    gate.set()
    await eventually(lambda: box.disk == IMAGE)  # ends while the server is down
    hand_over = box.hold("hand-over")
    await billet.restart()
    await eventually(lambda: box.jobs("hand-over") or len(box.booted) == 1)
    billet.kill()  # while the machine is handed over
    hand_over.set()
    await billet.restart()
    host = await user.until_state("provisioned")
    assert host["status"]["provisioning"]["image"]["url"] == IMAGE
    assert len(box.jobs("deploy")) == 1, "the image was written once"
    await eventually(lambda: box.booted and set(box.booted) == {IMAGE})
    assert box.show()["powered_on"]


async def test_hand_over_that_nobody_saw(user, box, billet):
    """Killed right after the order: the goodbye is lost with the server."""
    await to_ready(user, box)
    gate = box.hold("hand-over")
    await user.provision()
    await eventually(lambda: box.jobs("hand-over"))
    await user.until(lambda host: (host["status"].get("boot") or {}).get("handedOverAt"))
    billet.kill()
    gate.set()
    await eventually(lambda: box.booted == [IMAGE])
    await billet.restart()
    await user.until_state("provisioned")
    assert box.booted == [IMAGE], "the running system was left in peace"
    assert len(box.jobs("deploy")) == 1


@redfish
async def test_hand_over_order_that_never_arrived(user, box, billet):
    """An agent that comes back without the order is told again, not believed to have left."""
    await to_ready(user, box)
    gate = box.hold("hand-over")
    await user.provision()
    await user.until(lambda host: (host["status"].get("boot") or {}).get("handedOverAt"))
    await eventually(lambda: box.jobs("hand-over"))
    billet.kill()
    agent = box.agent
    _, job_id = box.jobs("hand-over")[0]
    agent.drop(job_id)
    gate.set()
    await billet.restart()
    await user.until_state("provisioned")
    assert len(box.jobs("hand-over")) == 2
    await eventually(lambda: box.booted == [IMAGE])


async def test_provisioned_and_deprovisioning(user, box, billet):
    await to_ready(user, box)
    await user.provision()
    await user.until_state("provisioned")
    await eventually(lambda: box.booted == [IMAGE])
    await billet.crash()
    billet.kill()
    assert box.show()["powered_on"]
    assert box.booted == [IMAGE], "a restarted server leaves running systems in peace"
    await billet.restart()
    post = box.hold("post")
    await user.patch({"image": None})
    await user.until_state("deprovisioning")
    await eventually(lambda: len(box.show()["boots"]) > 3)
    await billet.crash()  # before the clean job
    gate = box.hold("clean")
    post.set()
    await eventually(lambda: box.jobs("clean"))
    await billet.crash()  # while the disks are wiped
    gate.set()
    await user.until_state("ready")
    assert len(box.jobs("clean")) == 1
    assert box.disk == "empty"


@redfish
async def test_deleting(user, box, billet):
    await to_ready(user, box)
    gate = box.hold("clean")
    await user.provision()
    await user.until_state("provisioned")
    await user.kubectl.run("delete", "baremetalhost", NAME, "--wait=false")
    await eventually(lambda: box.jobs("clean"))
    await billet.crash()
    box.switch("bmc_slow_s=0.3")
    gate.set()
    await user.until_state("powering off before delete")
    await billet.crash()
    box.switch("bmc_slow_s=0")
    await user.until_gone()
    assert not box.show()["powered_on"]
    assert box.disk == "empty"
    assert len(box.jobs("clean")) == 1
