"""Rows to records and records to rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from kept.protocol.addresses import channel_of
from kept.protocol.entries import Entry, EntryKey, EntryKind, decode_data, encode_data
from kept.protocol.records import (
    EMPTY,
    Catchup,
    DeadLetter,
    Delivery,
    MessageKey,
    MessageKind,
    OutboxEntry,
    Overlap,
    Promise,
    PromiseState,
    ScheduleRecord,
    Task,
    TaskState,
    Value,
)

Row = tuple[Any, ...]

PROMISE_STATES: Final = {state.value: state for state in PromiseState}
TASK_STATES: Final = {state.value: state for state in TaskState}
DELIVERIES: Final = {delivery.value: delivery for delivery in Delivery}

# A promise with its payloads and its task, if it has one: the order that `Objects.add` unpacks.
OBJECT_COLUMNS: Final = (
    "p.seq, p.id, p.state, p.timeout_at, p.created_at, p.settled_at, p.tags, p.cancel_requested_at, "
    "a.headers, a.data, r.headers, r.data, "
    "t.state, t.version, t.resumes, t.ttl, t.pid, t.expires_at, t.retry_at, t.delivery, t.queue, "
    "t.lane, t.function, t.ready, t.rank, t.failures, t.releases, t.last_request, t.last_answer"
)
OBJECT_JOINS: Final = (
    "LEFT JOIN params a ON a.seq = p.seq "
    "LEFT JOIN results r ON r.seq = p.seq "
    "LEFT JOIN tasks t ON t.seq = p.seq"
)
SCHEDULE_COLUMNS: Final = (
    "id, cron, promise_id, promise_timeout, param_headers, param_data, promise_tags, created_at, "
    "next_run_at, last_run_at, every_ms, zone, jitter_ms, overlap, catchup, paused"
)
MESSAGE_COLUMNS: Final = "kind, id, key_address, address, version, due_at, tries"
LETTER_COLUMNS: Final = (
    "id, queue, function, reason, error_headers, error_data, failures, created_at, died_at, "
    "halted, param_headers, param_data, tags, replays"
)
ENTRY_COLUMNS: Final = "kind, name, data, due_at"

_decode: Final = msgspec.json.Decoder(dict[str, str]).decode
_encode: Final = msgspec.json.Encoder().encode


def text_of(pairs: dict[str, str] | None) -> str | None:
    """Tags or headers as readable JSON; nothing for none of them."""
    return _encode(pairs).decode() if pairs else None


def pairs_of(text: str | None) -> dict[str, str]:
    return _decode(text) if text else {}


def value_of(headers: str | None, data: str | None) -> Value:
    if headers is None:
        return EMPTY if data is None else Value(None, data)
    return Value(_decode(headers), data)


class Objects:
    """Promises and tasks read from rows, with the seq of each."""

    def __init__(self) -> None:
        self.seqs: dict[str, int] = {}
        self.promises: dict[str, Promise] = {}
        self.tasks: dict[str, Task] = {}

    def forget(self) -> None:
        """Nothing of it is stored any more."""
        self.seqs.clear()
        self.promises.clear()
        self.tasks.clear()

    def forget_one(self, id: str) -> None:
        """A promise is not stored any more."""
        self.seqs.pop(id, None)
        self.promises.pop(id, None)
        self.tasks.pop(id, None)

    def add(self, rows: Iterable[Row]) -> list[str]:
        """Takes rows of OBJECT_COLUMNS in; answers their ids in order."""
        order: list[str] = []
        promises, tasks, seqs = self.promises, self.tasks, self.seqs
        # One flat loop over all columns: this is the hottest code of the store.
        for row in rows:
            (seq, id, state, timeout_at, created_at, settled_at, tags, cancel_at) = row[:8]
            order.append(id)
            seqs[id] = seq
            promises[id] = Promise(
                id,
                PROMISE_STATES[state],
                value_of(row[8], row[9]),
                value_of(row[10], row[11]),
                _decode(tags) if tags else {},
                timeout_at,
                created_at,
                settled_at,
                cancel_at,
            )
            if row[12] is not None:
                tasks[id] = task_of(id, row[12:])
        return order


def task_of(id: str, row: Row) -> Task:
    """A task from the columns of its table, in the order of OBJECT_COLUMNS."""
    (state, version, resumes, ttl, pid, expires_at, retry_at, delivery, *rest) = row
    queue, lane, function, ready, rank, failures, releases, last_request, last_answer = rest
    return Task(
        id,
        TASK_STATES[state],
        version,
        resumes,
        ttl,
        pid,
        expires_at,
        retry_at,
        DELIVERIES[delivery],
        queue,
        lane,
        function,
        ready == 1,
        rank,
        failures,
        releases,
        last_request,
        last_answer,
    )


def task_row(tenant: str, task: Task, seq: int) -> Row:
    """The columns of a task, its seq last."""
    return (
        tenant,
        task.state._value_,
        task.version,
        task.resumes,
        task.ttl,
        task.pid,
        task.expires_at,
        task.retry_at,
        task.delivery._value_,
        task.queue,
        task.lane,
        task.function,
        task.ready,
        task.rank,
        task.failures,
        task.releases,
        task.last_request,
        task.last_answer,
        seq,
    )


def progress_row(task: Task, seq: int) -> Row:
    """The columns of a task that change as it is worked on, its seq last."""
    return (
        task.state._value_,
        task.version,
        task.resumes,
        task.ttl,
        task.pid,
        task.expires_at,
        task.retry_at,
        1 if task.ready else 0,
        task.rank,
        task.failures,
        task.releases,
        task.last_request,
        task.last_answer,
        seq,
    )


def promise_row(tenant: str, promise: Promise, seq: int) -> Row:
    """The columns of a promise, its seq last."""
    tags = promise.tags
    if not tags:
        lineage: Row = (None, None, None, None, None)
    else:
        origin = promise.origin
        lineage = (
            _encode(tags).decode(),
            None if origin == promise.id else origin,
            promise.parent,
            promise.branch,
            promise.function,
        )
    return (
        tenant,
        promise.id,
        promise.state._value_,
        promise.timeout_at,
        promise.armed_deadline,
        promise.created_at,
        promise.settled_at,
        *lineage,
        promise.cancel_requested_at,
        seq,
    )


def schedule_of(row: Row) -> ScheduleRecord:
    (id, cron, promise_id, timeout, headers, data, tags, created_at, *rest) = row
    next_at, last_at, every, zone, jitter, overlap, catchup, paused = rest
    return ScheduleRecord(
        id,
        cron,
        promise_id,
        timeout,
        value_of(headers, data),
        pairs_of(tags),
        created_at,
        next_at,
        last_at,
        every,
        zone,
        jitter or 0,
        Overlap(overlap or Overlap.ALLOW),
        Catchup(catchup or Catchup.ALL),
        paused == 1,
    )


def schedule_row(tenant: str, schedule: ScheduleRecord) -> Row:
    return (
        tenant,
        schedule.id,
        schedule.cron,
        schedule.promise_id,
        schedule.promise_timeout,
        text_of(schedule.promise_param.headers),
        schedule.promise_param.data,
        text_of(schedule.promise_tags),
        schedule.created_at,
        schedule.next_run_at,
        schedule.last_run_at,
        schedule.every,
        schedule.zone,
        schedule.jitter,
        schedule.overlap.value,
        schedule.catchup.value,
        schedule.paused,
    )


def message_of(row: Row) -> OutboxEntry:
    (kind, id, key_address, address, version, due_at, tries) = row
    key = MessageKey(MessageKind(kind), id, key_address)
    return OutboxEntry(key, address, version, due_at, tries)


def message_row(tenant: str, entry: OutboxEntry) -> Row:
    key = entry.key
    return (
        tenant,
        key.kind.value,
        key.id,
        key.address,
        entry.address,
        channel_of(entry.address, tenant),
        entry.version,
        entry.due_at,
        entry.tries,
    )


def letter_of(row: Row) -> DeadLetter:
    (id, queue, function, reason, error_headers, error_data, failures, *rest) = row
    created_at, died_at, halted, param_headers, param_data, tags, replays = rest
    return DeadLetter(
        id,
        reason,
        value_of(error_headers, error_data),
        failures,
        created_at,
        died_at,
        halted == 1,
        value_of(param_headers, param_data),
        pairs_of(tags),
        queue,
        function,
        replays,
    )


def letter_row(tenant: str, letter: DeadLetter) -> Row:
    return (
        tenant,
        letter.id,
        letter.queue,
        letter.function,
        letter.reason,
        text_of(letter.error.headers),
        letter.error.data,
        letter.failures,
        letter.created_at,
        letter.died_at,
        letter.halted,
        text_of(letter.param.headers),
        letter.param.data,
        text_of(letter.tags),
        letter.replays,
    )


def entry_of(row: Row) -> Entry:
    (kind, name, data, due_at) = row
    key = EntryKey(EntryKind(kind), name)
    return Entry(key, decode_data(key.kind, data), due_at)


def entry_row(tenant: str, entry: Entry) -> Row:
    key = entry.key
    return (tenant, key.kind.value, key.name, encode_data(entry.data), entry.due_at)
