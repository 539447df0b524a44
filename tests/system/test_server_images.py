"""Images and agents that fail, edits in mid-provisioning, and who may speak for a host."""

import asyncio
import base64
import json

import aiohttp
import pytest

from billet_agent.settings import read_cmdline
from billet_server.core.problems import CATALOGUE
from contract.bmc_worlds import PASSWORD
from scenarios import scenario
from server_rig import IMAGE, IMAGE_2, USER_DATA, Agent, eventually, problem, secret

NAME = "metal3-node01"


async def ready(user, machine):
    """Return a machine whose host is ready."""
    box = machine()
    await user.register(box)
    await user.until_state("ready")
    return box


IMAGE_PROBLEMS = [
    ("image-fetch", f"{IMAGE} answered 404 Not Found"),
    ("image-fetch", f"{IMAGE}: the connection was reset after 1048576 bytes"),
    ("image-fetch", f"{IMAGE}: 11 redirects"),
    ("image-short", f"{IMAGE} ended after 10 of 20 bytes"),
    ("image-checksum", "the image is md5 11, the sum file says 22"),
    ("checksum-file", f"{IMAGE}.md5sum names the image twice"),
    ("image-format", "the image starts with <html>, which is no qcow2"),
    ("image-unsafe", "the qcow2 refers to a backing file /etc/passwd"),
    ("image-too-large", "the image has 20 GB, /dev/vda has 8 GB"),
    ("root-device", "no disk fits the hints"),
    ("disk-write", "/dev/vda: Input/output error"),
]


@scenario
async def test_image_problems(user, machine):
    """Each is told on the object and in an Event; an edit goes on at once, on the same agent."""
    box = await ready(user, machine)
    await user.apply(secret(f"{NAME}-user-data", userData=USER_DATA))
    for number, (problem_id, message) in enumerate(IMAGE_PROBLEMS):
        advice = f"what to do about {problem_id}"
        box.problems["deploy"] = [problem(problem_id, message, advice=advice)] * 99
        await user.patch({"online": True, "image": {"url": IMAGE, "checksum": f"{number:032x}"}})
        host = await user.until(
            lambda host, words=message: words in host["status"].get("errorMessage", "")
        )
        host = await user.until_problem(problem_id)
        status = host["status"]
        assert status["errorType"] == "provisioning error"
        assert advice in status["errorMessage"]
        assert status["problem"]["evidence"] == "raw answer"
        assert status["provisioning"]["state"] == "provisioning"
        waits = ("retry", "billet") if CATALOGUE[problem_id].heals else ("change", "user")
        assert (status["waiting"]["cause"], status["waiting"]["actor"]) == waits
    box.problems["deploy"] = []
    warnings = await user.events("Warning")
    for problem_id, message in IMAGE_PROBLEMS:
        assert any(message in event and problem_id in event for event in warnings), warnings
    assert box.booted == []
    await user.patch({"image": {"url": IMAGE_2, "checksum": f"{IMAGE_2}.md5sum"}})
    host = await user.until_state("provisioned")
    assert host["status"]["provisioning"]["image"]["url"] == IMAGE_2
    await eventually(lambda: box.booted == [IMAGE_2])
    assert len({agent for agent, _ in box.jobs("deploy")}) == 1


@scenario
async def test_problem_that_time_heals(user, machine):
    box = await ready(user, machine)
    box.problems["deploy"] = [problem("image-fetch", f"{IMAGE} answered 503")] * 2
    await user.provision()
    host = await user.until_problem("image-fetch")
    assert host["status"]["problem"]["nextRetryAt"]
    host = await user.until_state("provisioned")
    assert len(box.jobs("deploy")) == 3
    assert host["status"]["errorCount"] == 0
    described = await user.kubectl.run("describe", "baremetalhost", NAME)
    assert "ProvisioningError" in described


@scenario
async def test_problem_in_inspection_and_cleaning(user, machine):
    box = machine()
    failed = problem("agent-internal", "the inspect job failed")
    box.problems["inspect"] = [failed]
    await user.register(box)
    host = await user.until_problem("agent-internal")
    assert host["status"]["errorType"] == "inspection error"
    await user.until_state("ready")
    await user.provision()
    await user.until_state("provisioned")
    box.problems["clean"] = [problem("clean", "/dev/vda: Input/output error")]
    await user.patch({"image": None})
    await user.until_problem("clean")
    await user.until_state("ready")
    assert box.disk == "empty"


@scenario
async def test_user_data_secret_missing_then_there(user, machine):
    box = await ready(user, machine)
    await user.provision(userData={"name": "nowhere", "namespace": user.namespace})
    host = await user.until_problem("user-data-missing")
    assert "spec.userData" in host["status"]["errorMessage"]
    assert f"{user.namespace}/nowhere" in host["status"]["errorMessage"]
    await user.until_event("user-data-missing")
    assert box.jobs("deploy") == []
    await user.apply(secret("nowhere", userData=USER_DATA))
    await user.until_state("provisioned")


@scenario
@pytest.mark.parametrize("cut", ["power", "silence"])
async def test_agent_dies_half_way(user, machine, cut):
    """A power cut during the write: booted again, written again, and never booted half."""
    box = await ready(user, machine)
    box.hold("deploy")
    await user.provision()
    await eventually(lambda: box.jobs("deploy") and box.disk == "half")
    if cut == "power":
        box.bmc.order("power off")
    else:
        box.agent.fall_silent()
    await user.until_problem("agent-lost")
    await user.until_event("agent-lost")
    box.release("deploy")
    await user.until_state("provisioned")
    assert len({agent for agent, _ in box.jobs("deploy")}) == 2
    await eventually(lambda: box.booted == [IMAGE])


