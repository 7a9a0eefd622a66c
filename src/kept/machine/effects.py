"""The few moves that all handlers are made of (protocol A3, A5).

Reading a promise stores its settlement where its deadline has passed, so whatever an answer shows
is what everybody sees from then on. Settling fulfils the task; the edges are drained right after
the request, in steps of their own (background.py).
"""

from __future__ import annotations

from msgspec.structs import replace

from kept.machine.limits import count_start, settings_of
from kept.machine.schedule_line import go_on, line_behind
from kept.machine.step import Step
from kept.machine.trees import note_born, note_settled
from kept.protocol import tags as tag
from kept.protocol.addresses import queue_of
from kept.protocol.entries import Dedupe, KeyHolder
from kept.protocol.keys import has_keys, keys_of
from kept.protocol.limits import DEFAULT_AGING_MS
from kept.protocol.records import (
    EMPTY,
    Delivery,
    Promise,
    PromiseState,
    Task,
    TaskState,
    Value,
)
from kept.protocol.requests import PromiseCreate
from kept.protocol.storage import DEFAULT_TENANT


def read_promise(step: Step, id: str) -> Promise | None:
    """The promise as everybody sees it now; a deadline that has passed is stored."""
    promise = step.records.promise(id)
    if promise is None or not promise.pending or promise.timeout_at > step.now:
        return promise
    return settle(step, promise, promise.verdict, EMPTY, promise.timeout_at)


def read_task(step: Step, id: str) -> tuple[Task, Promise] | None:
    """The task with its promise, both as seen now. A promise without a task is left alone."""
    task = step.records.task(id)
    if task is None:
        return None
    promise = read_promise(step, id)
    assert promise is not None, f"task {id} has no promise"
    settled_task = step.records.task(id)
    assert settled_task is not None
    return settled_task, promise


def settle(
    step: Step, promise: Promise, state: PromiseState, value: Value, settled_at: int
) -> Promise:
    """Settles a pending promise and fulfils its task. Its edges are drained after the request."""
    records = step.records
    # Known before anything is written, so that a request never has to be undone half way.
    records.require_edges(promise.id)
    schedule_id = line_behind(step, promise)
    if has_keys(promise.tags):
        _let_go(step, promise)
    note_settled(step, promise)
    settled = replace(promise, state=state, value=value.normal(), settled_at=settled_at)
    records.put_promise(settled)
    task = records.task(promise.id)
    if task is not None and task.state is not TaskState.FULFILLED:
        put_fulfilled(step, task)
    if schedule_id is not None:
        go_on(step, schedule_id)
    records.settled.append(promise.id)
    return settled


def _let_go(step: Step, promise: Promise) -> None:
    """A settled promise holds its keys no longer, but for a dedupe key whose window lasts (B4)."""
    for key in keys_of(promise.tags).values():
        entry = step.records.entry(key)
        if entry is None or not isinstance(entry.data, KeyHolder):
            continue
        lasts = isinstance(entry.data, Dedupe) and entry.data.until > step.now
        if entry.data.promise == promise.id and not lasts:
            step.records.remove_entry(key)


def put_fulfilled(step: Step, task: Task) -> None:
    """The task is over: lease, retry and resumes are cleared."""
    _clear_resumes(step, task)
    step.records.put_task(
        replace(
            task,
            state=TaskState.FULFILLED,
            pid=None,
            ttl=None,
            expires_at=None,
            retry_at=None,
            ready=False,
            resumes=0,
        )
    )


def put_acquired(step: Step, task: Task, pid: str, ttl: int) -> Task:
    """A new lease: the version rises by exactly one, here and nowhere else."""
    assert task.state is TaskState.PENDING, task
    _clear_resumes(step, task)
    acquired = replace(
        task,
        state=TaskState.ACQUIRED,
        version=task.version + 1,
        pid=pid,
        ttl=ttl,
        expires_at=step.now + ttl,
        retry_at=None,
        ready=False,
        resumes=0,
        # Asked without an id, it leaves the last one that had one repeatable.
        last_request=step.request_id or task.last_request,
        last_answer=None if step.request_id else task.last_answer,
    )
    count_start(step, acquired)
    step.records.put_task(acquired)
    return acquired


