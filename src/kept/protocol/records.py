"""The records: what is stored, and what of it goes on the wire (protocol A2).

A stored record (`Promise`, `Task`, `Schedule`, `OutboxEntry`, `DeadLetter`) is immutable; the
machine replaces it, never changes it. `record()` gives the form that travels. Records hold no cycles,
so they stay out of the garbage collector's sight (`gc=False`): it is a tenth of a busy engine's time.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from kept.protocol import tags as tag
from kept.protocol.limits import NEVER_MS


class PromiseState(StrEnum):
    """The five states of a promise."""

    PENDING = "pending"
    RESOLVED = "resolved"
    REJECTED = "rejected"
    REJECTED_CANCELED = "rejected_canceled"
    REJECTED_TIMEDOUT = "rejected_timedout"


# Looked at for every record: an enum's attribute takes longer to find than a name of the module.
_PENDING: Final = PromiseState.PENDING

# The states that a client may settle a promise into; a deadline's verdict is the engine's own.
SETTABLE: Final = frozenset(
    {PromiseState.RESOLVED, PromiseState.REJECTED, PromiseState.REJECTED_CANCELED}
)


class TaskState(StrEnum):
    """The five states of a task."""

    PENDING = "pending"
    ACQUIRED = "acquired"
    SUSPENDED = "suspended"
    HALTED = "halted"
    FULFILLED = "fulfilled"


class Delivery(StrEnum):
    """How the work of a task reaches a worker."""

    PUSH = "push"  # an execute message to the target's address
    PULL = "pull"  # a claim on the queue that the target names
    NEVER = "never"  # a timer's task: it only waits for its deadline


class Value(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A payload: text and headers, opaque to the engine."""

    headers: dict[str, str] | None = None
    data: str | None = None

    def normal(self) -> Value:
        """The same value with absent headers in one form only, so that equality is meaning."""
        if self.headers is None or self.headers:
            return self
        return EMPTY if self.data is None else Value(data=self.data)


EMPTY: Final = Value()


class PromiseRecord(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename="camel"):
    """A promise on the wire."""

    id: str
    state: PromiseState
    param: Value
    value: Value
    tags: dict[str, str]
    timeout_at: int
    created_at: int
    settled_at: int | None = None


class Promise(msgspec.Struct, frozen=True, gc=False):
    """A stored promise. `cancel_requested_at` (ms): since when its work is asked to stop (B3)."""

    id: str
    state: PromiseState
    param: Value
    value: Value
    tags: dict[str, str]
    timeout_at: int
    created_at: int
    settled_at: int | None = None
    cancel_requested_at: int | None = None

    @property
    def pending(self) -> bool:
        return self.state is _PENDING

    @property
    def target(self) -> str | None:
        return self.tags.get(tag.TARGET)

    @property
    def is_timer(self) -> bool:
        return self.tags.get(tag.TIMER) == "true"

    @property
    def is_external(self) -> bool:
        """Whether others may await it; exactly these have a durable deadline (A3)."""
        tags = self.tags
        return (
            tag.TARGET in tags
            or tags.get(tag.TIMER) == "true"
            or tags.get(tag.EXTERNAL) == "true"
            # How clients in the field mark the promises that they wait for.
            or tags.get(tag.SCOPE) == "global"
        )

    @property
    def armed_deadline(self) -> int | None:
        """The instant at which the engine must settle it; none where nothing is armed (B6)."""
        if self.pending and self.timeout_at != NEVER_MS and self.is_external:
            return self.timeout_at
        return None

    @property
    def origin(self) -> str:
        return self.tags.get(tag.ORIGIN, self.id)

    @property
    def parent(self) -> str | None:
        return self.tags.get(tag.PARENT)

    @property
    def branch(self) -> str | None:
        return self.tags.get(tag.BRANCH)

    @property
    def function(self) -> str | None:
        return self.tags.get(tag.FUNCTION)

    @property
    def verdict(self) -> PromiseState:
        """What its deadline settles it into."""
        return PromiseState.RESOLVED if self.is_timer else PromiseState.REJECTED_TIMEDOUT

    def project(self, now: int) -> Promise:
        """The promise as everybody sees it at `now` (ms): past its deadline it is settled (A3)."""
        if self.state is not _PENDING or self.timeout_at > now:
            return self
        return msgspec.structs.replace(self, state=self.verdict, settled_at=self.timeout_at)

    def record(self) -> PromiseRecord:
        return PromiseRecord(
            self.id,
            self.state,
            self.param,
            self.value,
            self.tags,
            self.timeout_at,
            self.created_at,
            self.settled_at,
        )


