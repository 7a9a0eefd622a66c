"""What a property looks at: a state, or a step, and which of its records.

After a step a scope shows the records that it touched, those that name them and those that they
name; the whole state is shown now and then. Properties do not know which of the two they see.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from kept.check.state import NO_ENDS, Delta, State
from kept.protocol.addresses import BASE_SCHEMES
from kept.protocol.records import (
    DeadLetter,
    MessageKey,
    MessageKind,
    OutboxEntry,
    Promise,
    ScheduleRecord,
    Task,
    TaskState,
    Value,
)
from kept.protocol.storage import Edge


def is_empty(value: Value) -> bool:
    """Whether a value has no data and no headers."""
    return value.data is None and not value.headers


def same_value(one: Value, other: Value) -> bool:
    """Whether two values have equal data and equal headers; absent headers are empty ones."""
    return one is other or (one.data == other.data and (one.headers or {}) == (other.headers or {}))


def is_cleared(task: Task) -> bool:
    """Whether a task has no lease and no retry time."""
    return has_no_lease(task) and task.retry_at is None


def has_no_lease(task: Task) -> bool:
    return task.pid is None and task.ttl is None and task.expires_at is None


def has_whole_lease(task: Task) -> bool:
    return task.pid is not None and task.ttl is not None and task.expires_at is not None


def is_live(promise: Promise, now: int) -> bool:
    """Whether a promise's projection at `now` (ms) is pending."""
    return promise.pending and promise.timeout_at > now


def is_base_deliverable(address: str) -> bool:
    """What the base protocol calls deliverable."""
    return address.startswith(("http://", "https://")) or (
        address.startswith("poll://") and "@" in address
    )


class Pair(NamedTuple):
    """One promise before and after a step."""

    id: str
    p: Promise | None
    q: Promise | None


class TaskPair(NamedTuple):
    """One task before and after a step."""

    id: str
    t: Task | None
    u: Task | None


class SchedulePair(NamedTuple):
    """One schedule before and after a step."""

    id: str
    before: ScheduleRecord | None
    after: ScheduleRecord | None


class MessagePair(NamedTuple):
    """One outbox entry before and after a step."""

    key: MessageKey
    before: OutboxEntry | None
    after: OutboxEntry | None


class ConfigScope:
    """The settings that an engine starts with. `retry_timeout_ms` is the time to the next try."""

    def __init__(self, retry_timeout_ms: int) -> None:
        self.retry_timeout_ms = retry_timeout_ms
        self.reached = 0


class StateScope:
    """A state at `now` (ms), and the records of it to look at.

    `schemes` are those of the installed transports, beyond the base protocol's.
    """

    __slots__ = (
        "callbacks",
        "listeners",
        "messages",
        "now",
        "promises",
        "reached",
        "schedules",
        "schemes",
        "state",
        "tasks",
    )

    # The part of properties that look at several.
    everything = True

    def __init__(self, now: int, state: State, schemes: frozenset[str] = BASE_SCHEMES) -> None:
        """Looks at everything."""
        self.now = now
        self.state = state
        self.schemes = schemes
        self.reached = 0
        self.promises: Mapping[str, Promise] = state.promises
        self.tasks: Mapping[str, Task] = state.tasks
        self.schedules: Mapping[str, ScheduleRecord] = state.schedules
        self.messages: Mapping[MessageKey, OutboxEntry] = state.outbox
        self.callbacks: Collection[Edge] = list(state.callbacks)
        self.listeners: Collection[Edge] = list(state.listeners)

    @staticmethod
    def touched(
        now: int, state: State, delta: Delta, schemes: frozenset[str] = BASE_SCHEMES
    ) -> StateScope:
        """Looks at what a step touched, what names it and what it names."""
        scope = StateScope.__new__(StateScope)
        scope.now = now
        scope.state = state
        scope.schemes = schemes
        scope.reached = 0
        scope.promises, scope.tasks = _touched_objects(state, delta)
        schedules = state.schedules
        scope.schedules = {id: schedules[id] for id in delta.schedules if id in schedules}
        scope.messages = _touched_messages(state, delta)
        scope.callbacks = _touched_callbacks(state, delta)
        scope.listeners = delta.listeners.added
        return scope


def _touched_objects(state: State, delta: Delta) -> tuple[dict[str, Promise], dict[str, Task]]:
    promise_ids = dict.fromkeys(delta.promises)
    promise_ids.update(dict.fromkeys(delta.tasks))
    task_ids = dict(promise_ids)
    for edges in (delta.callbacks.added, delta.callbacks.removed):
        for of, to in edges:
            promise_ids[of] = None
            task_ids[to] = None
    for edge in delta.listeners.added:
        promise_ids[edge.of] = None
    for edges in (delta.resumes.added, delta.resumes.removed):
        for edge in edges:
            task_ids[edge.of] = None
    promises, tasks = state.promises, state.tasks
    return (
        {id: promises[id] for id in promise_ids if id in promises},
        {id: tasks[id] for id in task_ids if id in tasks},
    )


