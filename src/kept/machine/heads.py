"""The front of each queue, as a batch sees it: loaded due tasks and those that became due in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final

from kept.machine.front import Front
from kept.machine.lane_ring import LaneRing
from kept.machine.not_loaded import NotLoaded
from kept.protocol.records import Task
from kept.protocol.storage import Head, LaneHead, LaneSpan, Reads

# How many tasks of a head are loaded at least when a claim runs out of candidates.
NEXT_LOAD: Final = 64


class Heads:
    """The fronts of all queues that the batch claims from."""

    def __init__(self) -> None:
        self._fronts: dict[Head, Front] = {}
        # Heads whose ready tasks are in several lanes, so they are not in the front.
        self._laned: set[Head] = set()
        # Pulled tasks that became pending in this batch, by queue, as often as they did.
        self._pending: dict[str, list[Task]] = {}
        self._rings: dict[Head, LaneRing] = {}
        # How many of the pending tasks each ring has taken in.
        self._taken_in: dict[Head, int] = {}

    # -- loading -----------------------------------------------------------------------------------

    def add(self, head: Head, tasks: list[Task], asked: int, *, laned: bool = False) -> None:
        """What the store found at the head, in its order, when it was asked for `asked` tasks."""
        front = self._fronts.get(head)
        if front is None:
            front = self._fronts[head] = Front()
            for task in self._pending.get(head.queue, ()):
                if matches(head, task):
                    front.put(task)
        front.add(tasks, asked)
        if laned:
            self._laned.add(head)

    def add_lanes(self, head: Head, span: LaneSpan, names: list[str]) -> None:
        """What the store has in a span of the lanes of a head: behind those that are known, or where
        the turn stands now."""
        ring = self._rings.get(head)
        if ring is None or not ring.reaches(span.start):
            ring = self._rings[head] = LaneRing(span.start)
        ring.extend(span, names)
        self._taken_in[head] = 0

    def add_fronts(
        self, asked: Mapping[LaneHead, int], found: Mapping[LaneHead, list[Task]]
    ) -> None:
        """What the store has in some lanes, in its order."""
        for front, tasks in found.items():
            self._rings[front.head].add_front(front.lane, tasks, asked[front])
            self._taken_in[front.head] = 0

    # -- reading -----------------------------------------------------------------------------------

    def is_laned(self, head: Head) -> bool:
        """Whether its ready tasks are in several lanes, so that these take turns."""
        if head not in self._fronts:
            raise NotLoaded(Reads(heads={head: NEXT_LOAD}))
        return head in self._laned

    def asked(self, head: Head) -> int:
        """How many tasks of a head all claims of the batch want together, about."""
        front = self._fronts.get(head)
        return NEXT_LOAD if front is None else front.asked

    def ring(self, head: Head) -> LaneRing | None:
        """What is known of the lanes of a head."""
        ring = self._rings.get(head)
        pending = self._pending.get(head.queue, ())
        if ring is not None and self._taken_in[head] < len(pending):
            for task in islice(pending, self._taken_in[head], None):
                if matches(head, task):
                    ring.take_in(task)
            self._taken_in[head] = len(pending)
        return ring

    def candidates(self, head: Head, now: int) -> Iterator[str]:
        """Ids in order of rank. Raises `NotLoaded` where the store may have more of them."""
        front = self._fronts.get(head)
        if front is None:
            raise NotLoaded(Reads(heads={head: NEXT_LOAD}))
        yield from front.candidates(now)
        if front.more:
            raise NotLoaded(Reads(heads={head: max(2 * front.asked, NEXT_LOAD)}))

    # -- what the batch does -----------------------------------------------------------------------

    def became_pending(self, task: Task) -> None:
        """A pulled task is pending since now: it may be claimed in this batch already."""
        assert task.queue is not None
        self._pending.setdefault(task.queue, []).append(task)
        for head, front in self._fronts.items():
            if head.queue == task.queue and matches(head, task):
                front.put(task)

    def freed(self, task: Task) -> None:
        """A task is acquired no longer."""
        for head, ring in self._rings.items():
            if head.queue == task.queue and task.lane is not None:
                ring.freed(task.lane)

    def settings_changed(self, queue: str) -> None:
        """A queue has other limits now."""
        for head, ring in self._rings.items():
            if head.queue == queue:
                ring.settings_changed()

    def rewind(self) -> None:
        """The request that took candidates is undone."""
        for front in self._fronts.values():
            front.rewind()
        for ring in self._rings.values():
            ring.rewind()


def matches(head: Head, task: Task) -> bool:
    """Whether a claim on this head may take the task."""
    return head.functions is None or task.function in head.functions
