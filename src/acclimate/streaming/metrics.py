"""What a stream tells those who watch it: counters and times for Prometheus."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import HistogramMetricFamily

from acclimate.arrays import FloatArray
from acclimate.errors import OutputError

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600)
_RECORDS = (1, 10, 100, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)


class Freshness:
    """A histogram of seconds that takes many at a time."""

    def __init__(self) -> None:
        self._counts = dict[tuple[str, str], list[float]]()
        self._sums = dict[tuple[str, str], float]()

    def observe(self, space: str, since: str, seconds: FloatArray) -> None:
        """Add times ``(n,)`` of one space."""
        key, edges = (space, since), np.array(_SECONDS)
        counts = np.bincount(np.searchsorted(edges, seconds), minlength=len(edges) + 1)
        before = self._counts.get(key, [0.0] * (len(edges) + 1))
        self._counts[key] = (counts + np.array(before)).tolist()
        self._sums[key] = self._sums.get(key, 0.0) + float(seconds.sum())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """As Prometheus asks for it."""
        text, labels = "From an event to states that know it", ("space", "since")
        family = HistogramMetricFamily("acclimate_stream_freshness_seconds", text, labels=labels)
        for key, counts in list(self._counts.items()):
            edges = [*map(str, _SECONDS), "+Inf"]
            buckets = list(zip(edges, np.cumsum(counts).tolist(), strict=True))
            family.add_metric(key, buckets, sum_value=self._sums[key])
        yield family


class Metrics:
    """The metrics of one worker, in a registry of their own.

    Freshness is the time from an event until states that have learned it are visible: ``arrival`` counts from when
    it was appended to the stream, ``event`` from when it happened.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        unit = ("space", "partition")
        self.events = self._counter("events", "Records by what became of them", (*unit, "outcome"))
        self.commits = self._counter("commits", "Transactions that were written", unit)
        self.fenced = self._counter("fenced", "Commits that were refused since another worker took over", unit)
        self.failures = self._counter("failures", "Attempts that failed and are made again", ("where",))
        self.stalled = self._gauge("stalled", "1 while the store or the stream cannot be reached", ("where",))
        self.lag = self._gauge("lag_records", "Records that are there and not learned yet", unit)
        self.watermark = self._gauge("newest_event_seconds", "Time of the newest event learned", unit)
        self.values = self._gauge("store_values", "Values in the store", (*unit, "table"))
        self.partitions = self._gauge("partitions", "Partitions that this worker has", ())
        self.batch = self._histogram("batch_records", "Records of a micro-batch", unit, _RECORDS)
        self.update = self._histogram("update_seconds", "Learning of a micro-batch", unit, _SECONDS)
        self.commit = self._histogram("commit_seconds", "Writing of a micro-batch", unit, _SECONDS)
        self.freshness = Freshness()
        self.registry.register(self.freshness)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"acclimate_stream_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(f"acclimate_stream_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"acclimate_stream_{name}", text, labels, buckets=buckets, registry=self.registry)


@contextmanager
def served(metrics: Metrics, port: int) -> Generator[None]:
    """Let Prometheus read the metrics at ``http://machine:port/metrics`` meanwhile.

    Raises:
        OutputError: the port is taken.
    """
    try:
        server, thread = start_http_server(port, registry=metrics.registry)
    except OSError as error:
        raise OutputError(f"port {port} cannot be used: {error.strerror}", hint="choose another one") from error
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
