"""The background steps (protocol A5): what the engine does on its own.

Each is a pure function like a request's handler, as atomic, and changes nothing where it is not
enabled, so firing one twice or too early is harmless. `StepKind`s are what the engine's timers ask
for; callbacks and listeners are drained right after whatever settled their promise.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec.structs import replace

from kept.machine.deliveries import note_attempt
from kept.machine.effects import put_pending, read_promise, read_task
from kept.machine.queues import LEASE_EXPIRED, backoff_ms, give_up, is_exhausted
from kept.machine.step import Step
from kept.protocol import tags as tag
from kept.protocol.entries import Attempt, EntryKey
from kept.protocol.limits import MAX_INTEGER
from kept.protocol.records import (
    EMPTY,
    Delivery,
    MessageKey,
    OutboxEntry,
    TaskState,
)


class TimeoutPromise(msgspec.Struct, frozen=True):
    """Step 1: a due external promise is settled as projected."""

    id: str


class DrainEdges(msgspec.Struct, frozen=True):
    """Steps 2 and 3 for the edges that were too many for the commit that settled their promise."""

    id: str


class ExpireLease(msgspec.Struct, frozen=True):
    """Step 4."""

    id: str


class RetryTask(msgspec.Struct, frozen=True):
    """Step 5 for a pushed task."""

    id: str


class ReadyTask(msgspec.Struct, frozen=True):
    """Step 5 for a pulled task: being due makes it claimable."""

    id: str


class FireSchedule(msgspec.Struct, frozen=True):
    """Step 6."""

    id: str


class TakeMessage(msgspec.Struct, frozen=True):
    """A message is about to be sent: nobody else tries before `due_at` (ms)."""

    key: MessageKey
    due_at: int


class DeliveredMessage(msgspec.Struct, frozen=True):
    """The transport reported success for a message at a version. `attempt`: to be remembered.
    `due_at` (ms): what the reservation said under which it was sent, None any."""

    key: MessageKey
    version: int
    attempt: Attempt | None = None
    due_at: int | None = None


class FailedMessage(msgspec.Struct, frozen=True):
    """The transport failed with a message at a version; `due_at` (ms) is the next try."""

    key: MessageKey
    version: int
    due_at: int
    attempt: Attempt | None = None


class LookAtEntry(msgspec.Struct, frozen=True):
    """An entry is due: what that means depends on its kind (`machine/entries.py`)."""

    key: EntryKey


class LeaveTree(msgspec.Struct, frozen=True):
    """A settled tree, or many, by their entry, are looked at and perhaps leave (`machine/retention.py`)."""

    key: EntryKey


class BulkPart(msgspec.Struct, frozen=True):
    """The next dead letters of a bulk operation: `ids` beyond `after`, up to `cursor`; None: these
    are the last (`machine/bulk.py`)."""

    key: EntryKey
    after: str | None
    ids: list[str]
    cursor: str | None


class LeaveLine(msgspec.Struct, frozen=True):
    """One that waited for a lock or a slot is gone (B5)."""

    key: EntryKey
    holder: str


InternalStep: TypeAlias = (
    TimeoutPromise
    | DrainEdges
    | ExpireLease
    | RetryTask
    | ReadyTask
    | FireSchedule
    | TakeMessage
    | DeliveredMessage
    | FailedMessage
    | LookAtEntry
    | LeaveTree
    | BulkPart
    | LeaveLine
)


def timeout_promise(step: Step, due: TimeoutPromise) -> None:
    read_promise(step, due.id)


def drain_listener(step: Step, id: str, address: str) -> None:
    """Drops a listener of a settled promise and enqueues its unblock."""
    promise = step.records.promise(id)
    assert promise is not None and not promise.pending, id
    step.records.remove_listener(id, address)
    step.records.put_message(OutboxEntry(MessageKey.unblock(id, address), address, due_at=step.now))


def drain_callback(step: Step, id: str, awaiter: str) -> None:
    """Drops a callback of a settled promise and wakes the awaiter.

    An awaiter past its own deadline is settled by it, never woken (conformance C6).
    """
    step.records.remove_callback(id, awaiter)
    found = read_task(step, awaiter)
    if found is None:
        return
    task, promise = found
    if task.state is TaskState.FULFILLED:
        return
    step.records.add_resume(awaiter, id)
    # A callback is dropped once and never comes back, so the set of resumes grew by exactly one.
    resumed = replace(task, resumes=task.resumes + 1)
    if task.state is TaskState.SUSPENDED:
        put_pending(step, resumed, promise, step.now)
    else:
        step.records.put_task(resumed)


def expire_lease(step: Step, due: ExpireLease) -> None:
    task = step.records.task(due.id)
    if task is None or task.state is not TaskState.ACQUIRED:
        return
    assert task.expires_at is not None
    promise = read_promise(step, due.id)
    if task.expires_at > step.now or promise is None or not promise.pending:
        return
    failures = task.failures + 1
    if is_exhausted(promise, failures):
        outcome = promise.tags.get(tag.EXHAUSTED, "reject")
        task = replace(task, failures=failures)
        give_up(step, task, promise, outcome, LEASE_EXPIRED, EMPTY)
        return
    retry_at = step.now
    if task.delivery is Delivery.PULL:
        retry_at = min(retry_at + backoff_ms(promise, task.version, failures), MAX_INTEGER)
    put_pending(step, task, promise, retry_at, failures=failures)


def retry_task(step: Step, due: RetryTask) -> None:
    """Offers a pending pushed task to its target, and will again if nobody acquires it."""
    task = step.records.task(due.id)
    if task is None or task.state is not TaskState.PENDING or task.delivery is not Delivery.PUSH:
        return
    assert task.retry_at is not None
    promise = read_promise(step, due.id)
    if task.retry_at > step.now or promise is None or not promise.pending:
        return
    assert promise.target is not None
    retry_at = step.now + step.config.retry_timeout_ms
    step.records.put_task(replace(task, retry_at=retry_at))
    key = MessageKey.execute(task.id)
    waiting = step.records.message(key)
    # An offer that waits is not put off: a server whose clock is behind, and which alone may reach
    # the target, would never find it due.
    due_at = step.now if waiting is None else min(step.now, waiting.due_at)
    step.records.put_message(OutboxEntry(key, promise.target, task.version, due_at))


def ready_task(step: Step, due: ReadyTask) -> None:
    task = step.records.task(due.id)
    if task is None or task.state is not TaskState.PENDING or task.delivery is not Delivery.PULL:
        return
    assert task.retry_at is not None
    promise = read_promise(step, due.id)
    if task.ready or task.retry_at > step.now or promise is None or not promise.pending:
        return
    step.records.put_task(replace(task, ready=True))


def take_message(step: Step, taken: TakeMessage) -> OutboxEntry | None:
    """Reserves a message for a try and answers it; an execute that nobody needs any more is
    dropped instead."""
    entry = step.records.message(taken.key)
    if entry is None or entry.due_at > step.now:
        return None
    if _is_stale(step, entry):
        step.records.remove_message(entry.key)
        return None
    entry = replace(entry, due_at=taken.due_at, tries=entry.tries + 1)
    step.records.put_message(entry)
    return entry


def _is_stale(step: Step, entry: OutboxEntry) -> bool:
    """An execute for a task that is not waiting at that version any more."""
    if entry.key != MessageKey.execute(entry.key.id):
        return False
    task = step.records.task(entry.key.id)
    return task is None or task.state is not TaskState.PENDING or task.version != entry.version


def delivered_message(step: Step, delivered: DeliveredMessage) -> None:
    """A message leaves the outbox once delivered, unless a newer one took its place meanwhile:
    at another version, or at the same one for a task that was halted and went on."""
    entry = step.records.message(delivered.key)
    is_same = entry is not None and entry.version == delivered.version
    if entry is not None and is_same and delivered.due_at in (None, entry.due_at):
        step.records.remove_message(delivered.key)
    _note(step, delivered)


def _note(step: Step, ended: DeliveredMessage | FailedMessage) -> None:
    if ended.attempt is not None:
        note_attempt(step, ended.key.id, ended.attempt)


def failed_message(step: Step, failed: FailedMessage) -> None:
    """A message that could not be delivered waits for its next try."""
    entry = step.records.message(failed.key)
    if entry is not None and entry.version == failed.version:
        step.records.put_message(replace(entry, due_at=failed.due_at))
    _note(step, failed)
