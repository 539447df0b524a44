"""Events by Metal3's names: who watches for one of them sees it when it means the same."""

import pytest

from billet_server.core.annotations import DETACHED, HARDWARE_DETAILS, REBOOT, STATUS
from billet_server.core.host import Bmc
from billet_server.core.problems import Fault
from billet_server.core.seen import SecretSeen
from billet_server.core.states import State
from billet_wire import JobProblem
from core_world import IMAGE, World, spec

NO_ANSWER = Fault("bmc-rejected", "metal3/node01: no")


def lived(until: State, **given) -> World:
    world = World(**given)
    world.run(lambda: world.state is until)
    return world


def told(world: World) -> set[str]:
    return {reason for kind, reason in world.events if kind == "Normal"}


def warned(world: World) -> set[str]:
    return {reason for kind, reason in world.events if kind == "Warning"}


def test_a_whole_life_tells_metal3s_milestones_in_their_order():
    world = lived(State.READY)
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONED)
    world.edit(online=True)
    world.run(lambda: world.state is State.READY)
    ours = {"NetworkBootStarted", "AgentConnected", "ImageWritten"}
    reasons = [reason for kind, reason in world.events if kind == "Normal" and reason not in ours]
    assert [reason for reason in reasons if not reason.startswith("Power")] == [
        *("BMCAccessValidated", "Registered", "InspectionStarted", "InspectionComplete"),
        *("ProfileSet", "ProvisioningStarted", "ProvisioningComplete"),
        *("DeprovisioningStarted", "DeprovisioningComplete"),
    ]


def test_power_that_follows_online():
    world = lived(State.READY)
    world.run()
    world.events.clear()
    world.edit(online=True)
    world.run()
    world.edit(online=False)
    world.run()
    assert world.events == [("Normal", "PowerOn"), ("Normal", "PowerOff")]


def test_a_host_without_a_bmc():
    world = World(spec=spec(bmc=Bmc()))
    world.run()
    assert told(world) == {"Discovered"}


def test_an_inspection_that_is_not_wanted():
    assert "InspectionSkipped" in told(lived(State.READY, spec=spec(inspection_mode="disabled")))


@pytest.mark.parametrize("problem", ["bmc-secret-missing", "bmc-secret-malformed"])
def test_a_secret_that_cannot_be_used(problem):
    world = World(secret=SecretSeen("", Fault(problem, "no Secret")))
    world.run(lambda: world.status.problem is not None)
    assert warned(world) == {"BMCCredentialError"}
    assert world.status.error_type == "registration error"
    world.secret = SecretSeen("1")
    world.run(lambda: "BMCAccessValidated" in told(world))


def test_other_credentials_in_the_same_secret():
    world = lived(State.READY)
    world.run()
    world.events.clear()
    world.secret = SecretSeen("2")
    world.run(lambda: world.status.good_credentials.credentials_version == "2")
    assert world.events == [("Normal", "BMCAccessValidated")]


def test_a_bmc_that_refuses():
    world = World(bmc_fault=NO_ANSWER)
    world.run(lambda: world.status.problem is not None)
    assert warned(world) == {"RegistrationError"}


def test_a_machine_that_cannot_be_inspected():
    world = World(netboots=False)
    world.run(lambda: world.status.problem is not None)
    assert warned(world) == {"InspectionError"}


def test_an_image_that_cannot_be_written():
    world = lived(State.READY)
    world.job_fault = JobProblem("image-checksum", "another digest")
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.status.problem is not None)
    assert warned(world) == {"ProvisioningError"}


def test_a_wish_that_cannot_be_prepared():
    world = World(spec=spec(raid={"hardwareRAIDVolumes": [{"level": "1"}]}))
    world.run(lambda: world.status.problem is not None)
    assert warned(world) == {"PreparationError"}


def test_power_that_cannot_be_switched():
    world = lived(State.READY)
    world.run()
    world.bmc_fault = NO_ANSWER
    world.edit(online=True)
    world.run(lambda: world.status.problem is not None)
    assert warned(world) == {"PowerManagementError"}


def test_annotations_that_had_their_effect_or_cannot_have_one():
    world = lived(State.READY, spec=spec(inspection_mode="disabled"))
    world.annotate(HARDWARE_DETAILS, '{"hostname": "anvil"}')
    world.annotate(STATUS, "{}")
    world.run(lambda: HARDWARE_DETAILS not in world.annotations)
    world.annotate(DETACHED, '{"deleteAction": "never"}')
    world.run(lambda: "Detached" in told(world))
    assert {"UpdateHardwareDetails", "RemoveAnnotation"} <= told(world)
    assert warned(world) == {"InvalidAnnotationValue"}


def test_one_reboot():
    world = lived(State.READY)
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONED)
    world.run()
    world.events.clear()
    world.annotate(REBOOT)
    world.run(lambda: REBOOT not in world.annotations)
    world.run()
    assert world.events == [("Normal", "PowerOff"), ("Normal", "PowerOn")]
