"""What happened to work, counted at its commit from what the commit changed (docs/operations.md).

A batch gathers the machine's events and hands them over once they are committed. So a number here is
exact whatever was undone, refused or repeated on the way; only two times are told from memory: how long
a lease was held, and how long one waited for a lock, by the process that began to count.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, TypeAlias, TypeVar

import msgspec

from kept.engine.histogram import Histogram
from kept.engine.labels import Labels, LabelSets
from kept.engine.pace import Pace
from kept.machine.background import ExpireLease, InternalStep
from kept.machine.events import (
    Conflicted,
    Event,
    Granted,
    HeartbeatLost,
    KeyHit,
    LetterFiled,
    TaskMoved,
)
from kept.machine.working_set import WorkingSet
from kept.protocol.entries import EntryKey
from kept.protocol.guard_requests import LockHeartbeat, SlotHeartbeat
from kept.protocol.records import Delivery, Task, TaskState
from kept.protocol.requests import (
    Request,
    TaskFence,
    TaskFulfill,
    TaskNack,
    TaskRecordStep,
    TaskRelease,
)
from kept.protocol.responses import CONFLICT, Response

SECONDS_BUCKETS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0,
)  # fmt: skip
LOCK_BUCKETS: Final = (0.001, *SECONDS_BUCKETS[:12])
# Leases and places in line whose beginning is remembered.
MAX_BEGINNINGS: Final = 100_000

_PENDING: Final = TaskState.PENDING
_ACQUIRED: Final = TaskState.ACQUIRED
_SUSPENDED: Final = TaskState.SUSPENDED
_FULFILLED: Final = TaskState.FULFILLED
_NEVER: Final = Delivery.NEVER
# Requests that bring a result about; refused for a lost lease, it would have been a second one.
_EFFECTS: Final = (TaskFulfill, TaskRecordStep, TaskFence)

Work: TypeAlias = Request | InternalStep
KeyT = TypeVar("KeyT")


class Occurrence(msgspec.Struct, gc=False):
    """What a request or step did, at `now` (ms). `records` are those of its batch."""

    event: Event
    work: Work
    tenant: str
    now: int
    records: WorkingSet


class WorkSeries:
    """The numbers of one tenant, queue and function."""

    __slots__ = ("claimed", "consumed", "enqueued", "latency", "lease_expiries", "requeued", "run")

    def __init__(self) -> None:
        self.enqueued = 0
        self.claimed = 0
        self.lease_expiries = 0
        # By the state of the promise; by reason.
        self.consumed: Counter[str] = Counter()
        self.requeued: Counter[str] = Counter()
        self.latency = Histogram(SECONDS_BUCKETS)
        self.run = Histogram(SECONDS_BUCKETS)


class WorkCounts:
    """Counters and histograms of work since the start."""

    def __init__(self) -> None:
        self._sets = LabelSets()
        self._deaths = LabelSets()
        # By tenant, queue and function.
        self.series: dict[Labels, WorkSeries] = {}
        # The same, and the reason.
        self.dead: Counter[Labels] = Counter()
        self.double_effects: Counter[Labels] = Counter()
        self.heartbeats_lost: Counter[Labels] = Counter()
        self.key_hits: Counter[Labels] = Counter()
        self.granted: Counter[Labels] = Counter()
        self.conflicts: Counter[Labels] = Counter()
        self.lock_wait: dict[Labels, Histogram] = {}
        self.pace = Pace()
        self._lease_began: dict[tuple[str, str], int] = {}
        self._line_joined: dict[tuple[str, EntryKey, str], int] = {}

    def count(self, occurrences: list[Occurrence]) -> None:
        """What one commit did."""
        for each in occurrences:
            event = each.event
            if isinstance(event, TaskMoved):
                self._moved(event.before, event.after, each)
            else:
                self._noted(event, each)

    def _noted(self, event: Event, each: Occurrence) -> None:
        if isinstance(event, LetterFiled):
            letter = event.letter
            work = each.tenant, letter.queue or "", letter.function or ""
            self.dead[self._deaths.bounded((*work, letter.reason))] += 1
        elif isinstance(event, Granted):
            self._granted(event, each)
        elif isinstance(event, Conflicted):
            self.conflicts[(event.key.kind.value,)] += 1
            if event.waits:
                place = (each.tenant, event.key, event.holder)
                _remember(self._line_joined, place, each.now)
        elif isinstance(event, HeartbeatLost):
            self.heartbeats_lost[(event.reason,)] += 1
        elif isinstance(event, KeyHit):
            self.key_hits[_key_of(event)] += 1

    def refused(self, work: Work, response: Response) -> None:
        """A request was refused; it counts if it was made under a lease that was lost."""
        if response.status != CONFLICT:
            return
        if isinstance(work, _EFFECTS):
            self.double_effects[(work.kind,)] += 1
        elif isinstance(work, LockHeartbeat):
            self.heartbeats_lost[("lock",)] += 1
        elif isinstance(work, SlotHeartbeat):
            self.heartbeats_lost[("slot",)] += 1

    def _series_of(self, labels: Labels) -> WorkSeries:
        series = self.series.get(labels)
        if series is None:
            labels = self._sets.bounded(labels)
            series = self.series.get(labels)
            if series is None:
                series = self.series[labels] = WorkSeries()
        return series

    def _moved(self, before: Task | None, after: Task, each: Occurrence) -> None:
        if after.delivery is _NEVER:
            return
        series = self._series_of((each.tenant, after.queue or "", after.function or ""))
        if before is None:
            if after.state is not _FULFILLED:
                series.enqueued += 1
            if after.version:
                self._claimed(after, series, each)
            return
        if after.version > before.version:
            self._claimed(after, series, each)
            if before.retry_at is not None and after.queue is not None:
                series.latency.observe(max(each.now - before.retry_at, 0) / 1_000)
            return
        if before.state is _ACQUIRED:
            self._left(before, after, series, each)
        if after.state is _PENDING and before.state is not _PENDING:
            series.requeued[_why(before, after, each.work)] += 1
        elif after.state is _FULFILLED and before.state is not _FULFILLED:
            promise = each.records.promise(after.id)
            assert promise is not None, after
            series.consumed[promise.state.value] += 1

    def _claimed(self, after: Task, series: WorkSeries, each: Occurrence) -> None:
        series.claimed += 1
        _remember(self._lease_began, (each.tenant, after.id), each.now)
        if after.queue is not None:
            self.pace.note(each.tenant, after.queue, after.lane, each.now)

    def _left(self, before: Task, after: Task, series: WorkSeries, each: Occurrence) -> None:
        if after.failures > before.failures and isinstance(each.work, ExpireLease):
            series.lease_expiries += 1
        if after.state is not _ACQUIRED:
            began = self._lease_began.pop((each.tenant, after.id), None)
            if began is not None:
                series.run.observe(max(each.now - began, 0) / 1_000)

    def _granted(self, event: Granted, each: Occurrence) -> None:
        labels = (event.key.kind.value,)
        self.granted[labels] += 1
        joined = self._line_joined.pop((each.tenant, event.key, event.holder), None)
        waited = each.now - joined if event.had_place and joined is not None else 0
        if labels not in self.lock_wait:
            self.lock_wait[labels] = Histogram(LOCK_BUCKETS)
        self.lock_wait[labels].observe(max(waited, 0) / 1_000)


def _why(before: Task, after: Task, work: Work) -> str:
    """Why a task waits in its queue again."""
    if before.state is _SUSPENDED:
        return "resumed"
    if before.state is not _ACQUIRED:
        return "continued"
    if isinstance(work, ExpireLease):
        return "lease_expired"
    if isinstance(work, TaskNack) and after.failures > before.failures:
        return "failed"
    return "released" if isinstance(work, TaskNack | TaskRelease) else "other"


def _key_of(event: KeyHit) -> Labels:
    return (event.kind.value if event.kind is not None else "id",)


def _remember(beginnings: dict[KeyT, int], key: KeyT, now: int) -> None:
    """When something began; of too many, the oldest are forgotten."""
    beginnings[key] = now
    if len(beginnings) > MAX_BEGINNINGS:
        del beginnings[next(iter(beginnings))]