class TaskRecord(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename="camel"):
    """A task on the wire."""

    id: str
    state: TaskState
    version: int
    resumes: int
    ttl: int | None = None
    pid: str | None = None


class Task(msgspec.Struct, frozen=True, gc=False):
    """A stored task: the work of finding a promise's result out.

    `resumes` counts the awaited ids that woke it; the ids themselves are edges. `failures` counts
    nacks and expired leases (B2). `releases` is the last release number given (B3). `ready` says of
    a pulled task that it has been seen due; `rank` orders a queue's due tasks, lowest first.
    `last_request` and `last_answer` let a repeated request be answered again (B1).
    """

    id: str
    state: TaskState
    version: int = 0
    resumes: int = 0
    ttl: int | None = None
    pid: str | None = None
    expires_at: int | None = None
    retry_at: int | None = None
    delivery: Delivery = Delivery.PUSH
    queue: str | None = None
    lane: str | None = None
    function: str | None = None
    ready: bool = False
    rank: int = 0
    failures: int = 0
    releases: int = 0
    last_request: str | None = None
    last_answer: bytes | None = None

    def record(self) -> TaskRecord:
        return TaskRecord(self.id, self.state, self.version, self.resumes, self.ttl, self.pid)


class Overlap(StrEnum):
    """What a schedule does at an instant while what it fired last is not settled (B10)."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE = "queue"


class Catchup(StrEnum):
    """Which of the instants that a schedule missed it fires afterwards (B10)."""

    ALL = "all"
    LAST = "last"
    NONE = "none"


class ScheduleRecord(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename="camel"):
    """A schedule, stored and on the wire.

    What `schedule.create` does not know (from `every` on) is not sent where it says nothing: a base
    client sees the base record. One with `every` (ms) has an empty `cron`.
    """

    id: str
    cron: str
    promise_id: str
    promise_timeout: int
    promise_param: Value
    promise_tags: dict[str, str]
    created_at: int
    next_run_at: int
    last_run_at: int | None = None
    every: int | None = None
    zone: str | None = None
    jitter: int = 0
    overlap: Overlap = Overlap.ALLOW
    catchup: Catchup = Catchup.ALL
    paused: bool = False

    @property
    def due_at(self) -> int | None:
        """The instant at which the engine must fire it; none while it is paused."""
        return None if self.paused else self.next_run_at


class MessageKind(StrEnum):
    """The two messages there are (A6)."""

    EXECUTE = "execute"
    UNBLOCK = "unblock"


class MessageKey(msgspec.Struct, frozen=True, gc=False, order=True):
    """What an outbox entry is known by: an execute by its task alone, an unblock by promise and address."""

    kind: MessageKind
    id: str
    address: str = ""

    @staticmethod
    def execute(task_id: str) -> MessageKey:
        return MessageKey(MessageKind.EXECUTE, task_id)

    @staticmethod
    def unblock(promise_id: str, address: str) -> MessageKey:
        return MessageKey(MessageKind.UNBLOCK, promise_id, address)


class OutboxEntry(msgspec.Struct, frozen=True, gc=False):
    """A message on its way out. `due_at` (ms) is the next try; `tries` counts those made.

    An unblock does not copy its promise: a settled record never changes, so it is read when sent.
    """

    key: MessageKey
    address: str
    version: int = 0
    due_at: int = 0
    tries: int = 0


class DeadLetter(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename="camel"):
    """Work that was given up on, kept for an operator (B4)."""

    id: str
    reason: str
    error: Value
    failures: int
    created_at: int
    died_at: int
    halted: bool
    param: Value
    tags: dict[str, str]
    # Pushed work has no queue, and not all work names its function.
    queue: str | None = None
    function: str | None = None
    replays: int = 0
