"""A host of Metal3 whose BMC scheme Billet lacks: it keeps what it has, and there is a way in."""

import pytest

from billet_server.core.annotations import DETACHED
from billet_server.core.terms import PowerState
from billet_server.core.validate import validate_host
from billet_server.memory.bmc import MemoryMachine
from billet_server.ports import BARE_METAL_HOST, Object
from engine_rig import MAC, NAME, NS, Rig, running_rig

LACKING = "idrac-virtualmedia://172.22.0.9/redfish/v1/Systems/System.Embedded.1"
KNOWN = LACKING.replace("idrac-virtualmedia", "redfish")
IMAGE = {"url": "http://172.22.0.1/a.qcow2", "checksum": "0" * 32}


async def left_by_metal3(rig: Rig, state: str) -> MemoryMachine:
    await rig.stop()
    runs = state == "provisioned"
    spec: Object = {"bmc": {"address": LACKING, "credentialsName": f"{NAME}-bmc"}, "online": runs}
    await rig.add_host(**spec, **({"image": IMAGE} if runs else {}), bootMACAddress=MAC)
    host = await rig.host()
    host["metadata"]["finalizers"] = ["baremetalhost.metal3.io"]
    host = await rig.api.replace(BARE_METAL_HOST, host)
    provisioning = {"state": state, **({"image": IMAGE} if runs else {})}
    host["status"] = {"provisioning": provisioning, "operationalStatus": "OK", "hardware": {}}
    await rig.api.replace(BARE_METAL_HOST, host, subresource="status")
    machine = rig.bmcs.add(MemoryMachine(KNOWN, "admin", "secret"))
    machine.power = PowerState.ON if runs else PowerState.OFF
    await rig.restart()
    return machine


@pytest.mark.parametrize("state", ["available", "provisioned"])
async def test_detached_it_gets_another_address_and_its_system_never_notices(state):
    async with running_rig(host=False) as rig:
        machine = await left_by_metal3(rig, state)
        power = machine.power

        async def said() -> bool:
            return ((await rig.status()).get("problem") or {}).get("id") == "bmc-address"

        await rig.until(said)
        before = await rig.host()
        changed = {"address": KNOWN, "credentialsName": f"{NAME}-bmc"}

        def faults(host: Object) -> list[str]:
            new = host | {"spec": host["spec"] | {"bmc": changed}}
            return [fault.path for fault in validate_host(new, host)]

        assert faults(before) == ["spec.bmc.address"]
        await rig.api.patch(
            BARE_METAL_HOST, NS, NAME, {"metadata": {"annotations": {DETACHED: ""}}}
        )

        async def detached() -> bool:
            return (await rig.status())["operationalStatus"] == "detached"

        await rig.until(detached)
        assert faults(await rig.host()) == []
        await rig.edit(bmc=changed)
        await rig.api.patch(
            BARE_METAL_HOST, NS, NAME, {"metadata": {"annotations": {DETACHED: None}}}
        )

        async def healthy() -> bool:
            status = await rig.status()
            return status["operationalStatus"] == "OK" and status["poweredOn"] is not None

        await rig.until(healthy)
        await rig.clock.advance(300)
        status = await rig.status()
        assert status["provisioning"]["state"] == {"available": "ready"}.get(state, state)
        assert not status.get("problem")
        assert machine.power is power
        assert set(machine.calls) == {"power_state"}
