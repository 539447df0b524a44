"""The engine counts: hosts by sort, passes, BMC calls; nothing grows with what strangers write."""

from billet_server.core.terms import HostKey, PowerState
from billet_server.engine.census import MOST_WORDS, NEW, OTHER, Census
from billet_server.memory.metrics import MemoryMetrics
from billet_server.ports import BARE_METAL_HOST
from engine_rig import NAME, NS, running_rig


def obj(state="ready", cause="", problem=""):
    return {
        "status": {
            "provisioning": {"state": state},
            "waiting": {"cause": cause},
            "problem": {"id": problem},
        }
    }


def test_hosts_are_counted_by_state_wait_and_problem():
    metrics = MemoryMetrics()
    census = Census(metrics)
    census.changed(None, {})
    census.changed(None, obj("ready"))
    census.changed({}, obj("inspecting", "retry", "bmc-auth"))
    assert metrics.get("billet_hosts", NEW) == 0
    assert metrics.get("billet_hosts", "ready") == 1
    assert metrics.get("billet_hosts", "inspecting") == 1
    assert metrics.get("billet_hosts_waiting", "retry") == 1
    assert metrics.get("billet_hosts_with_problem", "bmc-auth") == 1
    census.changed(obj("inspecting", "retry", "bmc-auth"), None)
    census.changed(obj("ready"), obj("provisioning", "bmc"))
    assert metrics.get("billet_hosts", "inspecting") == 0
    assert metrics.get("billet_hosts_waiting", "retry") == 0
    assert metrics.get("billet_hosts_with_problem", "bmc-auth") == 0
    assert metrics.get("billet_hosts_waiting", "bmc") == 1


def test_words_of_strangers_make_no_series_without_end():
    metrics = MemoryMetrics()
    census = Census(metrics)
    hosts = [obj("gibberish", f"word-{number}", "No Word!") for number in range(1000)]
    for host in hosts:
        census.changed(None, host)
    assert metrics.get("billet_hosts", OTHER) == 1000
    assert metrics.get("billet_hosts_with_problem", OTHER) == 1000
    assert len(metrics.values) <= MOST_WORDS + 3
    for host in hosts:
        census.changed(host, None)
    assert set(metrics.values.values()) == {0}
    for broken in ({"status": 1}, {"status": {"waiting": {"cause": ["x"]}, "provisioning": "x"}}):
        census.changed(None, broken)
        census.changed(broken, None)
    assert set(metrics.values.values()) == {0}


async def test_the_life_of_a_host_in_figures():
    metrics = MemoryMetrics()
    async with running_rig(metrics=metrics) as rig:
        await rig.until_state("inspecting")
        assert metrics.get("billet_hosts", "inspecting") == 1
        assert metrics.get("billet_places_in_use", "inspect") == 1
        assert metrics.get("billet_places", "inspect") == 50
        await rig.until_state("ready")
        assert metrics.get("billet_hosts", "ready") == 1
        assert metrics.get("billet_places_in_use", "inspect") == 0
        assert metrics.get("metal3_operation_inspect_duration_seconds", NS, NAME) == 1
        assert metrics.get("metal3_reconcile_total", NS, NAME) > 5
        assert metrics.get("metal3_reconcile_error_total", NS, NAME) == 0
        assert metrics.get("billet_reconcile_duration_seconds") > 5
        assert metrics.get("billet_bmc_call_duration_seconds", "ipmi", "power_state") >= 1
        assert metrics.get("billet_bmc_call_duration_seconds", "ipmi", "set_boot_device") == 1
        assert metrics.get("billet_events_total", "Normal") >= 3
        rig.machine.unreachable = True

        async def shown() -> bool:
            return metrics.get("billet_hosts_with_problem", "bmc-unreachable") == 1

        await rig.until(shown)
        assert metrics.get("billet_bmc_call_errors_total", "ipmi", "bmc-unreachable") >= 1
        rig.machine.unreachable = False
        await rig.api.delete(BARE_METAL_HOST, NS, NAME)

        async def gone() -> bool:
            return metrics.get("billet_hosts", "ready") == 0 and len(rig.controller.hosts) == 0

        await rig.until(gone)
        await rig.clock.advance(5)
        assert not [key for key in metrics.values if NAME in key]


async def test_a_pass_that_the_api_breaks_is_an_error():
    metrics = MemoryMetrics()
    async with running_rig(metrics=metrics) as rig:
        await rig.until_state("ready")
        before = metrics.get("metal3_reconcile_total", NS, NAME)
        rig.api.unavailable = True
        rig.controller.queue.add(HostKey(NS, NAME))
        rig.machine.power = PowerState.ON
        await rig.clock.advance(200)
        assert metrics.get("metal3_reconcile_error_total", NS, NAME) >= 1
        assert metrics.get("metal3_reconcile_total", NS, NAME) > before
