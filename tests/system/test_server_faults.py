"""Bad input at the BMC, in Secrets and in the object: a named problem, an Event, a way on."""

import asyncio
import json

import pytest

from contract.bmc_worlds import PASSWORD
from scenarios import scenario
from server_rig import IMAGE, eventually, free_port, secret

NAME = "metal3-node01"


@scenario
async def test_wrong_password_then_the_right_one(user, machine):
    box = machine()
    wrong = "wrong-password-77"
    await user.register(box, password=wrong)
    host = await user.until_problem("bmc-auth")
    status = host["status"]
    assert status["errorType"] == "registration error"
    assert str(box.bmc.port) in status["errorMessage"], "where it was tried"
    assert status["waiting"]["cause"] == "retry"
    assert status["problem"]["nextRetryAt"]
    assert "goodCredentials" not in status
    assert status["triedCredentials"]["credentials"]["name"] == f"{NAME}-credentials"
    assert "it refused user 'admin'" in (await user.row())["ERROR"]
    await user.until_event("bmc-auth")
    described = await user.kubectl.run("describe", "baremetalhost", NAME)
    assert "RegistrationError" in described
    assert "Correct username and password in the Secret" in described
    assert wrong not in user.server.text() + described + json.dumps(host)

    await user.apply(secret(f"{NAME}-credentials", username="admin", password=PASSWORD))
    host = await user.until_state("ready")
    assert host["status"]["errorCount"] == 0
    assert "problem" not in host["status"]


@scenario
async def test_password_that_goes_wrong_on_a_ready_host(user, machine):
    box = machine()
    await user.register(box)
    await user.until_state("ready")
    await user.until_off()
    await user.apply(secret(f"{NAME}-credentials", username="admin", password="another-one"))
    host = await user.until_problem("bmc-auth")
    assert host["status"]["provisioning"]["state"] == "ready"
    await user.apply(secret(f"{NAME}-credentials", username="admin", password=f"{PASSWORD}\n"))
    await user.until_state("ready")
    await user.patch({"online": True})
    await eventually(lambda: box.show()["powered_on"])


@scenario
@pytest.mark.parametrize("kind", ["ipmi", "redfish"])
async def test_unreachable_bmc(user, machine, kind):
    box = machine(kind)
    credentials, host = user.manifests(box)
    port = free_port()
    host["spec"]["bmc"]["address"] = box.address.replace(str(box.bmc.port), str(port))
    await user.apply(credentials, host)
    found = await user.until_problem("bmc-unreachable")
    assert f"127.0.0.1:{port}" in found["status"]["errorMessage"]
    assert found["status"]["provisioning"]["state"] == "registering"
    await user.until_event("bmc-unreachable")
    await user.until(lambda host: host["status"]["errorCount"] > 1)  # tried again by itself
    await user.patch({"bmc": {"address": box.address}})  # may still be corrected
    await user.until_state("ready")


@scenario
@pytest.mark.parametrize("kind", ["ipmi", "redfish"])
async def test_bmc_goes_dead_mid_way_and_comes_back(user, machine, kind):
    box = machine(kind)
    await user.register(box)
    await user.until_state("ready")
    await user.until_off()
    box.switch("bmc_dead=on")
    await user.provision()
    host = await user.until_problem("bmc-unreachable")
    assert host["status"]["problem"]["nextRetryAt"]
    await user.until_event("bmc-unreachable")
    box.switch("bmc_dead=off")
    await user.until_state("provisioned")
    await eventually(lambda: box.booted == [IMAGE])


@scenario
async def test_bmc_dead_while_the_agent_works(user, machine):
    """Nothing needs the BMC then; the hand-over does, and waits for it."""
    box = machine()
    await user.register(box)
    await user.until_state("ready")
    gate = box.hold("deploy")
    await user.provision()
    await eventually(lambda: box.jobs("deploy"))
    box.switch("bmc_dead=on")
    gate.set()
    await user.until_problem("bmc-unreachable")
    box.switch("bmc_dead=off")
    await user.until_state("provisioned")
    assert len(box.jobs("deploy")) == 1


