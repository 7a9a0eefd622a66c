"""What a batch knows of the lanes of a queue: those of one window, in the order of their turns."""

from __future__ import annotations

from bisect import bisect_left

from kept.protocol.storage import LaneFront, LaneWindow


class LaneRing:
    """Lanes by name with their first ready tasks, as the store had them.

    `complete`: there are no others. Then the order goes round; otherwise it ends with the window.
    """

    def __init__(self, window: LaneWindow, fronts: list[LaneFront]) -> None:
        self.window = window
        self.fronts = {front.lane: front.ids for front in fronts}
        self.complete = len(fronts) < window.lanes
        self._order = [front.lane for front in fronts]
        self._sorted = sorted(self._order)

    def order_from(self, start: str) -> list[str] | None:
        """The lanes from a name on; None where the window does not reach there."""
        if self.complete:
            place = bisect_left(self._sorted, start)
            return self._sorted[place:] + self._sorted[:place]
        if start == self.window.start:
            return self._order
        for place, lane in enumerate(self._order):
            before = self._order[place - 1] if place else self.window.start
            goes_round = lane < before
            if before <= start <= lane or (goes_round and (start >= before or start <= lane)):
                return self._order[place:]
        return None

    def may_have_more(self, lane: str) -> bool:
        """Whether the store may hold tasks of a lane beyond those that are known."""
        return len(self.fronts.get(lane, ())) >= self.window.tasks
