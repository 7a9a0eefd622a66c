"""Which keys a request needs at first (protocol A4): planned for a whole batch at once.

What is missed here is loaded when a handler asks for it (`NotLoaded`); planning only saves rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kept.machine import background as b
from kept.machine.buckets import bucket_key
from kept.machine.guards import guard_key
from kept.machine.limits import depth_key, settings_key
from kept.machine.locks import lock_key
from kept.machine.queues import heads_of
from kept.machine.slots import slots_key
from kept.machine.turns import turn_key
from kept.protocol import guard_requests as g
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.addresses import queue_of
from kept.protocol.entries import EntryKey, EntryKind
from kept.protocol.keys import has_keys, keys_of
from kept.protocol.storage import Reads


def plan(request: r.Request | b.InternalStep, reads: Reads) -> None:
    """Adds the keys of a request or background step to `reads`."""
    planner = _PLANNERS.get(type(request))
    if planner is not None:
        planner(request, reads)


def _object(request: Any, reads: Reads) -> None:
    reads.objects.add(request.id)


def _promise_create(request: r.PromiseCreate, reads: Reads) -> None:
    reads.objects.add(request.id)
    _add_queue_of(request.tags, reads)


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


def _register_callback(request: r.PromiseRegisterCallback, reads: Reads) -> None:
    reads.objects.add(request.awaited)
    reads.objects.add(request.awaiter)


def _register_listener(request: r.PromiseRegisterListener, reads: Reads) -> None:
    reads.objects.add(request.awaited)


def _task_create(request: r.TaskCreate, reads: Reads) -> None:
    reads.objects.add(request.action.data.id)
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
    if isinstance(request.action, r.SettleAction):
        reads.edges.add(request.action.data.id)
    else:
        _add_queue_of(request.action.data.tags, reads)


def _task_record(request: r.TaskRecordStep, reads: Reads) -> None:
    reads.objects.add(request.id)
    reads.objects.add(request.step.id)


def _task_heartbeat(request: r.TaskHeartbeat, reads: Reads) -> None:
    reads.objects.update(ref.id for ref in request.tasks)


def _task_claim(request: r.TaskClaim, reads: Reads) -> None:
    for head in heads_of(request):
        # One more than the limit, so that a full head is not mistaken for the end of the queue.
        reads.heads[head] = reads.heads.get(head, 1) + request.limit
        for key_of in (settings_key, depth_key, turn_key):
            reads.entries.add(key_of(head.queue))
    reads.head_children = reads.head_children or request.preload != 0


def _schedule(request: Any, reads: Reads) -> None:
    reads.schedules.add(request.id)


def _queue(request: Any, reads: Reads) -> None:
    reads.entries.add(settings_key(request.name))
    reads.entries.add(depth_key(request.name))


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


def _message(request: Any, reads: Reads) -> None:
    reads.messages.add(request.key)
    reads.objects.add(request.key.id)


def _entry(step: b.LookAtEntry | b.LeaveLine, reads: Reads) -> None:
    reads.entries.add(step.key)


def _lock(request: Any, reads: Reads) -> None:
    reads.entries.add(lock_key(request.resource))


def _slots(request: Any, reads: Reads) -> None:
    reads.entries.add(slots_key(request.key))


def _bucket(request: g.BucketTake, reads: Reads) -> None:
    reads.entries.add(bucket_key(request.key))


def _guard(request: Any, reads: Reads) -> None:
    reads.entries.add(guard_key(request.key))


_PLANNERS: Final[dict[type, Callable[[Any, Reads], None]]] = {
    r.PromiseGet: _object,
    r.PromiseWait: _object,
    r.PromiseCreate: _promise_create,
    r.PromiseSettle: _settled_object,
    r.PromiseRegisterCallback: _register_callback,
    r.PromiseRegisterListener: _register_listener,
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
    r.QueuePut: _queue,
    r.QueueGet: _queue,
    r.QueueDelete: _queue,
    r.QueuePause: _queue,
    r.QueueResume: _queue,
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
    b.TimeoutPromise: _settled_object,
    b.DrainEdges: _settled_object,
    b.ExpireLease: _object,
    b.RetryTask: _object,
    b.ReadyTask: _object,
    b.FireSchedule: _schedule,
    b.TakeMessage: _message,
    b.DeliveredMessage: _message,
    b.FailedMessage: _message,
    b.LookAtEntry: _entry,
    b.BulkPart: _bulk_part,
    b.LeaveLine: _entry,
}
