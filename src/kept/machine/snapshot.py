"""debug.snap: the whole state of a tenant, projected and sorted (protocol A4)."""

from __future__ import annotations

from kept.machine.search import task_as_seen
from kept.protocol.messages import execute_message, unblock_message
from kept.protocol.records import MessageKind, OutboxEntry, Promise, Task, TaskState
from kept.protocol.responses import (
    SnapCallback,
    SnapListener,
    SnapMessage,
    SnapPromiseTimeout,
    Snapshot,
    SnapTaskTimeout,
)
from kept.protocol.storage import Dump

RETRY_TIMEOUT = 0
LEASE_TIMEOUT = 1


def snapshot(dump: Dump, now: int) -> Snapshot:
    """Everything as seen at `now` (ms)."""
    promises = {id: dump.promises[id].project(now) for id in sorted(dump.promises)}
    tasks = [dump.tasks[id] for id in sorted(dump.tasks)]
    return Snapshot(
        promises=[promise.record() for promise in promises.values()],
        promise_timeouts=[
            SnapPromiseTimeout(promise.id, promise.armed_deadline)
            for promise in promises.values()
            if promise.armed_deadline is not None
        ],
        callbacks=[
            SnapCallback(awaiter, awaited)
            for awaiter, awaited in sorted((edge.to, edge.of) for edge in dump.callbacks)
        ],
        listeners=[SnapListener(edge.of, edge.to) for edge in sorted(dump.listeners)],
        tasks=[task_as_seen(task, promises[task.id], now) for task in tasks],
        task_timeouts=[
            timeout
            for task in tasks
            if promises[task.id].pending and (timeout := _task_timeout(task)) is not None
        ],
        messages=[
            _message(entry, promises)
            for entry in sorted(dump.outbox.values(), key=lambda e: (e.address, e.key))
        ],
    )


def _task_timeout(task: Task) -> SnapTaskTimeout | None:
    if task.state is TaskState.PENDING and task.retry_at is not None:
        return SnapTaskTimeout(task.id, RETRY_TIMEOUT, task.retry_at)
    if task.state is TaskState.ACQUIRED and task.expires_at is not None:
        return SnapTaskTimeout(task.id, LEASE_TIMEOUT, task.expires_at)
    return None


def _message(entry: OutboxEntry, promises: dict[str, Promise]) -> SnapMessage:
    if entry.key.kind is MessageKind.EXECUTE:
        return SnapMessage(entry.address, execute_message(entry))
    return SnapMessage(entry.address, unblock_message(promises[entry.key.id].record()))
