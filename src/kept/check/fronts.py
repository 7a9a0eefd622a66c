"""What a store loads of the fronts of queues, held against the records that the steps wrote."""

from __future__ import annotations

from kept.check.answers import check_first, same
from kept.check.state import State
from kept.protocol.records import Delivery, Task, TaskState
from kept.protocol.storage import Head, LaneHead, Loaded, Reads


def _in_line(state: State, head: Head) -> list[Task]:
    return [
        task
        for task in state.tasks.values()
        if task.state is TaskState.PENDING
        and task.delivery is Delivery.PULL
        and task.queue == head.queue
        and (head.functions is None or task.function in head.functions)
    ]


def check_heads(state: State, reads: Reads, loaded: Loaded, now: int) -> None:
    """The fronts of queues, as a claim sees them."""
    for head, count in reads.heads.items():
        tasks = _in_line(state, head)
        lanes = {task.lane for task in tasks if task.ready}
        same(f"{head} has several lanes", len(lanes) > 1, head in loaded.laned)
        found = loaded.heads[head]
        if len(lanes) > 1:
            same(f"{head}: of several lanes", [], found)
            continue
        ready = {task.id: task.rank for task in tasks if task.ready}
        delayed = {
            task.id: task.retry_at for task in tasks if not task.ready and task.retry_at is not None
        }
        split = min(count, len(ready))
        latest = max(ready.values(), default=0)
        check_first(f"{head}: ready", ready, latest, count, found[:split])
        check_first(f"{head}: delayed", delayed, now, count - split, found[split:])
    for head, (start, count) in reads.lanes.items():
        named = {task.lane or "" for task in _in_line(state, head) if task.ready}
        names = sorted(named, key=lambda name: (name < start, name))
        same(f"{count} lanes of {head} from {start!r}", names[:count], loaded.lanes[head])
    for front, count in reads.fronts.items():
        _check_front(state, front, count, loaded.fronts[front])
    for slots, held in loaded.slots.items():
        acquired = sum(
            task.state is TaskState.ACQUIRED
            and task.queue == slots.queue
            and slots.lane in (None, task.lane)
            for task in state.tasks.values()
        )
        same(f"acquired of {slots}", acquired, held)
    for queue, depth in loaded.depths.items():
        same(f"waiting in {queue}", len(_in_line(state, Head(queue))), depth)


def _check_front(state: State, front: LaneHead, count: int, found: list[str]) -> None:
    tasks = [task for task in _in_line(state, front.head) if task.ready and task.lane == front.lane]
    ranks = {task.id: task.rank for task in tasks}
    check_first(f"{front}", ranks, max(ranks.values(), default=0), count, found)
