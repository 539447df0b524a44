"""Inspection on demand, without, and told by a person."""

import json

import pytest

from billet_server.core import effects as ask
from billet_server.core.annotations import HARDWARE_DETAILS, INSPECT
from billet_server.core.details import read_details
from billet_server.core.hardware import render_hardware
from billet_server.core.host import Bmc
from billet_server.core.problems import Fault
from billet_server.core.states import State
from billet_server.core.terms import PowerState
from core_world import IMAGE, INVENTORY, World, spec

DETAILS = {
    "systemVendor": {"manufacturer": "Acme", "productName": "Anvil 9", "serialNumber": "A-1"},
    "firmware": {"bios": {"date": "2024-02-29", "vendor": "Acme", "version": "1.2"}},
    "ramMebibytes": 65536,
    "hostname": "anvil-1",
    "cpu": {
        "arch": "x86_64",
        "model": "Z9",
        "clockMegahertz": 2400.5,
        "flags": ["sse"],
        "count": 8,
    },
    "nics": [
        {
            "name": "eth0",
            "model": "0x8086 0x1572",
            "mac": "00:c2:fc:3b:e1:01",
            "ip": "172.22.0.50",
            "speedGbps": 25,
            "vlans": [{"id": 7, "name": "storage"}],
            "vlanId": 1,
            "pxe": True,
            "lldp": {"switchID": "aa:bb", "portID": "Eth1/1", "switchSystemName": "leaf1"},
            "pciAddress": "0000:3b:00.0",
        }
    ],
    "storage": [
        {
            "name": "/dev/disk/by-path/pci-0000:00:1f.2-ata-1",
            "alternateNames": ["/dev/sda"],
            "rotational": False,
            "type": "NVME",
            "sizeBytes": 2**41,
            "vendor": "Disk & Co",
            "model": "M",
            "serialNumber": "S",
            "wwn": "0x5",
            "wwnVendorExtension": "0x6",
            "wwnWithExtension": "0x56",
            "hctl": "0:0:0:0",
        }
    ],
}


def ready(**changes) -> World:
    world = World(spec=spec(**changes))
    world.run(lambda: world.state is State.READY)
    world.run()
    return world


def inspections(world: World) -> list[str]:
    return [effect.job_id for effect in world.performed if isinstance(effect, ask.StartInspect)]


def told(details: object = None, **changes) -> World:
    text = json.dumps(DETAILS if details is None else details)
    changes = {"inspection_mode": "disabled"} | changes
    return World(spec=spec(**changes), annotations={HARDWARE_DETAILS: text})


# again


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("value", ["", "yes"])
def test_the_annotation_inspects_a_ready_host_again_and_goes_once_it_has_begun(online, value):
    world = ready(online=online)
    before = world.status.operation_history.inspect
    world.status.hardware = {"hostname": "of last year"}
    world.annotations[INSPECT] = value
    world.once()
    assert world.state is State.INSPECTING
    world.once()
    assert INSPECT not in world.annotations
    assert inspections(world) == inspections(world)[:1], "the annotation goes before the work"
    world.run(lambda: world.state is State.READY)
    assert world.states[-3:] == ["inspecting", "preparing", "ready"]
    assert world.status.hardware["hostname"] == INVENTORY.hostname
    assert len(set(inspections(world))) == 2
    assert world.status.operation_history.inspect.start > before.start
    world.run()
    assert world.power is (PowerState.ON if online else PowerState.OFF)


def test_a_crash_before_the_annotation_went_inspects_once():
    world = ready()
    world.annotations[INSPECT] = ""
    world.once()
    world.restart_server()
    world.once()
    world.restart_server()
    world.run(lambda: world.state is State.READY)
    world.run()
    assert world.states.count("inspecting") == 2
    assert INSPECT not in world.annotations


