"""A lab's machines do what their buttons, BMCs and fault switches say, and leave nothing."""

import asyncio
import signal
import socket
import sys
from pathlib import Path

import pytest

from billet_lab import accel, console, leaks, processes
from billet_lab.control import BootTarget
from billet_lab.lab import Lab, LabError
from billet_lab.specs import Disk, MachineSpec
from billet_lab.vm import End

pytestmark = [pytest.mark.vm, pytest.mark.root]

SECTOR = b"BILLET-SECTOR "


def boot_sector() -> bytes:
    """Prints its name, whether it can write to its own disk, and resets the machine."""
    code = bytes.fromhex("fa31c08ed88ec08ed0bc007cfb")  # cli; segments and stack; sti
    code += bytes.fromhex("bb0090b80103b90200b600")  # mov bx,9000h; ax=0301h; cx=2; dh=0
    code += bytes.fromhex("cd13")  # int 13h: write a sector to dl, the boot disk
    code += bytes.fromhex("b357 7302 b345")  # mov bl,'W'; jnc +2; mov bl,'E'
    code += bytes.fromhex("baf803")  # mov dx,3f8h: the serial port
    for byte in SECTOR:
        code += bytes([0xB0, byte, 0xEE])  # mov al,byte; out dx,al
    code += bytes.fromhex("88d8eeb00aee")  # mov al,bl; out dx,al; newline
    code += bytes.fromhex("b9ff00") + bytes.fromhex("e480e2fc")  # let the port drain
    code += bytes.fromhex("b0fee664f4ebfd")  # keyboard controller: reset; hlt
    return code.ljust(510, b"\0") + b"\x55\xaa"


def power_button_sector() -> bytes:
    """Enables the ACPI power button (ICH9 PM1_EN, 602h), says !, waits for it, switches off."""
    code = bytes.fromhex("ba0206 b80001 ef baf803 b021 ee")
    code += bytes.fromhex("ba0006 ed f6c401 74fa ba0406 b80020 ef f4ebfd")
    return code.ljust(510, b"\0") + b"\x55\xaa"


async def test_machines_boot_where_they_are_told(tmp_path: Path):
    before = leaks.snapshot()
    bios = MachineSpec(name="bios", memory_mib=256, cpus=1, disks=(Disk(size_bytes=1 << 20),))
    uefi = MachineSpec(name="uefi", firmware="uefi", bmc="redfish", memory_mib=256, cpus=1)
    async with Lab(tmp_path, [bios, uefi], accel_choice="tcg") as lab:
        await lab.control("uefi").power("on")
        await a_bios_machine_s_life(lab)
        await bmcs_answer(lab)
        await a_uefi_machine_s_life(lab)
        disks = [Path(path) for machine in lab.machines for path in machine.disk_paths]
        assert all(disk.exists() for disk in disks)
    assert leaks.difference(before, leaks.snapshot()) == []
    assert not any(disk.exists() for disk in disks)
    assert "boot 1 from" in console.tail(tmp_path / "uefi" / "console.log", lines=1000)


async def a_bios_machine_s_life(lab: Lab) -> None:
    control, info = lab.control("bios"), lab.machine("bios")
    path = Path(info.console_path)

    async def shows(pattern: str, offset: int = 0) -> None:
        await console.wait_for(path, pattern, deadline_s=30, offset=offset)

    # An empty disk: the default order falls through to the network, to iPXE in the NIC.
    await control.power("on")
    await shows(r"boot 1 from its boot order[\s\S]*not a bootable disk[\s\S]*iPXE")

    # A disk that boots, and resets the machine each time: each reset is a boot of its own.
    with Path(info.disk_paths[0]).open("r+b") as disk:
        disk.write(boot_sector())
    await control.power("reset")
    await shows(r"BILLET-SECTOR W[\s\S]*ended: guest reset[\s\S]*BILLET-SECTOR W")

    # A one-time override is used up by the next boot, which the guest itself asked for.
    offset = console.size(path)
    await control.set_boot(BootTarget.PXE)
    await shows(r"from override Pxe[\s\S]*iPXE", offset)
    assert "BILLET-SECTOR" not in console.tail(path, lines=1000).split("override Pxe")[1]
    status = await control.status()
    assert (status.boot_target, status.boot_persistent) == (BootTarget.NONE, False)
    assert status.boots[-1].target is BootTarget.PXE
    assert {End.RESET, End.GUEST_RESET} <= {boot.end for boot in status.boots[:-1]}

    # The override is gone: the next boot is from the disk, whose writes now fail.
    offset = console.size(path)
    await control.set_faults({"disk_errors": True})
    await control.power("reset")
    await shows(r"from its boot order[\s\S]*BILLET-SECTOR E", offset)

    # The power button reaches the guest, which switches itself off.
    offset = console.size(path)
    await control.set_faults({"disk_errors": False})
    with Path(info.disk_paths[0]).open("r+b") as disk:
        disk.write(power_button_sector())
    await control.power("reset")
    await shows(r"from its boot order[\s\S]*Booting from Hard Disk[.\s]*!", offset)
    await control.power("soft")
    await shows("ended: guest power-off", offset)
    status = await control.status()
    assert not status.powered_on
    assert status.boots[-1].end is End.GUEST_OFF
    await control.power("on")

    # A reset and a power-off in one breath: off wins.
    await asyncio.gather(control.power("reset"), control.power("off"))
    assert not (await control.status()).powered_on
    await control.power("on")

    # An ignored override, and a POST that takes for ever, up to a power cut.
    await control.set_faults({"ignore_boot_override": True, "slow_post_s": 3600})
    await control.set_boot(BootTarget.PXE, persistent=True)
    offset = console.size(path)
    await control.power("reset")
    await shows(r"from its boot order\s*$", offset)
    status = await control.status()
    assert status.powered_on
    assert (status.boot_target, status.boot_persistent) == (BootTarget.PXE, True)
    pid = status.qemu_pid
    status = await control.power("cut")
    assert not status.powered_on
    assert status.qemu_pid is None
    assert status.boots[-1].end is End.CUT
    assert pid is None or not Path(f"/proc/{pid}").exists()

    # A machine that cannot start says why.
    Path(info.disk_paths[0]).rename(tmp := f"{info.disk_paths[0]}.away")
    await control.set_faults({"slow_post_s": 0})
    await control.power("on")
    await shows("ended: QEMU failed: .*No such file")
    Path(tmp).rename(info.disk_paths[0])
    assert not (await control.status()).powered_on


