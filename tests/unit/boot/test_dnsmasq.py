"""The child's life, with shell scripts as children: no powers needed, real processes."""

import asyncio
import logging
import os
import signal
import struct
import subprocess

import pytest

from billet_server.boot.advertise import is_solicitation, render_advertisement
from billet_server.boot.dhcp import DhcpSettings
from billet_server.boot.dnsmasq import Child, Dnsmasq
from billet_server.boot.ground import prepare
from billet_server.boot.neighbours import MOST, Neighbours
from billet_server.errors import BootError

READY = "echo ready to serve; exec sleep 60"


class Scripts:
    """Spawns one shell script after the other, the last one for ever."""

    def __init__(self, *scripts: str) -> None:
        self.scripts = list(scripts)
        self.spawned = 0

    async def __call__(self) -> asyncio.subprocess.Process:
        script = self.scripts[min(self.spawned, len(self.scripts) - 1)]
        self.spawned += 1
        return await asyncio.create_subprocess_exec(
            "sh", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )


class Sleeps:
    """Does not wait; remembers for how long it should have."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        await asyncio.sleep(0)


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_it_is_up_once_it_says_so_and_its_lines_are_heard():
    lines: list[str] = []
    child = Child("toy", Scripts(f"echo hello; {READY}"), "ready to", lines.append)
    await child.start()
    assert lines == ["hello", "ready to serve"]
    pid = child.pid
    assert pid is not None
    await child.stop()
    assert child.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo cannot bind; exit 2", r"toy ended with code 2; .*cannot bind .*ss -lnup"),
        ("exit 0", "toy ended with code 0; its last words: nothing"),
        ("kill -9 $$", "toy was ended by signal 9"),
    ],
)
async def test_one_that_does_not_start_says_why(script, said):
    child = Child("toy", Scripts(script), "ready", lambda line: None)
    with pytest.raises(BootError, match=said):
        await child.start()
    assert child.pid is None


async def test_a_missing_program_is_a_boot_error():
    async def spawn():
        return await asyncio.create_subprocess_exec("/nonexistent/dnsmasq")

    with pytest.raises(BootError, match="cannot start toy"):
        await Child("toy", spawn, "ready", lambda line: None).start()


async def test_one_that_dies_comes_back_with_growing_pauses(caplog):
    sleeps = Sleeps()
    scripts = Scripts(READY, "echo no; exit 3", "echo no; exit 3", READY)
    child = Child("toy", scripts, "ready", lambda line: None, sleep=sleeps)
    await child.start()
    first = child.pid
    with caplog.at_level(logging.ERROR):
        os.kill(first, signal.SIGKILL)
        await until(lambda: scripts.spawned == 4 and child.pid not in {None, first})
    assert sleeps.asked == [0.5, 1.0, 2.0]
    assert child.restarts == 3
    assert "toy was ended by signal 9" in caplog.text
    assert "starting it again in 0.5 s" in caplog.text
    await child.stop()


async def test_the_pause_has_a_limit():
    sleeps = Sleeps()
    scripts = Scripts(READY, *["exit 1"] * 9, READY)
    child = Child("toy", scripts, "ready", lambda line: None, sleep=sleeps)
    await child.start()
    os.kill(child.pid, signal.SIGKILL)
    await until(lambda: scripts.spawned == 11)
    assert sleeps.asked[-3:] == [30.0, 30.0, 30.0]
    await child.stop()


async def test_one_that_ignores_its_end_is_killed():
    child = Child("toy", Scripts(f"trap '' TERM; {READY}"), "ready", lambda line: None)
    await child.start()
    await child.stop()
    assert child.pid is None


async def test_a_line_without_end_does_no_harm():
    lines: list[str] = []
    script = f"head -c 300000 /dev/zero | tr '\\0' x; echo; {READY}"
    child = Child("toy", Scripts(script), "ready", lines.append)
    await child.start()
    assert lines[-1] == "ready to serve"
    await child.stop()


async def test_mode_off_starts_nothing():
    dnsmasq = Dnsmasq(DhcpSettings("", "", "off"), directory=None)
    await dnsmasq.start()
    assert dnsmasq.pid is None
    await dnsmasq.stop()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="without root the powers are missed first")
@pytest.mark.parametrize(
    ("interface", "address", "said"),
    [
        ("nosuch0", "127.0.0.1", "there is no interface nosuch0; this machine has .*lo"),
        ("lo", "192.0.2.77", "192.0.2.77 is not an address of this machine"),
    ],
)
def test_ground_that_is_not_there(tmp_path, interface, address, said):
    with pytest.raises(BootError, match=said):
        prepare(DhcpSettings(interface, address, "proxy", state_dir=tmp_path))


def test_addresses_are_known_from_dhcp_or_from_the_kernel(tmp_path):
    arp = tmp_path / "arp"
    arp.write_text(
        "IP address       HW type     Flags       HW address            Mask     Device\n"
        "172.22.0.60      0x1         0x2         52:54:00:AA:00:02     *        br0\n"
        "172.22.0.61      0x1         0x0         00:00:00:00:00:00     *        br0\n"
        "short\n"
    )
    neighbours = Neighbours(arp)
    assert neighbours.mac("172.22.0.60") == "52:54:00:aa:00:02"
    assert neighbours.mac("172.22.0.61") == ""
    neighbours.learn("172.22.0.60", "52:54:00:aa:00:03")
    assert neighbours.mac("172.22.0.60") == "52:54:00:aa:00:03"
    for number in range(MOST):
        neighbours.learn(str(number), "x")
    assert neighbours.mac("172.22.0.60") == "52:54:00:aa:00:02"
    assert Neighbours(tmp_path / "none").mac("172.22.0.60") == ""


def test_the_advertisement_gives_nobody_a_route():
    packet = render_advertisement(bytes.fromhex("02b111e70001"))
    kind, code, _, hops, flags, lifetime, reachable, retransmit = struct.unpack(
        "!BBHBBHII", packet[:16]
    )
    assert (kind, code, hops, flags, lifetime, reachable, retransmit) == (134, 0, 0, 0, 0, 0, 0)
    assert packet[16:] == bytes.fromhex("0101 02b111e70001")


@pytest.mark.parametrize(
    ("packet", "answer"),
    [
        (bytes([133, 0, 0, 0, 0, 0, 0, 0]), True),
        (bytes([133, 0, 0]), False),
        (bytes([133, 1, 0, 0, 0, 0, 0, 0]), False),
        (bytes([134, 0, 0, 0, 0, 0, 0, 0]), False),
        (b"", False),
    ],
)
def test_only_solicitations_are_answered(packet, answer):
    assert is_solicitation(packet) is answer
