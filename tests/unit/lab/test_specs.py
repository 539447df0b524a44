import msgspec
import pytest

from billet_lab.specs import (
    Disk,
    LabState,
    MachineSpec,
    SpecError,
    bmc_address,
    bmc_port,
    number_machines,
    parse_disk,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("4096", 4096), ("1K", 1024), ("512MiB", 512 << 20), ("8g", 8 << 30), ("2 TB", 2 << 40)],
)
def test_sizes_are_powers_of_1024(text, size_bytes):
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "8X", "-8G", "8.5G", "G"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(SpecError, match="not a size"):
        parse_size(text)


def test_disks_have_a_size_and_a_bus():
    assert parse_disk("8G") == Disk(size_bytes=8 << 30, bus="virtio")
    assert parse_disk("20G:nvme") == Disk(size_bytes=20 << 30, bus="nvme")


@pytest.mark.parametrize(
    ("text", "words"), [("8G:floppy", "virtio, scsi"), ("0", "at least 1M"), ("2000001", "sectors")]
)
def test_disks_nobody_can_build_are_refused(text, words):
    with pytest.raises(SpecError, match=words):
        parse_disk(text)


def test_numbering_is_stable_and_distinct():
    machines = (MachineSpec(name="a"), MachineSpec(name="b", mac="52:54:00:AA:00:01"))
    first, second = number_machines(machines)
    assert number_machines(machines) == (first, second)
    assert first.mac == "00:c2:fc:3b:e1:01"
    assert second.mac == "52:54:00:aa:00:01"
    assert first.uuid != second.uuid
    assert [disk.serial for disk in first.disks] == ["a-0"]


def test_serials_fit_into_virtio_blk():
    (machine,) = number_machines((MachineSpec(name="a-very-long-name-for-a-machine"),))
    assert len(machine.disks[0].serial) <= 20


@pytest.mark.parametrize(
    ("machines", "words"),
    [
        ((), "1 to 64"),
        ((MachineSpec(name="Not A Name"),), "no machine name"),
        ((MachineSpec(name="../up"),), "no machine name"),
        ((MachineSpec(name="a"), MachineSpec(name="a")), "same name"),
        ((MachineSpec(name="a", mac="0:1"), MachineSpec(name="b", mac="0:1")), "same MAC"),
    ],
)
def test_machines_that_cannot_live_together_are_refused(machines, words):
    with pytest.raises(SpecError, match=words):
        number_machines(machines)


def test_bmc_addresses():
    ipmi, redfish = MachineSpec(name="a"), MachineSpec(name="b", bmc="redfish", uuid="u-1")
    assert bmc_address(ipmi, "172.22.0.1", bmc_port(ipmi, 0)) == "ipmi://172.22.0.1:6230"
    assert (
        bmc_address(redfish, "172.22.0.1", bmc_port(redfish, 1))
        == "redfish+http://172.22.0.1:8001/redfish/v1/Systems/b"
    )


def test_state_survives_json():
    state = LabState(
        lab_id="x", namespace="billet-x", directory="/d", run_dir="/r", processes=((1, 2),)
    )
    assert msgspec.json.decode(msgspec.json.encode(state), type=LabState) == state
