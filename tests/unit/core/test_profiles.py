"""Hardware profiles, and what inspection writes into the spec."""

import pytest

from billet_server.core import effects as ask
from billet_server.core.host import Bmc, SecretReference
from billet_server.core.profiles import hints_of, profile_of
from billet_server.core.states import State
from billet_wire import RootDeviceHints
from core_world import IMAGE, World, spec

LIBVIRT = Bmc("libvirt://172.22.0.1:6230", "node01-bmc")


@pytest.mark.parametrize(
    ("changes", "name", "hint"),
    [
        ({}, "unknown", None),
        ({"bmc": LIBVIRT}, "libvirt", RootDeviceHints(device_name="/dev/vda")),
        ({"bmc": LIBVIRT, "hardware_profile": "empty"}, "empty", None),
        ({"hardware_profile": "unknown"}, "unknown", None),
        ({"hardware_profile": "libvirt"}, "libvirt", RootDeviceHints(device_name="/dev/vda")),
        ({"hardware_profile": "openstack"}, "openstack", RootDeviceHints(device_name="/dev/vdb")),
        ({"hardware_profile": "dell"}, "dell", RootDeviceHints(hctl="0:0:0:0")),
        ({"hardware_profile": "dell-raid"}, "dell-raid", RootDeviceHints(hctl="0:2:0:0")),
        ({"hardware_profile": "acme"}, "acme", None),
    ],
)
def test_a_profile_is_a_name_and_a_root_disk(changes, name, hint):
    wanted = spec(**changes)
    assert profile_of(wanted) == name
    assert hints_of(wanted) == hint
    own = RootDeviceHints(model="X")
    assert hints_of(spec(**changes, root_device_hints=own)) == own
    world = World(spec=spec(**changes, online=True, image=IMAGE))
    world.run(lambda: world.state is State.PROVISIONED)
    assert world.status.hardware_profile == name
    assert world.events.count(("Normal", "ProfileSet")) == 1
    (deploy,) = [effect for effect in world.performed if isinstance(effect, ask.StartDeploy)]
    assert deploy.hints == hint
    assert world.status.provisioning.root_device_hints == hint


def test_another_profile_is_told_at_rest():
    world = World()
    world.run(lambda: world.state is State.READY)
    world.edit(hardware_profile="dell")
    world.run()
    assert world.status.hardware_profile == "dell"
    assert world.events.count(("Normal", "ProfileSet")) == 2
    assert world.states.count("preparing") == 1


def test_the_architecture_is_filled_in_once():
    world = World()
    world.run()
    assert world.spec.architecture == "x86_64"
    assert world.performed.count(ask.SetArchitecture("x86_64")) == 1


@pytest.mark.parametrize("given", ["x86_64", "amd64"])
def test_what_is_given_is_kept(given):
    world = World(spec=spec(architecture=given))
    world.run()
    assert world.state is State.READY
    assert world.spec.architecture == given
    assert not any(isinstance(effect, ask.SetArchitecture) for effect in world.performed)


@pytest.mark.parametrize("hardware", [None, {}, {"cpu": {}}, {"cpu": {"arch": "a b"}}, {"cpu": 7}])
def test_what_is_not_known_is_not_written(hardware):
    world = World(spec=spec(inspection_mode="disabled"))
    world.status.hardware = hardware
    world.run()
    assert world.state is State.READY
    assert world.spec.architecture == ""


def test_a_lost_outcome_of_the_writing_is_no_loop():
    world = World()
    world.run(lambda: any(isinstance(effect, ask.SetArchitecture) for effect in world.performed))
    world.restart_server()
    world.run()
    assert world.state is State.READY
    assert world.performed.count(ask.SetArchitecture("x86_64")) == 1


def test_another_architecture_is_not_booted_into_the_ramdisk():
    world = World(spec=spec(architecture="aarch64"))
    world.run()
    assert world.status.problem.id == "architecture-unsupported"
    assert "aarch64" in world.status.error_message
    assert not any(isinstance(effect, ask.NetworkBoot) for effect in world.performed)
    world.edit(architecture="x86_64")
    world.run()
    assert world.state is State.READY


def test_it_may_be_looked_after_as_external():
    world = World(spec=spec(architecture="aarch64", externally_provisioned=True, online=True))
    world.run()
    assert world.state is State.EXTERNALLY_PROVISIONED
    assert world.status.problem is None


@pytest.mark.parametrize("mac", ["", "00:c2:fc:3b:e1:01"])
def test_a_host_without_a_mac_rests_where_no_ramdisk_is_needed(mac):
    world = World(spec=spec(inspection_mode="disabled", boot_mac_address=mac))
    world.run()
    assert world.state is State.READY


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, None),
        ({"preprovisioning_network_data_name": "ramdisk"}, "ramdisk"),
        ({"network_data": SecretReference("image")}, "image"),
        (
            {
                "network_data": SecretReference("image"),
                "preprovisioning_network_data_name": "ramdisk",
            },
            "image",
        ),
        (
            {"network_data": SecretReference(""), "preprovisioning_network_data_name": "ramdisk"},
            "ramdisk",
        ),
    ],
)
def test_the_images_network_data_falls_back_to_the_ramdisks(changes, name):
    reference = spec(**changes).image_network_data
    assert (reference.name if reference else None) == name
