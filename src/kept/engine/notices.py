"""What a commit means to those who wait: in this process, and in others on the same store."""

from __future__ import annotations

from typing import Final

from kept.protocol.entries import EntryKey, EntryKind, Lock, Slots
from kept.protocol.records import Delivery, Promise, Task, TaskState
from kept.protocol.storage import Changes, Notice

# An enum's attribute takes longer to find than a name of the module, and these are on the hot path.
_PENDING: Final = TaskState.PENDING
_ACQUIRED: Final = TaskState.ACQUIRED
_NEVER: Final = Delivery.NEVER


def notice_of(tenant: str, changes: Changes, now: int, notice: Notice) -> None:
    """Adds to `notice` what the changes of a tenant, committed at `now` (ms), mean."""
    for promise in changes.promises.values():
        _promise_notice(tenant, promise, notice)
    for task in changes.tasks.values():
        _task_notice(tenant, task, now, notice)
    for schedule in changes.schedules.values():
        if schedule is not None:
            _due(notice, schedule.next_run_at)
    for key, entry in changes.entries.items():
        if key.kind is EntryKind.QUEUE:
            # Another limit, or none any more: what waits may start.
            notice.queues.add((tenant, key.name))
        if entry is not None:
            _due(notice, entry.due_at)
            if isinstance(entry.data, Lock | Slots):
                _turns_notice(tenant, key, entry.data, notice)
    if any(changes.undrained.values()):
        _due(notice, now)
    if any(message is not None for message in changes.outbox.values()):
        notice.messages = True


def _promise_notice(tenant: str, promise: Promise, notice: Notice) -> None:
    if not promise.pending:
        notice.settled.add((tenant, promise.id))
    else:
        deadline = promise.armed_deadline
        if deadline is not None:
            _due(notice, deadline)


def _task_notice(tenant: str, task: Task, now: int, notice: Notice) -> None:
    if task.state is _ACQUIRED:
        _due(notice, task.expires_at)
        return
    if task.queue is not None and task.version:
        notice.freed.add((tenant, task.queue))
    if task.state is _PENDING and task.delivery is not _NEVER:
        assert task.retry_at is not None
        if task.queue is not None and task.retry_at <= now:
            notice.queues.add((tenant, task.queue))
        else:
            _due(notice, task.retry_at)


def _turns_notice(tenant: str, key: EntryKey, data: Lock | Slots, notice: Notice) -> None:
    for waiter in data.waiters:
        if waiter.turn is not None:
            notice.turns.add((tenant, key.kind.value, key.name, waiter.holder))


def _due(notice: Notice, instant: int | None) -> None:
    if instant is not None and (notice.due_at is None or instant < notice.due_at):
        notice.due_at = instant
