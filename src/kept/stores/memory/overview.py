"""What an operator asks about the tables of one tenant."""

from __future__ import annotations

from collections.abc import Iterable

from kept.protocol.records import Delivery, Task, TaskState
from kept.protocol.storage import Awaited, Holder, Slots
from kept.stores.memory.tables import Tables


def queue_names(tables: Tables) -> set[str]:
    """Queues that hold tasks which are not over, or dead letters."""
    tasks = {task.queue for task in tables.tasks.values() if task.state is not TaskState.FULFILLED}
    letters = {letter.queue for letter in tables.dead_letters.values()}
    return {queue for queue in tasks | letters if queue is not None}


def held(tables: Tables) -> Iterable[Task]:
    """Tasks under a lease."""
    return (task for task in tables.tasks.values() if task.state is TaskState.ACQUIRED)


def holders(tables: Tables, slots: Slots, limit: int) -> list[Holder]:
    """Who holds tasks of a queue, or of a lane."""
    found = (
        task
        for task in held(tables)
        if task.queue == slots.queue and slots.lane in (None, task.lane)
    )
    in_order = sorted(found, key=lambda task: (task.lane or "", tables.numbers[task.id]))
    return [Holder(task.id, task.pid or "", task.expires_at or 0) for task in in_order[:limit]]


def count_before(tables: Tables, id: str, limit: int) -> int:
    """How many ready tasks of its queue and lane come before a ready task."""
    task = tables.tasks[id]
    place = (task.rank, tables.numbers[id])
    before = sum(
        other.ready
        and other.state is TaskState.PENDING
        and other.delivery is Delivery.PULL
        and (other.queue, other.lane) == (task.queue, task.lane)
        and (other.rank, tables.numbers[other.id]) < place
        for other in tables.tasks.values()
    )
    return min(before, limit)


def awaited_by(tables: Tables, id: str, limit: int) -> Awaited:
    """Promises for which a task has a callback."""
    ids = sorted(of for of, awaiters in tables.callbacks.items() if id in awaiters)
    return Awaited(ids[:limit], len(ids) <= limit)
