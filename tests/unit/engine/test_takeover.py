"""Metal3's objects before the whole engine: nothing but readings of power where a system runs."""

from pathlib import Path

import pytest
import yaml

from billet_server import errors
from billet_server.core.annotations import PAUSED
from billet_server.core.terms import PowerState
from billet_server.engine.hardwaredata import FINALIZER as HARDWARE_FINALIZER
from billet_server.engine.leftovers import HELD_BY
from billet_server.memory.bmc import MemoryMachine
from billet_server.memory.objects import merge_patch
from billet_server.ports import BARE_METAL_HOST, HARDWARE_DATA, SECRET, Object
from engine_rig import NS, Rig, running_rig

PATH = Path(__file__).resolve().parents[2] / "data/metal3_objects.yaml"
HOSTS = yaml.safe_load(PATH.read_text())["hosts"]
RESTING = [row for row in HOSTS if not row.get("does") and row["object"]["spec"].get("bmc")]
RESTING = [row for row in RESTING if "deletionTimestamp" not in row["object"]["metadata"]]
WRITTEN = "2025-11-02T09:00:00Z"


async def put(rig: Rig, number: int, row: dict) -> MemoryMachine:
    """Another name, MAC and BMC for each, as if they were machines of one rack."""
    name, address = f"host{number}", f"ipmi://172.22.1.{number}:623"
    rig.put_secret(name=name)
    secret = await rig.api.get(SECRET, NS, f"{name}-bmc")
    known = {
        "credentials": {"name": f"{name}-bmc", "namespace": NS},
        "credentialsVersion": secret["metadata"]["resourceVersion"],
    }
    bmc = {"address": address, "credentialsName": f"{name}-bmc"}
    mac = f"00:c2:fc:3b:e1:{number:02x}"
    change: Object = {
        "apiVersion": "metal3.io/v1alpha1",
        "kind": "BareMetalHost",
        "metadata": {"name": name, "namespace": NS},
        "spec": {"bmc": bmc, "bootMACAddress": mac},
        "status": {"goodCredentials": known, "triedCredentials": known, "lastUpdated": WRITTEN},
    }
    obj = merge_patch(row["object"], change)
    created = await rig.api.create(BARE_METAL_HOST, obj)
    body: Object = {**created, "status": obj["status"]}
    await rig.api.replace(BARE_METAL_HOST, body, subresource="status")
    machine = rig.bmcs.add(MemoryMachine(address, "admin", "secret"))
    machine.power = PowerState.ON if row.get("power") == "on" else PowerState.OFF
    return machine


async def test_a_rack_of_running_machines_is_taken_over_with_readings_only():
    assert len(RESTING) > 15
    async with running_rig(host=False) as rig:
        await rig.stop()
        machines = [await put(rig, number, row) for number, row in enumerate(RESTING)]
        before = [machine.power for machine in machines]
        await rig.restart()
        await rig.clock.advance(300)
        assert {call for machine in machines for call in machine.calls} <= {"power_state"}
        assert [machine.power for machine in machines] == before
        versions = []
        for number, row in enumerate(RESTING):
            host = await rig.host(f"host{number}")
            assert host["status"]["provisioning"]["state"] == row["state"], row["case"]
            assert host["status"]["operationalStatus"] == "OK", row["case"]
            assert not host["status"].get("errorMessage"), row["case"]
            if PAUSED in (host["metadata"].get("annotations") or {}):
                assert host["status"]["lastUpdated"] == WRITTEN
            versions.append(host["metadata"]["resourceVersion"])
        await rig.clock.advance(600)
        now = [await rig.host(f"host{number}") for number in range(len(RESTING))]
        assert [host["metadata"]["resourceVersion"] for host in now] == versions, "written again"


@pytest.mark.parametrize("may", [True, False])
async def test_a_host_of_metal3_goes_and_nothing_of_it_stays_held(may, caplog):
    row = next(row for row in RESTING if row["case"] == "available, on")
    async with running_rig(host=False) as rig:
        await rig.stop()
        machine = await put(rig, 1, row)
        held: Object = {"metadata": {"finalizers": [HELD_BY, "example.com/other"]}}
        await rig.api.patch(SECRET, NS, "host1-bmc", held)
        meta: Object = {"name": "host1", "namespace": NS, "finalizers": [HARDWARE_FINALIZER]}
        names = {"apiVersion": HARDWARE_DATA.api_version, "kind": HARDWARE_DATA.kind}
        spec = {"hardware": {"hostname": "x"}}
        await rig.api.create(HARDWARE_DATA, {**names, "metadata": meta, "spec": spec})
        await rig.restart()
        await rig.clock.advance(5)
        if not may:
            forbid_secrets(rig)
        await rig.api.delete(BARE_METAL_HOST, NS, "host1")

        async def gone() -> bool:
            return not (await rig.api.list(BARE_METAL_HOST, NS)).items

        await rig.until(gone)
        assert machine.power is PowerState.OFF
        assert (await rig.api.list(HARDWARE_DATA, NS)).items == []
        secret = await rig.api.get(SECRET, NS, "host1-bmc")
        left = secret["metadata"]["finalizers"]
        assert left == ["example.com/other"] if may else HELD_BY in left
        assert may or "may not be patched" in caplog.text


def forbid_secrets(rig: Rig) -> None:
    patch = rig.api.patch

    async def refuse(kind, *arguments, **options):
        if kind is SECRET:
            raise errors.ApiError("secrets is forbidden", 403, "Forbidden")
        return await patch(kind, *arguments, **options)

    rig.api.patch = refuse
