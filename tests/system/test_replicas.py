"""Two servers on a genuine Kubernetes API: what happens to a host when its server goes."""

import asyncio
import re
import signal
import time
from pathlib import Path

import aiohttp
import pytest

from contract.bmc_worlds import PASSWORD
from server_rig import DEADLINE_S, IMAGE, Machine, Server, eventually, world

pytestmark = [pytest.mark.cluster, pytest.mark.own_api]

NAME = "metal3-node01"
TAKE_OVER_S = 30.0
"""What the issue allows from the kill to the next progress."""


class Pair:
    """Two servers, as one to whoever talks to them; each on a loopback address of its own."""

    def __init__(self, folder: Path, kubeconfig: Path) -> None:
        self.folder, self.kubeconfig = folder, kubeconfig
        self.servers = [
            Server(_made(folder / name), kubeconfig, address=f"127.0.0.{number}")
            for number, name in enumerate(("one", "two"), 1)
        ]
        one, two = self.servers
        two.http_port, two.agent_port = one.http_port, one.agent_port
        addresses = [f"{each.address}:{one.agent_port}" for each in self.servers]
        for each in self.servers:
            each.options = tuple(
                word for address in addresses for word in ("--agent-address", address)
            )

    @property
    def url(self):
        """Boot files come from any that lives; both render them from the same objects."""
        alive = [each for each in self.servers if each.process.poll() is None]
        return (alive or self.servers)[-1].url

    def text(self):
        return "".join(each.text() for each in self.servers if each.process is not None)

    async def start(self):
        """Start one after the other; return the leader and the standby."""
        first, second = self.servers
        await first.restart()
        second.spawn()
        await eventually(lambda: "billet: waiting for the lease held by" in said(second))
        assert "billet: ready" not in said(second)
        return first, second

    def stop(self):
        for each in self.servers:
            if each.process is not None and each.process.poll() is None:
                each.process.send_signal(signal.SIGCONT)
        return [each.stop() for each in self.servers]


def _made(folder):
    folder.mkdir()
    return folder


def said(server):
    """What this process has announced."""
    return (server.folder / "server.out").read_text()


@pytest.fixture
async def pair(own_api, tmp_path):
    made = Pair(tmp_path, own_api.kubeconfig)
    try:
        yield made
    finally:
        statuses = await asyncio.to_thread(made.stop)
    assert all(status in (0, None) for status in statuses), made.text()
    assert "Traceback" not in made.text()
    assert PASSWORD not in made.text()


@pytest.fixture
async def user(pair):
    async with world(pair) as made:
        yield made


async def until_deploying(user, box):
    """Bring the host to the middle of its write; return the gate and the job's id."""
    await user.register(box)
    await user.until_state("ready")
    gate = box.hold("deploy")
    await user.provision()
    await eventually(lambda: box.jobs("deploy"))
    await user.until(lambda host: (host["status"].get("progress") or {}).get("percent") == 50)
    ((_, job_id),) = box.jobs("deploy")
    return gate, job_id


async def until_progress_told_now(user, box, job_id):
    """The agent goes on; return when the object says so."""
    percent = [50]

    async def write():
        while percent[0] < 99:
            percent[0] += 0.25
            await box.agent.progress(job_id, step="write", percent=percent[0])
            await asyncio.sleep(0.25)

    writing = asyncio.create_task(write())
    try:
        await user.until(
            lambda host: (host["status"].get("progress") or {}).get("percent", 0) > 51,
            deadline_s=TAKE_OVER_S + 10,
        )
        return time.monotonic()
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def holder(user):
    spec = (await user.kubectl.json("-n", "billet-system", "get", "lease", "billet"))["spec"]
    return spec["holderIdentity"], spec["leaseTransitions"]


