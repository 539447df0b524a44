"""`ports.Metrics` by prometheus_client, in a registry of its own."""

from collections import defaultdict
from collections.abc import Callable

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from billet_server.core.figures import FIGURES, PER_HOST, Figure

_Metric = Counter | Gauge | Histogram


class PrometheusMetrics:
    """The figures of `core.figures`.

    ``per_host``: keep series for each host; without, their label ``host`` is empty, and 10,000
    hosts cost as much as one.
    """

    def __init__(self, *, per_host: bool = False) -> None:
        # One more series for each counter and histogram, which nobody reads.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._per_host = per_host
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._metrics = {name: _build(figure, self._registry) for name, figure in FIGURES.items()}
        self._children: dict[tuple[str, ...], _Metric] = {}
        self._of_host: dict[tuple[str, str], set[tuple[str, ...]]] = defaultdict(set)

    def add(self, name: str, *labels: str, amount: float = 1.0) -> None:
        """Count up."""
        child = self._child(name, labels)
        assert isinstance(child, Counter)
        child.inc(amount)

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        child = self._child(name, labels)
        assert isinstance(child, Gauge)
        child.set(value)

    def observe(self, name: str, seconds: float, *labels: str) -> None:
        """Enter a duration."""
        child = self._child(name, labels)
        assert isinstance(child, Histogram)
        child.observe(seconds)

    def watch(self, name: str, read: Callable[[], float], *labels: str) -> None:
        """Have a gauge read at each scrape."""
        child = self._child(name, labels)
        assert isinstance(child, Gauge)
        child.set_function(read)

    def forget(self, namespace: str, host: str) -> None:
        """Drop the series of a host."""
        for key in self._of_host.pop((namespace, host), ()):
            self._children.pop(key, None)
            self._metrics[key[0]].remove(*key[1:])

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return all series as text and its content type, as the ``Accept`` header wants it.

        May run in a thread of its own.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _child(self, name: str, labels: tuple[str, ...]) -> _Metric:
        per_host = FIGURES[name].labels[:2] == PER_HOST
        if per_host and not self._per_host:
            labels = (labels[0], "", *labels[2:])
        key = (name, *labels)
        child = self._children.get(key)
        if child is None:
            metric = self._metrics[name]
            child = self._children[key] = metric.labels(*labels) if labels else metric
            if per_host and self._per_host:
                self._of_host[labels[0], labels[1]].add(key)
        return child


def _build(figure: Figure, registry: CollectorRegistry) -> _Metric:
    match figure.kind:
        case "counter":
            return Counter(figure.name, figure.help, figure.labels, registry=registry)
        case "gauge":
            return Gauge(figure.name, figure.help, figure.labels, registry=registry)
        case "histogram":
            return Histogram(
                figure.name,
                figure.help,
                figure.labels,
                registry=registry,
                buckets=figure.buckets,
            )
