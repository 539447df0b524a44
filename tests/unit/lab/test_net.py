from pathlib import Path

import pytest

from billet_lab import net, requirements
from billet_lab.vm import End, guest_end


def test_loss_is_a_share_of_ten_thousand_each_way():
    text = net.render_loss("tap3", 2.5)
    assert text.count("numgen random mod 10000 < 250 drop") == 2
    assert text.count('device "tap3"') == 2


def test_no_loss_leaves_no_rule():
    text = net.render_loss("tap3", 0)
    assert "numgen" not in text
    assert text.endswith("delete table netdev billet_tap3\n")


async def test_tools_that_fail_are_quoted():
    with pytest.raises(net.NetError, match=r"`sh -c echo oops >&2; exit 3` failed: oops"):
        await net.run_tool("sh", "-c", "echo oops >&2; exit 3")
    with pytest.raises(net.NetError, match="no program 'no-such-tool'"):
        await net.run_tool("no-such-tool")
    with pytest.raises(net.NetError, match="did not end"):
        await net.run_tool("sleep", "5", deadline_s=0.01)


@pytest.mark.parametrize(
    ("event", "end"),
    [
        ({"event": "RESET"}, None),
        ({"event": "POWERDOWN", "data": {}}, None),
        ({"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-reset"}}, End.GUEST_RESET),
        ({"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-shutdown"}}, End.GUEST_OFF),
        ({"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-panic"}}, End.GUEST_OFF),
    ],
)
def test_what_a_guest_s_end_means(event, end):
    assert guest_end(event) == end


def test_missing_things_are_told_by_package():
    found = requirements.missing(
        uid=1000, has_program=lambda _: False, has_file=lambda path: path.suffix == ".rom"
    )
    assert "sudo" in found[0]
    assert any("apt-get install qemu-system-x86" in line for line in found)
    assert sum("apt-get install ovmf" in line for line in found) == 1
    assert not any("ipxe-qemu" in line for line in found)


def test_nothing_missing_is_nothing_to_say():
    assert (
        requirements.missing(uid=0, has_program=lambda _: True, has_file=lambda p: bool(Path(p)))
        == []
    )
