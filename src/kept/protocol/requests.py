"""Every request as a typed structure (protocol A4, B1 to B4).

Field types carry the bounds that decoding can check; `validation.py` checks the rest. Attributes
are snake_case here and camelCase on the wire. Unknown fields are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from kept.protocol.entries import CancelMode, LaneLimits, LetterFilter, RateLimit
from kept.protocol.limits import (
    MAX_CLAIM_QUEUES,
    MAX_CLAIM_TASKS,
    MAX_CLAIM_WAIT_MS,
    MAX_INTEGER,
    MAX_PRELOAD_RECORDS,
    MAX_SEARCH_ROWS,
    MAX_WAIT_MS,
)
from kept.protocol.records import EMPTY, PromiseState, TaskState, Value

Id: TypeAlias = Annotated[str, Meta(min_length=1)]
Name: TypeAlias = Annotated[str, Meta(min_length=1)]
Instant: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
Version: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
Ttl: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_INTEGER)]
Rows: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_SEARCH_ROWS)]
Preload: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_PRELOAD_RECORDS)]
Head: TypeAlias = dict[str, Any]


class Request(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """What every request is. `kind` is its name on the wire."""

    kind: ClassVar[str] = ""


class PromiseGet(Request):
    """With `attributes`, also what its work says of itself (B8)."""

    kind: ClassVar[str] = "promise.get"
    id: Id
    attributes: bool = False


class PromiseCreate(Request):
    kind: ClassVar[str] = "promise.create"
    id: Id
    timeout_at: Instant
    param: Value = EMPTY
    tags: dict[str, str] = {}


class PromiseSettle(Request):
    kind: ClassVar[str] = "promise.settle"
    id: Id
    state: PromiseState
    value: Value = EMPTY


class PromiseRegisterCallback(Request):
    kind: ClassVar[str] = "promise.register_callback"
    awaited: Id
    awaiter: Id


class PromiseRegisterListener(Request):
    kind: ClassVar[str] = "promise.register_listener"
    awaited: Id
    address: str


class PromiseSearch(Request):
    kind: ClassVar[str] = "promise.search"
    state: PromiseState | None = None
    tags: dict[str, str] | None = None
    limit: Rows | None = None
    cursor: str | None = None
    attributes: dict[str, str] | None = None


class PromiseWait(Request):
    """Answers when the promise is settled, or after `timeout` ms with the pending record (B1)."""

    kind: ClassVar[str] = "promise.wait"
    id: Id
    timeout: Annotated[int, Meta(ge=0, le=MAX_WAIT_MS)]


class PromiseChildren(Request):
    """The next page of a task's preload (A4)."""

    kind: ClassVar[str] = "promise.children"
    id: Id
    cursor: str | None = None
    limit: Rows | None = None


class PromiseCancel(Request):
    """Asks the work of a promise to stop, or stops it, and what it started (B3)."""

    kind: ClassVar[str] = "promise.cancel"
    id: Id
    reason: str | None = None
    mode: CancelMode = CancelMode.REQUEST
    recursive: bool = True


class CreateAction(Request, tag_field="kind", tag="promise.create"):
    """A `promise.create` inside another request."""

    data: PromiseCreate
    head: Head | None = None


class SettleAction(Request, tag_field="kind", tag="promise.settle"):
    """A `promise.settle` inside another request."""

    data: PromiseSettle
    head: Head | None = None


class CancelAction(Request, tag_field="kind", tag="promise.cancel"):
    """A `promise.cancel` inside `task.fence`."""

    data: PromiseCancel
    head: Head | None = None


class CallbackAction(Request, tag_field="kind", tag="promise.register_callback"):
    """A `promise.register_callback` inside `task.suspend`."""

    data: PromiseRegisterCallback
    head: Head | None = None


class TaskGet(Request):
    kind: ClassVar[str] = "task.get"
    id: Id


class TaskCreate(Request):
    kind: ClassVar[str] = "task.create"
    pid: Name
    ttl: Ttl
    action: CreateAction
    preload: Preload | None = None


class TaskAcquire(Request):
    kind: ClassVar[str] = "task.acquire"
    id: Id
    version: Version
    pid: Name
    ttl: Ttl
    preload: Preload | None = None


class TaskRelease(Request):
    kind: ClassVar[str] = "task.release"
    id: Id
    version: Version


