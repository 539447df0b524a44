"""Six machines, two places for each operation: the queue as kubectl, Events and metrics show it."""

import asyncio
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from server_rig import Machine, Server, eventually, state_of

NAMES = [f"node-{letter}" for letter in "abcdef"]
BUSY = ("inspecting", "provisioning", "deprovisioning")


@pytest.fixture(scope="module")
def billet(tmp_path_factory):
    limits = ("--max-inspecting", "2", "--max-provisioning", "2", "--max-cleaning", "2")
    server = Server(tmp_path_factory.mktemp("places"), options=limits)
    try:
        server.start()
        yield server
    finally:
        status = server.stop()
    assert status == 0, server.text()
    assert "Traceback" not in server.text()


def delayed(host):
    return host["status"].get("waiting", {}).get("cause") == "capacity"


def metrics(server):
    url = f"http://127.0.0.1:{server.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Watch:
    """How many were at work at once, by what the user's ``kubectl get -w`` showed."""

    def __init__(self, user):
        self.user, self.most = user, 0

    async def run(self):
        while True:
            hosts = self.user.latest.values()
            at_work = [h for h in hosts if state_of(h) in BUSY and not delayed(h)]
            self.most = max(self.most, len(at_work))
            await asyncio.sleep(0.02)


async def queue_shows(user, server, operation, state):
    """Two are at it; four wait where they were, in order, and kubectl says so."""
    for name in NAMES[2:]:
        await user.until(delayed, name)
    rows = (await user.kubectl.run("get", "baremetalhosts")).splitlines()[1:]
    words = [row.split()[1] for row in rows]
    assert words.count("delayed") == 4
    seen = []
    for name in NAMES[2:]:
        host = await user.host(name)
        assert state_of(host) == state
        wait = host["status"]["waiting"]
        assert wait["message"].startswith(f"all 2 places to {operation} are taken; number ")
        assert wait["since"]
        seen.append(wait["since"])
    assert seen == sorted(seen)
    told = [each for each in await user.events("Normal") if each.startswith("Delayed: ")]
    assert told.count(f"Delayed: all 2 places to {operation} are taken; waiting for one") == 4
    found = await asyncio.to_thread(metrics, server)
    assert found["billet_places_in_use", operation] == 2
    assert found["billet_places_wanted", operation] == 4
    assert found["billet_hosts_waiting", "capacity"] == 4
    return found


async def test_six_hosts_take_turns_over_a_kill_of_the_server(user, billet, simulators):
    machines = {
        name: user.plug_in(Machine(simulators("ipmi", number), "ipmi", billet))
        for number, name in enumerate(NAMES, 11)
    }
    watch = Watch(user)
    user.tasks.append(asyncio.create_task(watch.run()))
    gates = [machine.hold("inspect") for machine in machines.values()]
    for name, machine in machines.items():
        await user.register(machine, name)
        await asyncio.sleep(1.1)  # since is in whole seconds
    found = await queue_shows(user, billet, "inspect", "registering")
    assert found["billet_hosts", "inspecting"] == 2
    assert found["billet_hosts", "registering"] == 4
    await billet.crash()
    for name in NAMES[2:]:
        await user.until(delayed, name)
    assert watch.most == 2
    for gate in gates:
        gate.set()
    for name in NAMES:
        await user.until_state("ready", name)
    order = [name for name in NAMES if machines[name].jobs("inspect")]
    assert order == NAMES
    starts = [(await user.host(name))["status"]["operationHistory"]["inspect"]["start"]
            for name in NAMES]  # fmt: skip
    assert starts == sorted(starts)
    assert watch.most == 2

    gates = [machine.hold("deploy") for machine in machines.values()]
    for name in NAMES:
        await user.provision(name)
        await asyncio.sleep(1.1)
    await queue_shows(user, billet, "provision", "ready")
    # Thinking better of it costs nothing; deleting waits for nobody.
    await user.patch({"image": None, "online": False}, NAMES[5])
    await user.until(lambda host: not delayed(host), NAMES[5])
    assert state_of(await user.host(NAMES[5])) == "ready"
    await user.kubectl.run("delete", "baremetalhost", NAMES[4], "--timeout=30s")
    for gate in gates:
        gate.set()
    for name in NAMES[:4]:
        await user.until_state("provisioned", name)
    assert watch.most == 2
    await eventually(lambda: all(machines[name].booted for name in NAMES[:4]))
    found = await asyncio.to_thread(metrics, billet)
    assert found["billet_hosts", "provisioned"] == 4
    assert found["billet_places_wanted", "provision"] == 0
    assert found["metal3_operation_provision_duration_seconds_count", "", user.namespace] == 4
