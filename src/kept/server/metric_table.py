"""The names of all metrics: `docs/operations.md` prints this table, and nothing else is exported."""

from __future__ import annotations

from typing import Final, NamedTuple

COUNTER: Final = "counter"
GAUGE: Final = "gauge"
HISTOGRAM: Final = "histogram"

_WORK: Final = ("tenant", "queue", "function")
_QUEUE: Final = ("tenant", "queue")


class Metric(NamedTuple):
    """A metric: `text` says what it is, `look` when to look at it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str
    look: str

    @property
    def shown(self) -> str:
        """The name by which it is asked for."""
        return f"{self.name}_total" if self.kind == COUNTER else self.name


def _counter(name: str, labels: tuple[str, ...], text: str, look: str = "") -> Metric:
    return Metric(name, COUNTER, labels, text, look)


def _gauge(name: str, labels: tuple[str, ...], text: str, look: str = "") -> Metric:
    return Metric(name, GAUGE, labels, text, look)


def _histogram(name: str, labels: tuple[str, ...], text: str, look: str = "") -> Metric:
    return Metric(name, HISTOGRAM, labels, text, look)


QUEUES: Final = (
    _gauge("kept_queue_depth", _QUEUE, "Jobs that wait: due and delayed ones", "it grows"),
    _gauge("kept_queue_due", _QUEUE, "Jobs that could start now", "workers do not keep up"),
    _gauge("kept_queue_delayed", _QUEUE, "Jobs that must not start yet"),
    _gauge("kept_queue_running", _QUEUE, "Jobs under a lease"),
    _gauge(
        "kept_queue_oldest_due_seconds", _QUEUE, "Since when the first job in line is due",
        "it rises: nobody claims, or a limit holds it",
    ),
)  # fmt: skip
WORK: Final = (
    _counter("kept_jobs_enqueued", _WORK, "Jobs that were created"),
    _counter("kept_jobs_claimed", _WORK, "Leases that were given"),
    _counter(
        "kept_jobs_consumed", (*_WORK, "outcome"), "Jobs that ended, by the state of their promise"
    ),
    _counter(
        "kept_jobs_requeued", (*_WORK, "reason"),
        "Jobs that wait again: failed, released, lease_expired, resumed, continued, other",
        "`failed` and `lease_expired` rise",
    ),
    _counter(
        "kept_jobs_dead", (*_WORK, "reason"), "Dead letters that were filed", "it rises at all"
    ),
    _histogram(
        "kept_job_queue_latency_seconds", _WORK, "From the instant at which a job is due to its lease"
    ),
    _histogram("kept_job_run_seconds", _WORK, "How long a lease was held, of leases given here"),
    _counter("kept_lease_expiries", _WORK, "Leases that ran out", "workers die or are blocked"),
    _gauge("kept_leases_active", ("worker",), "Leases that a worker holds, by its pid"),
    _counter(
        "kept_heartbeats_lost", ("reason",),
        "Heartbeats for a lease that was lost: expired, superseded, settled, halted, unknown; lock, slot",
        "`expired` and `superseded` rise",
    ),
    _counter(
        "kept_dedupe_hits", ("key",),
        "Creates that met what is there: by id, dedupe, debounce or singleton key",
    ),
    _counter(
        "kept_double_effects_detected", ("request",),
        "Results of a lease that was lost, refused",
        "it rises: code ran twice, of which one result counts",
    ),
)  # fmt: skip
GUARDS: Final = (
    _counter("kept_lock_acquired", ("kind",), "Locks and slots that were given"),
    _counter("kept_lock_conflicts", ("kind",), "Times somebody found one held"),
    _histogram(
        "kept_lock_wait_seconds", ("kind",), "How long whoever got one had waited for it",
        "its tail grows",
    ),
)  # fmt: skip
ENGINE: Final = (
    _counter("kept_requests", ("kind", "status"), "Answered requests", "5xx or 429 appear"),
    _histogram(
        "kept_commit_seconds", (), "Time that a commit took",
        "its tail grows: the disk, or processes that hold the file",
    ),
    _histogram(
        "kept_commit_size_requests", (), "Requests and steps in a commit",
        "how well load is gathered",
    ),
    _counter(
        "kept_failed_batches", (), "Batches whose commit failed", "it rises at all: look into the log"
    ),
    _gauge("kept_requests_queued", (), "Requests that wait for a commit", "it grows"),
    _gauge("kept_requests_waiting", (), "Claims and waits that are open"),
    _counter("kept_background_steps", (), "Steps that the engine did on its own"),
    _counter("kept_wakeups", (), "Waiting requests that a commit woke"),
    _counter("kept_messages_sent", (), "Messages of the outbox that were delivered"),
    _counter(
        "kept_messages_failed", (), "Tries to deliver a message that failed",
        "pushed work or webhooks do not arrive",
    ),
    _gauge(
        "kept_outbox_lag_seconds", (), "For how long the next message that can be sent is due",
        "it is not near 0",
    ),
    _gauge(
        "kept_records", ("kind",), "Records in the store; of promises an estimate",
        "`tasks_pending` and `outbox` grow; `dead_letters` is not 0",
    ),
)  # fmt: skip
DOOR: Final = (
    _gauge("kept_connections", (), "Open HTTP connections", "sizing"),
    _gauge("kept_poll_connections", (), "Open streams of workers", "sizing"),
    _gauge("kept_requests_in_flight", (), "HTTP requests that are received or answered", "sizing"),
    _counter("kept_connections_refused", (), "Connections over the limit", "limits are hit"),
    _counter("kept_requests_shed", (), "HTTP requests refused by the door", "limits are hit"),
)
METRICS: Final = (*QUEUES, *WORK, *GUARDS, *ENGINE, *DOOR)


def markdown() -> str:
    """The table for the documentation."""
    rows = ["| metric | kind | what | look at it when |", "|---|---|---|---|"]
    for metric in METRICS:
        labels = f"{{{','.join(metric.labels)}}}" if metric.labels else ""
        rows.append(f"| `{metric.shown}{labels}` | {metric.kind} | {metric.text} | {metric.look} |")
    return "\n".join(rows)
