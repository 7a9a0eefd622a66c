"""The task requests of the base protocol (A4): create, get, halt, continue, and under a lease
acquire, release, fulfill, suspend, fence, record, heartbeat."""

from __future__ import annotations

from msgspec.structs import replace

from kept.machine import cancellation
from kept.machine.announcements import renew
from kept.machine.duplicates import Admission, consider, make_way, take_keys
from kept.machine.effects import (
    clear_resumes,
    new_promise,
    new_task,
    put_acquired,
    put_new_promise,
    put_parked,
    put_pending,
    read_promise,
    read_task,
    settle,
)
from kept.machine.events import HeartbeatLost, KeyHit
from kept.machine.limits import count_start, refusal_of
from kept.machine.preload import preload_of
from kept.machine.promises import create_promise, no_promise, not_external, promise_settle
from kept.machine.refusals import PAUSED
from kept.machine.step import Step
from kept.machine.trees import kept_verdict, note_born
from kept.protocol import requests as r
from kept.protocol.limits import PROTOCOL_VERSION
from kept.protocol.records import Delivery, Promise, PromiseState, Task, TaskState
from kept.protocol.responses import (
    BAD_REQUEST,
    CONFLICT,
    NOT_FOUND,
    OK,
    RESUME_AT_ONCE,
    SHED,
    UNPROCESSABLE,
    AcquiredTask,
    CancelResult,
    FenceResult,
    HeartbeatResult,
    InnerHead,
    InnerResponse,
    LostLease,
    Nothing,
    PreloadResult,
    PromiseResult,
    Response,
    TaskResult,
)
from kept.protocol.validation import cancel_problem, create_problem, settle_problem

NOTHING = Response(OK, Nothing())


def no_task(id: str) -> Response:
    return Response(NOT_FOUND, f"task {id} does not exist")


def task_get(step: Step, request: r.TaskGet) -> Response:
    found = read_task(step, request.id)
    if found is None:
        return no_task(request.id)
    return Response(OK, TaskResult(found[0].record()))


def task_create(step: Step, request: r.TaskCreate) -> Response:
    """Creates a promise whose task the caller holds at once; an existing pending task is acquired."""
    create = request.action.data
    promise = read_promise(step, create.id)
    if promise is None:
        kept = kept_verdict(step, create)
        if kept is not None:
            return _acquired_response(step, Task(kept.id, TaskState.FULFILLED), kept, 0)
        admitted = consider(step, create)
        if isinstance(admitted, Response):
            return admitted
        if isinstance(admitted, Promise):
            return _stands_for_it(step, admitted)
        born = new_promise(create, step.now)
        refused = not_now(step, new_task(step, born)) if born.pending else None
        return refused or _task_created(step, request, born, admitted)
    step.records.events.append(KeyHit(None))
    task = step.records.task(create.id)
    if task is None:
        return Response(UNPROCESSABLE, f"promise {create.id} exists without a target")
    if task.state is TaskState.FULFILLED:
        return _acquired_response(step, task, promise, 0)
    if task.state is not TaskState.PENDING:
        return Response(CONFLICT, f"task {task.id} is {task.state}")
    if refused := not_now(step, task):
        return refused
    task = put_acquired(step, task, request.pid, request.ttl)
    return _acquired_response(step, task, promise, request.preload)


def not_now(step: Step, task: Task) -> Response | None:
    """The answer to whoever wants to hold a task by its id while its queue lets nothing start."""
    refusal = refusal_of(step, task)
    if refusal is None:
        return None
    if refusal.reason == PAUSED:
        return Response(CONFLICT, f"queue {task.queue} is paused; resume it, or wait")
    return Response(SHED, f"queue {task.queue} is at its {refusal.reason} limit; ask again later")


def _stands_for_it(step: Step, holder: Promise) -> Response:
    """The key is held under another id (B4): as for an id of its own, what is settled is answered,
    and what is not is a conflict. Nobody gets a lease of work that it did not name."""
    if holder.pending:
        return Response(CONFLICT, f"promise {holder.id} holds the key and is under way")
    task = step.records.task(holder.id)
    if task is None:
        return Response(UNPROCESSABLE, f"promise {holder.id} holds the key, without a target")
    return _acquired_response(step, task, holder, 0)


