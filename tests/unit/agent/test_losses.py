"""What a wipe takes away, and the refusal to wipe it."""

import json
from pathlib import Path

import pytest

from agent_rig import MIB, Recorder, disk_report, file_machine, make_disk, run
from billet_agent.jobs.clean import clean
from billet_agent.plan.losses import SHOWN, Loss, describe, parse_wipefs, protected
from billet_agent.problems import JobFailed
from billet_agent.tools import Completed, MemoryTools
from billet_wire import Clean

NODE = "/dev/vda1"


def printed(*rows: dict[str, str | None]) -> str:
    return json.dumps({"signatures": rows})


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("", []),
        (printed(), []),
        (printed({"type": "gpt", "label": None}, {"type": "PMBR", "label": None}), []),
        (printed({"type": "dos"}), []),
        (printed({"type": "ext4", "label": "root"}), ["ext4 'root'"]),
        (printed({"type": "LVM2_member", "label": None}), ["LVM2_member"]),
        (printed({"type": "zfs_member"}, {"type": "zfs_member"}), ["zfs_member"]),
        (printed({"type": "gpt"}, {"type": "ceph_bluestore"}), ["ceph_bluestore"]),
        (printed({"type": None}), ["unknown"]),
        (printed({"type": "swap", "label": "a\x1b[31m\nb"}), ["swap 'a[31mb'"]),
    ],
)
def test_signatures(text: str, kinds: list[str]) -> None:
    found = [str(loss) for loss in parse_wipefs(text, NODE, 5 << 30)]
    assert found == [f"{NODE}: {kind}, 5.00 GiB (5368709120 B)" for kind in kinds]


@pytest.mark.parametrize("text", ["{", "[]", '{"signatures": 7}', '{"signatures": [1]}', "{}"])
def test_what_wipefs_never_prints(text: str) -> None:
    with pytest.raises(ValueError):
        parse_wipefs(text, NODE, 0)


def test_many_are_counted() -> None:
    losses = [Loss(f"/dev/sd{number}", "ext4", "", 512) for number in range(SHOWN + 3)]
    assert describe(losses).endswith("; and 3 more")
    refusal = protected(losses)
    assert refusal is not None
    assert refusal.problem.problem == "data-protected"
    assert "billet.dev/protect-data" in refusal.problem.advice
    assert refusal.problem.evidence.count("\n") == SHOWN + 2
    assert protected([]) is None


def test_a_protected_file_system_stays(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "vda", 16, fill=False)
    other = make_disk(tmp_path / "vdb", 4)
    run("mkfs.ext4", "-q", "-L", "precious", disk)
    before = disk.read_bytes()
    machine = file_machine(disk_report(other), disk_report(disk))
    with pytest.raises(JobFailed) as caught:
        clean(machine, Clean(protect_data=True), Recorder().context())
    assert caught.value.problem.problem == "data-protected"
    assert f"{disk}: ext4 'precious', 16.00 MiB" in caught.value.problem.message
    assert disk.read_bytes() == before
    assert other.read_bytes()[:8] == b"old-data", "nothing else is wiped either"
    recorder = Recorder()
    result = clean(machine, Clean(), recorder.context())
    assert result.wiped == (str(other), str(disk))
    assert any(line.startswith(f"will be lost: {disk}: ext4 'precious'") for line in recorder.lines)
    assert any("wiping" in entry.message and "precious" in entry.message
               for entry in recorder.progress)  # fmt: skip
    assert disk.read_bytes()[:MIB] == bytes(MIB)
    clean(machine, Clean(protect_data=True), Recorder().context())


def test_what_cannot_be_read_is_not_taken_for_empty(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "vda", 4)
    tools = MemoryTools({"wipefs": lambda call, _: Completed(call, 1, stderr=b"I/O error")})
    with pytest.raises(JobFailed, match="cannot be told"):
        clean(
            file_machine(disk_report(disk), tools=tools), Clean(protect_data=True),
            Recorder().context(),
        )  # fmt: skip
    assert disk.read_bytes()[:8] == b"old-data"
