"""What a batch did to the numbers of a queue: how many tasks are acquired, how many wait."""

from __future__ import annotations

from collections import Counter
from typing import Final

from kept.protocol.records import Task, TaskState
from kept.protocol.storage import Slots

_PENDING: Final = TaskState.PENDING
_ACQUIRED: Final = TaskState.ACQUIRED


class Moves:
    """Differences to what the store counted."""

    def __init__(self) -> None:
        self.acquired: Counter[Slots] = Counter()
        self.waiting: Counter[str] = Counter()

    def note(self, before: Task | None, after: Task | None) -> None:
        """A task was one thing and is another."""
        self._count(before, -1)
        self._count(after, 1)

    def _count(self, task: Task | None, change: int) -> None:
        if task is None or task.queue is None:
            return
        if task.state is _ACQUIRED:
            self.acquired[Slots(task.queue)] += change
            self.acquired[Slots(task.queue, task.lane)] += change
        elif task.state is _PENDING:
            self.waiting[task.queue] += change