def put_pending(step: Step, task: Task, promise: Promise, retry_at: int, **fields: int) -> Task:
    """The task waits to be dispatched or claimed at `retry_at` (ms); any lease is gone."""
    pending = replace(
        task,
        state=TaskState.PENDING,
        pid=None,
        ttl=None,
        expires_at=None,
        retry_at=retry_at,
        ready=is_ready(task.delivery, retry_at, step.now),
        rank=rank_of(step, promise, task.queue, retry_at),
        **fields,
    )
    step.records.put_task(pending)
    return pending


def put_parked(step: Step, task: Task, state: TaskState, **fields: int) -> Task:
    """The task is suspended or halted: no lease, no retry."""
    parked = replace(
        task,
        state=state,
        pid=None,
        ttl=None,
        expires_at=None,
        retry_at=None,
        ready=False,
        **fields,
    )
    step.records.put_task(parked)
    return parked


def clear_resumes(step: Step, task: Task) -> Task:
    """The task with its resumes forgotten."""
    _clear_resumes(step, task)
    return replace(task, resumes=0)


def _clear_resumes(step: Step, task: Task) -> None:
    if task.resumes:
        step.records.clear_resumes(task.id)


def new_promise(create: PromiseCreate, now: int) -> Promise:
    """A promise born at `now`; one whose deadline has passed is born settled (A4)."""
    born = Promise(
        create.id,
        PromiseState.PENDING,
        create.param.normal(),
        EMPTY,
        create.tags,
        create.timeout_at,
        min(now, create.timeout_at),
    )
    return born.project(now)


def put_new_promise(step: Step, create: PromiseCreate, latest: int | None = None) -> Promise:
    """Stores a promise that does not exist yet, and its task if it has a target: due at its delay,
    but at `latest` (ms) at the latest."""
    promise = new_promise(create, step.now)
    step.records.put_promise(promise)
    note_born(step, promise)
    if promise.target is not None:
        step.records.put_task(new_task(step, promise, latest))
    return promise


def new_task(step: Step, promise: Promise, latest: int | None = None) -> Task:
    """The task of a promise with a target: due now, or at its delay, no later than `latest` (ms)."""
    tags = promise.tags
    queue = None
    if promise.is_timer:
        delivery = Delivery.NEVER
    else:
        queue = queue_of(tags[tag.TARGET])
        delivery = Delivery.PUSH if queue is None else Delivery.PULL
    lane = tags.get(tag.LANE, DEFAULT_TENANT) if queue is not None else None
    if not promise.pending:
        return Task(
            promise.id,
            TaskState.FULFILLED,
            delivery=delivery,
            queue=queue,
            lane=lane,
            function=promise.function,
        )
    delayed = int(tags.get(tag.DELAY, 0))
    retry_at = max(step.now, delayed if latest is None else min(delayed, latest))
    return Task(
        promise.id,
        TaskState.PENDING,
        retry_at=retry_at,
        delivery=delivery,
        queue=queue,
        lane=lane,
        function=promise.function,
        ready=is_ready(delivery, retry_at, step.now),
        rank=rank_of(step, promise, queue, retry_at),
    )


def is_ready(delivery: Delivery, retry_at: int, now: int) -> bool:
    """Whether a pending task may be claimed at once."""
    return delivery is Delivery.PULL and retry_at <= now


def rank_of(step: Step, promise: Promise, queue: str | None, retry_at: int) -> int:
    """The place in its queue: a priority is worth a fixed time of waiting, so nothing starves (B2)."""
    priority = int(promise.tags.get(tag.PRIORITY, 0))
    if not priority or queue is None:
        return retry_at
    aging = settings_of(step.records, queue).aging
    return retry_at - priority * (DEFAULT_AGING_MS if aging is None else aging)
