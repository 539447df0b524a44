"""Power, reboot, detached and paused as a user has them: kubectl annotate, simulated BMCs."""

import asyncio
import time

import pytest

from scenarios import scenario
from server_rig import IMAGE, Machine, eventually

NAME = "metal3-node01"
REBOOT = "reboot.metal3.io"
DETACHED = "baremetalhost.metal3.io/detached"
PAUSED = "baremetalhost.metal3.io/paused"
FORCE = '{"force": true}'

both = pytest.mark.parametrize("bmc", ["ipmi", "redfish"])


@pytest.fixture
def box(request, machine) -> Machine:
    return machine(getattr(request, "param", "ipmi"))


async def to_provisioned(user, box, **spec):
    await user.register(box, **spec)
    await user.until_state("ready")
    await user.provision()
    await user.until_state("provisioned")
    await eventually(lambda: box.booted == [IMAGE])
    return len(box.show()["boots"])


async def annotate(user, key, value=""):
    await user.kubectl.run("annotate", "baremetalhost", NAME, f"{key}={value}", "--overwrite")


async def take_off(user, key):
    await user.kubectl.run("annotate", "baremetalhost", NAME, f"{key}-")


def annotations(host):
    return host["metadata"].get("annotations") or {}


async def until_taken(user, key):
    await user.until(lambda host: key not in annotations(host))


async def until_word(user, word):
    return await user.until(lambda host: host["status"]["operationalStatus"] == word)


