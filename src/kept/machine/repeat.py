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

REPEATABLE: Final = (
    r.TaskAcquire,
    r.TaskRelease,
    r.TaskFulfill,
    r.TaskSuspend,
    r.TaskNack,
    r.TaskRecordStep,
)
Repeatable = (
    r.TaskAcquire
    | r.TaskRelease
    | r.TaskFulfill
    | r.TaskSuspend
    | r.TaskNack
    | r.TaskRecordStep
)


def remember(step: Step, request: Repeatable, response: Response) -> None:
    """Leaves the request's id, and what cannot be told from the records, with the task."""
    task = step.records.task(request.id)
    assert task is not None, request.id
    answer = b""
    if isinstance(response.data, NackResult):
        answer = msgspec.json.encode(response.data)
    elif response.status == RESUME_AT_ONCE:
        answer = b"300"
    step.records.put_task(replace(task, last_request=step.request_id, last_answer=answer))


def answered_before(step: Step, request: Repeatable) -> Response | None:
    """The answer that this very request got already, if the task's last one was it."""
    task = step.records.task(request.id)
    if task is None or task.last_request != step.request_id:
        return None
    if isinstance(request, r.TaskAcquire):
        return _acquired_again(step, request, task)
    if isinstance(request, r.TaskFulfill):
        return _promise_again(step, request.id)
    if isinstance(request, r.TaskRecordStep):
        return _promise_again(step, request.step.id)
    if isinstance(request, r.TaskNack):
        if not task.last_answer:
            # The id was another request's: this one stands on its own.
            return None
        return Response(OK, msgspec.json.decode(task.last_answer, type=NackResult))
    if isinstance(request, r.TaskSuspend) and task.last_answer == b"300":
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
