"""The numbers of one app, for Prometheus.

Labels come from small closed sets, never from what a client or an upstream writes: a label is a
time series for ever. Each app has a registry of its own, so two in one process do not collide.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

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
    """Counters of one app."""

    def __init__(self) -> None:
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
        """Write all of them in Prometheus' text format."""
        return generate_latest(self.registry)