@scenario
async def test_image_changed_in_mid_provisioning(user, machine):
    box = await ready(user, machine)
    box.hold("deploy")
    await user.provision()
    await eventually(lambda: box.jobs("deploy"))
    await user.patch({"image": {"url": IMAGE_2, "checksum": f"{IMAGE_2}.md5sum"}})
    await eventually(lambda: len(box.jobs("deploy")) == 2)
    assert box.cancelled == [box.jobs("deploy")[0][1]]
    box.release("deploy")
    host = await user.until_state("provisioned")
    assert host["status"]["provisioning"]["image"]["url"] == IMAGE_2
    await eventually(lambda: box.booted == [IMAGE_2])


@scenario
async def test_image_removed_in_mid_provisioning(user, machine):
    box = await ready(user, machine)
    box.hold("deploy")
    await user.provision()
    await eventually(lambda: box.jobs("deploy"))
    await user.patch({"image": None, "online": False})
    await user.until_state("ready")
    host = await user.until_off()
    assert box.cancelled == [box.jobs("deploy")[0][1]]
    assert box.disk == "empty"
    assert box.booted == []
    assert not box.show()["powered_on"]
    assert "image" not in host["status"]["provisioning"]


@scenario
async def test_host_deleted_in_mid_provisioning(user, machine):
    box = await ready(user, machine)
    box.hold("deploy")
    await user.provision()
    await eventually(lambda: box.jobs("deploy"))
    await user.kubectl.run("delete", "baremetalhost", NAME, "--timeout=30s")
    assert box.cancelled == [box.jobs("deploy")[0][1]]
    assert box.disk == "empty"
    assert box.booted == []
    assert not box.show()["powered_on"]


@scenario
async def test_image_changed_on_a_running_host(user, machine):
    box = await ready(user, machine)
    await user.provision()
    await user.until_state("provisioned")
    await user.patch({"image": {"url": IMAGE_2, "checksum": f"{IMAGE_2}.md5sum"}})
    await user.until(
        lambda host: host["status"]["provisioning"].get("image", {}).get("url") == IMAGE_2
    )
    await user.until_state("provisioned")
    await eventually(lambda: box.booted == [IMAGE, IMAGE_2])
    assert len(box.jobs("clean")) == 1


@scenario
async def test_a_stolen_token_is_refused(user, machine):
    box = machine()
    gate = box.hold("inspect")
    await user.register(box)
    await eventually(lambda: box.jobs("inspect"))
    thief = Agent(box, box.agent.kernel_line)
    running = asyncio.create_task(thief.run())
    await eventually(lambda: thief.refusals)
    assert thief.refusals[0] == "token-used"
    assert not thief.connected.is_set()
    running.cancel()
    gate.set()
    await user.until_state("ready")
    assert len(box.jobs("inspect")) == 1
    # After its boot, even the first agent's token is worth nothing.
    await user.until_off()
    late = Agent(box, box.agents[0].kernel_line)
    running = asyncio.create_task(late.run())
    await eventually(lambda: late.refusals)
    assert late.refusals[0] == "token-expired"
    running.cancel()


@scenario
async def test_a_token_for_another_machine_is_refused(user, machine):
    box, other = machine(), machine()
    box.hold("post")
    await user.register(box)
    box.release("post")
    await eventually(lambda: box.agents)
    line = box.agent.kernel_line
    thief = Agent(other, line)
    running = asyncio.create_task(thief.run())
    await eventually(lambda: thief.refusals)
    assert thief.refusals[0] == "mac-mismatch"
    token = read_cmdline(line)["billet.token"]
    forged = line.replace(token, token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB"))
    forger = Agent(box, forged)
    forging = asyncio.create_task(forger.run())
    await eventually(lambda: forger.refusals)
    assert forger.refusals[0] == "token-invalid"
    running.cancel()
    forging.cancel()
    await user.until_state("ready")


@scenario
async def test_unknown_machines_boot_from_their_disk(user, machine):
    async with aiohttp.ClientSession(user.server.url) as http:
        async with http.get("/boot/script", params={"mac": "52:54:00:ff:ff:ff"}) as answer:
            script = await answer.text()
        async with http.get("/boot/script", params={"mac": "no mac"}) as answer:
            refused = await answer.text()
    assert "kernel " not in script
    assert "no host has the MAC 52:54:00:ff:ff:ff" in script
    assert "kernel " not in refused


@scenario
async def test_secrets_stay_secret(user, machine):
    """No BMC password, user data or token in log, Events or object."""
    box = await ready(user, machine)
    gate = box.hold("deploy")
    await user.provision()
    await eventually(lambda: box.jobs("deploy"))
    tokens = {read_cmdline(agent.kernel_line)["billet.token"] for agent in box.agents}
    during = await user.kubectl.run("get", "baremetalhost", NAME, "-o", "yaml")
    gate.set()
    await user.until_state("provisioned")
    told = during + user.server.text() + json.dumps(await user.host())
    told += await user.kubectl.run("get", "events", "-o", "yaml")
    told += await user.kubectl.run("describe", "baremetalhost", NAME)
    told += await user.kubectl.run("get", "hardwaredata", NAME, "-o", "yaml")
    for text in (PASSWORD, "user-data-marker-5d1e", *tokens):
        assert text not in told
        assert base64.b64encode(text.encode()).decode().rstrip("=") not in told
