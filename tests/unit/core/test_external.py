"""Hosts whose system is not ours, hosts without a BMC, and the way from and to them."""

import pytest

from billet_server.core import effects as ask
from billet_server.core.host import Bmc, CustomDeploy, Image
from billet_server.core.problems import Fault
from billet_server.core.seen import SecretSeen
from billet_server.core.states import State
from billet_server.core.terms import PowerState
from core_world import IMAGE, World, spec

OTHER = Image(url="http://172.22.0.1/images/b.qcow2", checksum="0" * 32)
EXTERNAL = {"externally_provisioned": True, "online": True}
HARMLESS = (ask.AddFinalizer, ask.CheckBmc, ask.ReadPower, ask.RemoveAnnotations)


def external(**changes) -> World:
    world = World(spec=spec(**EXTERNAL | changes), power=PowerState.ON)
    world.run(lambda: world.state is State.EXTERNALLY_PROVISIONED)
    world.run()
    return world


def touched(world: World) -> set[type]:
    return {type(effect) for effect in world.performed} - set(HARMLESS)


# externallyProvisioned


def test_from_the_beginning_only_the_power_is_read():
    world = external()
    assert world.states == ["", "registering", "externally provisioned"]
    assert touched(world) == set()
    assert world.status.powered_on is True
    assert world.status.operational_status == "OK"


def test_from_the_beginning_with_an_image_nothing_is_written():
    world = external(image=IMAGE)
    assert touched(world) == set()
    assert world.disk == "empty"
    assert world.status.provisioning.image is None


@pytest.mark.parametrize("online", [True, False])
def test_turned_on_at_rest_the_ramdisk_is_left_behind(online):
    world = World(spec=spec(online=online))
    world.run(lambda: world.state is State.READY)
    world.run()
    world.edit(**EXTERNAL)
    world.run()
    assert world.state is State.EXTERNALLY_PROVISIONED
    assert world.status.boot is None
    assert world.power is PowerState.ON
    assert ask.StartClean not in touched(world)


def test_its_power_follows_the_spec_softly():
    world = external()
    world.edit(**EXTERNAL | {"online": False})
    world.run()
    assert world.power is PowerState.OFF
    assert ask.PowerOff(soft=True) in world.performed
    world.edit(**EXTERNAL)
    world.run()
    assert world.power is PowerState.ON
    assert ask.NetworkBoot not in touched(world)


def test_taken_back_with_an_image_the_machine_counts_as_running_it():
    world = external()
    world.edit(online=True, image=IMAGE)
    world.run()
    assert world.state is State.PROVISIONED
    assert touched(world) == set()
    assert world.status.provisioning.image == IMAGE
    assert ("Normal", "NoLongerExternal") in world.events
    world.edit(online=True, image=OTHER)
    world.run(lambda: world.disk == OTHER.url and world.state is State.PROVISIONED)
    assert world.states[-4:] == ["deprovisioning", "ready", "provisioning", "provisioned"]


@pytest.mark.parametrize("image", [None, Image(url="", checksum="")])
def test_taken_back_without_an_image_it_is_deprovisioned(image):
    world = external()
    world.edit(online=True, image=image)
    world.run()
    assert world.states[-3:] == ["provisioned", "deprovisioning", "ready"]
    assert world.disk == "wiped"


def test_taken_back_without_cleaning_its_disks_are_kept():
    world = external(automated_cleaning_mode="disabled")
    world.disk = "theirs"
    world.edit(online=True, automated_cleaning_mode="disabled")
    world.run()
    assert world.state is State.READY
    assert world.disk == "theirs"


def test_deleted_it_is_switched_off_and_its_disk_is_kept():
    world = external()
    world.disk, world.deleting = "theirs", True
    world.run()
    assert world.gone
    assert world.disk == "theirs"
    assert world.power is PowerState.OFF
    assert world.states[-2:] == ["powering off before delete", "deleting"]


