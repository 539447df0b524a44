"""HardwareData objects over a host's life, and annotations that tell the hardware."""

import json

import pytest

from billet_server import errors
from billet_server.engine.hardwaredata import FINALIZER
from billet_server.ports import BARE_METAL_HOST, HARDWARE_DATA, Object
from engine_rig import NAME, NS, Rig, running_rig

DETAILS = {"hostname": "anvil-1", "cpu": {"arch": "x86_64", "count": 8}}


async def data_of(rig: Rig) -> Object:
    return await rig.api.get(HARDWARE_DATA, NS, NAME)


async def annotate(rig: Rig, **annotations: str | None) -> None:
    changed = {key.replace("__", "/").replace("_", "."): text for key, text in annotations.items()}
    await rig.api.patch(BARE_METAL_HOST, NS, NAME, {"metadata": {"annotations": changed}})


async def delete_host(rig: Rig) -> None:
    await rig.api.delete(BARE_METAL_HOST, NS, NAME)

    async def gone() -> bool:
        try:
            await rig.host()
        except errors.NotFound:
            return True
        return False

    await rig.until(gone)


async def has_none(rig: Rig) -> bool:
    return (await rig.api.list(HARDWARE_DATA, NS)).items == []


async def test_written_and_owned_as_metal3_does():
    async with running_rig() as rig:
        await rig.until_state("ready")
        host, data = await rig.host(), await data_of(rig)
        assert data["spec"]["hardware"] == host["status"]["hardware"]
        assert data["metadata"]["finalizers"] == [FINALIZER]
        (owner,) = data["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
            "BareMetalHost", NAME, host["metadata"]["uid"], True,
        )  # fmt: skip


async def test_inspecting_again_replaces_the_object():
    async with running_rig() as rig:
        await rig.until_state("ready")
        first = await data_of(rig)
        await annotate(rig, inspect_metal3_io="")
        await rig.until_state("inspecting")
        assert (await data_of(rig))["metadata"]["uid"] == first["metadata"]["uid"]
        await rig.until_state("ready")
        second = await data_of(rig)
        assert second["metadata"]["uid"] != first["metadata"]["uid"]
        assert second["metadata"]["finalizers"] == [FINALIZER]
        assert "inspect.metal3.io" not in ((await rig.host())["metadata"].get("annotations") or {})


async def test_it_goes_with_its_host():
    async with running_rig() as rig:
        await rig.until_state("ready")
        await delete_host(rig)
        assert await has_none(rig)


async def test_a_host_goes_that_never_had_any():
    async with running_rig() as rig:
        await rig.until_state("inspecting")
        await delete_host(rig)
        assert await has_none(rig)


@pytest.mark.parametrize("deleted_already", [False, True])
async def test_one_that_metal3_left_is_replaced_and_goes_with_the_host(deleted_already):
    async with running_rig(host=False) as rig:
        meta: Object = {"name": NAME, "namespace": NS, "finalizers": [FINALIZER]}
        old = {"apiVersion": "metal3.io/v1alpha1", "kind": "HardwareData", "metadata": meta}
        created = await rig.api.create(HARDWARE_DATA, old | {"spec": {"hardware": DETAILS}})
        if deleted_already:
            await rig.api.delete(HARDWARE_DATA, NS, NAME)
        await rig.add_host()
        await rig.until_state("ready")
        found = await data_of(rig)
        assert found["metadata"]["uid"] != created["metadata"]["uid"]
        assert found["spec"]["hardware"]["hostname"] == "node01"
        await delete_host(rig)
        assert await has_none(rig)


async def test_one_that_somebody_holds_is_named_and_the_inspection_goes_on_after_it():
    async with running_rig(host=False) as rig:
        meta: Object = {"name": NAME, "namespace": NS, "finalizers": ["example.com/mine"]}
        old = {"apiVersion": "metal3.io/v1alpha1", "kind": "HardwareData", "metadata": meta}
        await rig.api.create(HARDWARE_DATA, old | {"spec": {"hardware": DETAILS}})
        await rig.add_host()

        async def stuck() -> bool:
            return bool((await rig.status()).get("problem"))

        await rig.until(stuck)
        problem = (await rig.status())["problem"]
        assert problem["id"] == "inventory-refused"
        assert "example.com/mine" in problem["message"]
        none: Object = {"metadata": {"finalizers": []}}
        await rig.api.patch(HARDWARE_DATA, NS, NAME, none)
        await rig.until_state("ready")
        assert (await data_of(rig))["spec"]["hardware"]["hostname"] == "node01"


@pytest.mark.parametrize("kill", [False, True])
async def test_hardware_told_by_annotation_reaches_both_places(kill):
    async with running_rig(host=False) as rig:
        await rig.add_host(inspectionMode="disabled")
        await annotate(rig, inspect_metal3_io__hardwaredetails=json.dumps(DETAILS))
        if kill:
            await rig.restart()
        await rig.until_state("ready")
        host = await rig.host()
        assert host["status"]["hardware"] == DETAILS
        assert host["metadata"].get("annotations") in ({}, None)
        assert (await data_of(rig))["spec"]["hardware"] == DETAILS
        assert ("Normal", "UpdateHardwareDetails") in await rig.events()
        assert rig.agent is None


async def test_a_restored_host_keeps_what_was_known():
    async with running_rig(host=False) as rig:
        known = {
            "provisioning": {"state": "ready", "ID": ""},
            "hardware": DETAILS,
            "lastUpdated": "2025-01-01T00:00:00Z",
            "operationalStatus": "OK",
        }
        await rig.stop()
        await rig.add_host()
        await annotate(rig, baremetalhost_metal3_io__status=json.dumps(known))
        await rig.restart()
        await rig.until_state("ready")
        await rig.clock.advance(120)
        host = await rig.host()
        assert host["status"]["hardware"] == DETAILS
        assert host["metadata"].get("annotations") in ({}, None)
        assert await rig.state() == "ready"
        assert rig.agent is None