def test_it_waits_until_the_host_is_at_rest():
    world = World(spec=spec(online=True, image=IMAGE))
    world.run(lambda: world.state is State.PROVISIONED)
    world.annotations[INSPECT] = ""
    world.run()
    assert world.state is State.PROVISIONED
    assert INSPECT in world.annotations
    world.edit(online=True)
    world.run(lambda: INSPECT not in world.annotations)
    world.run()
    assert world.states[-4:] == ["ready", "inspecting", "preparing", "ready"]


def test_set_while_inspecting_it_is_served_by_that_inspection():
    world = World(annotations={INSPECT: ""})
    world.run()
    assert INSPECT not in world.annotations
    assert world.states.count("inspecting") == 1


def test_a_failed_inspection_is_tried_again_without_the_annotation():
    world = ready()
    world.annotations[INSPECT] = ""
    world.netboots = False
    world.run(lambda: world.status.problem is not None)
    assert world.status.error_type == "inspection error"
    assert world.status.hardware is not None, "what was known stays known"
    world.netboots = True
    world.run()
    assert world.state is State.READY
    assert world.status.error_count == 0


def test_against_the_spec_it_is_dropped_with_a_word():
    world = ready(inspection_mode="disabled")
    world.annotations[INSPECT] = ""
    world.run()
    assert world.state is State.READY
    assert world.states.count("inspecting") == 0
    assert INSPECT not in world.annotations
    assert world.events.count(("Warning", "InvalidAnnotationValue")) == 1


# without


def test_disabled_by_annotation_where_the_spec_is_silent():
    world = World(annotations={INSPECT: "disabled"})
    world.run()
    assert "inspecting" not in world.states
    assert world.annotations == {INSPECT: "disabled"}
    assert ("Normal", "InspectionSkipped") in world.events
    assert world.status.hardware is None


def test_the_spec_wins_over_the_annotation():
    world = World(spec=spec(inspection_mode="agent"), annotations={INSPECT: "disabled"})
    world.run()
    assert "inspecting" in world.states
    assert world.annotations == {INSPECT: "disabled"}


def test_disabling_ends_an_inspection_under_way():
    world = World()
    world.job_steps = 10**6
    world.run(lambda: bool(inspections(world)))
    world.once()
    world.edit(inspection_mode="disabled")
    world.run()
    assert world.state is State.READY
    assert any(isinstance(effect, ask.CancelJob) for effect in world.performed)
    assert world.status.hardware is None
    assert world.power is PowerState.OFF


def test_disabling_heals_a_machine_that_cannot_be_inspected():
    world = World(netboots=False)
    world.run(lambda: world.status.error_count >= 2, seconds=10**6)
    world.edit(inspection_mode="disabled")
    world.run()
    assert world.state is State.READY
    assert world.status.problem is None


def test_fast_is_done_by_the_ramdisk_and_says_so():
    world = World(spec=spec(inspection_mode="fast"))
    notes = []
    while world.state is not State.INSPECTING:
        notes += world.once().events
    (started,) = [note for note in notes if note.reason == "InspectionStarted"]
    assert "fast" in started.message
    assert "ramdisk" in started.message
    world.run()
    assert world.status.hardware is not None


# told


@pytest.mark.parametrize("by", ["spec", "annotation"])
def test_hardware_told_by_annotation_is_taken_and_the_annotation_goes(by):
    world = told()
    if by == "annotation":
        world.spec = spec()
        world.annotations[INSPECT] = "disabled"
    world.run()
    assert world.state is State.READY
    assert world.status.hardware == DETAILS
    assert HARDWARE_DETAILS not in world.annotations
    (put,) = [effect for effect in world.performed if isinstance(effect, ask.PutHardwareData)]
    assert put.hardware == DETAILS
    assert world.events.count(("Normal", "UpdateHardwareDetails")) == 1
    assert inspections(world) == []


