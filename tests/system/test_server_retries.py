"""Retries, the annotation billet.dev/retry and conditions, by kubectl, on both APIs."""

from billet_server.core.conditions import TYPES
from contract.bmc_worlds import PASSWORD
from scenarios import scenario
from server_rig import IMAGE, problem, secret

NAME = "metal3-node01"


@scenario
async def test_kubectl_waits_for_conditions(user, machine):
    box = machine()
    await user.register(box)
    wait = ("wait", "baremetalhost", NAME, "--timeout=25s")
    await user.kubectl.run(*wait, "--for=condition=AvailableForProvisioning")
    await user.provision()
    await user.kubectl.run(*wait, "--for=condition=Provisioned")
    host = await user.until_state("provisioned")
    conditions = {one["type"]: one for one in host["status"]["conditions"]}
    assert set(conditions) == set(TYPES)
    assert conditions["Healthy"]["status"] == "Unknown"
    assert conditions["Ready"]["observedGeneration"] == host["metadata"]["generation"]


@scenario
async def test_a_provisioning_that_is_given_up_and_annotated(user, machine):
    box = machine()
    await user.register(box)
    await user.until_state("ready")
    box.problems["deploy"] = [problem("image-checksum", f"{IMAGE} is md5 11, not 22")] * 99
    await user.provision()
    host = await user.until_problem("retries-exhausted", deadline_s=90)
    status = host["status"]
    assert status["provisioningFailCount"] == 6
    assert status["lastAttemptedImage"]["url"] == IMAGE
    assert status["problem"]["cause"] == "image-checksum"
    assert status["waiting"]["actor"] == "user"
    assert status["provisioning"]["state"] == "provisioning"
    assert len(box.jobs("deploy")) == 6
    assert len({agent for agent, _ in box.jobs("deploy")}) == 1, "no reboot in between"
    box.problems["deploy"] = []
    await user.kubectl.run("annotate", "baremetalhost", NAME, "billet.dev/retry=now")
    host = await user.until_state("provisioned")
    assert "provisioningFailCount" not in host["status"]
    assert "billet.dev/retry" not in host["metadata"].get("annotations", {})
    assert any("annotation billet.dev/retry" in event for event in await user.events("Normal"))


@scenario
async def test_the_annotation_shortens_the_wait_for_a_password(user, machine):
    box = machine()
    await user.register(box, password="wrong-password-77")
    await user.until(lambda host: host["status"].get("errorCount", 0) >= 3)
    await user.apply(secret(f"{NAME}-credentials", username="admin", password=PASSWORD))
    await user.kubectl.run("annotate", "baremetalhost", NAME, "billet.dev/retry=")
    host = await user.until_state("ready")
    assert "failures" not in host["status"]