# no BMC


def test_a_host_without_a_bmc_is_discovered_and_can_be_deleted():
    world = World(spec=spec(bmc=Bmc()))
    world.run()
    assert world.state is State.UNMANAGED
    assert world.status.operational_status == "discovered"
    assert world.events == [("Normal", "Discovered")]
    assert world.status.waiting.actor == "user"
    world.deleting = True
    world.run()
    assert world.gone
    assert world.states == ["", "unmanaged", "deleting"]
    assert touched(world) == {ask.RemoveFinalizer}


@pytest.mark.parametrize(
    ("changes", "end"),
    [({}, State.READY), (EXTERNAL, State.EXTERNALLY_PROVISIONED)],
)
def test_given_a_bmc_later_it_goes_on(changes, end):
    world = World(spec=spec(bmc=Bmc()))
    world.run()
    world.edit(**changes)
    world.run()
    assert world.state is end
    assert world.status.operational_status == "OK"


@pytest.mark.parametrize("state", [State.READY, State.PROVISIONED, State.EXTERNALLY_PROVISIONED])
def test_a_managed_host_that_loses_its_bmc_is_left_as_it_is(state):
    wish = {
        State.READY: {"online": True},
        State.PROVISIONED: {"online": True, "image": IMAGE},
        State.EXTERNALLY_PROVISIONED: EXTERNAL,
    }[state]
    world = World(spec=spec(**wish))
    world.run(lambda: world.state is state)
    world.run()
    world.performed.clear()
    world.edit(**wish | {"bmc": Bmc()})
    world.run()
    assert world.state is state
    assert world.status.problem.id == "spec-invalid"
    assert world.performed == []
    world.edit(**wish)
    world.run()
    assert world.state is state
    assert world.status.problem is None
    assert touched(world) == set()


# the image


def provisioned(**changes) -> World:
    world = World(spec=spec(online=True, image=IMAGE, **changes), data_version="userData=7")
    world.run(lambda: world.state is State.PROVISIONED)
    world.run()
    world.performed.clear()
    return world


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"checksum": "f" * 64}, "spec.image.checksum"),
        ({"checksum_type": "sha256"}, "spec.image.checksumType"),
        ({"format": "raw"}, "spec.image.format"),
    ],
)
def test_only_another_url_writes_a_disk_anew_and_the_rest_is_said(change, field):
    world = provisioned()
    image = Image(**{"url": IMAGE.url, "checksum": IMAGE.checksum} | change)
    world.edit(online=True, image=image)
    world.run()
    assert world.state is State.PROVISIONED
    assert touched(world) == set()
    assert world.status.waiting.cause == "next-provisioning"
    assert field in world.status.waiting.message
    assert world.status.provisioning.image == IMAGE, "it says what the disk holds"
    world.edit(online=True, image=IMAGE)
    world.run()
    assert world.status.waiting is None


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("userData=8", "spec.userData"),
        ("userData=7,networkData=3", "spec.networkData"),
        ("", "spec.userData"),
        ("userData=-", None),
        ("userData=7", None),
    ],
)
def test_changed_secrets_of_the_config_drive_are_for_next_time(version, said):
    world = provisioned()
    assert world.status.provisioning.config_drive == "userData=7"
    world.data_version = version
    world.run()
    assert world.state is State.PROVISIONED
    assert touched(world) == set()
    waiting = world.status.waiting
    assert (waiting.message if waiting else None) is None or said in waiting.message
    assert (waiting is None) is (said is None)
    world.edit(online=True, image=OTHER)
    world.run(lambda: world.disk == OTHER.url and world.state is State.PROVISIONED)
    world.run()
    assert world.status.waiting is None
    assert world.status.provisioning.config_drive == version


def test_a_host_without_config_drive_says_nothing_when_one_is_possible():
    """What Metal3 wrote is not known: no guess."""
    world = provisioned()
    world.status.provisioning.config_drive = ""
    world.data_version = "userData=9"
    world.run()
    assert world.status.waiting is None


