"""A host's whole life, driven and judged by kubectl: the seed article's flow, word for word."""

import asyncio

import pytest

from billet_wire import Deploy
from scenarios import scenario
from server_rig import IMAGE, USER_DATA, eventually

COLUMNS = [
    "NAME", "STATUS", "PROVISIONING STATUS", "CONSUMER", "BMC", "HARDWARE PROFILE", "ONLINE",
    "ERROR", "AGE",
]  # fmt: skip
NAME = "metal3-node01"


@scenario
@pytest.mark.parametrize("kind", ["ipmi", "redfish"])
async def test_whole_life(user, machine, kind):
    """From the manifests to the deleted object."""
    machine = machine(kind)
    gate = machine.hold("inspect")
    await user.register(machine)
    await user.until_state("inspecting")
    await eventually(lambda: machine.jobs("inspect"))
    row = await user.row()
    assert list(row) == COLUMNS
    assert row["PROVISIONING STATUS"] == "inspecting"
    assert (row["STATUS"], row["BMC"], row["ONLINE"]) == ("OK", machine.address, "false")
    gate.set()
    await user.kubectl.run(
        "wait", f"baremetalhost/{NAME}", "--timeout=30s",
        "--for=jsonpath={.status.provisioning.state}=ready",
    )  # fmt: skip
    host = await user.until_off()
    row = await user.row()
    assert (row["STATUS"], row["PROVISIONING STATUS"], row["ONLINE"]) == ("OK", "ready", "false")
    assert (row["HARDWARE PROFILE"], row["CONSUMER"], row["ERROR"]) == ("libvirt", "", "")
    assert host["status"]["hardware"]["ramMebibytes"] == 4096
    assert host["status"]["hardware"]["nics"][0]["mac"] == machine.mac
    assert host["status"]["goodCredentials"]["credentials"]["name"] == f"{NAME}-credentials"
    data = await user.kubectl.json("get", "hardwaredata", NAME)
    assert data["spec"]["hardware"]["cpu"]["count"] == 2
    assert not machine.show()["powered_on"]

    await user.provision()
    host = await user.until_state("provisioned")
    row = await user.row()
    assert (row["STATUS"], row["PROVISIONING STATUS"], row["ONLINE"]) == (
        "OK",
        "provisioned",
        "true",
    )
    assert host["status"]["provisioning"]["image"]["url"] == IMAGE
    await eventually(lambda: machine.booted == [IMAGE])
    assert machine.show()["boots"][-1] == "Hdd"
    (deploy,) = [job for _, _, job in machine.ran if isinstance(job, Deploy)]
    assert USER_DATA.encode() in deploy.config_drive
    assert deploy.image.checksum == f"{IMAGE}.md5sum"

    await user.patch({"image": None})
    await user.until_state("deprovisioning")
    await user.until_state("ready")
    assert machine.disk == "empty"
    assert len(machine.jobs("clean")) == 1
    await user.patch({"online": False})
    await user.until_off()
    await user.kubectl.run("delete", "baremetalhost", NAME, "--timeout=30s")
    assert not machine.show()["powered_on"]
    assert await user.kubectl.run("get", "baremetalhosts") == ""
    assert await user.kubectl.run("get", "hardwaredata") == ""
    assert user.states[NAME] == [
        "registering", "inspecting", "preparing", "ready", "provisioning", "provisioned",
        "deprovisioning", "ready", "powering off before delete", "deleting",
    ]  # fmt: skip
    events = await user.events("Normal")
    for reason in ("Registered", "InspectionComplete", "ImageWritten", "ProvisioningComplete"):
        assert any(event.startswith(f"{reason}:") for event in events), events
    assert await user.events("Warning") == []


async def test_server_stopped_and_started_again(user, machine, billet):
    """SIGTERM in the middle: it ends at once and well, and the next one goes on."""
    box = machine()
    gate = box.hold("inspect")
    await user.register(box)
    await eventually(lambda: box.jobs("inspect"))
    assert await asyncio.to_thread(billet.stop) == 0
    gate.set()
    await billet.restart()
    await user.until_state("ready")
    assert len(box.jobs("inspect")) == 1


async def test_inspected_by_the_real_agent(user, machine, tmp_path):
    """`billet-agent` as a program, its settings read from the kernel line of the boot script."""
    box = machine("redfish")
    box.agent_command = ("--sysroot", str(tmp_path))
    for name, text in {
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Gold 6130\n",
        "proc/meminfo": "MemTotal:  16000000 kB\nMemAvailable:  8000000 kB\n",
        "sys/class/dmi/id/sys_vendor": "Dell Inc.\n",
        "sys/class/dmi/id/product_name": "PowerEdge R640\n",
        "sys/block/vda/size": "16777216\n",
        "sys/block/vda/queue/rotational": "1\n",
        "sys/class/net/eno1/address": f"{box.mac}\n",
        "sys/class/net/eno1/device/vendor": "0x14e4\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    await user.register(box)
    host = await user.until_state("ready")
    hardware = host["status"]["hardware"]
    assert hardware["systemVendor"]["productName"] == "PowerEdge R640"
    assert hardware["cpu"]["model"] == "Intel(R) Xeon(R) Gold 6130"
    assert hardware["storage"][0]["sizeBytes"] == 8 << 30
    assert [nic["mac"] for nic in hardware["nics"]] == [box.mac]
    await user.until_off()
