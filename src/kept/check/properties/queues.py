"""What the limits of queues promise (protocol B2), told from records alone."""

from __future__ import annotations

from collections.abc import Iterator

from kept.check.properties.registry import Violation, on_step
from kept.check.properties.scopes import StepScope
from kept.protocol.entries import Depth, EntryKey, EntryKind, QueueSettings
from kept.protocol.records import Task, TaskState


@on_step("tasks")
def preserved_paused_queue_starts_nothing(scope: StepScope) -> Iterator[Violation]:
    """No task of a paused queue becomes acquired."""
    for u in _started(scope):
        settings = _settings(scope, u)
        if settings is None:
            continue
        scope.reached += 1
        if settings.paused:
            yield Violation((u.id,), f"started although {u.queue} is paused")


@on_step("tasks")
def consistent_start_within_concurrency(scope: StepScope) -> Iterator[Violation]:
    """After a step in which a task became acquired, no more of its queue, and of its lane, are
    acquired than may be."""
    for u in _started(scope):
        settings = _settings(scope, u)
        if settings is None:
            continue
        running = [t for t in scope.b.tasks.values() if t.queue == u.queue and _is_acquired(t)]
        in_lane = [t for t in running if t.lane == u.lane]
        for limit, held in (
            (settings.concurrency, running),
            (_lane_concurrency(settings, u.lane), in_lane),
        ):
            if limit is not None:
                scope.reached += 1
                if len(held) > limit:
                    yield Violation((u.id,), f"{len(held)} are acquired, {limit} may be")


@on_step("tasks")
def consistent_depth_is_what_waits(scope: StepScope) -> Iterator[Violation]:
    """Where the waiting tasks of a queue are counted, the count is right after each step that
    moved one of them."""
    queues = {t.queue for _, *pair in scope.tasks for t in pair if t is not None and t.queue}
    for queue in sorted(queues):
        entry = scope.b.entries.get(EntryKey(EntryKind.DEPTH, queue))
        if entry is None or not isinstance(entry.data, Depth):
            continue
        scope.reached += 1
        tasks = scope.b.tasks.values()
        waiting = sum(t.queue == queue and t.state is TaskState.PENDING for t in tasks)
        if waiting != entry.data.waiting:
            yield Violation((queue,), f"{waiting} wait, {entry.data.waiting} are counted")


def _started(scope: StepScope) -> Iterator[Task]:
    """Tasks that this step made acquired."""
    for _, t, u in scope.tasks:
        if u is not None and _is_acquired(u) and not (t is not None and _is_acquired(t)):
            yield u


def _is_acquired(task: Task) -> bool:
    return task.state is TaskState.ACQUIRED


def _settings(scope: StepScope, task: Task) -> QueueSettings | None:
    if task.queue is None:
        return None
    entry = scope.b.entries.get(EntryKey(EntryKind.QUEUE, task.queue))
    return entry.data if entry is not None and isinstance(entry.data, QueueSettings) else None


def _lane_concurrency(settings: QueueSettings, lane: str | None) -> int | None:
    named = settings.lanes.get(lane) if lane is not None else None
    if named is not None and named.concurrency is not None:
        return named.concurrency
    return settings.lane.concurrency if settings.lane is not None else None
