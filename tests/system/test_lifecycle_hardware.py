"""Scenarios on both APIs: a host gets to be known, again and otherwise; its credentials change."""

import asyncio
import json

from contract.bmc_worlds import PASSWORD, Simulator
from scenarios import scenario
from server_rig import IMAGE, eventually, free_port, secret

NAME = "metal3-node01"
DETAILS = {
    "cpu": {"arch": "x86_64", "count": 48, "model": "Xeon", "clockMegahertz": 2000},
    "firmware": {"bios": {"vendor": "Dell Inc.", "version": "2.3", "date": "2024-01-01"}},
    "hostname": "rack7-u12",
    "nics": [{"name": "eno1", "mac": "f4:02:70:b8:bc:2a", "speedGbps": 25, "pxe": True}],
    "ramMebibytes": 131072,
    "storage": [{"name": "/dev/sda", "sizeBytes": 480103981056, "type": "SSD"}],
    "systemVendor": {"manufacturer": "Dell", "productName": "R640", "serialNumber": "7XK"},
}


@scenario
async def test_registration_error_then_recovery(user, machine):
    """No such Secret, nobody at the address, a wrong password; then all is well."""
    box = machine("redfish")
    credentials, host = user.manifests(box, password="not-the-password")
    host["spec"]["bmc"]["address"] = box.address.replace(str(box.bmc.port), str(free_port()))
    host["spec"]["bmc"]["credentialsName"] = "not-there"
    await user.apply(credentials, host)
    found = await user.until_problem("bmc-secret-missing")
    assert found["status"]["errorType"] == "registration error"
    await user.patch({"bmc": {"credentialsName": f"{NAME}-credentials"}})
    found = await user.until_problem("bmc-unreachable")
    assert found["status"]["provisioning"]["state"] == "registering"
    await user.patch({"bmc": {"address": box.address}})
    found = await user.until_problem("bmc-auth")
    assert found["status"]["errorType"] == "registration error"
    assert (await user.row())["STATUS"] == "error"
    await user.until_event("bmc-auth")
    assert not box.agents
    await user.apply(secret(f"{NAME}-credentials", username="admin", password=PASSWORD))
    found = await user.until_state("ready")
    assert found["status"]["errorCount"] == 0
    assert found["status"]["errorMessage"] == ""
    assert "problem" not in found["status"]
    assert user.states[NAME][:2] == ["registering", "inspecting"]


@scenario
async def test_inspection(user, machine):
    """All that the agent finds is in status.hardware and in the HardwareData object."""
    box = machine()
    await user.register(box)
    host = await user.until_state("ready")
    hardware = host["status"]["hardware"]
    assert hardware["cpu"] == {
        "arch": "x86_64", "model": "QEMU Virtual CPU", "clockMegahertz": 2000, "count": 2,
        "flags": ["avx", "sse"],
    }  # fmt: skip
    assert hardware["ramMebibytes"] == 4096
    assert hardware["hostname"] == "node01"
    assert hardware["systemVendor"]["manufacturer"] == "QEMU"
    assert hardware["firmware"]["bios"] == {
        "vendor": "SeaBIOS", "version": "1.16", "date": "2020-01-01",
    }  # fmt: skip
    assert [(nic["mac"], nic["pxe"], nic["speedGbps"]) for nic in hardware["nics"]] == [
        (box.mac, True, 10)
    ]
    assert [(disk["name"], disk["sizeBytes"]) for disk in hardware["storage"]] == [
        ("/dev/vda", 8 << 30)
    ]
    data = await user.kubectl.json("get", "hardwaredata", NAME)
    assert data["spec"]["hardware"] == hardware
    events = await user.events("Normal")
    for reason in ("InspectionStarted", "InspectionComplete"):
        assert sum(event.startswith(f"{reason}:") for event in events) == 1, events
    history = host["status"]["operationHistory"]["inspect"]
    assert history["start"] <= history["end"]
    await user.until_off()


@scenario
async def test_inspected_again(user, machine):
    """`inspect.metal3.io` on a host at rest: new memory is seen, HardwareData is made anew."""
    box = machine("redfish")
    await user.register(box)
    await user.until_state("ready")
    before = await user.kubectl.json("get", "hardwaredata", NAME)
    box.ram_mebibytes = 8192
    await user.annotate("inspect.metal3.io=")
    host = await user.until(
        lambda host: host["status"].get("hardware", {}).get("ramMebibytes") == 8192
    )
    host = await user.until_state("ready")
    assert "inspect.metal3.io" not in host["metadata"].get("annotations", {})
    after = await user.kubectl.json("get", "hardwaredata", NAME)
    assert after["spec"]["hardware"] == host["status"]["hardware"]
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert len(box.jobs("inspect")) == 2
    states = ["inspecting", "preparing", "ready"]
    assert user.states[NAME] == ["registering", *states, *states]

    await user.provision()
    await user.until_state("provisioned")
    await user.annotate("inspect.metal3.io=")
    await user.patch({"image": None})
    await user.until(lambda _: len(box.jobs("inspect")) == 3)  # it waited for rest
    await user.until_state("ready")
    assert len(box.jobs("clean")) == 1


