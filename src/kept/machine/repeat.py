"""Answering a repeated request again (protocol B1).

A request under `kept:request` leaves its id with the task it acted on, and as much of its answer as
the records themselves do not hold. The same id then gets the same answer, so a lost response costs
nothing.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from kept.machine.effects import read_promise
from kept.machine.preload import preload_of
from kept.machine.step import Step
from kept.machine.tasks import NOTHING, acquired_task
from kept.protocol import requests as r
from kept.protocol.records import Task, TaskState
from kept.protocol.responses import (
    OK,
    RESUME_AT_ONCE,
    AcquiredTask,
    ClaimResult,
    NackResult,
    PreloadResult,
    PromiseResult,
    Response,
)

# The answer of a suspend after which the worker went on at once.
RESUMED: Final = b"300"

REPEATABLE: Final = (
    r.TaskAcquire,
    r.TaskRelease,
    r.TaskFulfill,
    r.TaskSuspend,
    r.TaskNack,
    r.TaskRecordStep,
)
Repeatable = (
    r.TaskAcquire | r.TaskRelease | r.TaskFulfill | r.TaskSuspend | r.TaskNack | r.TaskRecordStep
)


def remember(step: Step, request: Repeatable, response: Response) -> None:
    """Leaves the request's id, and what cannot be told from the records, with the task."""
    task = step.records.task(request.id)
    assert task is not None, request.id
    answer = _prefix(request)
    if isinstance(response.data, NackResult):
        answer += msgspec.json.encode(response.data)
    elif response.status == RESUME_AT_ONCE:
        answer += RESUMED
    step.records.put_task(replace(task, last_request=step.request_id, last_answer=answer))


def _prefix(request: Repeatable) -> bytes:
    """The kind is remembered too: a client that uses an id for another kind asks something else."""
    return f"{request.kind} ".encode()


def answered_before(step: Step, request: Repeatable) -> Response | None:
    """The answer that this very request got already, if the task's last one was it."""
    task = step.records.task(request.id)
    if task is None or task.last_request != step.request_id:
        return None
    kind = _prefix(request)
    if task.last_answer is None or not task.last_answer.startswith(kind):
        return None
    answer = task.last_answer[len(kind) :]
    if isinstance(request, r.TaskAcquire):
        return _acquired_again(step, request, task)
    if isinstance(request, r.TaskFulfill):
        return _promise_again(step, request.id)
    if isinstance(request, r.TaskRecordStep):
        return _promise_again(step, request.step.id)
    if isinstance(request, r.TaskNack):
        return Response(OK, msgspec.json.decode(answer, type=NackResult))
    if isinstance(request, r.TaskSuspend) and answer == RESUMED:
        page = preload_of(step, task.id, request.preload)
        return Response(RESUME_AT_ONCE, PreloadResult(page.records, page.more))
    return NOTHING


def _acquired_again(step: Step, request: r.TaskAcquire, task: Task) -> Response | None:
    promise = read_promise(step, task.id)
    still_held = task.state is TaskState.ACQUIRED and task.version == request.version + 1
    if promise is None or not promise.pending or not still_held:
        return None
    return Response(OK, acquired_task(step, task, promise, request.preload))


def _promise_again(step: Step, id: str) -> Response | None:
    promise = read_promise(step, id)
    return Response(OK, PromiseResult(promise.record())) if promise is not None else None


def claimed_before(step: Step, request: r.TaskClaim, request_id: str) -> Response | None:
    """The leases that this very claim got already and that still hold."""
    again: list[AcquiredTask] = []
    for id in step.records.tasks_of_request(request_id):
        task = step.records.task(id)
        promise = read_promise(step, id)
        if task is None or promise is None or not promise.pending:
            continue
        is_held = task.state is TaskState.ACQUIRED and task.pid == request.pid
        if is_held and task.last_request == request_id:
            again.append(acquired_task(step, task, promise, request.preload))
    return Response(OK, ClaimResult(again)) if again else None
