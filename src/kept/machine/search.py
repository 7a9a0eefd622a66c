"""What a search shows: projected records that match (protocol A4). Searching itself is the engine's."""

from __future__ import annotations

from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.records import (
    Promise,
    PromiseRecord,
    ScheduleRecord,
    Task,
    TaskRecord,
    TaskState,
)

# Tags that stores keep in a column, so that a search for them is narrow.
_COLUMNS = {
    tag.PARENT: "parent",
    tag.BRANCH: "branch",
    tag.ORIGIN: "origin",
    tag.FUNCTION: "function",
}


def columns_of(tags: dict[str, str] | None) -> dict[str, str]:
    """The columns by which a store can narrow a search for these tags."""
    return {_COLUMNS[name]: text for name, text in (tags or {}).items() if name in _COLUMNS}


def found_promise(request: r.PromiseSearch, promise: Promise, now: int) -> PromiseRecord | None:
    """The record as a search at `now` (ms) shows it; None where it does not match."""
    promise = promise.project(now)
    if request.state is not None and promise.state is not request.state:
        return None
    if not has_tags(promise.tags, request.tags):
        return None
    return promise.record()


def found_task(request: r.TaskSearch, task: Task, promise: Promise, now: int) -> TaskRecord | None:
    """The same for a task."""
    record = task_as_seen(task, promise, now)
    if request.state is not None and record.state is not request.state:
        return None
    return record


def task_as_seen(task: Task, promise: Promise, now: int) -> TaskRecord:
    """A task whose promise is settled, stored or by its deadline, is fulfilled (A3)."""
    if task.state is TaskState.FULFILLED or promise.project(now).pending:
        return task.record()
    return TaskRecord(task.id, TaskState.FULFILLED, task.version, 0)


def found_schedule(request: r.ScheduleSearch, schedule: ScheduleRecord) -> ScheduleRecord | None:
    return schedule if has_tags(schedule.promise_tags, request.tags) else None


def has_tags(tags: dict[str, str], wanted: dict[str, str] | None) -> bool:
    """Whether all of the wanted tags are there."""
    return all(tags.get(name) == text for name, text in (wanted or {}).items())