class TaskFulfill(Request):
    kind: ClassVar[str] = "task.fulfill"
    id: Id
    version: Version
    action: SettleAction
    released: list[Id] = []


class TaskSuspend(Request):
    kind: ClassVar[str] = "task.suspend"
    id: Id
    version: Version
    actions: list[CallbackAction]
    released: list[Id] = []
    preload: Preload | None = None


class TaskFence(Request):
    kind: ClassVar[str] = "task.fence"
    id: Id
    version: Version
    action: CreateAction | SettleAction | CancelAction
    released: list[Id] = []


class TaskRecordStep(Request):
    """Under the lease, a child created and settled in one commit: a finished step (B1)."""

    kind: ClassVar[str] = "task.record"
    id: Id
    version: Version
    step: PromiseCreate
    state: PromiseState
    value: Value = EMPTY
    released: list[Id] = []


class TaskRef(msgspec.Struct, frozen=True):
    """A task at a version: what a lease is known by."""

    id: Id
    version: Version


class TaskHeartbeat(Request):
    kind: ClassVar[str] = "task.heartbeat"
    pid: Name
    tasks: list[TaskRef]
    report: bool = False


class TaskHalt(Request):
    kind: ClassVar[str] = "task.halt"
    id: Id


class TaskContinue(Request):
    kind: ClassVar[str] = "task.continue"
    id: Id


class TaskSearch(Request):
    kind: ClassVar[str] = "task.search"
    state: TaskState | None = None
    limit: Rows | None = None
    cursor: str | None = None


class TaskClaim(Request):
    """Up to `limit` due tasks of the queues, waiting up to `wait` ms for one (B2)."""

    kind: ClassVar[str] = "task.claim"
    queues: Annotated[list[Name], Meta(min_length=1, max_length=MAX_CLAIM_QUEUES)]
    pid: Name
    ttl: Ttl
    limit: Annotated[int, Meta(ge=1, le=MAX_CLAIM_TASKS)] = 1
    wait: Annotated[int, Meta(ge=0, le=MAX_CLAIM_WAIT_MS)] = 0
    functions: list[Name] | None = None
    preload: Preload | None = None


class TaskNack(Request):
    """A failed attempt: again after `delay` ms or the backoff, or `final`ly over (B2)."""

    kind: ClassVar[str] = "task.nack"
    id: Id
    version: Version
    delay: Instant | None = None
    error: Value | None = None
    reason: Name | None = None
    final: str | None = None
    consume: bool = True


class QueuePut(Request):
    """Creates or changes the settings of a queue: what is absent stays, null takes back (B2)."""

    kind: ClassVar[str] = "queue.put"
    SETTINGS: ClassVar[tuple[str, ...]] = (
        *("concurrency", "rate", "lane", "lanes", "max_depth", "aging", "paused"),
        *("retention", "keep_ids"),
    )
    name: Name
    concurrency: int | UnsetType | None = UNSET
    rate: RateLimit | UnsetType | None = UNSET
    lane: LaneLimits | UnsetType | None = UNSET
    lanes: dict[str, LaneLimits] | UnsetType | None = UNSET
    max_depth: int | UnsetType | None = UNSET
    aging: Instant | UnsetType | None = UNSET
    paused: bool | UnsetType | None = UNSET
    retention: Instant | UnsetType | None = UNSET
    keep_ids: bool | UnsetType | None = UNSET


class QueueGet(Request):
    kind: ClassVar[str] = "queue.get"
    name: Name


class QueueList(Request):
    kind: ClassVar[str] = "queue.list"
    limit: Rows | None = None
    cursor: str | None = None


class QueueDelete(Request):
    kind: ClassVar[str] = "queue.delete"
    name: Name


class QueuePause(Request):
    kind: ClassVar[str] = "queue.pause"
    name: Name


class QueueResume(Request):
    kind: ClassVar[str] = "queue.resume"
    name: Name


class QueueStats(Request):
    """How many tasks a queue has in each state; read-committed (A10)."""

    kind: ClassVar[str] = "queue.stats"
    name: Name


class TaskAnnotate(Request):
    """Under the lease, says something of the work; null takes an attribute back (B8)."""

    kind: ClassVar[str] = "task.annotate"
    id: Id
    version: Version
    set: dict[str, str | None] = {}
    progress: Annotated[float, Meta(ge=0, le=1)] | None = None