@pytest.mark.parametrize("goal", [State.READY, State.PROVISIONED, State.EXTERNALLY_PROVISIONED])
def test_it_is_taken_at_rest_too_and_touches_no_machine(goal):
    wish = {"inspection_mode": "disabled", "online": True}
    if goal is State.PROVISIONED:
        wish["image"] = IMAGE
    wish["externally_provisioned"] = goal is State.EXTERNALLY_PROVISIONED
    world = World(spec=spec(**wish))
    world.run(lambda: world.state is goal)
    world.run()
    world.performed.clear()
    world.annotations[HARDWARE_DETAILS] = json.dumps(DETAILS)
    world.run()
    assert world.status.hardware == DETAILS
    assert world.state is goal
    kinds = {type(effect) for effect in world.performed}
    assert kinds <= {ask.PutHardwareData, ask.RemoveAnnotations, ask.ReadPower}


def test_a_host_without_a_bmc_takes_it():
    world = told(bmc=Bmc())
    world.run()
    assert world.state is State.UNMANAGED
    assert world.status.hardware == DETAILS


def test_what_inspection_writes_can_be_told():
    hardware = render_hardware(INVENTORY)
    assert read_details(json.dumps(hardware)) == hardware


def test_what_go_writes_for_nothing_is_nothing():
    raw = {"nics": None, "cpu": {"flags": None, "arch": "x86_64"}, "storage": [], "firmware": {}}
    expected = {"cpu": {"arch": "x86_64"}, "storage": [], "firmware": {}}
    assert read_details(json.dumps(raw)) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "JSON"),
        ("null", "object"),
        ("[]", "object"),
        ('{"ramGiB": 4}', "ramGiB"),
        ('{"cpu": {"cores": 4}}', "cores"),
        ('{"nics": [{"name": "eth0", "network": "x"}]}', "network"),
        ('{"storage": [{"type": "TAPE"}]}', "TAPE"),
        ('{"ramMebibytes": "4"}', "ramMebibytes"),
        ('{"storage": [{"sizeBytes": 9223372036854775808}]}', "sizeBytes"),
        ('{"nics": [{"vlanId": 4095}]}', "vlanId"),
        ("[" * 50_000, "JSON"),
    ],
    ids=range(11),
)
def test_what_cannot_be_taken_is_named_and_kept(text, said):
    world = told()
    world.annotations[HARDWARE_DETAILS] = text
    world.run()
    for _ in range(3):
        world.once()
    assert world.annotations[HARDWARE_DETAILS] == text
    assert world.status.problem.id == "hardware-details"
    assert world.status.error_type == "inspection error"
    assert said in world.status.problem.message
    assert world.status.hardware is None
    assert world.status.error_count == 1
    assert world.status.waiting.actor == "user"
    world.annotations[HARDWARE_DETAILS] = json.dumps(DETAILS)
    world.run()
    assert world.status.hardware == DETAILS
    assert world.status.problem is None


def test_it_is_not_taken_where_the_host_is_inspected():
    world = told(inspection_mode=None)
    world.run()
    assert "disabled" in world.status.problem.message
    assert inspections(world) == []
    del world.annotations[HARDWARE_DETAILS]
    world.run()
    assert world.state is State.READY
    assert world.status.hardware["hostname"] == INVENTORY.hostname


def test_an_api_that_refuses_the_object_is_tried_again_in_its_time():
    world = told()
    refusal = Fault("inventory-refused", "metal3/node01: the API did not take the object")
    world.refusals = 2
    world.refusal = refusal
    world.run(lambda: world.status.problem is not None)
    assert world.status.problem.next_retry_at is not None
    assert HARDWARE_DETAILS in world.annotations
    world.run()
    assert world.status.hardware == DETAILS
    assert world.status.problem is None


def test_an_unusable_annotation_does_not_keep_an_object():
    world = told()
    world.annotations[HARDWARE_DETAILS] = "{"
    world.run()
    world.deleting = True
    world.run()
    assert world.gone
