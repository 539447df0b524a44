"""Figures as ratios to a baseline measured in the same run: `make bench`.

Each line says what Billet does, how fast, and how that compares to the plainest way of doing the
same on this machine now; the ratio is what to compare between machines and commits.
"""

import hashlib
import http.server
import json
import secrets
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from billet_agent.image.fetch import Fetch
from billet_server.apiserver.store import Halves, Key, Put, Store
from billet_server.core.capacity import Claim, Operation, claim_of, claim_of_object
from billet_server.core.host import parse_host, render_status, status_patch
from billet_server.core.machine import step
from billet_server.core.seen import Rules, SecretSeen, Seen
from billet_server.core.terms import HostKey
from billet_server.engine.clock import SystemClock
from billet_server.engine.limits import Limits
from billet_server.telemetry.prometheus import PrometheusMetrics

PUTS = 2000
STEPS = 5000
HOSTS = 10_000
SCRAPES = 200
FETCH_BYTES = 512 << 20
_BODY = json.dumps({"kind": "BareMetalHost", "padding": "x" * 1500}).encode()


class Figure:
    """One line of the result."""

    def __init__(self, name: str, value: float, baseline: float, unit: str, against: str) -> None:
        self.name, self.value, self.baseline = name, value, baseline
        self.unit, self.against = unit, against