async def for_seconds(seconds, holds):
    """What holds now goes on to hold."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert holds()
        await asyncio.sleep(0.1)


@scenario
@pytest.mark.parametrize(("bmc", "value"), [("ipmi", ""), ("redfish", '{"mode": "hard"}')])
async def test_one_reboot(user, machine, bmc, value):
    box = machine(bmc)
    boots = await to_provisioned(user, box)
    await annotate(user, REBOOT, value)
    await until_taken(user, REBOOT)
    await eventually(lambda: box.booted == [IMAGE, IMAGE])
    await for_seconds(4, lambda: len(box.show()["boots"]) <= boots + 1)
    host = await user.until_state("provisioned")
    assert host["status"]["poweredOn"] is True
    assert box.show()["powered_on"]
    assert len(box.show()["boots"]) == boots + 1


@scenario
@both
async def test_clients_hold_the_machine_off_until_the_last_lets_go(user, machine, bmc):
    box = machine(bmc)
    boots = await to_provisioned(user, box)
    await annotate(user, f"{REBOOT}/one", '{"mode": "hard"}')
    await annotate(user, f"{REBOOT}/two")
    await user.until(lambda host: host["status"].get("waiting", {}).get("cause") == "held")
    assert not box.show()["powered_on"]
    await take_off(user, f"{REBOOT}/one")
    await for_seconds(4, lambda: not box.show()["powered_on"])
    await take_off(user, f"{REBOOT}/two")
    await eventually(lambda: box.booted == [IMAGE, IMAGE])
    assert len(box.show()["boots"]) == boots + 1
    reasons = [event.partition(":")[0] for event in await user.events("Normal")]
    assert reasons.count("PowerOff") <= 2, "one for what was asked each time"


@pytest.mark.parametrize(
    ("box", "after_s"),
    [("ipmi", 0.1), ("ipmi", 0.4), ("redfish", 0.2), ("redfish", 0.7)],
    indirect=["box"],
)
async def test_a_server_killed_in_a_reboot_leaves_one(user, box, billet, after_s):
    boots = await to_provisioned(user, box)
    box.switch("bmc_slow_s=0.1")
    await annotate(user, REBOOT)
    await asyncio.sleep(after_s)
    await billet.crash()
    await until_taken(user, REBOOT)
    await eventually(lambda: box.booted == [IMAGE, IMAGE])
    await for_seconds(3, lambda: len(box.show()["boots"]) == boots + 1)
    box.switch("bmc_slow_s=0")
    await user.until(lambda host: host["status"].get("poweredOn") is True)


@scenario
@both
async def test_a_machine_that_must_not_be_off_is_reset(user, machine, bmc):
    box = machine(bmc)
    await to_provisioned(user, box, disablePowerOff=True, online=True)
    boots = len(box.show()["boots"])
    await annotate(user, f"{REBOOT}/one")
    await annotate(user, REBOOT)
    await until_taken(user, REBOOT)
    await user.until(lambda host: host["status"].get("waiting", {}).get("cause") == "held")
    await eventually(lambda: len(box.booted) == 2)
    await for_seconds(3, lambda: len(box.show()["boots"]) == boots + 1)
    await take_off(user, f"{REBOOT}/one")
    await user.until(lambda host: "reboot" not in host["status"])
    reasons = [event.partition(":")[0] for event in await user.events()]
    assert reasons.count("Reboot") == 1
    assert "PowerOff" not in reasons
    await user.kubectl.run("delete", "baremetalhost", NAME, "--timeout=30s")
    assert box.show()["powered_on"]


@scenario
async def test_only_force_reboots_what_runs_no_system(user, machine):
    box = machine()
    await user.register(box, online=True)
    await user.until_state("ready")
    boots = len(box.show()["boots"])
    await annotate(user, REBOOT)
    await user.until(lambda host: REBOOT in host["status"].get("waiting", {}).get("message", ""))
    await for_seconds(3, lambda: len(box.show()["boots"]) == boots)
    await annotate(user, REBOOT, FORCE)
    await until_taken(user, REBOOT)
    await eventually(lambda: len(box.show()["boots"]) == boots + 1)


@scenario
@pytest.mark.parametrize("kind", ["inspect", "deploy"])
async def test_force_interrupts_and_the_operation_starts_over(user, machine, kind):
    box = machine()
    box.hold(kind)
    await user.register(box)
    if kind == "deploy":
        await user.until_state("ready")
        await user.provision()
    await eventually(lambda: box.jobs(kind))
    agents = len(box.agents)
    await annotate(user, f"{REBOOT}/hold", FORCE)
    await user.until(lambda host: host["status"].get("waiting", {}).get("cause") == "held")
    await for_seconds(3, lambda: not box.show()["powered_on"])
    await take_off(user, f"{REBOOT}/hold")
    await eventually(lambda: len(box.agents) == agents + 1)
    box.release(kind)
    await user.until_state("ready" if kind == "inspect" else "provisioned")
    assert len({agent for agent, _ in box.jobs(kind)}) == 2


@scenario
@both
async def test_a_detached_host_is_let_alone_and_comes_back_as_it_was(user, machine, bmc):
    box = machine(bmc)
    boots = await to_provisioned(user, box)
    await annotate(user, DETACHED)
    await until_word(user, "detached")
    assert (await user.row())["STATUS"] == "detached"
    box.switch("bmc_dead=on")
    before = await user.host()
    await asyncio.sleep(5)
    assert await user.host() == before, "nothing is asked, so nothing is known"
    box.switch("bmc_dead=off")
    address = before["spec"]["bmc"]["address"].replace("127.0.0.1", "localhost")
    await user.patch({"bmc": {"address": address}})
    await take_off(user, DETACHED)
    host = await until_word(user, "OK")
    assert host["status"]["provisioning"]["state"] == "provisioned"
    assert len(box.show()["boots"]) == boots
    box.switch("power off")
    await eventually(lambda: box.show()["powered_on"])
    assert [event.partition(":")[0] for event in await user.events()].count("Attached") == 1


@scenario
async def test_power_is_nobodys_while_detached(user, machine):
    box = machine()
    await to_provisioned(user, box)
    await annotate(user, DETACHED, "by the mover")
    await until_word(user, "detached")
    box.switch("power off")
    await for_seconds(5, lambda: not box.show()["powered_on"])
    await take_off(user, DETACHED)
    await eventually(lambda: box.booted == [IMAGE, IMAGE])


@scenario
async def test_deleting_a_detached_host_leaves_the_machine_running(user, machine):
    box = machine()
    boots = await to_provisioned(user, box)
    await annotate(user, DETACHED)
    await until_word(user, "detached")
    await user.kubectl.run("delete", "baremetalhost", NAME, "--timeout=20s")
    state = box.show()
    assert state["powered_on"]
    assert len(state["boots"]) == boots
    assert box.disk == IMAGE


@scenario
async def test_a_delayed_deletion_waits_for_the_host_to_come_back(user, machine):
    box = machine()
    await to_provisioned(user, box)
    await annotate(user, DETACHED, '{"deleteAction": "delay"}')
    await until_word(user, "detached")
    await user.kubectl.run("delete", "baremetalhost", NAME, "--wait=false")
    await user.until(lambda host: "deleteAction" in host["status"]["waiting"]["message"])
    await for_seconds(3, lambda: box.disk == IMAGE)
    await take_off(user, DETACHED)
    await user.until_gone()
    assert box.disk == "empty"
    assert not box.show()["powered_on"]


@scenario
@pytest.mark.parametrize("kind", ["inspect", "deploy"])
async def test_detached_by_force_ends_what_runs_and_it_starts_over_later(user, machine, kind):
    box = machine()
    box.hold(kind)
    await user.register(box)
    if kind == "deploy":
        await user.until_state("ready")
        await user.provision()
    await eventually(lambda: box.jobs(kind))
    (job,) = {job for _, job in box.jobs(kind)}
    await annotate(user, DETACHED, FORCE)
    await until_word(user, "detached")
    assert box.cancelled == [job]
    box.release(kind)
    await for_seconds(3, lambda: len(box.jobs(kind)) == 1)
    await take_off(user, DETACHED)
    await user.until_state("ready" if kind == "inspect" else "provisioned")
    assert box.disk == ("empty" if kind == "inspect" else IMAGE)


@scenario
async def test_without_force_it_waits_for_the_host_to_be_at_rest(user, machine):
    box = machine()
    box.hold("inspect")
    await user.register(box)
    await eventually(lambda: box.jobs("inspect"))
    await annotate(user, DETACHED)
    await user.until(lambda host: DETACHED in host["status"].get("waiting", {}).get("message", ""))
    box.release("inspect")
    host = await until_word(user, "detached")
    assert host["status"]["provisioning"]["state"] == "ready"
    assert any(event.startswith("DetachDelayed: ") for event in await user.events("Normal"))


async def test_a_paused_host_is_frozen_its_job_runs_and_its_deletion_waits(user, box, billet):
    box.hold("deploy")
    await user.register(box)
    await user.until_state("ready")
    await user.provision()
    await eventually(lambda: box.jobs("deploy"))
    await annotate(user, PAUSED, "metal3.io/capm3")
    await asyncio.sleep(1)
    frozen = (await user.host())["status"]
    box.release("deploy")
    await eventually(lambda: box.disk == IMAGE)
    await asyncio.sleep(4)
    assert (await user.host())["status"] == frozen
    await billet.crash()
    await asyncio.sleep(3)
    assert (await user.host())["status"] == frozen
    await take_off(user, PAUSED)
    await user.until_state("provisioned")
    assert len(box.jobs("deploy")) == 1
    await annotate(user, PAUSED)
    await user.kubectl.run("delete", "baremetalhost", NAME, "--wait=false")
    await for_seconds(4, lambda: box.disk == IMAGE)
    await take_off(user, PAUSED)
    await user.until_gone()
    assert box.disk == "empty"
