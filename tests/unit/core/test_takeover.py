"""Objects that Metal3 left, of 2019 and of today, are taken over; what runs is not restarted."""

from itertools import groupby
from pathlib import Path

import pytest
import yaml

from billet_server.apiserver.definitions import load_crds, parse_crd
from billet_server.apiserver.schema import Schema
from billet_server.core import effects as ask
from billet_server.core.host import host_patch, parse_host, without_nulls
from billet_server.core.states import State, is_known, read_state
from billet_server.core.terms import PowerState
from billet_server.memory.objects import merge_patch
from core_world import World

PATH = Path(__file__).resolve().parents[2] / "data/metal3_objects.yaml"
HOSTS = yaml.safe_load(PATH.read_text())["hosts"]
ROWS = {era: [row for row in HOSTS if row["era"] == era] for era in (2019, "today")}
KIND = {found.kind.kind: found for found in map(parse_crd, load_crds())}["BareMetalHost"]
DEEDS = {
    ask.NetworkBoot: "boot",
    ask.StartInspect: "inspect",
    ask.StartDeploy: "deploy",
    ask.StartClean: "clean",
    ask.PowerOff: "off",
    ask.PowerOn: "on",
    ask.RestartFromDisk: "restart",
    ask.StartHandOver: "deploy",
    ask.SetDiskBoot: "deploy",
}


def name_of(row: dict) -> str:
    return f"{row['era']}: {row['case']}"


def world_of(row: dict) -> World:
    found = parse_host(row["object"])
    assert (found.spec_fault, found.status_fault) == ("", "")
    power = PowerState.ON if row.get("power") == "on" else PowerState.OFF
    return World(
        spec=found.spec,
        status=found.status,
        finalizers=found.finalizers,
        annotations=dict(found.annotations),
        deleting=found.deleting,
        power=power,
        disk=row.get("disk", "empty"),
    )


@pytest.mark.parametrize("row", HOSTS, ids=name_of)
def test_taken_over(row):
    world = world_of(row)
    before, disk = world.power, world.disk
    world.run(seconds=86400)
    end = "gone" if world.gone else world.state.value
    assert end == row["state"], world.describe()
    does = {DEEDS[type(effect)] for effect in world.performed if type(effect) in DEEDS}
    assert does == set(row.get("does", ())), world.performed
    if "via" in row:
        words = [row["object"]["status"]["provisioning"]["state"], *world.states]
        path = [read_state(word).value for word in words]
        assert [key for key, _ in groupby(path) if key][-len(row["via"]) :] == row["via"]
    if not does:
        assert (world.power, world.disk) == (before, disk)
    if world.gone:
        return
    status = world.status
    assert status.problem is None
    assert (status.error_type, status.error_message, status.error_count) == ("", "", 0)
    assert status.operational_status in ("OK", "discovered")
    wanted = world.spec.wanted_image
    if world.state is State.PROVISIONED and wanted is not None:
        assert status.provisioning.image.url == wanted.url
    for _ in range(5):
        assert world.once().events == (), "nothing goes on any more"


def test_every_state_of_both_eras_is_there():
    seen = {
        era: {
            row["object"]["status"]["provisioning"]["state"] for row in HOSTS if row["era"] == era
        }
        for era in (2019, "today")
    }
    assert seen[2019] == {
        *("", "registering", "inspecting", "match profile", "ready", "provisioning", "provisioned"),
        *("deprovisioning", "externally provisioned", "registration error", "validation error"),
        *("provisioning error", "power management error"),
    }
    ours = {state.value for state in State if state.value} - {"ready"}
    assert seen["today"] == ours | {"available"}
    assert all(is_known(word) for word in seen["today"])


@pytest.mark.parametrize("row", HOSTS, ids=name_of)
def test_what_is_written_is_valid_and_written_once(row):
    """At first sight and at the end: the API takes it, and the next pass finds nothing to add."""
    schema = Schema(KIND.schema)
    names = {"apiVersion": KIND.kind.api_version, "kind": KIND.kind.kind}
    obj, _ = schema.prune(names | row["object"])
    world = world_of(row)
    for _ in range(2):
        host = parse_host(obj)
        patch = host_patch(obj, host, world.status)
        obj = obj | {"status": merge_patch(obj["status"], patch)}
        assert [str(fault) for fault in schema.validate(obj)] == []
        again = parse_host(obj)
        assert again.status == world.status
        assert host_patch(obj, again, again.status) == {}
        world.run(seconds=86400)


@pytest.mark.parametrize("row", HOSTS, ids=name_of)
def test_what_metal3_wrote_is_not_torn_out(row):
    """Of what nobody changed nothing is written over, whatever nulls Go put around it."""
    obj = row["object"]
    host = parse_host(obj)
    after = merge_patch(obj["status"], host_patch(obj, host, host.status))
    before = without_nulls(obj["status"])
    for key in ("hardware", "goodCredentials", "lastUpdated", "poweredOn", "hardwareProfile"):
        assert key not in before or after[key] == obj["status"][key], key
    for key in ("raid", "customDeploy", "rootDeviceHints", "bootMode"):
        kept = without_nulls(after)["provisioning"].get(key)
        assert kept == before["provisioning"].get(key), key