def _task_created(
    step: Step, request: r.TaskCreate, promise: Promise, admitted: Admission
) -> Response:
    """Born acquired; or, past its deadline, fulfilled at version 0."""
    make_way(step, admitted)
    step.records.put_promise(promise)
    note_born(step, promise)
    take_keys(step, promise, admitted)
    task = new_task(step, promise)
    if promise.pending:
        task = replace(
            task,
            state=TaskState.ACQUIRED,
            version=1,
            pid=request.pid,
            ttl=request.ttl,
            expires_at=step.now + request.ttl,
            retry_at=None,
            ready=False,
            last_request=step.request_id,
        )
        count_start(step, task)
    step.records.put_task(task)
    # Only who holds the task needs its children.
    return _acquired_response(step, task, promise, request.preload if promise.pending else 0)


def task_acquire(step: Step, request: r.TaskAcquire) -> Response:
    found = read_task(step, request.id)
    if found is None:
        return no_task(request.id)
    task, promise = found
    if task.state is not TaskState.PENDING or not promise.pending:
        return Response(CONFLICT, f"task {task.id} is {task.state}, not pending")
    if task.version != request.version:
        return Response(CONFLICT, f"task {task.id} is at version {task.version}")
    if refused := not_now(step, task):
        return refused
    task = put_acquired(step, task, request.pid, request.ttl)
    return _acquired_response(step, task, promise, request.preload)


def acquired_task(step: Step, task: Task, promise: Promise, preload: int | None) -> AcquiredTask:
    """A lease as it is answered. What only our own clients read is left out where it says nothing."""
    page = preload_of(step, task.id, preload)
    pulled = task.delivery is Delivery.PULL
    return AcquiredTask(
        task.record(),
        promise.record(),
        page.records,
        task.failures + 1 if pulled else None,
        page.released or None,
        page.more,
        cancellation.told(step, promise),
    )


def _acquired_response(step: Step, task: Task, promise: Promise, preload: int | None) -> Response:
    return Response(OK, acquired_task(step, task, promise, preload))


def held(step: Step, id: str, version: int) -> tuple[Task, Promise] | Response:
    """The task if the caller still holds it: only state, version and its live promise decide."""
    found = read_task(step, id)
    if found is None:
        return no_task(id)
    task, promise = found
    if task.state is not TaskState.ACQUIRED or not promise.pending:
        return Response(CONFLICT, f"task {id} is {task.state}, not acquired")
    if task.version != version:
        return Response(CONFLICT, f"task {id} is at version {task.version}: the lease is lost")
    return found


def number_releases(step: Step, task: Task, released: list[str]) -> Task:
    """Gives results the next numbers in the order in which they reached the code (B3)."""
    if not released:
        return task
    number = task.releases
    for id in released:
        number += 1
        step.records.add_release(task.id, id, number)
    task = replace(task, releases=number)
    step.records.put_task(task)
    if task.id in released:
        # A task's own id stands for its cancellation, which has its place in the order.
        cancellation.released(step, task.id)
    return task


def task_release(step: Step, request: r.TaskRelease) -> Response:
    lease = held(step, request.id, request.version)
    if isinstance(lease, Response):
        return lease
    task, promise = lease
    put_pending(step, task, promise, step.now)
    return NOTHING


def task_fulfill(step: Step, request: r.TaskFulfill) -> Response:
    lease = held(step, request.id, request.version)
    if isinstance(lease, Response):
        return lease
    task, promise = lease
    number_releases(step, task, request.released)
    verdict = request.action.data
    value = verdict.value
    if verdict.state is PromiseState.REJECTED_CANCELED:
        value = cancellation.with_reason(step, promise, value)
    promise = settle(step, promise, verdict.state, value, step.now)
    return Response(OK, PromiseResult(promise.record()))


def task_suspend(step: Step, request: r.TaskSuspend) -> Response:
    """Waits for all of the awaited; where one is settled already the worker goes on at once."""
    lease = held(step, request.id, request.version)
    if isinstance(lease, Response):
        return lease
    task, promise = lease
    awaited_ids = [action.data.awaited for action in request.actions]
    any_settled = False
    for id in awaited_ids:
        awaited = read_promise(step, id)
        if awaited is None:
            return Response(UNPROCESSABLE, f"awaited promise {id} does not exist")
        if not awaited.is_external:
            return not_external(id)
        any_settled = any_settled or not awaited.pending
    task = number_releases(step, task, request.released)
    if any_settled:
        step.records.put_task(clear_resumes(step, task))
        page = preload_of(step, task.id, request.preload)
        return Response(RESUME_AT_ONCE, PreloadResult(page.records, page.more))
    if cancellation.is_unheard(step, promise):
        # The holder could not know that it is asked to stop: the next one is told, at once.
        put_pending(step, task, promise, step.now, failures=0)
        return NOTHING
    for id in awaited_ids:
        step.records.add_callback(id, task.id)
    task = clear_resumes(step, task)
    # A suspend is progress: the count of failures starts again (B2).
    put_parked(step, task, TaskState.SUSPENDED, failures=0)
    return NOTHING


