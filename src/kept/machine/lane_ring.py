"""What a batch knows of the lanes of a head: an arc of them, in the order of their turns.

The arc begins where the turn stood when somebody first claimed, and grows as claims want more of it.
Lanes that have nothing to give are taken out of the way, so that no claim passes them again.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from kept.machine.front import Front
from kept.machine.refusals import CONCURRENCY, Refusal
from kept.protocol.records import Task
from kept.protocol.storage import LaneSpan

# So few lanes are taken out one by one.
_FEW: Final = 8
# Where a lane stands: behind those that come before it on the way round from the start.
_Place = tuple[bool, str]


class LaneRing:
    """Lanes by name from `start` on; with `complete` there are no others, and the order goes round."""

    def __init__(self, start: str) -> None:
        self._start = start
        # Where the arc ends: no name lies between the last lane and itself with a NUL behind it.
        self._end: _Place = (False, start)
        self._asked = 0
        self.complete = False
        # Of a lane without a front, it is not loaded what it has.
        self._fronts: dict[str, Front | None] = {}
        # Those that may have something, in order.
        self._live: list[_Place] = []
        self._shut: dict[str, Refusal] = {}
        # Of those that are shut by a rate, the one that opens first.
        self._first_to_open: Refusal | None = None
        # Lanes whose limits were not looked at yet.
        self.unchecked: list[str] = []
        # The instant (ms) of the claim that took lanes out of the way.
        self._now = 0

    @property
    def last(self) -> str:
        """The last lane of the arc."""
        return self._end[1].removesuffix("\0")

    def __len__(self) -> int:
        return len(self._fronts)

    def _place(self, lane: str) -> _Place:
        return lane < self._start, lane

    def reaches(self, start: str) -> bool:
        """Whether the arc leads to a lane of this name, or ends right before it."""
        return self.complete or self._place(start) <= self._end

    # -- growing -----------------------------------------------------------------------------------

    def next_span(self, factor: int) -> LaneSpan:
        """What to ask the store for to make the arc longer."""
        return LaneSpan(self._end[1], self._asked * factor)

    def extend(self, span: LaneSpan, names: list[str]) -> None:
        """Lanes that the store named; the arc is a ring where they are all, or come back to its start."""
        self._asked = span.size
        self.complete = len(names) < span.size
        for lane in names:
            if lane in self._fronts:
                self.complete = True
                break
            self._add(lane, None)
            behind, _ = self._place(lane)
            self._end = behind, lane + "\0"

    def _add(self, lane: str, front: Front | None) -> None:
        self._fronts[lane] = front
        self.unchecked.append(lane)
        insort(self._live, self._place(lane))

    def add_front(self, lane: str, tasks: list[Task], asked: int) -> None:
        """What the store has in one of the lanes."""
        front = self._fronts[lane]
        if front is None:
            front = self._fronts[lane] = Front()
        front.add(tasks, asked)

    def take_in(self, task: Task) -> None:
        """A task that became pending in this batch, if its lane belongs to what is known."""
        lane = task.lane
        if lane is None:
            return
        if lane not in self._fronts:
            if not self.reaches(lane):
                return
            # The store has no ready task of it, else it had named it.
            self._add(lane, Front())
        elif lane not in self._shut and not self._is_live(lane):
            insort(self._live, self._place(lane))
        front = self._fronts[lane]
        if front is not None:
            front.put(task)

    # -- going round -------------------------------------------------------------------------------

    def lanes_from(self, start: str) -> Iterator[str]:
        """The lanes that may have something, from a name on: to the end of the arc, or once round."""
        live = self._live
        place = bisect_left(live, self._place(start))
        for index in range(place, len(live)):
            yield live[index][1]
        for index in range(place if self.complete else 0):
            yield live[index][1]

    def front(self, lane: str) -> Front | None:
        """The tasks of a lane, if they are loaded."""
        return self._fronts[lane]

    def fronts_with_more(self) -> dict[str, Front]:
        """Loaded fronts behind which the store may have more."""
        return {lane: each for lane, each in self._fronts.items() if each and each.more}

    def _is_live(self, lane: str) -> bool:
        place = bisect_left(self._live, self._place(lane))
        return place < len(self._live) and self._live[place][1] == lane

    def take_out(self, dry: Collection[str], shut: Mapping[str, Refusal]) -> None:
        """Lanes that have nothing more, and lanes that are at a limit, are passed no more."""
        gone = {*dry, *shut}
        if len(gone) > _FEW:
            self._live = [place for place in self._live if place[1] not in gone]
        else:
            for lane in sorted(gone):
                del self._live[bisect_left(self._live, self._place(lane))]
        for lane, refusal in shut.items():
            self._shut[lane] = refusal
            first = self._first_to_open
            if refusal.retry_at is not None and (
                first is None or first.retry_at is None or refusal.retry_at < first.retry_at
            ):
                self._first_to_open = refusal

    def freed(self, lane: str) -> None:
        """A task of a lane is acquired no longer."""
        if lane in self._shut and self._shut[lane].reason == CONCURRENCY:
            del self._shut[lane]
            insort(self._live, self._place(lane))

    def refusal(self) -> Refusal | None:
        """Why lanes are shut, if any is: first of all what ends by itself."""
        if self._first_to_open is None and self._shut:
            return Refusal(CONCURRENCY)
        return self._first_to_open

    def at(self, now: int) -> None:
        """Lanes that were out of the way at another instant (debug clocks) may not be at `now` (ms)."""
        if self._now != now:
            self._reopen()
            self._now = now

    def rewind(self) -> None:
        """The request that took candidates is undone."""
        self._reopen()
        for front in self._fronts.values():
            if front is not None:
                front.rewind()

    def settings_changed(self) -> None:
        """The queue's settings are others: all limits are to be looked at again."""
        self._reopen()
        self.unchecked = list(self._fronts)

    def _reopen(self) -> None:
        if len(self._live) < len(self._fronts):
            self._live = sorted(self._place(lane) for lane in self._fronts)
        self._shut.clear()
        self._first_to_open = None
