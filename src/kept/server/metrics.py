"""`GET /metrics`: the engine's counters, the store's counts and the door's own, for Prometheus.

The engine counts in plain numbers; they become metric families only when somebody asks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from kept.engine.counting import WorkSeries
from kept.engine.histogram import Histogram
from kept.engine.labels import Labels
from kept.engine.statistics import Statistics
from kept.protocol.storage import QueueCounts
from kept.server.gauges import GaugeReader, Gauges
from kept.server.http_protocol import ConnectionGuard
from kept.server.limits import Admission
from kept.server.metric_table import COUNTER, GAUGE, METRICS, Metric
from kept.transports.poll import PollTransport

Family: TypeAlias = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
Numbers: TypeAlias = dict[str, Mapping[Labels, float]]
Histograms: TypeAlias = dict[str, Mapping[Labels, Histogram]]
_PLAIN: Final[Labels] = ()


class DoorNumbers:
    """Where the door's own numbers are read."""

    def __init__(self, guard: ConnectionGuard, admission: Admission, poll: PollTransport) -> None:
        self._guard = guard
        self._admission = admission
        self._poll = poll

    def numbers(self) -> Numbers:
        """Each by the name of its metric."""
        return {
            "kept_connections": {_PLAIN: len(self._guard.connections)},
            "kept_poll_connections": {_PLAIN: self._poll.connections},
            "kept_requests_in_flight": {_PLAIN: self._admission.requests},
            "kept_connections_refused": {_PLAIN: self._guard.refused},
            "kept_requests_shed": {_PLAIN: self._admission.shed},
        }


class _Snapshot(Collector):
    """Everything at one moment."""

    def __init__(self, numbers: Numbers, histograms: Histograms) -> None:
        self._numbers = numbers
        self._histograms = histograms

    def collect(self) -> Iterable[Family]:
        for metric in METRICS:
            if metric.kind in (COUNTER, GAUGE):
                yield _family(metric, self._numbers[metric.name])
            else:
                yield _histogram_family(metric, self._histograms[metric.name])


def _family(metric: Metric, numbers: Mapping[Labels, float]) -> Family:
    kind = CounterMetricFamily if metric.kind == COUNTER else GaugeMetricFamily
    family = kind(metric.name, metric.text, labels=metric.labels)
    for labels, number in sorted(numbers.items()):
        family.add_metric(labels, number)
    return family


def _histogram_family(metric: Metric, histograms: Mapping[Labels, Histogram]) -> Family:
    family = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
    for labels, histogram in sorted(histograms.items()):
        family.add_metric(labels, histogram.cumulative(), histogram.sum)
    return family


def _engine_numbers(statistics: Statistics, gauges: Gauges) -> Numbers:
    return {
        "kept_requests": {
            (kind, str(status)): count for (kind, status), count in statistics.requests.items()
        },
        "kept_failed_batches": {_PLAIN: statistics.failed_batches},
        "kept_requests_queued": {_PLAIN: statistics.queued},
        "kept_requests_waiting": {_PLAIN: statistics.waiting},
        "kept_background_steps": {_PLAIN: statistics.background_steps},
        "kept_wakeups": {_PLAIN: statistics.wakeups},
        "kept_messages_sent": {_PLAIN: statistics.messages_sent},
        "kept_messages_failed": {_PLAIN: statistics.messages_failed},
        "kept_outbox_lag_seconds": {_PLAIN: gauges.outbox_lag_seconds},
        "kept_records": {(kind,): count for kind, count in gauges.records.items()},
    }


def _work_numbers(statistics: Statistics, gauges: Gauges) -> Numbers:
    work = statistics.work
    series = work.series
    return {
        "kept_jobs_enqueued": {labels: of.enqueued for labels, of in series.items()},
        "kept_jobs_claimed": {labels: of.claimed for labels, of in series.items()},
        "kept_jobs_consumed": _with_reasons(series, lambda of: of.consumed),
        "kept_jobs_requeued": _with_reasons(series, lambda of: of.requeued),
        "kept_jobs_dead": work.dead,
        "kept_lease_expiries": {labels: of.lease_expiries for labels, of in series.items()},
        "kept_leases_active": gauges.leases,
        "kept_heartbeats_lost": work.heartbeats_lost,
        "kept_dedupe_hits": work.key_hits,
        "kept_double_effects_detected": work.double_effects,
        "kept_lock_acquired": work.granted,
        "kept_lock_conflicts": work.conflicts,
    }


def _with_reasons(
    series: Mapping[Labels, WorkSeries], counts: Callable[[WorkSeries], Mapping[str, int]]
) -> Mapping[Labels, float]:
    return {
        (*labels, reason): count
        for labels, of in series.items()
        for reason, count in counts(of).items()
    }


def _queue_numbers(gauges: Gauges) -> Numbers:
    def of(number: Callable[[QueueCounts], float]) -> Mapping[Labels, float]:
        return {labels: number(counts) for labels, counts in gauges.queues.items()}

    def age(counts: QueueCounts) -> float:
        oldest = counts.oldest_due_at
        return 0.0 if oldest is None else max(gauges.now - oldest, 0) / 1_000

    return {
        "kept_queue_depth": of(lambda counts: counts.due + counts.delayed),
        "kept_queue_due": of(lambda counts: counts.due),
        "kept_queue_delayed": of(lambda counts: counts.delayed),
        "kept_queue_running": of(lambda counts: counts.acquired),
        "kept_queue_oldest_due_seconds": of(age),
    }


def _histograms(statistics: Statistics) -> Histograms:
    work = statistics.work
    return {
        "kept_commit_seconds": {_PLAIN: statistics.commit_seconds},
        "kept_commit_size_requests": {_PLAIN: statistics.commit_sizes},
        "kept_job_queue_latency_seconds": {
            labels: of.latency for labels, of in work.series.items()
        },
        "kept_job_run_seconds": {labels: of.run for labels, of in work.series.items()},
        "kept_lock_wait_seconds": work.lock_wait,
    }


def metrics_source(
    statistics: Statistics, gauges: GaugeReader, door: DoorNumbers
) -> Callable[[], Awaitable[bytes]]:
    """What `/metrics` answers with. Raises `StoreError` where the store does not answer."""

    async def text() -> bytes:
        read = await gauges.read()
        numbers = {
            **_queue_numbers(read),
            **_work_numbers(statistics, read),
            **_engine_numbers(statistics, read),
            **door.numbers(),
        }
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Snapshot(numbers, _histograms(statistics)))
        return generate_latest(registry)

    return text
