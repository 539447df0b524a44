"""The IPMI driver against BMCs that misbehave, and the simulator's own answers."""

import asyncio
import contextlib

import pytest

from billet_lab import ipmi_bmc
from billet_lab.control import BootTarget, MemoryMachine
from billet_lab.faults import Faults
from billet_server.bmc.address import parse_address
from billet_server.bmc.ipmi_driver import IpmiBmc
from billet_server.bmc.registry import BmcRegistry
from billet_server.core.terms import BootDevice, BootMode, Credentials, PowerState, Secret
from billet_server.errors import BmcAuthFailed, BmcRejected, BmcUnreachable, BmcUnsupported
from billet_server.ports import BmcTarget
from contract.bmc_worlds import PACE, PASSWORD


class Bench:
    """A simulated BMC of any class in this process, and a driver for it."""

    def __init__(self, transport, bmc, machine, faults):
        self.transport, self.bmc, self.machine, self.faults = transport, bmc, machine, faults
        self.port = transport.get_extra_info("sockname")[1]
        self.drivers = []

    def driver(self, password=PASSWORD, suffix="", pace=PACE):
        address = parse_address(f"ipmi://127.0.0.1:{self.port}{suffix}")
        credentials = Credentials("admin", Secret(password))
        driver = IpmiBmc(address, credentials, asyncio.Lock(), pace)
        self.drivers.append(driver)
        return driver


class Switches:
    now = Faults()


@contextlib.asynccontextmanager
async def bench(kind=ipmi_bmc.IpmiBmc, firmware="bios"):
    machine, switches = MemoryMachine("m", "52:54:00:00:00:01", firmware), Switches()
    loop = asyncio.get_running_loop()
    transport, bmc = await loop.create_datagram_endpoint(
        lambda: kind(machine, "admin", PASSWORD, lambda: switches.now),
        local_addr=("127.0.0.1", 0),
    )
    made = Bench(transport, bmc, machine, switches)
    yield made
    for driver in made.drivers:
        await driver.close()
    await bmc.close()


