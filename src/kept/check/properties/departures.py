"""Where we depart from the specification's properties (protocol B11), each as narrow as it can be.

Every property that uses one of these says so in its docstring. The two entries marked ‡ in the
catalogue, which the base machine itself breaks, are changed in their own predicates.
"""

from __future__ import annotations

from typing import Final

from kept.check.properties.scopes import StepScope, is_base_deliverable
from kept.check.state import State
from kept.protocol import tags as tag
from kept.protocol.addresses import scheme_of
from kept.protocol.entries import Debounce, Dedupe, EntryKind
from kept.protocol.keys import keys_of
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import (
    Delivery,
    MessageKey,
    MessageKind,
    OutboxEntry,
    Promise,
    PromiseState,
    ScheduleRecord,
    Task,
    TaskState,
)

# The names of the steps that may do what others may not.
RETENTION: Final = "retention"
DELIVERED: Final = "outbox.delivered"
TAKEN: Final = "outbox.taken"
LEASE_EXPIRY: Final = "lease.expire"
NACK: Final = "task.nack"
CREATING: Final = ("promise.create", "task.fence")
BULK: Final = "dead.bulk.part"
SCHEDULE_PUT: Final = "schedule.put"
# The request, and the background steps that spread it to descendants or end its grace.
# The request, and the background steps that spread it to descendants or end its grace.
CANCELLATION: Final = ("promise.cancel", "promise.cancel.spread")


def only_waits(state: State, promise: Promise) -> bool:
    """A timer may have a target (A7.2), if its task is never dispatched and cannot be claimed."""
    if MessageKey.execute(promise.id) in state.outbox:
        return False
    task = state.tasks.get(promise.id)
    return task is None or (task.delivery is Delivery.NEVER and not task.ready)


def only_waits_when_fired(schedule: ScheduleRecord) -> bool:
    """A schedule may fire timers with a target (A7.2), if that target is an address."""
    target = schedule.promise_tags.get(tag.TARGET)
    return target is not None and scheme_of(target) is not None


def is_deliverable_by_us(address: str, schemes: frozenset[str]) -> bool:
    """Beyond the base schemes an address is deliverable where a transport of its scheme is
    installed (A6)."""
    if is_base_deliverable(address):
        return True
    scheme = scheme_of(address)
    return scheme in schemes and scheme not in ("http", "https", "poll")


def is_retained_away(scope: StepScope, id: str) -> bool:
    """Retention (B6) removes promises and tasks: settled and fulfilled ones only, that no message,
    no edge, dead letter or dedupe key names any more, and whose parent is not pending."""
    if scope.name != RETENTION:
        return False
    p, t = scope.promise_before(id), scope.task_before(id)
    if p is None or p.pending or (t is not None and t.state is not TaskState.FULFILLED):
        return False
    return not (_is_named(scope, p) or _has_pending_parent(scope, p))


def _is_named(scope: StepScope, p: Promise) -> bool:
    b, delta, id = scope.b, scope.delta, p.id
    if MessageKey.execute(id) in b.outbox or id in b.unblocks.at or id in b.dead_letters:
        return True
    if any(
        id in ends
        for each in (b.callbacks, b.listeners, b.resumes)
        for ends in (each.at, each.back)
    ):
        return True
    # Neither did the step itself take them away.
    removed = (*delta.callbacks.removed, *delta.listeners.removed, *delta.resumes.removed)
    if any(id in edge for edge in removed):
        return True
    key = keys_of(p.tags).get(EntryKind.DEDUPE)
    if key is None:
        return False
    entry = delta.entries.get(key) or b.entries.get(key)
    return entry is not None and isinstance(entry.data, Dedupe) and entry.data.promise == id


def _has_pending_parent(scope: StepScope, p: Promise) -> bool:
    parents = {p.parent, p.branch} - {None, p.id}
    found = (scope.promise_before(id) for id in sorted(id for id in parents if id is not None))
    return any(parent is not None and parent.pending for parent in found)


def may_be_sent_off(scope: StepScope, message: OutboxEntry) -> bool:
    """A message leaves the outbox when it was delivered; an execute also when it is about to be
    sent and its task no longer waits at its version, so that nobody could use it (A6). The step
    does nothing else."""
    if scope.promises or scope.tasks or scope.schedules:
        return False
    if scope.name == DELIVERED:
        return True
    if scope.name != TAKEN or message.key.kind is not MessageKind.EXECUTE:
        return False
    task = scope.b.tasks.get(message.key.id)
    return task is None or task.state is not TaskState.PENDING or task.version != message.version


def is_backoff(scope: StepScope, t: Task, u: Task) -> bool:
    """After a nack, and after the expired lease of a queued task, the next try waits (B2)."""
    if t.state is not TaskState.ACQUIRED or u.retry_at is None or u.retry_at < scope.now:
        return False
    if scope.name == NACK:
        return True
    is_counted = u.failures == t.failures + 1
    return scope.name == LEASE_EXPIRY and t.delivery is Delivery.PULL and is_counted


def is_debounce(scope: StepScope, t: Task, u: Task) -> bool:
    """A create with the same debounce key postpones the waiting task (B4): the one that holds the
    key, that never started, and not beyond the latest instant."""
    promise = scope.b.promises.get(u.id)
    if scope.name not in CREATING or promise is None or u.version or t.state is not u.state:
        return False
    key = keys_of(promise.tags).get(EntryKind.DEBOUNCE)
    entry = scope.b.entries.get(key) if key is not None else None
    if entry is None or not isinstance(entry.data, Debounce) or entry.data.promise != u.id:
        return False
    if t.retry_at is None or u.retry_at is None or t.retry_at >= u.retry_at:
        return False
    return entry.data.latest is None or u.retry_at <= entry.data.latest


def is_cancellation(scope: StepScope) -> bool:
    """A cancel request makes a suspended task pending without a resume (B3)."""
    return scope.name in CANCELLATION


def is_exhausted(scope: StepScope, t: Task | None) -> bool:
    """An expired lease that was the last attempt halts or rejects, and files a dead letter in the
    same step (B2)."""
    if scope.name != LEASE_EXPIRY or t is None or t.state is not TaskState.ACQUIRED:
        return False
    return scope.dead_letter_filed(t.id) is not None


def is_exhausted_rejection(scope: StepScope, q: Promise) -> bool:
    """The promise of an exhausted task is rejected (B2)."""
    return q.state is PromiseState.REJECTED and is_exhausted(scope, scope.task_before(q.id))


def is_canceled(scope: StepScope, q: Promise) -> bool:
    """Cancellation spreads in the background and settles what is not running (B3)."""
    return is_cancellation(scope) and q.state is PromiseState.REJECTED_CANCELED


def is_replayed(scope: StepScope, t: Task, u: Task) -> bool:
    """A bulk replay, which works in the background, continues halted work with its failures reset
    and counts that in its dead letter (B4)."""
    if scope.name != BULK or t.state is not TaskState.HALTED or u.state is not TaskState.PENDING:
        return False
    letter, before = scope.dead_letter_filed(u.id), scope.delta.dead_letters.get(u.id)
    if letter is None or before is None or u.failures:
        return False
    return letter.halted and letter.replays == before.replays + 1


def is_changed_schedule(scope: StepScope, before: ScheduleRecord, after: ScheduleRecord) -> bool:
    """`schedule.put` changes a schedule, which keeps its birth (B10)."""
    return scope.name == SCHEDULE_PUT and before.created_at == after.created_at


def has_no_deadline(promise: Promise) -> bool:
    """A deadline of this value means none and arms nothing (B6)."""
    return promise.timeout_at == NEVER_MS
