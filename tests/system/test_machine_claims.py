"""Scenarios on both APIs: the article's Machine is provisioned through a host, and deleted."""

import json

from machine_world import machine_object
from scenarios import scenario
from server_rig import IMAGE, secret

NAME = "metal3-node01"
NOTE = "metal3.io/BareMetalHost"


@scenario
async def test_a_machine_is_provisioned_and_given_back(user, machine):
    box = machine("ipmi")
    await user.register(box)
    await user.until_state("ready")
    image = {"url": IMAGE, "checksum": f"{IMAGE}.md5sum"}
    wish = machine_object(NAME, image=image, userData={"name": "data"})
    del wish["metadata"]["namespace"]
    data = secret("data", userData="#cloud-config\n")
    await user.apply(data, wish)
    host = await user.until_state("provisioned")
    assert host["spec"]["consumerRef"]["name"] == NAME
    assert host["spec"]["online"] is True
    assert (await user.row())["CONSUMER"] == NAME
    assert len(box.jobs("deploy")) == 1
    await user.kubectl.run(
        "wait", "--for=condition=Provisioned", f"machine/{NAME}", "--timeout=20s"
    )
    shown = json.loads(await user.kubectl.run("get", "machine", NAME, "-o", "json"))
    assert shown["metadata"]["annotations"][NOTE].endswith(f"/{NAME}")
    assert {"type": "InternalIP", "address": "172.22.0.100"} in shown["status"]["addresses"]
    await user.kubectl.run("delete", "machine", NAME, "--timeout=40s")
    host = await user.until_state("ready")
    assert "consumerRef" not in host["spec"]
    assert len(box.jobs("clean")) == 1
