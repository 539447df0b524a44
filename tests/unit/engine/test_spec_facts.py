"""What the engine does with fields: the architecture written back, the config drive's sources."""

import pytest

from billet_server.core.host import parse_host
from billet_server.engine.secrets import config_drive_tree, data_version
from billet_server.ports import BARE_METAL_HOST, Object
from engine_rig import BMC, NAME, NS, running_rig

IMAGE = {"url": "http://172.22.0.1/a.qcow2", "checksum": "0" * 32}


async def test_the_architecture_found_is_in_the_spec():
    async with running_rig() as rig:
        await rig.until_state("ready")
        host = await rig.host()
        assert host["spec"]["architecture"] == "x86_64"
        await rig.edit(architecture=None)
        await rig.clock.advance(600)
        assert "architecture" not in (await rig.host())["spec"], "only an inspection fills it in"
        await rig.until_state("ready")


async def test_a_person_who_writes_it_first_wins():
    async with running_rig(host=False) as rig:
        await rig.add_host(architecture="amd64")
        await rig.until_state("ready")
        assert (await rig.host())["spec"]["architecture"] == "amd64"


@pytest.mark.parametrize("given", [{}, {"disableCertificateVerification": False},
                                   {"disableCertificateVerification": True}])  # fmt: skip
async def test_the_bmcs_certificate_is_checked_unless_that_is_disabled(given):
    async with running_rig(host=False) as rig:
        await rig.add_host(bmc={"address": BMC, "credentialsName": f"{NAME}-bmc", **given})
        await rig.until_state("ready")
        disabled = given.get("disableCertificateVerification", False)
        assert {target.verify_certificate for target in rig.bmcs.opened} == {not disabled}


async def test_labels_and_annotations_of_others_stay():
    mine = {"cluster.x-k8s.io/cluster-name": "c", "infrastructure.cluster.x-k8s.io/node-reuse": "n"}
    theirs = {"capm3.metal3.io/unhealthy": "", "reboot.metal3.io.example": "x"}
    async with running_rig(host=False) as rig:
        await rig.add_host()
        meta: Object = {"labels": mine, "annotations": theirs}
        await rig.api.patch(BARE_METAL_HOST, NS, NAME, {"metadata": meta})
        await rig.until_state("ready")
        await rig.edit(online=True, image=IMAGE)
        await rig.until_state("provisioned")
        meta = (await rig.host())["metadata"]
        assert (meta["labels"], meta["annotations"]) == (mine, theirs)


async def test_mirrors_and_limit_reach_the_agent_at_its_next_download():
    first, second = "http://a.example/os", "http://b.example/os"
    async with running_rig(host=False) as rig:
        await rig.add_host()
        meta: Object = {"annotations": {"billet.dev/image-mirrors": f"{first}\n{second}"}}
        await rig.api.patch(BARE_METAL_HOST, NS, NAME, {"metadata": meta})
        await rig.until_state("ready")
        await rig.edit(online=True, image=IMAGE)
        await rig.until_state("provisioned")
        meta = {"annotations": {"billet.dev/image-rate-limit": "20M"}}
        await rig.api.patch(BARE_METAL_HOST, NS, NAME, {"metadata": meta})
        await rig.clock.advance(600)
        assert len(rig.deployed) == 1, "neither of them provisions anew"
        await rig.edit(image=IMAGE | {"url": "http://172.22.0.1/b.qcow2"})
        await rig.until_state("deprovisioning")
        await rig.until_state("provisioned")
        told = [(job.image.mirrors, job.image.rate_bytes_s) for job in rig.deployed]
        assert told == [((first, second), None), ((first, second), 20 << 20)]


def host_with(**spec):
    return parse_host({"metadata": {"name": NAME, "namespace": NS, "uid": "u"}, "spec": spec})


@pytest.mark.parametrize("own", [False, True])
async def test_the_images_network_data_falls_back_to_the_ramdisks(own):
    async with running_rig(host=False) as rig:
        rig.api.put_secret(NS, "ramdisk", networkData="links: [ramdisk]")
        rig.api.put_secret(NS, "image", value="links: [image]")
        await rig.clock.advance(1)
        wish = {"networkData": {"name": "image"}} if own else {}
        host = host_with(preprovisioningNetworkDataName="ramdisk", **wish)
        files = config_drive_tree(host, rig.controller.secrets.get)
        (text,) = [data for path, data in files.items() if path.endswith("network_data.json")]
        assert (b"image" if own else b"ramdisk") in text
        assert data_version(host, rig.controller.secrets.get).startswith("networkData=")


async def test_a_changed_secret_of_a_running_host_is_told_and_not_acted_on():
    async with running_rig(host=False) as rig:
        rig.api.put_secret(NS, "user", userData="#!/bin/sh\n")
        await rig.add_host(online=True, image=IMAGE, userData={"name": "user"})
        await rig.until_state("provisioned")
        status = await rig.status()
        assert status["provisioning"]["configDrive"].startswith("userData=")
        assert "waiting" not in status
        rig.api.put_secret(NS, "user", userData="#!/bin/bash\n")

        async def told() -> bool:
            return (await rig.status()).get("waiting", {}).get("cause") == "next-provisioning"

        await rig.until(told, limit_s=10)
        assert "spec.userData" in (await rig.status())["waiting"]["message"]
        await rig.clock.advance(300)
        assert await rig.state() == "provisioned"
        assert len(rig.deployed) == 1
