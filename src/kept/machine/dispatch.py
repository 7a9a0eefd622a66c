"""How a request is applied: its handler as one step, then a step for each edge that it set free.

`apply` and `apply_internal` leave the working set either with all of a request's effects or, when
they raise, with none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kept.machine import (
    announcements,
    attributes,
    backfill,
    buckets,
    bulk,
    cancellation,
    dead_letters,
    deliveries,
    entries,
    guards,
    locks,
    mailboxes,
    promises,
    queue_settings,
    queues,
    retention,
    schedule_changes,
    schedules,
    slots,
    tasks,
)
from kept.machine import background as b
from kept.machine.limits import count_depths
from kept.machine.repeat import REPEATABLE, answered_before, claimed_before, remember
from kept.machine.step import MachineConfig, Step
from kept.machine.working_set import WorkingSet
from kept.protocol import guard_requests as g
from kept.protocol import requests as r
from kept.protocol import schedule_requests as s
from kept.protocol import worker_requests as w
from kept.protocol.entries import EntryKey, EntryKind
from kept.protocol.inquiries import PromiseDeliveries
from kept.protocol.limits import MAX_EDGES_PER_STEP
from kept.protocol.records import OutboxEntry
from kept.protocol.responses import Response
from kept.protocol.storage import StepObserver


class Machine:
    """The handlers over one tenant's working set, for one batch."""

    def __init__(
        self,
        tenant: str,
        records: WorkingSet,
        config: MachineConfig,
        observer: StepObserver | None = None,
    ) -> None:
        self.tenant = tenant
        self.records = records
        # Whether the background step taken last did anything.
        self.changed = False
        self._config = config
        self._observer = observer

    def apply(self, request: r.Request, now: int, request_id: str | None = None) -> Response:
        """The answer to a request that passed validation, at `now` (ms).

        Raises `NotLoaded` when records are missing, and whatever a fault of the machine raises;
        the request is undone then.
        """
        step = Step(self.records, now, self._config, request_id)
        undo_point = self._observer.mark() if self._observer else 0
        try:
            response = self._answer(step, request)
            self._drain(now)
        except BaseException:
            self._undo(undo_point)
            raise
        self.records.keep()
        return response

    def apply_internal(self, due: b.InternalStep, now: int) -> OutboxEntry | None:
        """Takes a background step, if it is enabled at `now` (ms), and answers the message that
        one took from the outbox. Raises as `apply` does."""
        taken: OutboxEntry | None = None
        undo_point = self._observer.mark() if self._observer else 0
        try:
            if isinstance(due, b.FireSchedule):
                self._fire(due, now)
            elif isinstance(due, b.LookAtEntry) and due.key.kind is EntryKind.BACKFILL:
                self._backfill(due.key, now)
            elif isinstance(due, b.DrainEdges):
                if self.records.promise(due.id) is not None:
                    left = self._drain_promise(due.id, now)
                    self.records.put_undrained(due.id, undrained=left)
            else:
                mark = self.records.mark()
                name, handler = _INTERNAL[type(due)]
                if isinstance(due, b.LookAtEntry):
                    name = entries.step_name(due)
                taken = handler(Step(self.records, now, self._config), due)
                self._observe(mark, now, name, internal=True)
            self._drain(now)
        except BaseException:
            self._undo(undo_point)
            raise
        self.changed = self.records.mark() > 0
        self.records.keep()
        return taken

    def _answer(self, step: Step, request: r.Request) -> Response:
        if step.request_id is not None:
            repeated = self._repeated(step, request, step.request_id)
            if repeated is not None:
                return repeated
        if type(request) in _HALVES:
            return self._in_two_steps(step, request)
        mark = self.records.mark()
        response = HANDLERS[type(request)](step, request)
        if step.request_id is not None and isinstance(request, REPEATABLE) and response.ok:
            remember(step, request, response)
        self._observe(mark, step.now, _step_name(request))
        return response

    def _repeated(self, step: Step, request: r.Request, request_id: str) -> Response | None:
        mark = self.records.mark()
        response = None
        if isinstance(request, REPEATABLE):
            response = answered_before(step, request)
        elif isinstance(request, r.TaskClaim):
            response = claimed_before(step, request, request_id)
        # Reading may have stored a deadline that passed.
        self._observe(mark, step.now, request.kind)
        return response

    def _in_two_steps(self, step: Step, request: r.Request) -> Response:
        """In one commit a promise is created, then settled."""
        create, settle = _HALVES[type(request)]
        mark = self.records.mark()
        response = create(step, request)
        self._observe(mark, step.now, f"{request.kind}.create")
        mark = self.records.mark()
        if response is None:
            response = settle(step, request)
        if step.request_id is not None and isinstance(request, REPEATABLE) and response.ok:
            remember(step, request, response)
        self._observe(mark, step.now, f"{request.kind}.settle")
        return response

    def _fire(self, due: b.FireSchedule, now: int) -> None:
        """Each occurrence is a step as of its instant, then the schedule's clock moves."""
        schedule = self.records.schedule(due.id)
        if schedule is None or schedule.paused or schedule.next_run_at > now:
            return
        fired = schedules.due_instants(schedule, now)
        for instant in fired:
            mark = self.records.mark()
            schedules.fire(Step(self.records, instant, self._config), schedule, instant)
            self._observe(mark, instant, "schedule.fire", internal=True)
        mark = self.records.mark()
        schedules.advance(Step(self.records, now, self._config), schedule, fired)
        self._observe(mark, now, "schedule.advance", internal=True)

    def _backfill(self, key: EntryKey, now: int) -> None:
        """Each instant of a schedule's past is a step, as of now; then the rest is noted."""
        step = Step(self.records, now, self._config)
        spans = backfill.spans_of(step, key.name)
        schedule = self.records.schedule(key.name)
        if not spans or schedule is None:
            return
        instants = backfill.next_instants(schedule, spans[0])
        for instant in instants:
            mark = self.records.mark()
            schedules.create_occurrence(step, schedule, instant)
            self._observe(mark, now, "schedule.backfill.fire", internal=True)
        mark = self.records.mark()
        backfill.go_past(step, key.name, instants)
        self._observe(mark, now, "schedule.backfill.advance", internal=True)

    def _drain(self, now: int) -> None:
        """Drains what the request settled, and what draining settles in turn."""
        settled = self.records.settled
        position = 0
        while position < len(settled):
            id = settled[position]
            position += 1
            if self.records.has_edges(id) and self._drain_promise(id, now):
                self.records.put_undrained(id, undrained=True)

    def _drain_promise(self, id: str, now: int) -> bool:
        """Steps 2 and 3 for a settled promise: its listeners, then its callbacks (A5).

        Answers whether edges are left for further commits.
        """
        records = self.records
        promise = records.promise(id)
        if promise is None or promise.pending:
            return False
        step = Step(records, now, self._config)
        for address in records.listeners_of(id)[:MAX_EDGES_PER_STEP]:
            mark = records.mark()
            b.drain_listener(step, id, address)
            self._observe(mark, now, "listener", internal=True)
        for awaiter in records.callbacks_of(id)[:MAX_EDGES_PER_STEP]:
            mark = records.mark()
            b.drain_callback(step, id, awaiter)
            self._observe(mark, now, "callback", internal=True)
        return records.has_edges(id)

    def _observe(self, mark: int, now: int, name: str, *, internal: bool = False) -> None:
        count_depths(self.records)
        if self._observer is not None:
            changes = self.records.changes_since(mark)
            self._observer.step(self.tenant, now, name, internal, changes)

    def _undo(self, undo_point: int) -> None:
        self.records.rollback()
        if self._observer is not None:
            self._observer.rollback(undo_point)


