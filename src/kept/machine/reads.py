"""Which keys a request needs at first (protocol A4): planned for a whole batch at once.

What is missed here is loaded when a handler asks for it (`NotLoaded`); planning only saves rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kept.machine import background as b
from kept.machine.announcements import function_key, references_of, worker_key
from kept.machine.backfill import backfill_key
from kept.machine.buckets import bucket_key
from kept.machine.cancellation import cancel_key
from kept.machine.deliveries import deliveries_key
from kept.machine.guards import guard_key
from kept.machine.limits import depth_key, settings_key
from kept.machine.locks import lock_key
from kept.machine.mailboxes import mailbox_key, message_key
from kept.machine.queues import heads_of
from kept.machine.schedule_line import line_key
from kept.machine.slots import slots_key
from kept.machine.turns import turn_key
from kept.protocol import guard_requests as g
from kept.protocol import requests as r
from kept.protocol import schedule_requests as s
from kept.protocol import tags as tag
from kept.protocol import worker_requests as w
from kept.protocol.addresses import queue_of
from kept.protocol.attributes import attributes_key
from kept.protocol.entries import EntryKey, EntryKind
from kept.protocol.inquiries import PromiseDeliveries
from kept.protocol.keys import has_keys, keys_of
from kept.protocol.records import MessageKey
from kept.protocol.storage import ChildPage, Reads


def plan(request: r.Request | b.InternalStep, reads: Reads) -> None:
    """Adds the keys of a request or background step to `reads`."""
    planner = _PLANNERS.get(type(request))
    if planner is not None:
        planner(request, reads)


def _object(request: Any, reads: Reads) -> None:
    reads.objects.add(request.id)


def _promise_create(request: r.PromiseCreate, reads: Reads) -> None:
    reads.objects.add(request.id)
    _add_tree_of(request.tags, reads)
    _add_queue_of(request.tags, reads)


def _add_tree_of(tags: dict[str, str], reads: Reads) -> None:
    """Into a tree: whether its root is pending decides whether anybody has to look after it."""
    if tag.ORIGIN in tags:
        reads.objects.add(tags[tag.ORIGIN])


def _add_queue_of(tags: dict[str, str], reads: Reads) -> None:
    """Into a queue: what is said of it decides whether there is room, and what a priority is worth.
    Keys: who holds them decides whether there is anything to create."""
    if has_keys(tags):
        reads.entries.update(keys_of(tags).values())
    target = tags.get(tag.TARGET)
    queue = queue_of(target) if target is not None else None
    if queue is not None:
        reads.entries.add(settings_key(queue))
        reads.entries.add(depth_key(queue))


def _settled_object(request: Any, reads: Reads) -> None:
    reads.objects.add(request.id)
    reads.edges.add(request.id)


def _promise_cancel(request: r.PromiseCancel, reads: Reads) -> None:
    _settled_object(request, reads)
    reads.entries.add(cancel_key(request.id))
    if request.recursive:
        reads.pending_children.add(ChildPage(request.id, "", 1))


def _register_callback(request: r.PromiseRegisterCallback, reads: Reads) -> None:
    reads.objects.add(request.awaited)
    reads.objects.add(request.awaiter)


def _register_listener(request: r.PromiseRegisterListener, reads: Reads) -> None:
    reads.objects.add(request.awaited)


def _task_create(request: r.TaskCreate, reads: Reads) -> None:
    reads.objects.add(request.action.data.id)
    _add_tree_of(request.action.data.tags, reads)
    _add_queue_of(request.action.data.tags, reads)
    if request.preload != 0:
        reads.children.add(request.action.data.id)


def _task_acquire(request: r.TaskAcquire, reads: Reads) -> None:
    reads.objects.add(request.id)
    if request.preload != 0:
        reads.children.add(request.id)


def _task_suspend(request: r.TaskSuspend, reads: Reads) -> None:
    reads.objects.add(request.id)
    reads.objects.update(action.data.awaited for action in request.actions)


def _task_fence(request: r.TaskFence, reads: Reads) -> None:
    reads.objects.add(request.id)
    reads.objects.add(request.action.data.id)
    if isinstance(request.action, r.CancelAction):
        _promise_cancel(request.action.data, reads)
    elif isinstance(request.action, r.SettleAction):
        reads.edges.add(request.action.data.id)
    else:
        _add_queue_of(request.action.data.tags, reads)


def _task_record(request: r.TaskRecordStep, reads: Reads) -> None:
    reads.objects.add(request.id)
    reads.objects.add(request.step.id)


def _task_heartbeat(request: r.TaskHeartbeat, reads: Reads) -> None:
    reads.objects.update(ref.id for ref in request.tasks)
    reads.entries.add(worker_key(request.pid))


def _task_claim(request: r.TaskClaim, reads: Reads) -> None:
    for head in heads_of(request):
        # One more than the limit, so that a full head is not mistaken for the end of the queue.
        reads.heads[head] = reads.heads.get(head, 1) + request.limit
        for key_of in (settings_key, depth_key, turn_key):
            reads.entries.add(key_of(head.queue))
    reads.head_children = reads.head_children or request.preload != 0


def _schedule(request: Any, reads: Reads) -> None:
    reads.schedules.add(request.id)


def _schedule_and_line(request: Any, reads: Reads) -> None:
    reads.schedules.add(request.id)
    reads.entries.add(line_key(request.id))


def _backfill(request: s.ScheduleBackfill, reads: Reads) -> None:
    reads.schedules.add(request.id)
    reads.entries.add(backfill_key(request.id))


def _queue(request: Any, reads: Reads) -> None:
    reads.entries.add(settings_key(request.name))
    reads.entries.add(depth_key(request.name))


def _promise_get(request: r.PromiseGet, reads: Reads) -> None:
    reads.objects.add(request.id)
    if request.attributes:
        reads.entries.add(attributes_key(request.id))


def _task_annotate(request: r.TaskAnnotate, reads: Reads) -> None:
    reads.objects.add(request.id)
    reads.entries.add(attributes_key(request.id))


def _worker_announce(request: w.WorkerAnnounce, reads: Reads) -> None:
    reads.entries.update(function_key(reference) for reference in references_of(request))


def _signal_send(request: r.SignalSend, reads: Reads) -> None:
    reads.objects.add(request.id)
    reads.entries.add(mailbox_key(request.id, request.name))
    if request.key is not None:
        reads.entries.add(message_key(request.id, request.name, request.key))


def _dead_get(request: r.DeadGet, reads: Reads) -> None:
    reads.dead_letters.add(request.id)


def _dead_replay(request: r.DeadReplay, reads: Reads) -> None:
    reads.dead_letters.update(request.ids)
    reads.objects.update(request.ids)
    if request.bulk is not None:
        reads.entries.add(EntryKey(EntryKind.BULK, request.bulk))


def _dead_purge(request: r.DeadPurge, reads: Reads) -> None:
    reads.dead_letters.update(request.ids)
    if request.bulk is not None:
        reads.entries.add(EntryKey(EntryKind.BULK, request.bulk))


def _dead_bulk(request: r.DeadBulk, reads: Reads) -> None:
    reads.entries.add(EntryKey(EntryKind.BULK, request.id))


def _bulk_part(part: b.BulkPart, reads: Reads) -> None:
    reads.entries.add(part.key)
    reads.dead_letters.update(part.ids)
    reads.objects.update(part.ids)


def _retry_task(step: b.RetryTask, reads: Reads) -> None:
    reads.objects.add(step.id)
    reads.messages.add(MessageKey.execute(step.id))


def _message(request: Any, reads: Reads) -> None:
    reads.messages.add(request.key)
    reads.objects.add(request.key.id)


def _ended_message(step: b.DeliveredMessage | b.FailedMessage, reads: Reads) -> None:
    reads.messages.add(step.key)
    if step.attempt is not None:
        reads.entries.add(deliveries_key(step.key.id))


def _promise_deliveries(request: PromiseDeliveries, reads: Reads) -> None:
    reads.objects.add(request.id)
    reads.entries.add(deliveries_key(request.id))


def _entry(step: b.LookAtEntry | b.LeaveLine, reads: Reads) -> None:
    reads.entries.add(step.key)
    if step.key.kind in (EntryKind.SCHEDULE_LINE, EntryKind.BACKFILL):
        reads.schedules.add(step.key.name)


def _leave_tree(step: b.LeaveTree, reads: Reads) -> None:
    reads.entries.add(step.key)
    if step.key.kind is EntryKind.RETENTION:
        reads.objects.add(step.key.name)


def _lock(request: Any, reads: Reads) -> None:
    reads.entries.add(lock_key(request.resource))


def _slots(request: Any, reads: Reads) -> None:
    reads.entries.add(slots_key(request.key))


def _bucket(request: g.BucketTake, reads: Reads) -> None:
    reads.entries.add(bucket_key(request.key))


def _guard(request: Any, reads: Reads) -> None:
    reads.entries.add(guard_key(request.key))


_PLANNERS: Final[dict[type, Callable[[Any, Reads], None]]] = {
    r.PromiseGet: _promise_get,
    r.PromiseWait: _object,
    r.PromiseCreate: _promise_create,
    r.PromiseSettle: _settled_object,
    r.PromiseRegisterCallback: _register_callback,
    r.PromiseRegisterListener: _register_listener,
    r.PromiseCancel: _promise_cancel,
    r.TaskGet: _object,
    r.TaskCreate: _task_create,
    r.TaskAcquire: _task_acquire,
    r.TaskRelease: _object,
    r.TaskFulfill: _settled_object,
    r.TaskSuspend: _task_suspend,
    r.TaskFence: _task_fence,
    r.TaskRecordStep: _task_record,
    r.TaskHeartbeat: _task_heartbeat,
    r.TaskHalt: _object,
    r.TaskContinue: _object,
    r.TaskClaim: _task_claim,
    r.TaskNack: _object,
    r.ScheduleCreate: _schedule,
    r.ScheduleGet: _schedule,
    r.ScheduleDelete: _schedule,
    s.SchedulePut: _schedule_and_line,
    s.SchedulePause: _schedule,
    s.ScheduleResume: _schedule_and_line,
    s.ScheduleTrigger: _schedule,
    s.ScheduleBackfill: _backfill,
    r.QueuePut: _queue,
    r.QueueGet: _queue,
    r.QueueDelete: _queue,
    r.QueuePause: _queue,
    r.QueueResume: _queue,
    r.TaskAnnotate: _task_annotate,
    w.WorkerAnnounce: _worker_announce,
    r.SignalSend: _signal_send,
    r.DeadGet: _dead_get,
    r.DeadReplay: _dead_replay,
    r.DeadPurge: _dead_purge,
    r.DeadBulk: _dead_bulk,
    g.LockAcquire: _lock,
    g.LockHeartbeat: _lock,
    g.LockRelease: _lock,
    g.LockGet: _lock,
    g.SlotAcquire: _slots,
    g.SlotHeartbeat: _slots,
    g.SlotRelease: _slots,
    g.SlotGet: _slots,
    g.BucketTake: _bucket,
    g.GuardAdvance: _guard,
    g.GuardGet: _guard,
    g.GuardDelete: _guard,
    PromiseDeliveries: _promise_deliveries,
    b.TimeoutPromise: _settled_object,
    b.DrainEdges: _settled_object,
    b.ExpireLease: _object,
    b.RetryTask: _retry_task,
    b.ReadyTask: _object,
    b.FireSchedule: _schedule,
    b.TakeMessage: _message,
    b.DeliveredMessage: _ended_message,
    b.FailedMessage: _ended_message,
    b.LookAtEntry: _entry,
    b.LeaveTree: _leave_tree,
    b.BulkPart: _bulk_part,
    b.LeaveLine: _entry,
}