def _touched_messages(state: State, delta: Delta) -> dict[MessageKey, OutboxEntry]:
    outbox = state.outbox
    if not outbox:
        return {}
    keys = dict.fromkeys(delta.outbox)
    for ids in (delta.promises, delta.tasks):
        for id in ids:
            keys[MessageKey(MessageKind.EXECUTE, id)] = None
    unblocks = state.unblocks.at
    for id in delta.promises:
        for address in unblocks.get(id, NO_ENDS):
            keys[MessageKey(MessageKind.UNBLOCK, id, address)] = None
    return {key: outbox[key] for key in keys if key in outbox}


def _touched_callbacks(state: State, delta: Delta) -> Collection[Edge]:
    awaiting = state.callbacks.back
    edges = delta.callbacks.added
    naming = [Edge(of, id) for id in delta.promises for of in awaiting.get(id, NO_ENDS)]
    return edges + naming if naming else edges


class StepScope:
    """A step at `now` (ms) from a state (`a`, as far as it differs) to the state `b`.

    `name` is the step's kind: that of the request, or of the background step (`internal`).
    """

    __slots__ = (
        "b",
        "callbacks",
        "callbacks_removed",
        "delta",
        "internal",
        "listeners",
        "listeners_removed",
        "messages",
        "name",
        "new_executes",
        "new_unblocks",
        "now",
        "promises",
        "reached",
        "schedules",
        "tasks",
    )

    # The part of properties that look at several.
    everything = True

    def __init__(
        self, now: int, name: str, b: State, delta: Delta, *, internal: bool = False
    ) -> None:
        self.now = now
        self.name = name
        self.internal = internal
        self.b = b
        self.delta = delta
        self.reached = 0
        promises, tasks, schedules = b.promises, b.tasks, b.schedules
        self.promises = [Pair(id, p, promises.get(id)) for id, p in delta.promises.items()]
        self.tasks = [TaskPair(id, t, tasks.get(id)) for id, t in delta.tasks.items()]
        if delta.resumes or delta.callbacks or delta.listeners:
            self._add_ends_of_edges()
        self.schedules = [
            SchedulePair(id, old, schedules.get(id)) for id, old in delta.schedules.items()
        ]
        self.callbacks = delta.callbacks
        self.callbacks_removed = delta.callbacks.removed
        self.listeners = delta.listeners
        self.listeners_removed = delta.listeners.removed
        self.messages: list[MessagePair] = []
        self.new_executes: list[OutboxEntry] = []
        self.new_unblocks: list[OutboxEntry] = []
        if delta.outbox:
            self._sort_messages()

    def _add_ends_of_edges(self) -> None:
        """Records of which only edges changed are touched too, and so are awaiting tasks."""
        delta, b = self.delta, self.b
        promise_ids: dict[str, None] = {}
        task_ids: dict[str, None] = {}
        for edges in (delta.callbacks, delta.listeners):
            for edge in edges.added + edges.removed:
                promise_ids[edge.of] = None
        for edge in delta.callbacks.added + delta.callbacks.removed:
            task_ids[edge.to] = None
        for edge in delta.resumes.added + delta.resumes.removed:
            task_ids[edge.of] = None
        for id in promise_ids:
            if id not in delta.promises and id in b.promises:
                self.promises.append(Pair(id, b.promises[id], b.promises[id]))
        for id in task_ids:
            if id not in delta.tasks and id in b.tasks:
                self.tasks.append(TaskPair(id, b.tasks[id], b.tasks[id]))

    def _sort_messages(self) -> None:
        for key, before in self.delta.outbox.items():
            after = self.b.outbox.get(key)
            self.messages.append(MessagePair(key, before, after))
            if after is None:
                continue
            if key.kind is MessageKind.UNBLOCK:
                if before is None:
                    self.new_unblocks.append(after)
            elif (
                before is None or before.version != after.version or before.address != after.address
            ):
                self.new_executes.append(after)

    def promise_before(self, id: str) -> Promise | None:
        former = self.delta.promises
        return former[id] if id in former else self.b.promises.get(id)

    def task_before(self, id: str) -> Task | None:
        former = self.delta.tasks
        return former[id] if id in former else self.b.tasks.get(id)

    def resumes_before(self, task_id: str) -> int:
        """How many resumes a task had."""
        count, delta = self.b.resumes.count(task_id), self.delta.resumes
        if delta:
            count += sum(edge.of == task_id for edge in delta.removed)
            count -= sum(edge.of == task_id for edge in delta.added)
        return count

    def dead_letter_filed(self, id: str) -> DeadLetter | None:
        """The dead letter that this very step filed for a promise, if it did."""
        return self.b.dead_letters.get(id) if id in self.delta.dead_letters else None


def state_of(task: Task | None) -> TaskState | None:
    return None if task is None else task.state
