"""The front of each queue, as a batch sees it: loaded due tasks and those that became due in it.

Taking a task changes its state, not the head: candidates are checked by the claim, so undoing a
request only has to rewind.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator

from kept.machine.lane_ring import LaneRing
from kept.machine.not_loaded import NotLoaded
from kept.protocol.records import Task
from kept.protocol.storage import Head, LaneFront, LaneWindow, Reads

# How many tasks of a head are loaded at least when a claim runs out of candidates.
_NEXT_LOAD = 64


class _Front:
    """Candidates of one head by rank, then by arrival."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, int, str]] = []
        self.ids: set[str] = set()
        self.position = 0
        # The instant (ms) of the claim that moved the position.
        self.now = 0
        self.arrivals = 0
        # Ready tasks are in several lanes, so they are not in here.
        self.laned = False
        # How many the store was asked for, and whether it had that many: then there may be more.
        self.asked = 0
        self.more = False

    def insert(self, task: Task) -> None:
        if task.id in self.ids:
            return
        self.ids.add(task.id)
        self.arrivals += 1
        # No two arrivals are equal, so ids are never compared.
        entry = (task.rank, self.arrivals, task.id)
        entries = self.entries
        if not entries or entries[-1] < entry:
            entries.append(entry)
        else:
            insort(entries, entry)
            self.position = 0


class Heads:
    """The fronts of all queues that the batch claims from."""

    def __init__(self) -> None:
        self._fronts: dict[Head, _Front] = {}
        # Pulled tasks that became pending in this batch, by queue.
        self._pending: dict[str, dict[str, Task]] = {}
        self._rings: dict[Head, LaneRing] = {}

    def add(self, head: Head, tasks: list[Task], asked: int, *, laned: bool = False) -> None:
        """What the store found at the head, in its order, when it was asked for `asked` tasks."""
        front = self._fronts.get(head)
        if front is None:
            front = self._fronts[head] = _Front()
            for task in self._pending.get(head.queue, {}).values():
                if matches(head, task):
                    front.insert(task)
        for task in tasks:
            front.insert(task)
        front.laned = laned
        front.asked = asked
        front.more = len(tasks) >= asked

    def add_lanes(self, head: Head, window: LaneWindow, fronts: list[LaneFront]) -> None:
        """What the store found in the lanes of a head."""
        self._rings[head] = LaneRing(window, fronts)

    def is_laned(self, head: Head) -> bool:
        """Whether its ready tasks are in several lanes, so that these take turns."""
        front = self._fronts.get(head)
        if front is None:
            raise NotLoaded(Reads(heads={head: _NEXT_LOAD}))
        return front.laned

    def ring(self, head: Head) -> LaneRing | None:
        """What is known of the lanes of a head."""
        return self._rings.get(head)

    def pending(self, head: Head) -> list[Task]:
        """Tasks that a claim on the head may take and that became pending in this batch."""
        return [t for t in self._pending.get(head.queue, {}).values() if matches(head, t)]

    def became_pending(self, task: Task) -> None:
        """A pulled task is pending since now: it may be claimed in this batch already."""
        assert task.queue is not None
        self._pending.setdefault(task.queue, {})[task.id] = task
        for head, front in self._fronts.items():
            if head.queue == task.queue and matches(head, task):
                if task.id in front.ids:
                    front.ids.discard(task.id)
                    front.entries = [entry for entry in front.entries if entry[2] != task.id]
                    front.position = 0
                front.insert(task)

    def candidates(self, head: Head, now: int) -> Iterator[str]:
        """Ids in order of rank. Raises `NotLoaded` where the store may have more of them.

        What was passed over at another instant (debug clocks) may be due at `now` (ms).
        """
        front = self._fronts.get(head)
        if front is None:
            raise NotLoaded(Reads(heads={head: _NEXT_LOAD}))
        if front.now != now:
            front.position, front.now = 0, now
        while front.position < len(front.entries):
            id = front.entries[front.position][2]
            front.position += 1
            yield id
        if front.more:
            raise NotLoaded(Reads(heads={head: max(2 * front.asked, _NEXT_LOAD)}))

    def rewind(self) -> None:
        """The request that took candidates is undone."""
        for front in self._fronts.values():
            front.position = 0


def matches(head: Head, task: Task) -> bool:
    """Whether a claim on this head may take the task."""
    return head.functions is None or task.function in head.functions