def rate(count: float, work: Callable[[], None]) -> float:
    """Return how many per second."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def durable_puts(folder: Path) -> Figure:
    """The embedded API's store against one SQLite commit for each object."""
    plain = sqlite3.connect(folder / "plain.sqlite")
    plain.execute("PRAGMA journal_mode=WAL")
    plain.execute("PRAGMA synchronous=FULL")
    plain.execute("CREATE TABLE objects (name TEXT PRIMARY KEY, body BLOB)")

    def naive() -> None:
        for number in range(PUTS // 4):
            plain.execute("INSERT INTO objects VALUES (?, ?)", (f"n{number}", _BODY))
            plain.commit()

    baseline = rate(PUTS // 4, naive)
    plain.close()
    store = Store(folder / "objects.sqlite", lambda _: None)

    def ours() -> None:
        halves = Halves(_BODY[:10], _BODY[10:])
        futures = [
            store.submit(Put(Key("bench/hosts", "", f"n{n}"), None, f"u{n}", "{}", (), halves, 0))
            for n in range(PUTS)
        ]
        for future in futures:
            future.result()

    value = rate(PUTS, ours)
    store.close()
    return Figure("durable writes of the API's store", value, baseline, "/s", "a commit for each")


def idle_passes() -> Figure:
    """A reconcile decision for a host at rest against parsing its JSON."""
    host = _resting_host()
    text = json.dumps(host)

    def parse() -> None:
        for _ in range(STEPS):
            json.loads(text)

    baseline = rate(STEPS, parse)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    seen = Seen(secrets.token_hex(16), now, SecretSeen("1"))

    def decide() -> None:
        for _ in range(STEPS):
            decision = step(parse_host(host), seen, now, Rules())
            status_patch(host["status"], render_status(decision.status))

    return Figure("decisions for a resting host", rate(STEPS, decide), baseline, "/s", "json.loads")


def passes_with_limits() -> Figure:
    """Decisions for hosts in a queue of 10,000 against the same decisions without limits."""
    host = _resting_host()
    host["spec"] |= {"online": True, "image": {"url": "http://192.0.2.1/a", "checksum": "0" * 32}}
    rules = Rules(max_provisioning=20)
    clock = SystemClock()
    limits = Limits(rules, clock, lambda _: None)
    keys = [HostKey("n", f"node{number:05}") for number in range(HOSTS)]
    for number, key in enumerate(keys):
        since = f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}Z"
        limits.observe(key, Claim(Operation.PROVISION, held=number < 20, since=since))
    seen = Seen(secrets.token_hex(16), datetime(2026, 1, 1, tzinfo=UTC), SecretSeen("1"))
    now = datetime(2026, 1, 2, tzinfo=UTC)

    def plain() -> None:
        for _ in range(STEPS):
            step(parse_host(host), seen, now, rules)

    def limited() -> None:
        for number in range(STEPS):
            key = keys[20 + number % (HOSTS - 20)]
            decision = step(parse_host(host), seen._replace(seats=limits.seats(key)), now, rules)
            limits.reserve(key, claim_of(decision.status))
            limits.observe(key, claim_of_object(host))
            limits.observe(key, Claim(Operation.PROVISION, held=False, since="2026-01-01"))
            limits.end_reservation(key)

    name = f"decisions in a queue of {HOSTS:,}"
    return Figure(name, rate(STEPS, limited), rate(STEPS, plain), "/s", "without limits")


def scrapes() -> Figure:
    """Scraping the metrics of 10,000 hosts against scraping those of one."""

    def filled(hosts: int) -> PrometheusMetrics:
        metrics = PrometheusMetrics()
        for number in range(hosts):
            metrics.add("metal3_reconcile_total", "n", f"node{number}")
            metrics.set("billet_hosts", number, "ready")
            for name in ("register", "inspect", "provision", "deprovision"):
                metrics.observe(
                    f"metal3_operation_{name}_duration_seconds", number, "n", f"node{number}"
                )
        return metrics

    def scrape(metrics: PrometheusMetrics) -> Callable[[], None]:
        def work() -> None:
            for _ in range(SCRAPES):
                metrics.render()

        return work

    baseline = rate(SCRAPES, scrape(filled(1)))
    value = rate(SCRAPES, scrape(filled(HOSTS)))
    return Figure(f"scrapes of {HOSTS:,} hosts", value, baseline, "/s", "one host")


def _resting_host() -> dict[str, Any]:
    reference = {"credentials": {"name": "b", "namespace": "n"}, "credentialsVersion": "1"}
    return {
        "metadata": {
            "name": "a",
            "namespace": "n",
            "uid": "u",
            "generation": 1,
            "resourceVersion": "5",
            "finalizers": ["baremetalhost.metal3.io"],
        },
        "spec": {
            "online": False,
            "bmc": {"address": "ipmi://192.0.2.1", "credentialsName": "b"},
            "bootMACAddress": "00:c2:fc:3b:e1:01",
        },
        "status": {
            "operationalStatus": "OK",
            "provisioning": {"state": "ready"},
            "goodCredentials": reference,
            "triedCredentials": reference,
            "hardware": {"nics": [{"name": f"eth{n}"} for n in range(8)]},
        },
    }


class _Hasher:
    """A sink that hashes, and a waiter that never waits."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def begin(self, total_bytes: int | None) -> None:
        del total_bytes
        self.digest = hashlib.sha256()

    def write(self, data: memoryview) -> None:
        self.digest.update(data)

    def check(self) -> None:
        pass

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def expect(self, total_bytes: int | None) -> None:
        del total_bytes

    def advance(self, done_bytes: int) -> None:
        del done_bytes


def image_fetch() -> Figure:
    """Fetching and hashing an image over loopback HTTP against hashing alone."""
    block = secrets.token_bytes(1 << 20)
    digest = hashlib.sha256()

    def plain() -> None:
        for _ in range(FETCH_BYTES >> 20):
            digest.update(block)

    baseline = rate(FETCH_BYTES / 2**20, plain)
    with _web_server(block, FETCH_BYTES >> 20) as url:
        sink = _Hasher()
        value = rate(FETCH_BYTES / 2**20, lambda: _run(Fetch(url, sink, sink)))
    if sink.digest.digest() != digest.digest():
        raise AssertionError("the fetched bytes differ from the served ones")
    return Figure("image fetched and hashed", value, baseline, "MiB/s", "sha256 alone")


def _run(fetch: Fetch) -> None:
    fetch.run()


@contextmanager
def _web_server(block: bytes, count: int) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(block) * count))
            self.end_headers()
            for _ in range(count):
                self.wfile.write(block)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/image"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        figures = [
            durable_puts(Path(folder)),
            idle_passes(),
            passes_with_limits(),
            scrapes(),
            image_fetch(),
        ]
    table = Table("what", "figure", "baseline", "ratio", "baseline is")
    for figure in figures:
        table.add_row(
            figure.name,
            f"{figure.value:,.0f} {figure.unit}",
            f"{figure.baseline:,.0f} {figure.unit}",
            f"{figure.value / figure.baseline:.2f}",
            figure.against,
        )
    Console().print(table)


if __name__ == "__main__":
    main()
