"""`GET /metrics`: the engine's counters, the store's counts and the door's own, for Prometheus.

The engine counts in plain numbers; they become metric families only when somebody asks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from kept.engine.statistics import COMMIT_BUCKETS_SECONDS, Statistics
from kept.server.http_protocol import ConnectionGuard
from kept.server.limits import Admission
from kept.transports.poll import PollTransport

# Name, text, and the attribute of Statistics.
_COUNTERS: Final = (
    ("kept_batches", "Batches of requests that were applied", "batches"),
    ("kept_batch_requests", "Requests in those batches", "batch_requests"),
    ("kept_failed_batches", "Batches whose commit failed", "failed_batches"),
    ("kept_background_steps", "Steps that the engine did on its own", "background_steps"),
    ("kept_wakeups", "Waiting requests that a commit woke", "wakeups"),
    ("kept_messages_sent", "Messages of the outbox that were delivered", "messages_sent"),
    ("kept_messages_failed", "Tries to deliver a message that failed", "messages_failed"),
)
_GAUGES: Final = (
    ("kept_requests_queued", "Requests that wait for a commit", "queued"),
    ("kept_requests_waiting", "Requests that wait for a task or a promise", "waiting"),
)


class DoorNumbers:
    """Where the door's own numbers are read."""

    def __init__(self, guard: ConnectionGuard, admission: Admission, poll: PollTransport) -> None:
        self._guard = guard
        self._admission = admission
        self._poll = poll

    def families(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """One metric family for each."""
        yield GaugeMetricFamily(
            "kept_connections", "Open HTTP connections", len(self._guard.connections)
        )
        yield GaugeMetricFamily(
            "kept_poll_connections", "Open streams of workers", self._poll.connections
        )
        yield GaugeMetricFamily(
            "kept_requests_in_flight",
            "HTTP requests that are received or answered",
            self._admission.requests,
        )
        yield CounterMetricFamily(
            "kept_connections_refused", "Connections over the limit", self._guard.refused
        )
        yield CounterMetricFamily(
            "kept_requests_shed", "HTTP requests refused by the door", self._admission.shed
        )


class _Snapshot(Collector):
    """Everything at one moment."""

    def __init__(self, statistics: Statistics, counts: dict[str, int], door: DoorNumbers) -> None:
        self._statistics = statistics
        self._counts = counts
        self._door = door

    def collect(
        self,
    ) -> Iterable[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        statistics = self._statistics
        requests = CounterMetricFamily(
            "kept_requests", "Answered requests", labels=("kind", "status")
        )
        for (kind, status), count in sorted(statistics.requests.items()):
            requests.add_metric((kind, str(status)), count)
        yield requests
        for name, text, attribute in _COUNTERS:
            yield CounterMetricFamily(name, text, getattr(statistics, attribute))
        for name, text, attribute in _GAUGES:
            yield GaugeMetricFamily(name, text, getattr(statistics, attribute))
        yield _commit_seconds(statistics)
        records = GaugeMetricFamily("kept_records", "Records in the store", labels=("kind",))
        for kind, count in sorted(self._counts.items()):
            records.add_metric((kind,), count)
        yield records
        yield from self._door.families()


def _commit_seconds(statistics: Statistics) -> HistogramMetricFamily:
    buckets = [
        (str(bound), float(count))
        for bound, count in zip(COMMIT_BUCKETS_SECONDS, statistics.commit_buckets, strict=True)
    ]
    buckets.append(("+Inf", float(statistics.commits)))
    return HistogramMetricFamily(
        "kept_commit_seconds",
        "Time that a commit took",
        buckets=buckets,
        sum_value=statistics.commit_seconds,
    )


def metrics_source(
    statistics: Statistics, counts: Callable[[], Awaitable[dict[str, int]]], door: DoorNumbers
) -> Callable[[], Awaitable[bytes]]:
    """What `/metrics` answers with; `counts` are the store's. Raises `StoreError` with them."""

    async def text() -> bytes:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Snapshot(statistics, await counts(), door))
        return generate_latest(registry)

    return text
