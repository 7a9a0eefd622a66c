"""Tasks that a claim may take, in order: those of a queue's head, or of one lane of it.

Taking a task changes its state, not the front: candidates are checked by the claim, so undoing a
request only has to rewind.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from kept.protocol.records import Task


class Front:
    """Candidates by rank, then by arrival."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, int, str]] = []
        self._ranks: dict[str, int] = {}
        self._position = 0
        # The instant (ms) of the claim that moved the position.
        self._now = 0
        self._arrivals = 0
        # How many the store was asked for, and whether it had that many: then there may be more.
        self.asked = 0
        self.more = False

    def add(self, tasks: list[Task], asked: int) -> None:
        """What the store has, in its order, when it is asked for `asked` tasks."""
        for task in tasks:
            if task.id not in self._ranks:
                self._insert(task)
        self.asked = asked
        self.more = len(tasks) >= asked

    def put(self, task: Task) -> None:
        """A task became pending: it is one more, or was there before, perhaps at another rank."""
        known = self._ranks.get(task.id)
        if known is not None:
            self._position = 0
            if known == task.rank:
                return
            self._entries = [entry for entry in self._entries if entry[2] != task.id]
        self._insert(task)

    def _insert(self, task: Task) -> None:
        self._ranks[task.id] = task.rank
        self._arrivals += 1
        # No two arrivals are equal, so ids are never compared.
        entry = (task.rank, self._arrivals, task.id)
        entries = self._entries
        if not entries or entries[-1] < entry:
            entries.append(entry)
        else:
            place = bisect_left(entries, entry)
            entries.insert(place, entry)
            self._position = min(self._position, place)

    def candidates(self, now: int) -> Iterator[str]:
        """Ids that no claim has met yet.

        What was passed over at another instant (debug clocks) may be due at `now` (ms).
        """
        if self._now != now:
            self._position, self._now = 0, now
        while self._position < len(self._entries):
            id = self._entries[self._position][2]
            self._position += 1
            yield id

    def rewind(self) -> None:
        """The request that took candidates is undone."""
        self._position = 0
