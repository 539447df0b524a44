"""`billet move` as typed: shown first, done with --yes, to a file and back."""

import json
import stat

import pytest
import yaml

from billet_server.core.annotations import MOVE, PAUSED, STATUS
from billet_server.ports import BARE_METAL_HOST, SECRET
from cli_world import cli_world

IMAGE = {"url": "http://192.0.2.1/a.qcow2", "checksum": "0" * 32}
STATE = {"provisioning": {"state": "provisioned", "ID": "", "image": IMAGE},
         "lastUpdated": "2026-01-01T00:00:00Z"}  # fmt: skip


@pytest.fixture
async def other(tmp_path, capsys):
    async with cli_world(tmp_path / "other", capsys) as made:
        yield made


async def a_host(world, name="node01", **more):
    await world.host(name, spec={"image": IMAGE}, **(STATE | more))
    secret = await world.api.create(SECRET, {
        "metadata": {"namespace": "metal3", "name": f"{name}-bmc"},
        "stringData": {"username": "admin", "password": "marker-4711"},
    })  # fmt: skip
    good = {"credentials": {"name": f"{name}-bmc", "namespace": "metal3"},
            "credentialsVersion": secret["metadata"]["resourceVersion"]}  # fmt: skip
    await world.status(name, goodCredentials=good)


async def names(world):
    return [obj["metadata"]["name"] for obj in (await world.api.list(BARE_METAL_HOST)).items]


async def test_it_is_shown_first_and_done_with_yes_and_back(world, other):
    await a_host(world)
    text = await world.cli("move", "--to", other.kubeconfig)
    assert "metal3/node01  provisioned  1 Secret" in text
    assert "Nothing was changed. --yes does it." in text
    assert await world.annotations() == {}
    assert await names(other) == []
    text = await world.cli("move", "--to", other.kubeconfig, "--yes")
    assert [line for line in text.splitlines() if line.startswith("metal3/node01: ")] == [
        f"metal3/node01: {step}" for step in (
            "paused at the source", "created at the target, paused", "the copy is complete",
            "handed over", "gone from the source", "moved",
        )
    ]  # fmt: skip
    assert await names(world) == []
    host = await other.get()
    assert host["status"]["provisioning"] == STATE["provisioning"]
    assert not {MOVE, PAUSED, STATUS} & (await other.annotations()).keys()
    assert "There is nothing to move." in await world.cli("move", "--to", other.kubeconfig)
    await other.cli("move", "--to", world.kubeconfig, "-y", "node01")
    assert (await names(world), await names(other)) == (["node01"], [])


async def test_one_in_the_way_stops_all_until_the_others_are_named(world, other):
    await a_host(world)
    await a_host(world, "node02", provisioning={"state": "provisioning", "ID": ""})
    text = await world.cli("move", "--to", other.kubeconfig, "--yes", code=1)
    assert "IN THE WAY: it is provisioning (--wait waits for it)" in text
    assert "nothing was moved" in text
    assert await world.annotations() == {}
    await world.cli("move", "--to", other.kubeconfig, "--yes", "metal3/node01")
    assert (await names(world), await names(other)) == (["node02"], ["node01"])


async def test_wait_waits_for_a_host_to_come_to_rest(world, other):
    await a_host(world, provisioning={"state": "provisioning", "ID": ""})
    text = await world.meanwhile(
        world.cli("move", "--to", other.kubeconfig, "--yes", "--wait"),
        lambda: world.status(**STATE),
    )
    assert "waiting for metal3/node01 (it is provisioning)" in text
    assert await names(other) == ["node01"]


async def test_json_says_what_blocks(world, other):
    await a_host(world)
    await a_host(other)
    text = await world.cli("move", "--to", other.kubeconfig, "-o", "json", "--yes", code=1)
    (item,) = json.loads(text.partition("billet:")[0])
    assert item["blockers"][-1] == "a host of this name is there already"
    assert item["secrets"] == ["node01-bmc"]
    assert item["done"] is False


async def test_undo_takes_a_begun_move_back(world, other):
    await a_host(world)
    mark = json.dumps({"id": "x", "other": "y"})
    await world.annotate(**{MOVE: mark, PAUSED: "billet move"})
    text = await world.cli("move", "--to", other.kubeconfig, "--yes", code=1)
    assert "an earlier move of it to another API was not finished" in text
    await world.cli("move", "--to", other.kubeconfig, "--undo", "--yes")
    assert await world.annotations() == {}


async def test_a_file_has_everything_is_private_and_restores(world, other, tmp_path):
    await a_host(world)
    path = tmp_path / "hosts.yaml"
    assert "1 hosts, 1 Secrets" in await world.cli("move", "--to-file", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert await world.annotations() == {}
    kinds = [obj["kind"] for obj in yaml.safe_load_all(path.read_text())]
    assert kinds == ["Secret", "BareMetalHost"]
    assert "exists; --overwrite" in await world.cli("move", "--to-file", path, code=2)
    await world.cli("move", "--to-file", path, "--overwrite")
    assert "--yes does it" in await other.cli("move", "--from-file", path)
    assert await names(other) == []
    await other.cli("move", "--from-file", path, "--yes", "--keep-paused")
    assert await other.annotations() == {PAUSED: "billet move"}
    await other.cli("unpause", "node01")
    here, there = await world.get(), await other.get()
    assert there["spec"] == here["spec"]
    known = [side["status"].pop("goodCredentials")["credentialsVersion"] for side in (here, there)]
    assert there["status"] == here["status"]
    one, two = [await side.api.get(SECRET, "metal3", "node01-bmc") for side in (world, other)]
    assert one["data"] == two["data"]
    assert known == [side["metadata"]["resourceVersion"] for side in (one, two)]
    text = await other.cli("move", "--from-file", path, "--yes", code=1)
    assert "a host of this name is there already" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [("a: [b", "is not YAML"), ("kind: Secret\nmetadata: {name: x}\n", "holds no BareMetalHost"),
     ("- 1\n", "no Kubernetes object"), ("", "holds no BareMetalHost")],
)  # fmt: skip
async def test_a_file_that_holds_no_hosts_is_refused(world, content, said):
    path = world.write("hosts.yaml", content)
    assert said in await world.cli("move", "--from-file", path, code=2)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["move"], 2, "say one of --to"),
        (["move", "--to-file", "a", "--from-file", "/etc/hosts"], 2, "say one of --to"),
        (["move", "--to", "/nowhere"], 2, "there is no kubeconfig /nowhere"),
        (["move", "--to-file", "/proc/x/y"], 1, "there are no hosts"),
        (["move", "--to-file", "a", "nod"], 1, "there is no host nod"),
    ],
)
async def test_wrong_command_lines(world, words, code, said):
    assert said in await world.cli(*words, code=code)


async def test_source_and_target_may_not_be_the_same(world):
    await a_host(world)
    assert "same API" in await world.cli("move", "--to", world.kubeconfig, code=2)