class SignalSend(Request):
    """A message to the mailbox `name` of promise `id`; the same `key` is the same message (B8)."""

    kind: ClassVar[str] = "signal.send"
    id: Id
    name: Name
    value: Value = EMPTY
    key: Name | None = None


class ScheduleCreate(Request):
    kind: ClassVar[str] = "schedule.create"
    id: Id
    cron: str
    promise_id: Id
    promise_timeout: Instant
    promise_param: Value = EMPTY
    promise_tags: dict[str, str] = {}


class ScheduleGet(Request):
    kind: ClassVar[str] = "schedule.get"
    id: Id


class ScheduleDelete(Request):
    kind: ClassVar[str] = "schedule.delete"
    id: Id


class ScheduleSearch(Request):
    kind: ClassVar[str] = "schedule.search"
    tags: dict[str, str] | None = None
    limit: Rows | None = None
    cursor: str | None = None


class DeadList(Request):
    """Dead letters by id, those only whose id starts with `prefix` (B4)."""

    kind: ClassVar[str] = "dead.list"
    queue: str | None = None
    function: str | None = None
    reason: str | None = None
    since: Instant | None = None
    until: Instant | None = None
    limit: Rows | None = None
    cursor: str | None = None
    prefix: str | None = None


class DeadGet(Request):
    kind: ClassVar[str] = "dead.get"
    id: Id


class DeadReplay(Request):
    """Does work again: that of `ids`, or in the background that of a `filter` (B4). `bulk` is the
    id of the operation that a filter begins; `dry_run` tells what would be done."""

    kind: ClassVar[str] = "dead.replay"
    ids: list[Id] = []
    param: Value | None = None
    filter: LetterFilter | None = None
    dry_run: bool = False
    bulk: Id | None = None


class DeadPurge(Request):
    """Forgets dead letters, by `ids` or in the background by `filter` (B4)."""

    kind: ClassVar[str] = "dead.purge"
    ids: list[Id] = []
    filter: LetterFilter | None = None
    dry_run: bool = False
    bulk: Id | None = None


class DeadBulk(Request):
    """How far a bulk operation is (B4)."""

    kind: ClassVar[str] = "dead.bulk"
    id: Id


class DebugStart(Request):
    kind: ClassVar[str] = "debug.start"


class DebugStop(Request):
    kind: ClassVar[str] = "debug.stop"


class DebugReset(Request):
    kind: ClassVar[str] = "debug.reset"


class DebugSnap(Request):
    kind: ClassVar[str] = "debug.snap"


class DebugTick(Request):
    kind: ClassVar[str] = "debug.tick"
    time: Instant


class RequestHead(msgspec.Struct, omit_defaults=True, gc=False):
    """The head of an envelope, as far as the engine reads it."""

    corr_id: str = msgspec.field(name="corrId", default="")
    version: str = ""
    auth: str | None = None
    debug_time: Instant | None = msgspec.field(name="resonate:debug_time", default=None)
    request_id: str | None = msgspec.field(name="kept:request", default=None)


CORE_REQUESTS: tuple[type[Request], ...] = (
    PromiseGet,
    PromiseCreate,
    PromiseSettle,
    PromiseRegisterCallback,
    PromiseRegisterListener,
    PromiseSearch,
    PromiseWait,
    PromiseChildren,
    PromiseCancel,
    TaskGet,
    TaskCreate,
    TaskAcquire,
    TaskRelease,
    TaskFulfill,
    TaskSuspend,
    TaskFence,
    TaskRecordStep,
    TaskHeartbeat,
    TaskHalt,
    TaskContinue,
    TaskSearch,
    TaskClaim,
    TaskNack,
    QueuePut,
    QueueGet,
    QueueList,
    QueueDelete,
    QueuePause,
    QueueResume,
    QueueStats,
    TaskAnnotate,
    SignalSend,
    ScheduleCreate,
    ScheduleGet,
    ScheduleDelete,
    ScheduleSearch,
    DeadList,
    DeadGet,
    DeadReplay,
    DeadPurge,
    DeadBulk,
    DebugStart,
    DebugStop,
    DebugReset,
    DebugSnap,
    DebugTick,
)
