"""A running machine moved from the embedded API to a genuine one and back; it must not notice."""

import asyncio
import contextlib
import json
import signal
import subprocess

import pytest

from billet_lab.kubectl import Kubectl
from billet_lab.processes import die_with_parent
from server_rig import BILLET, DEADLINE_S, IMAGE, Server, eventually

NAME = "metal3-node01"
PAUSED = "baremetalhost.metal3.io/paused"
STEPS = ("paused at the source", "created at the target", "the copy is complete", "handed over",
         "gone from the source")  # fmt: skip

pytestmark = [pytest.mark.cluster, pytest.mark.own_api]


@pytest.fixture(scope="module")
def kubeconfig(own_api):
    """The genuine cluster that hosts move to."""
    return own_api.kubeconfig


@pytest.fixture(scope="module")
def other(kubeconfig, tmp_path_factory):
    """A second server, an ordinary controller of that cluster, with keys of its own."""
    server = Server(tmp_path_factory.mktemp("other"), kubeconfig)
    try:
        server.start()
        yield server
    finally:
        status = server.stop()
    assert status == 0, server.text()
    assert "Traceback" not in server.text()


async def start_move(source, target, *more):
    return await asyncio.create_subprocess_exec(
        BILLET, "move", f"--kubeconfig={source}", f"--to={target}", "--yes", *more,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=die_with_parent(),
    )  # fmt: skip


async def move(source, target, *more):
    """Run `billet move` to its end."""
    process = await start_move(source, target, *more)
    out, _ = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    assert process.returncode == 0, out.decode()
    return out.decode()


async def killed_move(source, target, step, *more):
    """Run it until it says this step, then kill -9."""
    process = await start_move(source, target, *more)
    said = ""
    async with asyncio.timeout(DEADLINE_S):
        while step not in said:
            line = (await process.stdout.readline()).decode()
            assert line, said
            said += line
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    await process.wait()
    return process.returncode


async def is_active(kubectl):
    """Whether a server would act on the host here."""
    listed = await kubectl.json("get", "baremetalhosts")
    return any(
        PAUSED not in (host["metadata"].get("annotations") or {}) for host in listed["items"]
    )


async def is_looked_after(kubectl):
    """A server is at work on the host here: it answers the annotation that changes nothing."""
    await kubectl.run("annotate", "baremetalhost", NAME, "billet.dev/retry=now")
    async with asyncio.timeout(DEADLINE_S):
        while True:
            host = await kubectl.json("get", "baremetalhost", NAME)
            if "billet.dev/retry" not in (host["metadata"].get("annotations") or {}):
                return host
            await asyncio.sleep(0.2)


async def provisioned(user, box):
    await user.register(box, online=True)
    await user.until_state("ready")
    await user.provision()
    host = await user.until_state("provisioned")
    await eventually(lambda: box.booted == [IMAGE])
    await user.until(lambda host: host["status"].get("poweredOn") is True)
    return host


def same(before, after):
    """The status that a machine's life depends on is the same, and nobody waits for anything."""
    for field in ("provisioning", "hardware", "operationHistory", "hardwareProfile", "poweredOn"):
        one, two = (dict(side["status"][field]) if isinstance(side["status"][field], dict)
                    else side["status"][field] for side in (before, after))  # fmt: skip
        if field == "provisioning":  # holds versions of Secrets, which are the API's own
            assert bool(one.pop("configDrive")) == bool(two.pop("configDrive"))
        assert one == two, field
    assert after["spec"] == before["spec"]
    assert after["status"]["errorMessage"] == ""
    assert "waiting" not in after["status"]


async def test_there_and_back(user, machine, kubeconfig, other):
    box = machine()
    before = await provisioned(user, box)
    seen, jobs = box.show(), list(box.ran)
    here, there = user.server.kubeconfig, kubeconfig
    cluster = Kubectl(there, user.namespace)
    words = ("-n", user.namespace)
    secret = await user.kubectl.json("get", "secret", f"{NAME}-user-data")

    await move(here, there, *words)
    assert await user.kubectl.run("get", "baremetalhosts,hardwaredata,secrets", "-o", "name") == ""
    moved = await is_looked_after(cluster)
    same(before, moved)
    copy = await cluster.json("get", "secret", f"{NAME}-user-data")
    assert copy["data"] == secret["data"]
    found = await cluster.json("get", "hardwaredata", NAME)
    assert found["metadata"]["ownerReferences"][0]["uid"] == moved["metadata"]["uid"]
    await asyncio.sleep(4.5)  # two readings of the power
    same(before, await cluster.json("get", "baremetalhost", NAME))

    await move(there, here, *words)
    assert await cluster.run("get", "baremetalhosts,hardwaredata,secrets", "-o", "name") == ""
    same(before, await is_looked_after(user.kubectl))
    assert (box.show(), box.ran) == (seen, jobs)
    for kubectl in (cluster, user.kubectl):
        events = (await kubectl.json("get", "events"))["items"]
        switched = [e["reason"] for e in events if e["reason"] in ("PowerOff", "PowerOffSkipped")]
        assert switched == []
    # And the server that has it again does as it is told.
    await user.patch({"online": False})
    await user.until_off()
    assert not box.show()["powered_on"]


async def test_killed_at_each_step_it_is_run_again_and_ends_on_one_side(
    user, machine, kubeconfig, other
):
    box = machine()
    before = await provisioned(user, box)
    seen, jobs = box.show(), list(box.ran)
    cluster = Kubectl(kubeconfig, user.namespace)
    sides = [(user.server.kubeconfig, user.kubectl), (kubeconfig, cluster)]
    words = ("-n", user.namespace)
    kills = 0
    for step in STEPS:
        (source, here), (target, there) = sides
        kills += await killed_move(source, target, step, *words) == -signal.SIGKILL
        assert not (await is_active(here) and await is_active(there)), step

        await asyncio.sleep(0.5)
        assert (box.show(), box.ran) == (seen, jobs), step
        await move(source, target, *words)
        assert await here.run("get", "baremetalhosts,hardwaredata,secrets", "-o", "name") == ""
        same(before, await is_looked_after(there))
        sides.reverse()
    assert kills >= len(STEPS) - 1  # the last step is followed by very little
    (source, here), (target, _) = sides
    await move(source, target, *words)
    same(before, await is_looked_after(user.kubectl))
    assert (box.show(), box.ran) == (seen, jobs)


async def test_a_host_in_the_middle_of_something_stays_where_it_is(
    user, machine, kubeconfig, other
):
    box = machine()
    gate = box.hold("inspect")
    await user.register(box)
    await user.until_state("inspecting")
    await eventually(lambda: box.jobs("inspect"))
    process = await start_move(user.server.kubeconfig, kubeconfig, "-n", user.namespace)
    out, _ = await process.communicate()
    assert process.returncode == 1
    assert "IN THE WAY: it is inspecting" in out.decode()
    waiting = await start_move(
        user.server.kubeconfig, kubeconfig, "-n", user.namespace, "--wait", "-o", "json"
    )
    gate.set()
    out, _ = await asyncio.wait_for(waiting.communicate(), DEADLINE_S)
    assert waiting.returncode == 0, out.decode()
    assert json.loads(out[out.index(b"\n[") :])[0]["done"] is True
    host = await is_looked_after(Kubectl(kubeconfig, user.namespace))
    assert host["status"]["provisioning"]["state"] == "ready"
    assert host["status"]["hardware"]["ramMebibytes"] == 4096