@scenario
async def test_external_hardware_details(user, machine):
    """Told by a person instead of an agent; what cannot be taken in is said, and can be mended."""
    box = machine()
    key = "inspect.metal3.io/hardwaredetails"
    credentials, host = user.manifests(box, inspectionMode="disabled")
    host["metadata"]["annotations"] = {key: json.dumps(DETAILS)}
    await user.apply(credentials, host)
    found = await user.until_state("ready")
    found = await user.until(lambda host: key not in host["metadata"].get("annotations", {}))
    assert found["status"]["hardware"] == DETAILS
    data = await user.kubectl.json("get", "hardwaredata", NAME)
    assert data["spec"]["hardware"] == DETAILS
    assert box.agents == []
    assert "inspecting" not in user.states[NAME]
    await user.annotate(f"{key}={json.dumps(DETAILS | {'ramMebibytes': 7})}")
    await user.until(lambda host: host["status"]["hardware"]["ramMebibytes"] == 7)
    # It can be provisioned like any other.
    await user.provision()
    await user.until_state("provisioned")
    await eventually(lambda: box.booted == [IMAGE])


@scenario
async def test_credentials_change(user, machine):
    """The BMC's password is changed, then the Secret; then another Secret is named."""
    box = machine()
    spare = box.bmc
    box.bmc = Simulator("ipmi", password="first-password-1")
    try:
        await user.register(box, password="first-password-1")
        host = await user.until_state("ready")
        first = host["status"]["goodCredentials"]
        assert host["status"]["triedCredentials"] == first
        await user.until_off()
        port = box.bmc.port
        box.bmc.remove()
        box.bmc = Simulator("ipmi", "--port", str(port), password="second-password-2")
        await user.until_problem("bmc-auth")
        text = {"username": "admin", "password": "second-password-2"}
        await user.apply(secret(f"{NAME}-credentials", **text))
        await user.until(
            lambda host: (
                host["status"]["goodCredentials"]["credentialsVersion"]
                != first["credentialsVersion"]
            )
        )
        host = await user.until_state("ready")
        assert host["status"]["triedCredentials"] == host["status"]["goodCredentials"]
        assert len(box.jobs("inspect")) == 1
        assert user.states[NAME] == ["registering", "inspecting", "preparing", "ready"]

        await user.apply(secret("other", **text))
        await user.patch({"bmc": {"credentialsName": "other"}, "online": True})
        host = await user.until(
            lambda host: host["status"]["goodCredentials"]["credentials"]["name"] == "other"
        )
        await eventually(lambda: box.show()["powered_on"])
        told = user.server.text() + json.dumps(host)
        assert "first-password-1" not in told
        assert "second-password-2" not in told
        await user.kubectl.run("delete", "baremetalhost", NAME, "--timeout=30s")
    finally:
        used, box.bmc = box.bmc, spare
        used.remove()


@scenario
async def test_status_written_by_someone_else(user, machine):
    """Mid-flight, from all sides: ours comes back, the work is done once, nothing is stuck."""
    box = machine("redfish")
    gate = box.hold("inspect")
    await user.register(box)
    await eventually(lambda: box.jobs("inspect"))
    foreign = {"errorMessage": "mine", "errorType": "power management error", "errorCount": 7,
               "operationalStatus": "error", "poweredOn": False}  # fmt: skip
    await user.patch_status(foreign)
    await asyncio.gather(
        *(user.annotate(f"example.com/number={number}") for number in range(10)),
        *(user.patch_status({"poweredOn": bool(number % 2)}) for number in range(10)),
    )
    gate.set()
    host = await user.until_state("ready")
    assert host["status"]["errorMessage"] == ""
    assert host["status"]["errorCount"] == 0
    assert host["status"]["operationalStatus"] == "OK"
    assert len(box.jobs("inspect")) == 1
    gate = box.hold("deploy")
    await user.provision()
    await eventually(lambda: box.jobs("deploy"))
    # A forged end: the state of a machine that is being written is not taken back to rest.
    await user.patch_status({"hardwareProfile": "dell", "errorMessage": "mine again"})
    gate.set()
    host = await user.until_state("provisioned")
    await eventually(lambda: box.booted == [IMAGE])
    assert host["status"]["errorMessage"] == ""


@scenario
async def test_hosts_of_other_namespaces_are_left_alone(user, machine):
    """The server was told its namespaces: elsewhere it writes nothing and touches no BMC."""
    box, other = machine(), machine("redfish")
    stranger = f"{user.namespace}-x"
    await user.kubectl.run("create", "namespace", stranger)
    try:
        await user.kubectl.run(
            "apply", "-n", stranger, "-f", "-", stdin=user.render(user.manifests(other))
        )
        await user.register(box)
        await user.until_state("ready")
        found = await user.kubectl.json("get", "-n", stranger, "baremetalhost", NAME)
        assert "status" not in found
        assert "finalizers" not in found["metadata"]
        assert not other.show()["boots"]
    finally:
        await user.kubectl.run("delete", "namespace", stranger, "--wait=false")
