"""On both APIs: inspections asked for, ended, told, crashed; hosts that Metal3 left."""

import asyncio
import json

from billet_lab.kubectl import KubectlError
from scenarios import scenario
from server_rig import IMAGE, eventually, secret

NAME = "metal3-node01"
INSPECT = "inspect.metal3.io"
DETAILS = "inspect.metal3.io/hardwaredetails"
PAUSED = "baremetalhost.metal3.io/paused"
STATUS = "baremetalhost.metal3.io/status"
FINALIZER = "baremetalhost.metal3.io"


def annotations_of(host):
    return host["metadata"].get("annotations", {})


async def refusal(command):
    """Return what kubectl says of a command that is refused; "" where it is not."""
    try:
        await command
    except KubectlError as error:
        return str(error)
    return ""


@scenario
async def test_hardware_data_is_held_and_made_anew(user, machine):
    """Deleted by hand it stays for as long as it is true; the next inspection replaces it."""
    box = machine()
    await user.register(box)
    host = await user.until_state("ready")
    data = await user.kubectl.json("get", "hardwaredata", NAME)
    assert data["metadata"]["finalizers"] == [f"{FINALIZER}/hardwareData"]
    (owner,) = data["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("BareMetalHost", NAME)
    assert owner["uid"] == host["metadata"]["uid"]
    await user.kubectl.run("delete", "hardwaredata", NAME, "--wait=false")
    held = await user.kubectl.json("get", "hardwaredata", NAME)
    assert "deletionTimestamp" in held["metadata"]
    await user.annotate(f"{INSPECT}=")
    await user.until(lambda _: len(box.jobs("inspect")) == 2)
    await user.until_state("ready")
    made = await user.kubectl.json("get", "hardwaredata", NAME)
    assert made["metadata"]["uid"] != data["metadata"]["uid"]
    assert "deletionTimestamp" not in made["metadata"]
    await user.kubectl.run("delete", "baremetalhost", NAME, "--timeout=60s")
    async with asyncio.timeout(30):
        while await user.kubectl.run("get", "hardwaredata", "-o", "name"):
            await asyncio.sleep(0.2)


@scenario
async def test_an_inspection_is_given_up_when_nobody_wants_it(user, machine):
    """inspectionMode: disabled while the agent works: stopped, nothing written, at rest."""
    box = machine("redfish")
    gate = box.hold("inspect")
    await user.register(box)
    await eventually(lambda: box.jobs("inspect"))
    await user.patch({"inspectionMode": "disabled"})
    host = await user.until_state("ready")
    gate.set()
    assert "hardware" not in host["status"]
    await user.until_off()
    assert await user.kubectl.run("get", "hardwaredata", "-o", "name") == ""
    assert any(text.startswith("InspectionSkipped:") for text in await user.events("Normal"))
    await user.annotate(f"{DETAILS}={json.dumps({'hostname': 'told'})}")
    host = await user.until(lambda host: host["status"].get("hardware") == {"hostname": "told"})
    host = await user.until(lambda host: DETAILS not in annotations_of(host))
    assert box.show()["powered_on"] is False


@scenario
async def test_hardware_that_cannot_be_taken_is_refused_or_named(user, machine):
    """By admission where there is some, else on the object; either way nothing is lost or done."""
    box = machine()
    await user.register(box, inspectionMode="disabled")
    await user.until_state("ready")
    said = await refusal(user.annotate(f"{DETAILS}=" + '{"ramGiB": 64}'))
    if said:
        assert "ramGiB" in said
    else:
        host = await user.until_problem("hardware-details")
        assert "ramGiB" in host["status"]["errorMessage"]
        assert annotations_of(host)[DETAILS] == '{"ramGiB": 64}'
        await user.annotate(f"{DETAILS}-")
        await user.until_state("ready")
    host = await user.host()
    assert "hardware" not in host["status"]
    assert box.agents == []


@scenario
async def test_changed_user_data_waits_for_the_next_provisioning(user, machine):
    """Said on the host that runs; acted on with the next image."""
    box = machine("redfish")
    await user.register(box, online=True)
    await user.until_state("ready")
    await user.provision()
    await user.until_state("provisioned")
    await eventually(lambda: box.booted == [IMAGE])
    await user.apply(secret(f"{NAME}-user-data", userData="#cloud-config\nhostname: later\n"))
    host = await user.until(
        lambda host: host["status"].get("waiting", {}).get("cause") == "next-provisioning"
    )
    assert "spec.userData" in host["status"]["waiting"]["message"]
    await user.rest(4)
    assert (await user.host())["status"]["provisioning"]["state"] == "provisioned"
    assert len(box.jobs("deploy")) == 1
    other = IMAGE.replace("CentOS", "Other")
    await user.patch({"image": {"url": other, "checksum": f"{other}.md5sum"}})
    await eventually(lambda: len(box.jobs("deploy")) == 2)
    host = await user.until_state("provisioned")
    deploy = [job for _, _, job in box.ran if hasattr(job, "config_drive")][-1]
    assert b"hostname: later" in deploy.config_drive
    assert "waiting" not in host["status"]


@scenario
async def test_a_host_of_metal3_is_taken_over(user, machine):
    """Its object of today, provisioned and off: looked at and let be; then power, then release."""
    box = machine("redfish")
    credentials, host = user.manifests(box)
    host["metadata"] |= {"finalizers": [FINALIZER], "annotations": {PAUSED: "metal3.io/capm3"}}
    image = {"url": IMAGE, "checksum": f"{IMAGE}.md5sum"}
    host["spec"] |= {"image": image, "bootMode": "legacy", "architecture": "x86_64"}
    await user.apply(credentials, host)
    status = {
        "operationalStatus": "error",
        "errorType": "provisioned registration error",
        "errorMessage": "Host adoption failed",
        "errorCount": 6,
        "hardwareProfile": "libvirt",
        "hardware": {"hostname": "node01", "ramMebibytes": 4096, "cpu": {"arch": "x86_64"}},
        "lastUpdated": "2025-11-02T09:00:00Z",
        "operationHistory": {"provision": {"start": None, "end": None}},
        "provisioning": {
            "ID": "0f1d6a52-3f0b-4f0e-8a51-6a4c3c1f2b77", "state": "provisioned", "image": image,
            "bootMode": "legacy", "raid": {"hardwareRAIDVolumes": None, "softwareRAIDVolumes": []},
        },
    }  # fmt: skip
    await user.patch_status(status)
    await user.rest(2)
    assert (await user.host())["status"]["errorMessage"] == "Host adoption failed"
    await user.annotate(f"{PAUSED}-")
    found = await user.until(lambda host: host["status"]["operationalStatus"] == "OK")
    assert found["status"]["provisioning"]["state"] == "provisioned"
    assert found["status"]["errorMessage"] == ""
    assert found["status"]["hardware"] == status["hardware"]
    await user.rest(4)
    version = (await user.host())["metadata"]["resourceVersion"]
    await user.rest(4)
    assert (await user.host())["metadata"]["resourceVersion"] == version
    assert box.show()["boots"] == []
    await user.patch({"online": True})
    await eventually(lambda: box.show()["powered_on"])
    await user.until(lambda host: host["status"].get("poweredOn") is True)
    assert box.agents == []
    await user.patch({"image": None, "online": False})
    await user.until_state("ready")
    assert len(box.jobs("clean")) == 1


@scenario
async def test_a_status_that_cannot_be_read_stops_everything(user, machine):
    """A moved host whose annotation broke on the way: refused, or named and not touched."""
    box = machine()
    credentials, host = user.manifests(box, online=True)
    host["metadata"]["annotations"] = {STATUS: '{"provisioning": {"state": "half'}
    if said := await refusal(user.apply(credentials, host)):
        assert STATUS in said
        return
    found = await user.until_problem("status-annotation")
    await user.rest(3)
    assert box.show()["boots"] == []
    assert STATUS in annotations_of(await user.host())
    assert "finalizers" not in found["metadata"]
    await user.annotate(f"{STATUS}-")
    await user.until_state("ready")


async def test_a_server_killed_while_it_inspects_again_inspects_once(user, machine, billet):
    box = machine()
    await user.register(box)
    await user.until_state("ready")
    before = await user.kubectl.json("get", "hardwaredata", NAME)
    gate = box.hold("inspect")
    box.ram_mebibytes = 8192
    await user.annotate(f"{INSPECT}=")
    await eventually(lambda: len(box.jobs("inspect")) == 2)
    await billet.crash()
    host = await user.until_state("inspecting")
    assert INSPECT not in annotations_of(host)
    gate.set()
    host = await user.until_state("ready")
    assert host["status"]["hardware"]["ramMebibytes"] == 8192
    after = await user.kubectl.json("get", "hardwaredata", NAME)
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["spec"]["hardware"] == host["status"]["hardware"]
    assert len(box.jobs("inspect")) == 2
    assert user.states[NAME].count("inspecting") == 2