def _step_name(request: r.Request) -> str:
    """What a step is called for those who watch: a fenced cancellation is one."""
    if isinstance(request, r.TaskFence) and isinstance(request.action, r.CancelAction):
        return r.PromiseCancel.kind
    return request.kind


HANDLERS: Final[dict[type[r.Request], Callable[[Step, Any], Response]]] = {
    r.PromiseGet: attributes.promise_get_described,
    r.PromiseWait: promises.promise_get,
    r.PromiseCreate: promises.promise_create,
    r.PromiseSettle: promises.promise_settle,
    r.PromiseRegisterCallback: promises.promise_register_callback,
    r.PromiseRegisterListener: promises.promise_register_listener,
    r.PromiseCancel: cancellation.promise_cancel,
    r.TaskGet: tasks.task_get,
    r.TaskCreate: tasks.task_create,
    r.TaskAcquire: tasks.task_acquire,
    r.TaskRelease: tasks.task_release,
    r.TaskFulfill: tasks.task_fulfill,
    r.TaskSuspend: tasks.task_suspend,
    r.TaskFence: tasks.task_fence,
    r.TaskHeartbeat: tasks.task_heartbeat,
    r.TaskAnnotate: attributes.task_annotate,
    r.TaskHalt: tasks.task_halt,
    r.TaskContinue: tasks.task_continue,
    r.TaskClaim: queues.task_claim,
    r.TaskNack: queues.task_nack,
    r.ScheduleCreate: schedules.schedule_create,
    r.ScheduleGet: schedules.schedule_get,
    r.ScheduleDelete: schedules.schedule_delete,
    s.SchedulePut: schedule_changes.schedule_put,
    s.SchedulePause: schedule_changes.schedule_pause,
    s.ScheduleResume: schedule_changes.schedule_resume,
    s.ScheduleTrigger: schedule_changes.schedule_trigger,
    s.ScheduleBackfill: schedule_changes.schedule_backfill,
    r.QueuePut: queue_settings.queue_put,
    r.QueueGet: queue_settings.queue_get,
    r.QueueDelete: queue_settings.queue_delete,
    r.QueuePause: queue_settings.queue_pause,
    r.QueueResume: queue_settings.queue_resume,
    r.DeadGet: dead_letters.dead_get,
    r.DeadReplay: bulk.dead_replay,
    r.DeadPurge: bulk.dead_purge,
    r.DeadBulk: bulk.dead_bulk,
    g.LockAcquire: locks.lock_acquire,
    g.LockHeartbeat: locks.lock_heartbeat,
    g.LockRelease: locks.lock_release,
    g.LockGet: locks.lock_get,
    g.SlotAcquire: slots.slot_acquire,
    g.SlotHeartbeat: slots.slot_heartbeat,
    g.SlotRelease: slots.slot_release,
    g.SlotGet: slots.slot_get,
    g.BucketTake: buckets.bucket_take,
    g.GuardAdvance: guards.guard_advance,
    g.GuardGet: guards.guard_get,
    g.GuardDelete: guards.guard_delete,
    w.WorkerAnnounce: announcements.worker_announce,
    PromiseDeliveries: deliveries.promise_deliveries,
}

_HALVES: Final[
    dict[
        type[r.Request],
        tuple[Callable[[Step, Any], Response | None], Callable[[Step, Any], Response]],
    ]
] = {
    r.TaskRecordStep: (tasks.record_create, tasks.record_settle),
    r.SignalSend: (mailboxes.signal_create, mailboxes.signal_settle),
}

_INTERNAL: Final[dict[type, tuple[str, Callable[[Step, Any], OutboxEntry | None]]]] = {
    b.TimeoutPromise: ("promise.timeout", b.timeout_promise),
    b.ExpireLease: ("lease.expire", b.expire_lease),
    b.RetryTask: ("task.retry", b.retry_task),
    b.ReadyTask: ("task.ready", b.ready_task),
    b.TakeMessage: ("outbox.taken", b.take_message),
    b.DeliveredMessage: ("outbox.delivered", b.delivered_message),
    b.FailedMessage: ("outbox.failed", b.failed_message),
    b.LookAtEntry: ("entry.due", entries.look_at_entry),
    b.LeaveTree: ("retention", retention.leave_tree),
    b.BulkPart: ("dead.bulk.part", bulk.bulk_part),
    b.LeaveLine: ("entry.left", entries.leave_line),
}
