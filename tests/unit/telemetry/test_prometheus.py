"""Metrics as Prometheus sees them: names, labels, how many series, and over HTTP."""

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from billet_server.core.figures import FIGURES, PER_HOST
from billet_server.errors import ConfigError
from billet_server.telemetry.prometheus import PrometheusMetrics
from billet_server.telemetry.server import MetricsServer

ORDER = ("namespace", "host", "prev_state", "new_state", "driver", "call", "state", "le", "on_off")


def samples(metrics):
    text = metrics.render()[0].decode()
    return {
        (sample.name, *(sample.labels[name] for name in ORDER if name in sample.labels)): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counters_gauges_and_durations_have_their_names_and_labels():
    metrics = PrometheusMetrics()
    metrics.add("metal3_provisioning_state_change_total", "ready", "provisioning")
    metrics.add("metal3_provisioning_state_change_total", "ready", "provisioning", amount=2)
    metrics.set("billet_hosts", 7, "ready")
    metrics.observe("billet_bmc_call_duration_seconds", 0.2, "ipmi", "power_on")
    found = samples(metrics)
    assert found["metal3_provisioning_state_change_total", "ready", "provisioning"] == 3
    assert found["billet_hosts", "ready"] == 7
    assert found["billet_bmc_call_duration_seconds_bucket", "ipmi", "power_on", "0.3"] == 1
    assert found["billet_bmc_call_duration_seconds_bucket", "ipmi", "power_on", "0.1"] == 0
    assert found["billet_bmc_call_duration_seconds_count", "ipmi", "power_on"] == 1


def test_metal3s_durations_have_metal3s_buckets():
    metrics = PrometheusMetrics(per_host=True)
    metrics.observe("metal3_operation_inspect_duration_seconds", 100, "metal3", "node01")
    found = samples(metrics)
    edges = [
        key[3] for key in found if key[0] == "metal3_operation_inspect_duration_seconds_bucket"
    ]
    assert edges == ["30.0", "90.0", "180.0", "360.0", "720.0", "1440.0", "+Inf"]


def test_a_thousand_hosts_are_one_series_unless_asked_for():
    metrics = PrometheusMetrics()
    for number in range(1000):
        metrics.add("metal3_reconcile_total", "metal3", f"node{number}")
    mine = {key: n for key, n in samples(metrics).items() if key[0] == "metal3_reconcile_total"}
    assert mine == {("metal3_reconcile_total", "metal3", ""): 1000}


def test_with_series_per_host_those_of_a_host_that_went_go_too():
    metrics = PrometheusMetrics(per_host=True)
    for name in ("node01", "node02"):
        metrics.add("metal3_reconcile_total", "metal3", name)
        metrics.observe("metal3_operation_inspect_duration_seconds", 100, "metal3", name)
    metrics.forget("metal3", "node01")
    metrics.forget("metal3", "never-seen")
    found = {key for key in samples(metrics) if "node01" in key}
    assert not found
    assert samples(metrics)["metal3_reconcile_total", "metal3", "node02"] == 1
    metrics.add("metal3_reconcile_total", "metal3", "node01")
    assert samples(metrics)["metal3_reconcile_total", "metal3", "node01"] == 1


def test_a_watched_gauge_is_read_when_somebody_asks():
    metrics, length = PrometheusMetrics(), [3]
    metrics.watch("billet_queue_ready", lambda: length[0])
    assert samples(metrics)["billet_queue_ready",] == 3
    length[0] = 5
    assert samples(metrics)["billet_queue_ready",] == 5


def test_every_figure_can_be_used_and_has_a_help():
    metrics = PrometheusMetrics()
    for figure in FIGURES.values():
        labels = ["x"] * len(figure.labels)
        match figure.kind:
            case "counter":
                metrics.add(figure.name, *labels)
                assert figure.name.endswith("_total")
            case "gauge":
                metrics.set(figure.name, 1, *labels)
            case "histogram":
                metrics.observe(figure.name, 1, *labels)
                assert figure.buckets
        assert figure.help
        assert "host" not in figure.labels or figure.labels[:2] == PER_HOST
    names = {key[0] for key in samples(metrics)}
    assert not [name for name in names if name.endswith("_created")]


def test_a_wrong_name_or_label_is_a_defect_that_shows():
    metrics = PrometheusMetrics()
    with pytest.raises(KeyError):
        metrics.add("billet_nothing_total")
    with pytest.raises(ValueError, match="label"):
        metrics.add("metal3_provisioning_state_change_total", "ready")


def test_two_servers_in_one_process_do_not_meet():
    one, other = PrometheusMetrics(), PrometheusMetrics()
    one.set("billet_hosts", 1, "ready")
    assert ("billet_hosts", "ready") not in samples(other)


async def test_a_scrape_over_http():
    metrics = PrometheusMetrics()
    metrics.set("billet_hosts", 7, "ready")
    server = MetricsServer(metrics)
    port = await server.start("127.0.0.1", 0)
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{url}/metrics") as answer:
                text = await answer.text()
                assert answer.status == 200
                assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert 'billet_hosts{state="ready"} 7.0' in text
            assert "process_resident_memory_bytes" in text
            wanted = {"Accept": "application/openmetrics-text; version=1.0.0"}
            async with session.get(f"{url}/metrics", headers=wanted) as answer:
                assert answer.content_type == "application/openmetrics-text"
                assert (await answer.text()).endswith("# EOF\n")
            async with session.get(f"{url}/") as answer:
                assert answer.status == 404
            async with session.post(f"{url}/metrics") as answer:
                assert answer.status == 405
        with pytest.raises(ConfigError, match=f"metrics on 127.0.0.1 port {port}.*--metrics-port"):
            await MetricsServer(metrics).start("127.0.0.1", port)
    finally:
        await server.stop()


async def test_what_probes_ask():
    said = [(False, "not ready: reading the hosts"), (True, "ready: waiting for the lease")]
    server = MetricsServer(PrometheusMetrics(), lambda: said[0])
    port = await server.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            async with http.get("/healthz") as answer:
                assert (answer.status, await answer.text()) == (200, "ok\n")
            async with http.get("/readyz") as answer:
                assert answer.status == 503
            said.pop(0)
            async with http.get("/readyz") as answer:
                assert (answer.status, await answer.text()) == (200, f"{said[0][1]}\n")
    finally:
        await server.stop()