async def a_uefi_machine_s_life(lab: Lab) -> None:
    control, path = lab.control("uefi"), Path(lab.machine("uefi").console_path)
    await console.wait_for(path, "PXE over IPv4", deadline_s=60)
    # Link faults are taken while the machine runs, and taken back.
    await control.set_faults({"link_down": True, "link_delay_ms": 20, "link_loss_percent": 5})
    rules = await output(lab, "nft", "list", "ruleset")
    assert rules.count("numgen random mod 10000 < 500 drop") == 2
    assert 'device "tap1"' in rules
    await control.set_faults({"link_down": False, "link_delay_ms": 0, "link_loss_percent": 0})
    assert "drop" not in await output(lab, "nft", "list", "ruleset")
    assert (await control.status()).boots[-1].end is None


async def bmcs_answer(lab: Lab) -> None:
    """From inside the namespace only."""
    ask = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=10).status)"
    root = lab.machine("uefi").bmc_address.removeprefix("redfish+").partition("/Systems")[0]
    assert root.startswith("http://172.22.0.1:8001/")
    assert await output(lab, sys.executable, "-c", ask, f"{root}/") == "200\n"
    listening = await output(lab, "ss", "-Hlun")
    assert "172.22.0.1:6230" in listening


async def test_what_runs_in_the_lab_serves_sockets_from_outside_and_ends_with_it(tmp_path: Path):
    """As the demo's server does: its API port is the machine's own loopback."""
    before = leaks.snapshot()
    serve = (
        "import socket, subprocess, sys, time\n"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "listener = socket.socket(fileno=int(sys.argv[1]))\n"
        "listener.accept()[0].sendall(str(child.pid).encode() + b'\\n')\n"
        "time.sleep(600)\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with Lab(tmp_path, [MachineSpec(name="m")], accel_choice="tcg") as lab:
            fd = listener.fileno()
            server = await lab.run_in([sys.executable, "-c", serve, str(fd)], pass_fds=(fd,))
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            stray = processes.identity(int(await reader.readline()))
            writer.close()
            assert stray is not None
            assert server.returncode is None
    assert server.returncode == -signal.SIGTERM
    assert processes.identity(stray[0]) != stray
    assert leaks.difference(before, leaks.snapshot()) == []


async def test_a_lab_that_cannot_come_up_leaves_nothing(tmp_path: Path):
    before = leaks.snapshot()
    (tmp_path / "m").write_text("a file where the machine's directory should be")
    with pytest.raises(LabError, match=r"cannot be made.*File exists"):
        async with Lab(tmp_path, [MachineSpec(name="m")], accel_choice="tcg"):
            pytest.fail("the lab came up")
    assert leaks.difference(before, leaks.snapshot()) == []
    assert not (tmp_path / "state.json").exists()


async def output(lab: Lab, *argv: str) -> str:
    process = await lab.run_in(argv, stdout=-1)
    out, _ = await process.communicate()
    assert process.returncode == 0, out
    return out.decode()


async def test_a_probe_believes_what_it_sees(tmp_path: Path):
    accelerator, why = await accel.probe(accel="tcg", deadline_s=60)
    assert (accelerator, why) == ("tcg", "OVMF boots under tcg")
    no_kernel = tmp_path / "vmlinuz"
    no_kernel.write_bytes(b"not a kernel")
    _, why = await accel.probe([no_kernel], accel="tcg", deadline_s=60)
    assert "does not boot under tcg" in why
    assert str(no_kernel) in why
