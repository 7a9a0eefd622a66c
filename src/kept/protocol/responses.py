"""What the requests answer (protocol A4, B1 to B5).

A `Response` is a status and its data: one of the structures below, or for errors the bare text.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from kept.protocol.entries import (
    AnnouncedFunction,
    CancelMode,
    LaneLimits,
    LetterFilter,
    QueueSettings,
    RateLimit,
)
from kept.protocol.records import (
    DeadLetter,
    PromiseRecord,
    ScheduleRecord,
    TaskRecord,
)

OK: Final = 200
# task.suspend only: an awaited promise is settled already, so the worker goes on at once.
RESUME_AT_ONCE: Final = 300
BAD_REQUEST: Final = 400
UNAUTHENTICATED: Final = 401
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
CONFLICT: Final = 409
TOO_LARGE: Final = 413
UNPROCESSABLE: Final = 422
SHED: Final = 429
INTERNAL: Final = 500
# The commit failed or the engine is stopping: nothing was applied, ask again.
UNAVAILABLE: Final = 503


class Result(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """What every successful answer's data is."""


class Nothing(Result, frozen=True):
    """The data of an answer that has none: `{}`."""


class PromiseResult(Result, frozen=True):
    """`attributes` and `progress`, where they were asked for: what the work says of itself (B8)."""

    promise: PromiseRecord
    attributes: dict[str, str] | None = None
    progress: float | None = None


class CancelRecord(Result, frozen=True):
    """How far a cancellation is (B3). `descendants` were reached so far; `spreading`: there may be
    more. `ends_at` (ms) is when the promise is settled, if its work has not ended before."""

    mode: CancelMode
    requested_at: int
    descendants: int
    spreading: bool
    reason: str | None = None
    ends_at: int | None = None


class CancelResult(Result, frozen=True):
    """`cancel` is there while something of it is still to be done."""

    promise: PromiseRecord
    cancel: CancelRecord | None = None


class PromisePage(Result, frozen=True):
    promises: list[PromiseRecord]
    cursor: str | None = None


class TaskResult(Result, frozen=True):
    task: TaskRecord


class TaskPage(Result, frozen=True):
    tasks: list[TaskRecord]
    cursor: str | None = None


class AcquiredTask(Result, frozen=True):
    """A lease, with what the work needs. `attempt` is failures + 1; `released` is the order of
    release so far (B3); `more` continues the preload in `promise.children`. `cancel_requested_at`
    (ms): since when the work is asked to stop."""

    task: TaskRecord
    promise: PromiseRecord
    preload: list[PromiseRecord]
    attempt: int | None = None
    released: list[str] | None = None
    more: str | None = None
    cancel_requested_at: int | None = None


class LimitedQueue(Result, frozen=True):
    """A queue of which a claim got less than is due: `reason` is paused, concurrency or rate, and
    `retry_at` (ms) when time alone changes that."""

    queue: str
    reason: str
    retry_at: int | None = None


class ClaimResult(Result, frozen=True):
    tasks: list[AcquiredTask]
    limited: list[LimitedQueue] | None = None


class PreloadResult(Result, frozen=True):
    """A page of what a replay needs; `released` names, in order, those that were released (B3)."""

    preload: list[PromiseRecord]
    more: str | None = None
    released: list[str] | None = None


class InnerHead(Result, frozen=True):
    corr_id: str
    status: int
    version: str


class InnerResponse(Result, frozen=True):
    kind: str
    head: InnerHead
    data: PromiseResult | str


class FenceResult(Result, frozen=True):
    action: InnerResponse
    preload: list[PromiseRecord]


class LostLease(Result, frozen=True):
    """Why a lease in a heartbeat is no longer held: expired, superseded, settled, halted, unknown."""

    id: str
    version: int
    reason: str


class HeartbeatResult(Result, frozen=True):
    lost: list[LostLease] | None = None
    cancel: list[str] | None = None


class NackResult(Result, frozen=True):
    """`outcome`: retry, rejected or halted; `retry_at` (ms) where it is retry."""

    outcome: str
    retry_at: int | None = None


class QueueRecord(Result, frozen=True):
    """A queue's name and settings (B2)."""

    name: str
    concurrency: int | None = None
    rate: RateLimit | None = None
    lane: LaneLimits | None = None
    lanes: dict[str, LaneLimits] = {}
    max_depth: int | None = None
    aging: int | None = None
    paused: bool = False
    retention: int | None = None
    keep_ids: bool = False

    @staticmethod
    def of(name: str, settings: QueueSettings) -> QueueRecord:
        """The record of a queue with these settings."""
        return QueueRecord(name, **msgspec.structs.asdict(settings))


class QueueResult(Result, frozen=True):
    queue: QueueRecord


class QueuePage(Result, frozen=True):
    queues: list[QueueRecord]
    cursor: str | None = None


class QueueRate(Result, frozen=True):
    """Of the `limit` starts in a period of `period` ms, how many the present one has `started`."""

    limit: int
    period: int
    started: int


class QueueNumbers(Result, frozen=True):
    """How a queue stands. `depth` waits, of which `due` could start and `delayed` must not yet;
    `oldest_due_at` (ms) is when the first of those in line became due. `rate` is there where
    starts are limited."""

    name: str
    depth: int
    due: int
    delayed: int
    acquired: int
    suspended: int
    halted: int
    dead: int
    oldest_due_at: int | None = None
    rate: QueueRate | None = None


class QueueStatsResult(Result, frozen=True):
    stats: QueueNumbers


