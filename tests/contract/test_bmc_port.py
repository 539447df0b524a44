"""The contract of `ports.Bmc`: the same for the twin and the drivers with their simulators."""

import asyncio
import contextlib
import socket

import pytest

from billet_server.bmc.registry import BmcRegistry
from billet_server.core.terms import BootDevice, BootMode, PowerState
from billet_server.errors import (
    BmcAddressError,
    BmcAuthFailed,
    BmcError,
    BmcRejected,
    BmcUnreachable,
    BmcUnsupported,
    NotLeading,
)
from contract.bmc_worlds import (
    PACE,
    PASSWORD,
    MemoryWorld,
    SimulatedWorld,
    Simulator,
    write_certificate,
)

KINDS = ["memory", "ipmi", "redfish+http", "redfish+https"]
NEEDS_WIRE = [kind for kind in KINDS if kind != "memory"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return write_certificate(tmp_path_factory.mktemp("bmc"))


@pytest.fixture(scope="module")
def simulators(certificate):
    started = {
        "ipmi": Simulator("ipmi"),
        "http": Simulator("redfish"),
        "https": Simulator("redfish", "--certificate", str(certificate)),
    }
    yield started
    assert [simulator.remove() for simulator in started.values()] == [0, 0, 0]


@pytest.fixture(params=KINDS)
async def world(request, certificate):
    kind = request.param
    if kind == "memory":
        made = MemoryWorld()
    else:
        simulators = request.getfixturevalue("simulators")
        match kind:
            case "ipmi":
                made = SimulatedWorld(simulators["ipmi"], kind)
            case "redfish+http":
                made = SimulatedWorld(simulators["http"], kind)
            case "redfish+https":
                made = SimulatedWorld(simulators["https"], kind, ca_file=certificate)
    yield made
    await made.close()


@pytest.fixture
def free_port():
    """A port on which neither TCP nor UDP listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


async def test_power_goes_on_and_off_and_says_so(world):
    bmc = world.open()
    assert await bmc.power_state() is PowerState.OFF
    await bmc.power_on()
    assert await bmc.power_state() is PowerState.ON
    await bmc.power_off()
    assert await bmc.power_state() is PowerState.OFF
    assert world.show()["powered_on"] is False


async def test_a_machine_that_is_as_wanted_is_left_alone(world):
    bmc = world.open()
    await bmc.power_off()
    await bmc.power_off(soft=True)
    await bmc.power_on()
    await bmc.power_on()
    assert world.show()["boots"] == ["None"]


async def test_soft_off_ends_with_the_machine_off(world):
    bmc = world.open()
    await bmc.power_on()
    await bmc.power_off(soft=True)
    assert world.show()["powered_on"] is False


async def test_a_power_cycle_boots_the_machine_anew_and_leaves_it_on(world):
    bmc = world.open()
    await bmc.power_on()
    await bmc.set_boot_device(BootDevice.NETWORK)
    await bmc.power_cycle()
    assert world.show()["boots"] == ["None", "Pxe"]
    assert await bmc.power_state() is PowerState.ON


async def test_a_power_cycle_switches_on_what_is_off(world):
    await world.open().power_cycle()
    assert world.show()["boots"] == ["None"]
    assert world.show()["powered_on"] is True


async def test_a_soft_restart_that_a_bmc_cannot_do_is_refused_and_changes_nothing(world):
    bmc = world.open()
    await bmc.power_on()
    with pytest.raises(BmcUnsupported):
        await bmc.power_cycle(soft=True)
    assert world.show()["boots"] == ["None"]


@pytest.mark.parametrize(
    ("device", "word"), [(BootDevice.NETWORK, "Pxe"), (BootDevice.DISK, "Hdd")]
)
async def test_a_boot_device_set_once_holds_for_one_boot(world, device, word):
    bmc = world.open()
    await bmc.set_boot_device(device)
    await bmc.power_on()
    await bmc.power_off()
    await bmc.power_on()
    assert world.show()["boots"] == [word, "None"]


async def test_a_persistent_boot_device_holds(world):
    bmc = world.open()
    await bmc.set_boot_device(BootDevice.NETWORK, mode=BootMode.LEGACY, persistent=True)
    assert world.show()["persistent"] is True
    await bmc.power_on()
    await bmc.power_off()
    await bmc.power_on()
    assert world.show()["boots"] == ["Pxe", "Pxe"]


async def test_the_last_boot_device_set_wins(world):
    bmc = world.open()
    await bmc.set_boot_device(BootDevice.NETWORK, persistent=True)
    await bmc.set_boot_device(BootDevice.DISK)
    assert world.show() == {
        "powered_on": False,
        "override": "Hdd",
        "persistent": False,
        "boots": [],
    }


@pytest.mark.parametrize(
    ("username", "password"), [("admin", "Wrong-Passw0rd"), ("nobody", PASSWORD)]
)
async def test_wrong_credentials_are_refused_by_name(world, username, password):
    with pytest.raises(BmcAuthFailed) as caught:
        await world.open(username, password).power_state()
    assert repr(username) in str(caught.value)
    assert_no_secret(caught.value, password)
    assert await world.open().power_state() is PowerState.OFF, "the right ones still work"


async def test_a_bmc_that_stops_answering_midway_is_unreachable_until_it_comes_back(world):
    bmc = world.open()
    await bmc.set_boot_device(BootDevice.NETWORK)
    world.switch("bmc_dead=on")
    with pytest.raises(BmcUnreachable) as caught:
        await bmc.power_on()
    assert "no answer" in str(caught.value)
    assert world.address.partition("://")[2] in str(caught.value)
    assert_no_secret(caught.value, PASSWORD)
    world.switch("bmc_dead=off")
    await bmc.power_on()
    assert world.show()["boots"] == ["Pxe"]


async def test_a_slow_bmc_is_waited_for(world):
    world.switch("bmc_slow_s=0.2")
    bmc = world.open()
    await bmc.power_on()
    assert await bmc.power_state() is PowerState.ON
    assert world.show()["boots"] == ["None"]


async def test_nothing_blocks_the_event_loop(world):
    world.switch("bmc_dead=on")
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticker = asyncio.create_task(tick())
    with pytest.raises(BmcUnreachable):
        await world.open().power_state()
    ticker.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ticker
    assert ticks > 20  # of some 100 in the half second that the BMC was waited for


async def test_commands_at_the_same_time_all_succeed(world):
    drivers = [world.open(), world.open()]
    await drivers[0].power_on()
    states = await asyncio.gather(*(driver.power_state() for driver in drivers * 5))
    assert set(states) == {PowerState.ON}


async def test_a_cancelled_command_leaves_the_driver_usable(world):
    bmc = world.open()
    world.switch("bmc_slow_s=0.3")
    task = asyncio.create_task(bmc.power_state())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    world.switch("bmc_slow_s=0")
    assert await bmc.power_state() is PowerState.OFF


async def test_a_closed_driver_logs_in_again(world):
    bmc = world.open()
    assert await bmc.power_state() is PowerState.OFF
    await bmc.close()
    await bmc.close()
    assert await bmc.power_state() is PowerState.OFF


async def test_an_address_of_no_known_scheme_is_refused_before_anything_is_sent(world):
    with pytest.raises(BmcAddressError) as caught:
        world.open(address="gopher://127.0.0.1")
    assert "unknown BMC scheme gopher://" in str(caught.value)
    assert "redfish+https://" in str(caught.value)


async def test_an_ignored_boot_override_is_accepted_and_has_no_effect(world):
    world.switch("ignore_boot_override=on")
    bmc = world.open()
    await bmc.set_boot_device(BootDevice.NETWORK)
    await bmc.power_on()
    assert world.show()["boots"] == ["None"]


@pytest.mark.parametrize("world", NEEDS_WIRE, indirect=True)
async def test_a_wrong_power_state_is_reported_when_it_never_becomes_right(world):
    world.switch("wrong_power_state=on")
    bmc = world.open()
    assert await bmc.power_state() is PowerState.ON
    with pytest.raises(BmcRejected) as caught:
        await bmc.power_off()
    assert "still on" in str(caught.value)


@pytest.mark.parametrize("world", NEEDS_WIRE, indirect=True)
async def test_where_nothing_listens_the_message_says_so(world, free_port):
    address = f"{world.address.rpartition(':')[0]}:{free_port}"
    with pytest.raises(BmcUnreachable) as caught:
        await world.open(address=address).power_state()
    assert "refused" in str(caught.value)
    assert "Check the" in str(caught.value)


@pytest.mark.parametrize("world", NEEDS_WIRE, indirect=True)
async def test_a_name_that_does_not_resolve_is_unreachable(world):
    address = f"{world.address.partition('://')[0]}://no-such-host.invalid"
    with pytest.raises(BmcUnreachable) as caught:
        await world.open(address=address).power_state()
    assert "no-such-host.invalid" in str(caught.value)


@pytest.mark.parametrize("world", NEEDS_WIRE, indirect=True)
async def test_sessions_end_with_idleness_and_the_next_command_works(world):
    bmc = world.open()
    await bmc.power_on()
    await asyncio.sleep(PACE.idle_s + 0.2)
    assert await bmc.power_state() is PowerState.ON


@pytest.mark.parametrize("scheme", ["libvirt", "redfish"])
async def test_other_schemes_reach_the_same_drivers(simulators, scheme):
    simulator = simulators["ipmi" if scheme == "libvirt" else "https"]
    world = SimulatedWorld(simulator, scheme, verify=False)
    await world.open().power_on()
    assert world.show()["powered_on"] is True
    await world.close()


async def test_a_certificate_nobody_vouches_for_is_not_trusted(simulators):
    world = SimulatedWorld(simulators["https"], "redfish")
    with pytest.raises(BmcUnreachable) as caught:
        await world.open().power_state()
    assert "certificate is not trusted" in str(caught.value)
    assert "disableCertificateVerification" in str(caught.value)
    await world.close()


async def test_other_credentials_make_another_driver(world):
    right, wrong = world.open(), world.open(password="Wrong-Passw0rd")
    assert await right.power_state() is PowerState.OFF
    with pytest.raises(BmcAuthFailed):
        await wrong.power_state()
    assert await right.power_state() is PowerState.OFF


@pytest.mark.parametrize(("kind", "scheme"), [("ipmi", "ipmi"), ("http", "redfish+http")])
async def test_nothing_is_sent_once_the_permit_is_withdrawn(simulators, kind, scheme):
    """Asked before each command, also between two commands of one call."""
    world = SimulatedWorld(simulators[kind], scheme)
    asked = []

    def permit():
        asked.append(None)
        if len(asked) > 1:
            raise NotLeading("another server leads")

    world.bmcs = BmcRegistry(pace=PACE, permit=permit)
    bmc = world.open()
    with pytest.raises(NotLeading):
        await bmc.power_on()  # it looks at the power first: that much is permitted
    assert len(asked) == 2
    assert world.show()["powered_on"] is False
    assert world.show()["boots"] == []
    await world.close()


def assert_no_secret(error: BmcError, password: str) -> None:
    """No password in the error, what it was raised from, or anything they carry."""
    link: BaseException | None = error
    while link is not None:
        words = f"{link} {link!r} {link.args!r} {getattr(link, 'evidence', '')}"
        assert password not in words
        link = link.__cause__ or link.__context__
