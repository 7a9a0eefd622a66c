"""The ready tasks of a queue's function, by lane."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from typing import NamedTuple

from kept.stores.memory.agenda import Agenda


class Moment(NamedTuple):
    """When something is due; of two at the same time, the one born first comes first."""

    at: int
    number: int
    id: str


class Lanes:
    """Agendas by lane. A lane that has nothing left stays until it is met."""

    def __init__(self, is_current: Callable[[Moment], bool]) -> None:
        self._agendas: dict[str, Agenda[Moment]] = {}
        self._names: list[str] = []
        self._is_current = is_current

    def add(self, lane: str, moment: Moment) -> None:
        """A task is ready, from its rank on."""
        agenda = self._agendas.get(lane)
        if agenda is None:
            agenda = self._agendas[lane] = Agenda(self._is_current)
            insort(self._names, lane)
        agenda.add(moment)

    def first(self, lane: str, count: int) -> list[Moment]:
        """The first tasks of a lane by rank."""
        agenda = self._agendas.get(lane)
        return [] if agenda is None else agenda.first(count)

    def names_from(self, start: str) -> Iterator[str]:
        """The lanes that have ready tasks, in order from a name on."""
        place = bisect_left(self._names, start)
        while place < len(self._names):
            lane = self._names[place]
            if self._agendas[lane].peek() is None:
                del self._agendas[lane], self._names[place]
            else:
                place += 1
                yield lane
