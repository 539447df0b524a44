"""`--wait`: to the result, to a problem, to the end of the patience."""

from datetime import UTC, datetime

import pytest

from billet_server.cli.goals import GOING, deprovisioned, detached, inspected, judge, rebooted
from billet_server.cli.waiting import Awaited, await_hosts
from billet_server.core.annotations import DETACHED, INSPECT, REBOOT
from billet_server.core.host import parse_host
from billet_server.core.terms import HostKey
from billet_server.ports import BARE_METAL_HOST

PROBLEM = {"id": "bmc-unreachable", "message": "metal3/node01: no answer", "advice": "look at it",
           "since": "2026-01-01T00:00:00Z"}  # fmt: skip


async def test_power_off_is_followed_until_the_bmc_says_so(world):
    await world.host()
    text = await world.meanwhile(
        world.cli("power", "node01", "off", "--wait"), lambda: world.status(poweredOn=False)
    )
    lines = text.splitlines()
    assert "metal3/node01  provisioned  power on" in lines
    assert lines[-1] == "metal3/node01: done: power off"


async def test_what_is_so_already_is_done_at_once(world):
    await world.host()
    assert "done: power on" in await world.cli("power", "node01", "on", "--wait")


async def test_a_reboot_is_done_when_the_server_took_the_annotation_off(world):
    await world.host()
    text = await world.meanwhile(
        world.cli("reboot", "node01", "--wait"),
        lambda: world.status(poweredOn=False),
        lambda: world.annotate(**{REBOOT: None}),
        lambda: world.status(poweredOn=True),
    )
    assert "power off" in text
    assert text.splitlines()[-1] == "metal3/node01: done: rebooted, power on"


async def test_hold_and_release(world):
    await world.host()
    held = world.cli("reboot", "node01", "--hold", "k", "--wait")
    assert "done: power off, held" in await world.meanwhile(
        held, lambda: world.status(poweredOn=False)
    )
    await world.annotate(**{f"{REBOOT}/other": ""})
    text = await world.cli("reboot", "node01", "--release", "k", "--wait", code=1)
    assert "failed: still held off by other" in text
    released = world.cli("reboot", "node01", "--release", "other", "--wait")
    assert "done: power on" in await world.meanwhile(released, lambda: world.status(poweredOn=True))


async def test_a_new_problem_ends_it_with_exit_code_1(world):
    await world.host(state="ready")
    text = await world.meanwhile(
        world.cli("inspect", "node01", "--wait", code=1),
        lambda: world.status(errorCount=1, problem=PROBLEM),
    )
    assert text.splitlines()[-1] == (
        "metal3/node01: failed: bmc-unreachable: no answer; look at it"
    )


async def test_an_old_problem_does_not_end_it_while_the_server_tries_again(world):
    await world.host(
        errorCount=3, problem=PROBLEM, waiting={"cause": "retry", "message": "x", "actor": "billet"}
    )
    text = await world.meanwhile(
        world.cli("retry", "node01", "--wait"),
        lambda: world.annotate(**{"billet.dev/retry": None}),
        lambda: world.status(errorCount=0, problem=None, waiting=None),
    )
    assert "done: no problem any more" in text


async def test_a_problem_that_stands_ends_it_after_a_while(world):
    obj = await world.host(
        errorCount=1, problem=PROBLEM, waiting={"cause": "change", "message": "x", "actor": "user"}
    )
    said = []
    key = HostKey("metal3", "node01")
    awaited = {key: Awaited(parse_host(obj), rebooted)}
    await world.annotate(**{REBOOT: ""})
    results = await await_hosts(world.api, awaited, 30, said.append, grace_s=0.5)
    assert results[key].kind == "failed"
    assert "bmc-unreachable" in results[key].words


async def test_patience_ends_with_exit_code_3(world):
    await world.host()
    text = await world.cli("power", "node01", "off", "--wait", "--timeout", "1s", code=3)
    assert "timeout: not within 1 s; it goes on without us; last seen: provisioned" in text


async def test_a_paused_host_is_not_waited_for(world):
    await world.host()
    await world.cli("pause", "node01")
    text = await world.cli("power", "node01", "off", "--wait", code=1)
    assert "nothing to wait for: the host is paused" in text


async def test_a_host_that_is_deleted_meanwhile(world):
    await world.host()
    text = await world.meanwhile(
        world.cli("power", "node01", "off", "--wait", code=1),
        lambda: world.api.delete(BARE_METAL_HOST, "metal3", "node01"),
    )
    assert "failed: the host was deleted" in text


async def test_several_hosts_in_several_namespaces(world):
    await world.host("node01")
    await world.host("node02", "other")

    async def off(name, namespace):
        await world.status(name, namespace, poweredOn=False)

    text = await world.meanwhile(
        world.cli("power", "node01", "node02", "off", "--wait"),
        lambda: off("node01", "metal3"),
        lambda: off("node02", "other"),
    )
    assert {line for line in text.splitlines() if "done" in line} == {
        "metal3/node01: done: power off", "other/node02: done: power off",
    }  # fmt: skip


async def test_provision_and_deprovision_end_in_their_states(world):
    await world.host(state="ready")
    image = {"url": "http://192.0.2.1/a.qcow2", "checksum": "0" * 32}
    text = await world.meanwhile(
        world.cli("provision", "node01", "--image", image["url"], "--checksum", "0" * 32, "--wait"),
        lambda: world.status(provisioning={"state": "provisioning"}),
        lambda: world.status(provisioning={"state": "provisioned", "image": image}),
    )
    assert text.splitlines()[-1] == "metal3/node01: done: provisioned"
    text = await world.meanwhile(
        world.cli("deprovision", "node01", "--wait", "--yes"),
        lambda: world.status(provisioning={"state": "deprovisioning"}),
        lambda: world.status(provisioning={"state": "available", "image": None}),
    )
    assert text.splitlines()[-1] == "metal3/node01: done: ready"


def a_host(state="ready", annotations=(), **status):
    return parse_host({
        "metadata": {"namespace": "n", "name": "h", "uid": "u",
                     "annotations": dict.fromkeys(annotations, "")},
        "spec": {"online": True},
        "status": {"provisioning": {"state": state}, **status},
    })  # fmt: skip


def ended(moment):
    return {"inspect": {"end": datetime(2026, 1, 1, moment, tzinfo=UTC).isoformat()}}


@pytest.mark.parametrize(
    ("goal", "before", "now", "kind"),
    [
        (inspected, a_host(), a_host(), "going"),
        (inspected, a_host(operationHistory=ended(1)), a_host(operationHistory=ended(1)), "going"),
        (inspected, a_host(), a_host("inspecting", operationHistory=ended(1)), "going"),
        (inspected, a_host(), a_host(annotations=[INSPECT], operationHistory=ended(1)), "going"),
        (inspected, a_host(operationHistory=ended(1)), a_host(operationHistory=ended(2)), "done"),
        (detached, a_host(), a_host(annotations=[DETACHED]), "going"),
        (detached, a_host(), a_host(operationalStatus="detached"), "done"),
        (deprovisioned, a_host("provisioned"), a_host("available"), "done"),
        (deprovisioned, a_host("provisioned"), a_host("provisioned"), "going"),
    ],
)
def test_goals(goal, before, now, kind):
    assert judge(goal, before, now).kind == kind


def test_a_host_made_anew_under_the_name_is_another():
    other = parse_host({"metadata": {"namespace": "n", "name": "h", "uid": "v"}, "spec": {}})
    assert judge(lambda before, now: GOING, a_host(), other).kind == "failed"