@pytest.mark.parametrize("how", ["kill -9", "SIGTERM"])
async def test_a_leader_that_goes_amid_a_write_is_followed(pair, user, simulators, how, capsys):
    leader, standby = await pair.start()
    box = user.plug_in(Machine(simulators("ipmi"), "ipmi", pair))
    gate, job_id = await until_deploying(user, box)
    boots, agents, (first, before) = box.show()["boots"], len(box.agents), await holder(user)
    since = time.monotonic()
    if how == "SIGTERM":
        assert await asyncio.to_thread(leader.stop) == 0
    else:
        leader.kill()
    took = await until_progress_told_now(user, box, job_id) - since
    with capsys.disabled():
        print(f"\n{how} of the leader to the next progress on the object: {took:.1f} s")
    assert took < (TAKE_OVER_S if how == "kill -9" else 12)
    second, after = await holder(user)
    assert second != first
    assert after == before + 1
    assert box.show()["boots"] == boots, "nobody touched the machine's power"
    assert "billet: ready" in said(standby)
    gate.set()
    host = await user.until_state("provisioned")
    assert host["status"]["provisioning"]["image"]["url"] == IMAGE
    await eventually(lambda: box.booted == [IMAGE])
    assert len(box.jobs("deploy")) == 1, "the image was written once"
    assert len(box.agents) == agents, "no agent was lost"
    assert await user.events("Warning") == []


async def test_a_leader_that_stood_still_past_its_lease_does_not_act(pair, user, simulators):
    """Stopped amid power cycling the machine; when it goes on, another one has done it all."""
    leader, standby = await pair.start()
    box = user.plug_in(Machine(simulators("redfish"), "redfish", pair))
    await user.register(box)
    await user.until_state("ready")
    await user.until_off()
    box.switch("bmc_slow_s=1")
    before = leader.log.read_text().count("NetworkBoot")
    await user.provision()
    await eventually(lambda: leader.log.read_text().count("NetworkBoot") > before)
    leader.process.send_signal(signal.SIGSTOP)
    await eventually(lambda: "billet: ready" in said(standby), 40)
    box.switch("bmc_slow_s=0")
    gate = box.hold("deploy")
    await eventually(lambda: box.jobs("deploy"), 60)
    boots, marker = box.show()["boots"], len(leader.log.read_text())
    leader.process.send_signal(signal.SIGCONT)
    await eventually(lambda: re.search(r"(?s)ready.*waiting for the lease held by", said(leader)))
    await asyncio.sleep(3)  # two of its power polls
    assert box.show()["boots"] == boots, "it went on with the power cycle"
    assert box.show()["powered_on"]
    acted = re.findall(r"INFO \S+perform: (.*)", leader.log.read_text()[marker:])
    assert acted == []
    gate.set()
    await user.until_state("provisioned")
    await eventually(lambda: box.booted == [IMAGE])
    assert len(box.jobs("deploy")) == 1

    # and it is a good standby: it leads again when the other one goes
    assert await asyncio.to_thread(standby.stop) == 0
    await user.patch({"image": None})
    await user.until_state("ready")
    assert box.disk == "empty"


async def test_a_lone_server_that_was_killed_takes_its_own_lease_back_at_once(pair, user):
    first, _ = pair.servers
    await first.restart()
    before = await holder(user)
    first.kill()
    since = time.monotonic()
    await first.restart()
    assert time.monotonic() - since < 10
    assert await holder(user) == before


async def test_both_are_ready_and_say_which_leads(pair, user):
    leader, standby = await pair.start()
    for server, words in ((leader, "ready: leading"), (standby, "ready: waiting for the lease")):
        async with asyncio.timeout(DEADLINE_S), aiohttp.ClientSession(server.url) as http:
            while True:  # 503 until its caches are filled
                async with http.get("/readyz") as answer:
                    said_ready = await answer.text()
                    if answer.status == 200:
                        break
                    assert answer.status == 503
                    assert said_ready.startswith("not ready")
                await asyncio.sleep(0.1)
            assert said_ready.startswith(words)