class Answering(ipmi_bmc.IpmiBmc):
    """Answers given (netfn, command) keys with given completion codes first; counts."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.codes, self.seen = {}, []

    def handle_raw_request(self, request, session):
        key = request["netfn"], request["command"]
        self.seen.append((*key, bytes(request["data"]).hex()))
        codes = self.codes.get(key, [])
        if codes:
            session.send_ipmi_response(code=codes.pop(0))
        else:
            super().handle_raw_request(request, session)


async def test_a_busy_bmc_is_asked_again():
    async with bench(Answering) as made:
        made.bmc.codes[0, 1] = [0xC0, 0xD2]
        assert await made.driver().power_state() is PowerState.OFF
        assert len(made.bmc.seen) == 3


async def test_a_bmc_that_stays_busy_is_given_up():
    async with bench(Answering) as made:
        made.bmc.codes[0, 1] = [0xC0] * 9
        with pytest.raises(BmcRejected, match="node busy"):
            await made.driver().power_state()
        assert len(made.bmc.seen) == 3


async def test_power_on_of_a_bmc_without_the_command_is_unsupported():
    async with bench(Answering) as made:
        made.bmc.codes[0, 2] = [0xC1]
        with pytest.raises(BmcUnsupported, match="invalid command"):
            await made.driver().power_on()


@pytest.mark.parametrize("code", [0xC1, 0xCC])
async def test_a_bmc_without_a_hard_reset_cycles_the_power(code):
    async with bench(Answering) as made:
        driver = made.driver()
        await driver.power_on()
        made.bmc.codes[0, 2] = [code]
        await driver.power_cycle()
        assert [seen[2] for seen in made.bmc.seen if seen[:2] == (0, 2)] == ["01", "03", "02"]
        assert made.machine.powered_on
        assert len(made.machine.boots) == 2
        made.bmc.codes[0, 2] = [code, code]
        with pytest.raises((BmcRejected, BmcUnsupported)):
            await driver.power_cycle()
        assert len(made.machine.boots) == 2


async def test_missing_rights_are_an_authentication_failure():
    async with bench(Answering) as made:
        made.bmc.codes[0, 2] = [0xD4]
        with pytest.raises(BmcAuthFailed, match="needs more rights"):
            await made.driver().power_on()


@pytest.mark.parametrize(
    ("device", "mode", "persistent", "flags"),
    [
        (BootDevice.NETWORK, BootMode.LEGACY, False, "058004000000"),
        (BootDevice.NETWORK, BootMode.UEFI, False, "05a004000000"),
        (BootDevice.DISK, BootMode.UEFI_SECURE, True, "05e008000000"),
    ],
)
async def test_boot_flags_arrive_as_raw_bytes_after_the_time_out_is_off(
    device, mode, persistent, flags
):
    async with bench(Answering) as made:
        await made.driver().set_boot_device(device, mode=mode, persistent=persistent)
        sets = [data for netfn, command, data in made.bmc.seen if (netfn, command) == (0, 8)]
        assert sets == ["0308", flags]


async def test_a_bmc_without_the_boot_flag_time_out_still_gets_the_flags():
    async with bench(Answering) as made:
        made.bmc.codes[0, 8] = [0xCC]
        await made.driver().set_boot_device(BootDevice.NETWORK, mode=BootMode.LEGACY)
        assert made.machine.boot_override == (BootTarget.PXE, False)


async def test_without_a_mode_the_firmware_bit_stays_as_it_is():
    async with bench(Answering) as made:
        driver = made.driver()
        await driver.set_boot_device(BootDevice.NETWORK, mode=BootMode.UEFI)
        await driver.set_boot_device(BootDevice.DISK)
        assert made.bmc.seen[-1] == (0, 8, "05a008000000")


async def test_supermicro_gets_its_own_disk_byte():
    async with bench(Answering) as made:
        made.bmc.mfgid, made.bmc.codes[0, 8] = 10876, [0, 0]
        await made.driver().set_boot_device(BootDevice.DISK, mode=BootMode.UEFI)
        assert made.bmc.seen[-1] == (0, 8, "05a024000000")


async def test_a_bmc_that_forgot_the_session_gets_a_new_log_in():
    async with bench() as made:
        driver = made.driver()
        await driver.power_on()
        made.bmc.cold_reset()
        assert await driver.power_state() is PowerState.ON


async def test_a_privilege_level_the_user_lacks_names_the_way_out():
    class Operators(ipmi_bmc.IpmiBmc):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.most_privilege = 2

    async with bench(Operators) as made:
        with pytest.raises(BmcAuthFailed, match="ADMINISTRATOR"):
            await made.driver().power_state()
        assert await made.driver(suffix="?privilegelevel=USER").power_state() is PowerState.OFF


async def test_an_administrator_who_is_only_operator_gets_in():
    class Operators(ipmi_bmc.IpmiBmc):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.most_privilege = 3

    async with bench(Operators) as made:
        await made.driver().power_on()
        assert made.machine.powered_on


async def test_a_bmc_silent_to_the_user_name_is_reported_with_that_hint():
    class Mute(ipmi_bmc.IpmiBmc):
        def send(self, packet, peer):
            if packet[5] & 0x3F != 0x13:  # RAKP 2
                super().send(packet, peer)

    async with bench(Mute) as made:
        with pytest.raises(BmcUnreachable, match="some BMCs do not answer"):
            await made.driver().power_state()


async def test_a_bmc_slower_than_the_first_resend_can_be_logged_in_to():
    async with bench() as made:
        made.faults.now = Faults(bmc_slow_s=0.35)  # resent after 0.9 / 3 s
        assert await made.driver().power_state() is PowerState.OFF


async def test_lost_packets_are_sent_again():
    class Lossy(ipmi_bmc.IpmiBmc):
        heard = 0

        def datagram_received(self, data, addr):
            self.heard += 1
            if self.heard % 7 != 2:
                super().datagram_received(data, addr)

    async with bench(Lossy) as made:
        await made.driver().power_on()
        assert made.machine.boots == [BootTarget.NONE]


async def test_a_flood_of_nonsense_from_the_bmc_ends_in_an_error_not_a_crash():
    class Mad(ipmi_bmc.IpmiBmc):
        def datagram_received(self, data, addr):
            for noise in (b"", b"x", data[:10], b"\x06\x00\xff\x07" + bytes(40), data[::-1]):
                self._transport.sendto(noise, addr)
            for kind in range(0x40):
                self._transport.sendto(b"\x06\x00\xff\x07\x06" + bytes([kind]) + bytes(30), addr)

    async with bench(Mad) as made:
        with pytest.raises((BmcUnreachable, BmcRejected)):
            await made.driver(pace=PACE._replace(command_s=1)).power_state()


async def test_nonsense_does_not_stop_the_simulator():
    async with bench() as made:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=("127.0.0.1", made.port)
        )
        for kind in range(0x40):
            transport.sendto(b"\x06\x00\xff\x07\x06" + bytes([kind]) + bytes(30))
        for length in range(50):
            transport.sendto((b"\x06\x00\xff\x07" + bytes(60))[:length])
        assert await made.driver().power_state() is PowerState.OFF
        transport.close()


async def test_a_soft_off_the_system_ignores_is_rejected_with_the_state():
    async with bench() as made:
        made.machine.soft_off_works = False
        driver = made.driver()
        await driver.power_on()
        with pytest.raises(BmcRejected, match="still on"):
            await driver.power_off(soft=True)
        assert made.machine.powered_on


async def test_a_bmc_dead_before_the_first_call_is_unreachable_within_the_deadline():
    async with bench() as made:
        made.faults.now = Faults(bmc_dead=True)
        with pytest.raises(BmcUnreachable, match=r"no answer on UDP 127.0.0.1:\d+ within 0.9 s"):
            await made.driver().power_state()


@pytest.mark.parametrize(
    ("username", "password", "words"),
    [
        ("a" * 17, "x", "user names have at most 16"),
        ("admin", "b" * 21, "passwords have at most 20"),
    ],
)
async def test_credentials_ipmi_cannot_carry_are_refused_without_a_packet(
    username, password, words
):
    address = parse_address("ipmi://127.0.0.1:1")
    driver = IpmiBmc(address, Credentials(username, Secret(password)), asyncio.Lock(), PACE)
    with pytest.raises(BmcAuthFailed, match=words) as caught:
        await driver.power_state()
    assert password not in str(caught.value).split()


async def test_many_bmcs_at_once_in_one_process():
    async with contextlib.AsyncExitStack() as stack:
        benches = [await stack.enter_async_context(bench()) for _ in range(30)]
        drivers = [made.driver() for made in benches]
        await asyncio.gather(*(driver.power_on() for driver in drivers))
        assert all(made.machine.powered_on for made in benches)


async def test_the_registry_gives_one_driver_per_target_and_shows_no_secret():
    registry = BmcRegistry(pace=PACE)
    target = BmcTarget("ipmi://127.0.0.1", Credentials("admin", Secret(PASSWORD)))
    first = registry.open(target)
    assert registry.open(target) is first
    assert registry.open(target._replace(credentials=Credentials("x", Secret("y")))) is not first
    redfish = registry.open(target._replace(address="redfish://127.0.0.1"))
    assert PASSWORD not in f"{first!r} {redfish!r} {vars(first)!r} {target!r}"
    await registry.close()
