"""The in-memory twin of `ports.Metrics`: a dictionary, strict about names and labels."""

from collections.abc import Callable

from billet_server.core.figures import FIGURES, PER_HOST


class MemoryMetrics:
    """``values`` by name and labels: sums of counters, gauges, and counts of histograms.

    ``observed`` has what went into each histogram, in order.
    """

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], float] = {}
        self.observed: dict[tuple[str, ...], list[float]] = {}
        self._watched: dict[tuple[str, ...], Callable[[], float]] = {}

    def get(self, name: str, *labels: str) -> float:
        """Return a value, 0 when there is none yet."""
        key = _key("", name, labels)
        watched = self._watched.get(key)
        return watched() if watched is not None else self.values.get(key, 0.0)

    def add(self, name: str, *labels: str, amount: float = 1.0) -> None:
        """Count up."""
        key = _key("counter", name, labels)
        self.values[key] = self.values.get(key, 0.0) + amount

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        self.values[_key("gauge", name, labels)] = value

    def observe(self, name: str, seconds: float, *labels: str) -> None:
        """Enter a duration."""
        key = _key("histogram", name, labels)
        self.values[key] = self.values.get(key, 0.0) + 1
        self.observed.setdefault(key, []).append(seconds)

    def watch(self, name: str, read: Callable[[], float], *labels: str) -> None:
        """Have a gauge read by `get`."""
        self._watched[_key("gauge", name, labels)] = read

    def forget(self, namespace: str, host: str) -> None:
        """Drop a host's values."""
        for values in (self.values, self.observed):
            for key in [key for key in values if key[1:3] == (namespace, host)]:
                if FIGURES[key[0]].labels[:2] == PER_HOST:
                    del values[key]


def _key(kind: str, name: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    figure = FIGURES[name]
    if (kind and figure.kind != kind) or len(figure.labels) != len(labels):
        raise ValueError(f"{name} is a {figure.kind} with labels {figure.labels}, not {labels}")
    return name, *labels
