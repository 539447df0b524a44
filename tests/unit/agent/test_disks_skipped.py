"""Disks nobody may write to: further paths of a multipath disk, members of a firmware RAID."""

from pathlib import Path

import pytest

from billet_agent.inventory.disks import read_disks
from billet_agent.inventory.sources import Sources
from billet_agent.plan.rootdisk import Choice, NoDisk, choose_root_disk

GIB_SECTORS = 2 << 20
WWN = {"ID_WWN": "0x5000c500", "ID_WWN_WITH_EXTENSION": "0x5000c500a1b2c3d4"}


def machine(root: Path, disks: dict[str, dict[str, str]], gib: int = 100) -> Sources:
    """A machine whose disks are all of one size, with these udev properties."""
    for name in disks:
        folder = root / "sys/block" / name
        folder.mkdir(parents=True)
        (folder / "size").write_text(f"{gib * GIB_SECTORS}\n")
    return Sources.recorded(root, udev={("block", name): have for name, have in disks.items()})


def skipped(sources: Sources) -> dict[str, str | None]:
    return {disk.name: disk.skip for disk in read_disks(sources)}


def test_the_first_path_of_a_multipath_disk_stands_for_it(tmp_path: Path) -> None:
    one, other = {**WWN, "ID_SERIAL_SHORT": "A1"}, {**WWN, "ID_SERIAL_SHORT": "B2"}
    sources = machine(tmp_path, {"sda": one, "sdb": one, "sdc": other, "sdd": {}, "sde": {}})
    assert skipped(sources) == {
        "/dev/sda": None,
        "/dev/sdb": "another path to /dev/sda (WWN 0x5000c500a1b2c3d4)",
        "/dev/sdc": None,
        "/dev/sdd": None,
        "/dev/sde": None,
    }
    choice = choose_root_disk(read_disks(sources))
    assert isinstance(choice, Choice)
    assert choice.disk.name == "/dev/sda"


@pytest.mark.parametrize("kind", ["isw", "ddf", "nvidia", "promise_fasttrack"])
def test_members_of_a_firmware_raid_are_left_alone(tmp_path: Path, kind: str) -> None:
    member = {"ID_FS_TYPE": f"{kind}_raid_member"}
    sources = machine(tmp_path, {"sda": member, "sdb": member})
    words = f"member of a firmware RAID ({kind})"
    assert skipped(sources) == {"/dev/sda": words, "/dev/sdb": words}
    none = choose_root_disk(read_disks(sources))
    assert isinstance(none, NoDisk)
    assert f"/dev/sda: {words}" in none.failure().problem.message


@pytest.mark.parametrize("kind", ["linux_raid_member", "LVM2_member", "ext4", "zfs_member"])
def test_what_an_earlier_system_left_is_old_data(tmp_path: Path, kind: str) -> None:
    assert skipped(machine(tmp_path, {"sda": {"ID_FS_TYPE": kind}})) == {"/dev/sda": None}