class SignalResult(Result, frozen=True):
    """`number`: the message's place in its mailbox, from 1 on."""

    number: int


class WorkerRecord(Result, frozen=True):
    """What a worker announced (B9), until `expires_at` (ms)."""

    pid: str
    queues: list[str]
    functions: list[AnnouncedFunction]
    expires_at: int


class WorkerPage(Result, frozen=True):
    workers: list[WorkerRecord]
    cursor: str | None = None


class FunctionRecord(Result, frozen=True):
    """A function by name: its versions and queues, and how many workers run any of it."""

    name: str
    versions: list[int]
    queues: list[str]
    workers: int


class FunctionPage(Result, frozen=True):
    functions: list[FunctionRecord]
    cursor: str | None = None


class Runner(Result, frozen=True):
    """A worker that runs a version of a function."""

    pid: str
    version: int
    queue: str
    expires_at: int
    schema: dict[str, Any] | None = None


class FunctionResult(Result, frozen=True):
    function: FunctionRecord
    runners: list[Runner]


class ScheduleResult(Result, frozen=True):
    schedule: ScheduleRecord


class SchedulePage(Result, frozen=True):
    schedules: list[ScheduleRecord]
    cursor: str | None = None


class DeadLetterResult(Result, frozen=True):
    letter: DeadLetter


class DeadLetterPage(Result, frozen=True):
    letters: list[DeadLetter]
    cursor: str | None = None


class Replay(Result, frozen=True):
    """One replay: `status` 200 with the id that runs now, or why not."""

    id: str
    status: int
    replayed_as: str | None = None
    error: str | None = None


class BulkRecord(Result, frozen=True):
    """A bulk operation on dead letters. `done` and `failed` count letters; of a `dryRun`, those
    that would be. It is over when it has a `finishedAt`."""

    id: str
    action: str
    filter: LetterFilter
    started_at: int
    dry_run: bool = False
    done: int = 0
    failed: int = 0
    finished_at: int | None = None


class ReplayResult(Result, frozen=True):
    """What became of each id, or the operation that a filter began."""

    replays: list[Replay]
    bulk: BulkRecord | None = None


class Purge(Result, frozen=True):
    """One dead letter: `status` 200 where it is gone, or why not."""

    id: str
    status: int
    error: str | None = None


class PurgeResult(Result, frozen=True):
    """What became of each id, or the operation that a filter began."""

    purges: list[Purge]
    bulk: BulkRecord | None = None


class BulkResult(Result, frozen=True):
    bulk: BulkRecord


class LockGrant(Result, frozen=True):
    """`fence` is higher than that of every earlier grant of the lock; `expires_at` in ms."""

    fence: int
    expires_at: int


class LeaseExtension(Result, frozen=True):
    """A slot that was got, or a lock or slot that is held longer: until `expires_at` (ms)."""

    expires_at: int


class LockRecord(Result, frozen=True):
    """A lock as it is now; without a holder it is free. `waiting` counts those in line."""

    resource: str
    fence: int
    holder: str | None = None
    expires_at: int | None = None
    waiting: int = 0


class LockResult(Result, frozen=True):
    lock: LockRecord


class LockPage(Result, frozen=True):
    locks: list[LockRecord]
    cursor: str | None = None


class SlotHolder(Result, frozen=True):
    """Who holds a slot, until when (ms)."""

    holder: str
    expires_at: int


class SlotResult(Result, frozen=True):
    """Who holds the slots of a key; `waiting` counts those in line."""

    key: str
    holders: list[SlotHolder]
    waiting: int = 0


class BucketResult(Result, frozen=True):
    """`remaining` whole tokens; not granted, `cost` tokens are there `retry_after` ms from now."""

    granted: bool
    remaining: int
    retry_after: int


class GuardAdvanceResult(Result, frozen=True):
    """`repeated`: the entity was at this revision already."""

    current: int
    repeated: bool = False


class GuardRecord(Result, frozen=True):
    """The highest revision that an entity had, remembered until `expires_at` (ms)."""

    key: str
    current: int
    expires_at: int


class GuardResult(Result, frozen=True):
    guard: GuardRecord


class GuardPage(Result, frozen=True):
    guards: list[GuardRecord]
    cursor: str | None = None


class SnapPromiseTimeout(Result, frozen=True):
    id: str
    timeout: int


class SnapCallback(Result, frozen=True):
    awaiter: str
    awaited: str


class SnapListener(Result, frozen=True):
    id: str
    address: str


class SnapTaskTimeout(Result, frozen=True):
    """`type`: 0 for a retry, 1 for a lease."""

    id: str
    type: int
    timeout: int


class SnapMessage(Result, frozen=True):
    address: str
    message: dict[str, Any]


class Snapshot(Result, frozen=True):
    """The whole state, projected and sorted (debug.snap)."""

    promises: list[PromiseRecord]
    promise_timeouts: list[SnapPromiseTimeout]
    callbacks: list[SnapCallback]
    listeners: list[SnapListener]
    tasks: list[TaskRecord]
    task_timeouts: list[SnapTaskTimeout]
    messages: list[SnapMessage]


# What a refusal says to programs, beside its text to people (B5).
Detail: TypeAlias = dict[str, str | int]


class Response(msgspec.Struct, gc=False):
    """An answer: its status and data (a `Result`, a list for debug.tick, or an error's text).
    `detail` is what a refusal says to programs."""

    status: int
    data: Result | list[Any] | str
    detail: Detail | None = None

    @property
    def ok(self) -> bool:
        return self.status < BAD_REQUEST