@scenario
async def test_missing_secret(user, machine):
    box = machine()
    credentials, host = user.manifests(box)
    await user.apply(host)
    found = await user.until_problem("bmc-secret-missing")
    assert f"{NAME}-credentials" in found["status"]["errorMessage"]
    assert found["status"]["waiting"]["actor"] == "user"
    await user.until_event("bmc-secret-missing")
    await user.apply(credentials)
    await user.until_state("ready")


@scenario
@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({"username": "admin"}, "password"),
        ({"username": "", "password": ""}, "username and password"),
        ({"user": "admin", "pass": "x"}, "username and password"),
    ],
)
async def test_malformed_secret(user, machine, values, missing):
    box = machine()
    credentials, host = user.manifests(box)
    await user.apply(secret(f"{NAME}-credentials", **values), host)
    found = await user.until_problem("bmc-secret-malformed")
    assert f"no usable {missing}" in found["status"]["errorMessage"]
    await user.until_event("bmc-secret-malformed")
    await user.apply(credentials)
    await user.until(lambda host: host["status"].get("goodCredentials"))


@scenario
async def test_secret_removed_from_a_ready_host(user, machine):
    box = machine()
    await user.register(box)
    await user.until_state("ready")
    await user.kubectl.run("delete", "secret", f"{NAME}-credentials")
    await user.until_problem("bmc-secret-missing")
    await user.apply(user.manifests(box)[0])
    await user.until_state("ready")


@scenario
async def test_mac_missing(user, machine):
    box = machine()
    credentials, host = user.manifests(box)
    del host["spec"]["bootMACAddress"]
    await user.apply(credentials, host)
    found = await user.until_problem("boot-mac-missing")
    assert found["status"]["errorType"] == "inspection error"
    assert not box.show()["powered_on"]
    await user.patch({"bootMACAddress": box.mac})
    await user.until_state("ready")


@scenario
async def test_two_hosts_with_one_mac(user, machine):
    first, second = machine(), machine()
    await user.register(first)
    await user.until_state("ready")
    other = second.mac
    second.mac = first.mac
    await user.register(second, "metal3-node02")
    found = await user.until_problem("boot-mac-conflict", "metal3-node02")
    assert f"{user.namespace}/{NAME}" in found["status"]["errorMessage"]
    await user.until_event("boot-mac-conflict")
    await user.provision()
    await user.until_state("provisioned")  # the elder is not disturbed
    await eventually(lambda: first.booted == [IMAGE])
    assert second.show()["boots"] == []
    second.mac = other
    await user.kubectl.run("delete", "baremetalhost", "metal3-node02", "--timeout=30s")
    await user.register(second, "metal3-node02")
    await user.until_state("ready", "metal3-node02")


@scenario
async def test_machine_that_never_asks(user, machine):
    """The wait says what it waits for, and who must act."""
    box = machine()
    box.hold("post")
    await user.register(box)
    host = await user.until(
        lambda host: box.mac in (host["status"].get("waiting") or {}).get("message", "")
    )
    assert host["status"]["waiting"]["until"]
    assert host["status"]["waiting"]["actor"] == "machine"
    await asyncio.sleep(0)
    box.release("post")
    await user.until_state("ready")


@scenario
async def test_paused_host_is_left_alone(user, machine):
    box = machine()
    await user.register(box)
    await user.until_state("ready")
    before = await user.until_off()
    pause = "baremetalhost.metal3.io/paused"
    await user.kubectl.run("annotate", "baremetalhost", NAME, f"{pause}=")
    await user.patch({"online": True})
    other = machine()  # whose whole registration takes longer than a look at this one
    await user.register(other, "metal3-node02")
    await user.until_state("ready", "metal3-node02")
    host = await user.host()
    assert not box.show()["powered_on"]
    assert host["status"] == before["status"]
    await user.kubectl.run("annotate", "baremetalhost", NAME, f"{pause}-")
    await user.until(lambda host: host["status"].get("poweredOn"))
    assert box.show()["powered_on"]


@scenario
async def test_power_follows_online(user, machine):
    box = machine("redfish")
    await user.register(box)
    await user.until_state("ready")
    await user.until_off()
    await user.patch({"online": True})
    await user.until(lambda host: host["status"].get("poweredOn"))
    assert box.show()["powered_on"]
    await user.patch({"online": False})
    await user.until_off()
    assert not box.show()["powered_on"]
