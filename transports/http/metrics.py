"""The numbers of one app, for Prometheus.

Labels come from small closed sets, never from what a client or an upstream writes: a label is a
time series for ever. Each app has a registry of its own, so two in one process do not collide.

Where several processes serve one address, a scrape reaches any of them. If it showed that one only,
each series would be there now and then, and `rate()` of it would be noise. So whoever is asked asks
the others, and each sample says by a label `worker` whose it is: a number that a process inherits
from the one that it replaces, as a restarted server keeps its `instance`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from nursling.engine.errors import ErrorInfo, NurslingError


CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


def _codes(kind: type[NurslingError]) -> set[str]:
    own = {kind.code} if kind.code else set[str]()
    return own.union(*(_codes(child) for child in kind.__subclasses__()))


CODES = _codes(NurslingError)
"""Every code that a class of `errors.py` has."""


def reason_of(error: ErrorInfo) -> str:
    """Say why something ended in one word of a closed set."""
    if error.code in CODES:
        return error.code
    return {"client": "client_error", "upstream": "upstream_error"}.get(error.fault, "server_error")


class Metrics:
    """Counters of one app.

    `worker` is the number of its process, if there are several, and `others` asks these for theirs.
    """

    def __init__(
        self,
        worker: int | None = None,
        others: Callable[[], Awaitable[Iterable[bytes]]] | None = None,
    ) -> None:
        self._worker = worker
        self._others = others
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "nursling_requests",
            "Answers by route and status.",
            ["route", "status"],
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "nursling_streams_in_flight", "Requests at work now.", registry=self.registry
        )
        self.ends = Counter(
            "nursling_stream_ends",
            "Ends of exchanges: ok, client_gone, or a failure.",
            ["reason"],
            registry=self.registry,
        )
        self.first_token = Histogram(
            "nursling_time_to_first_token_seconds",
            "From the request to the first meaningful event.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.duration = Histogram(
            "nursling_request_duration_seconds",
            "From the request to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )

    def text(self) -> bytes:
        """Write those of this app in Prometheus' text format."""
        if self._worker is None:
            return generate_latest(self.registry)
        return generate_latest(_Labelled(self.registry, {"worker": str(self._worker)}))

    async def of_all(self) -> bytes:
        """Write those of all processes that serve together."""
        if self._others is None:
            return self.text()
        return merged([self.text(), *await self._others()])


class _Labelled(Collector):
    """A registry whose every sample has some labels more."""

    def __init__(self, registry: CollectorRegistry, labels: dict[str, str]) -> None:
        self._registry = registry
        self._labels = labels

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now (the library's form of a registry)."""
        for metric in self._registry.collect():
            metric.samples = [
                sample._replace(labels={**sample.labels, **self._labels})
                for sample in metric.samples
            ]
            yield metric


def merged(texts: Iterable[bytes]) -> bytes:
    """Make one text of several. The format wants the lines of a metric in one group, with one head.

    Each is written by `generate_latest` of the same release, so equal heads are equal bytes.
    """
    groups: dict[bytes, list[bytes]] = {}
    for text in texts:
        for group in text.split(b"# HELP ")[1:]:
            described, kind, *samples = group.splitlines(keepends=True)
            groups.setdefault(b"# HELP " + described + kind, []).extend(samples)
    return b"".join(head + b"".join(samples) for head, samples in groups.items())