def task_fence(step: Step, request: r.TaskFence) -> Response:
    """Another promise is created, settled or canceled, only while the lease holds."""
    lease = held(step, request.id, request.version)
    if isinstance(lease, Response):
        return lease
    number_releases(step, lease[0], request.released)
    action = request.action
    if isinstance(action, r.CreateAction):
        problem = create_problem(action.data, step.config.schemes)
        inner = Response(BAD_REQUEST, problem) if problem else create_promise(step, action.data)
        kind = r.PromiseCreate.kind
    elif isinstance(action, r.SettleAction):
        problem = settle_problem(action.data)
        inner = Response(BAD_REQUEST, problem) if problem else promise_settle(step, action.data)
        kind = r.PromiseSettle.kind
    else:
        problem = cancel_problem(action.data)
        inner = Response(BAD_REQUEST, problem) if problem else _canceled(step, action.data)
        kind = r.PromiseCancel.kind
    assert isinstance(inner.data, PromiseResult | str)
    corr_id = (action.head or {}).get("corrId")
    head = InnerHead(corr_id if isinstance(corr_id, str) else "", inner.status, PROTOCOL_VERSION)
    return Response(OK, FenceResult(InnerResponse(kind, head, inner.data), []))


def _canceled(step: Step, request: r.PromiseCancel) -> Response:
    """As `promise.cancel`, but with the promise alone for an answer."""
    response = cancellation.promise_cancel(step, request)
    if isinstance(response.data, CancelResult):
        return Response(OK, PromiseResult(response.data.promise))
    return response


def record_create(step: Step, request: r.TaskRecordStep) -> Response | None:
    """The first half of task.record: the child exists. Answers only what ends it here (B1)."""
    lease = held(step, request.id, request.version)
    if isinstance(lease, Response):
        return lease
    number_releases(step, lease[0], request.released)
    child = read_promise(step, request.step.id)
    if child is None:
        child = put_new_promise(step, request.step)
    return None if child.pending else Response(OK, PromiseResult(child.record()))


def record_settle(step: Step, request: r.TaskRecordStep) -> Response:
    """The second half of task.record: the child is settled."""
    child = step.records.promise(request.step.id)
    if child is None:
        return no_promise(request.step.id)
    child = settle(step, child, request.state, request.value, step.now)
    return Response(OK, PromiseResult(child.record()))


def task_heartbeat(step: Step, request: r.TaskHeartbeat) -> Response:
    """Extends each lease that is still the caller's; with `report`, says which are not,
    and which are asked to stop (B3)."""
    renew(step, request.pid)
    lost: list[LostLease] = []
    cancel: list[str] = []
    for ref in request.tasks:
        reason = _beat(step, ref, request.pid)
        if reason is not None:
            step.records.events.append(HeartbeatLost(reason))
            lost.append(LostLease(ref.id, ref.version, reason))
        elif _is_asked_to_stop(step, ref.id):
            cancel.append(ref.id)
    return Response(OK, HeartbeatResult(lost, cancel)) if request.report else NOTHING


def _is_asked_to_stop(step: Step, id: str) -> bool:
    promise = step.records.promise(id)
    return promise is not None and promise.cancel_requested_at is not None


def _beat(step: Step, ref: r.TaskRef, pid: str) -> str | None:
    found = read_task(step, ref.id)
    if found is None:
        return "unknown"
    task, promise = found
    if task.state is TaskState.FULFILLED or not promise.pending:
        return "settled"
    if task.state is TaskState.HALTED:
        return "halted"
    if task.version != ref.version:
        return "superseded"
    if task.state is not TaskState.ACQUIRED:
        return "expired"
    if task.pid != pid:
        return "superseded"
    assert task.ttl is not None
    step.records.put_task(replace(task, expires_at=step.now + task.ttl))
    return None


def task_halt(step: Step, request: r.TaskHalt) -> Response:
    found = read_task(step, request.id)
    if found is None:
        return no_task(request.id)
    task, _ = found
    if task.state is TaskState.FULFILLED:
        return Response(CONFLICT, f"task {task.id} is fulfilled")
    if task.state is not TaskState.HALTED:
        put_parked(step, task, TaskState.HALTED)
    return NOTHING


def task_continue(step: Step, request: r.TaskContinue) -> Response:
    found = read_task(step, request.id)
    if found is None:
        return no_task(request.id)
    task, promise = found
    if task.state is not TaskState.HALTED or not promise.pending:
        return Response(CONFLICT, f"task {task.id} is {task.state}, not halted")
    put_pending(step, task, promise, step.now)
    return NOTHING