@pytest.mark.parametrize(
    ("wish", "state", "problem", "word"),
    [
        (
            {"image": Image(url="http://x/a.iso", format="live-iso")},
            State.PROVISIONING,
            "image-missing-checksum",
            "checksum",
        ),
        (
            {"image": Image(url="http://x/a.iso", checksum="0" * 32, format="live-iso")},
            State.PROVISIONING,
            "image-unsupported",
            "live-iso",
        ),
        (
            {"custom_deploy": CustomDeploy("install_coreos")},
            State.PREPARING,
            "preparation-unsupported",
            "install_coreos",
        ),
    ],
)
def test_what_billet_cannot_deploy_is_refused_by_name(wish, state, problem, word):
    world = World(spec=spec(online=True, **wish))
    world.run()
    assert world.state is state
    assert world.status.problem.id == problem
    assert word in world.status.problem.message
    assert world.status.waiting.actor == "user"
    assert not any(isinstance(effect, ask.StartDeploy) for effect in world.performed)
    world.edit(online=True)
    world.run()
    assert world.state is State.READY
    assert world.status.problem is None


# the Secret, in each state

WISHES = {
    State.INSPECTING: {},
    State.READY: {},
    State.PROVISIONING: {"online": True, "image": IMAGE},
    State.PROVISIONED: {"online": True, "image": IMAGE},
    State.EXTERNALLY_PROVISIONED: EXTERNAL,
    State.DEPROVISIONING: {"online": True},
}
ENDS = {State.INSPECTING: State.READY, State.PROVISIONING: State.PROVISIONED,
        State.DEPROVISIONING: State.READY}  # fmt: skip


def at(state: State) -> World:
    if state is State.DEPROVISIONING:
        world = provisioned()
        world.edit(**WISHES[state])
    else:
        world = World(spec=spec(**WISHES[state]))
    world.run(lambda: world.state is state)
    world.performed.clear()
    world.states.clear()
    return world


@pytest.mark.parametrize("state", WISHES)
@pytest.mark.parametrize("deed", ["changed", "malformed", "recreated"])
def test_the_bmcs_secret_may_change_and_go_in_every_state(state, deed):
    world = at(state)
    if deed == "changed":
        world.secret = SecretSeen("2")
    else:
        problem = "bmc-secret-malformed" if deed == "malformed" else "bmc-secret-missing"
        world.secret = SecretSeen("", Fault(problem, "metal3/node01: no good Secret"))
        for _ in range(5):
            world.once()
        assert world.state is state
        assert world.status.problem.id == problem
        assert world.status.error_type == "registration error"
        assert world.performed == []
        world.secret = SecretSeen("2")
    end = ENDS.get(state, state)
    world.run(
        lambda: world.state is end and world.status.good_credentials.credentials_version == "2"
    )
    world.run()
    assert world.status.problem is None
    assert isinstance(world.performed[0], ask.CheckBmc), "tried before anything is done with it"
    assert "registering" not in world.states
    if end is state:
        assert touched(world) <= {ask.PowerOff, ask.PowerOn, ask.ForgetAgent}


@pytest.mark.parametrize("state", WISHES)
def test_a_wrong_new_password_stops_the_work_and_not_the_machine(state):
    world = at(state)
    world.secret, world.bmc_fault = SecretSeen("2"), Fault("bmc-auth", "metal3/node01: refused")
    world.run(lambda: world.status.error_count >= 2, seconds=10**6)
    assert world.state is state
    assert world.status.good_credentials.credentials_version == "1"
    assert world.status.tried_credentials.credentials_version == "2"
    assert {type(effect) for effect in world.performed} == {ask.CheckBmc}
    world.secret, world.bmc_fault = SecretSeen("1"), None
    world.run(lambda: world.state is ENDS.get(state, state) and world.status.problem is None)
