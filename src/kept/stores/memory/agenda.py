"""What comes first: a heap from which entries that are no longer true are dropped late."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

Entry = TypeVar("Entry", bound=tuple[object, ...])

# Below this many entries, those that are no longer true are not worth a search.
_FIRST_SWEEP: Final = 1_024


class Agenda(Generic[Entry]):
    """Entries in order. One that ceases to be true stays until it is met; `is_current` decides."""

    def __init__(self, is_current: Callable[[Entry], bool]) -> None:
        self._heap: list[Entry] = []
        self._is_current = is_current
        self._sweep_at = _FIRST_SWEEP

    def add(self, entry: Entry) -> None:
        if len(self._heap) >= self._sweep_at:
            self._heap = [e for e in dict.fromkeys(self._heap) if self._is_current(e)]
            heapify(self._heap)
            self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._heap))
        heappush(self._heap, entry)

    def first(self, limit: int, until: int | None = None) -> list[Entry]:
        """The first `limit` entries, those only whose first element is at most `until`."""
        found: list[Entry] = []
        heap = self._heap
        while heap and len(found) < limit and (until is None or heap[0][0] <= until):  # type: ignore[operator]
            entry = heappop(heap)
            if self._is_current(entry) and (not found or found[-1] != entry):
                found.append(entry)
        for entry in found:
            heappush(heap, entry)
        return found

    def peek(self) -> Entry | None:
        """The first entry, if there is one."""
        heap = self._heap
        while heap:
            if self._is_current(heap[0]):
                return heap[0]
            heappop(heap)
        return None
