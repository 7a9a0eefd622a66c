"""Breadth first through all states of a world, to a depth or until there are no more.

The first state found to be wrong is therefore one that can be reached in the fewest moves, and the
moves that led to it are the shortest trace.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, NamedTuple

from kept.sim.explorer.liveness import Graph, find_fair_cycle, find_stuck
from kept.sim.explorer.moves import UNFAIR, Move, Moves, Situation
from kept.sim.explorer.normal import is_over
from kept.sim.explorer.symmetry import symmetries
from kept.sim.explorer.trace import told
from kept.sim.explorer.watch import CAN_SETTLE, DOES_SETTLE, Broken
from kept.sim.explorer.worlds import World

# What a machine of a few gigabytes holds.
MAX_STATES: Final = 2_000_000


class Finding(NamedTuple):
    """What is false, why, the moves that lead there in words, and those that then repeat for ever."""

    name: str
    why: str
    trace: tuple[str, ...]
    cycle: tuple[str, ...] = ()


class Exploration(NamedTuple):
    """What came of exploring a world. `depth` is the number of moves of the longest shortest trace;
    `applied` counts what the real machine did, `databases` the records it led to; `reached` are the
    named properties that had something to check, `kinds` what happened, with its outcomes."""

    world: str
    states: int
    transitions: int
    depth: int
    exhausted: bool
    applied: int
    databases: int
    seconds: float
    reached: frozenset[str]
    kinds: frozenset[str]
    finding: Finding | None

    @property
    def states_per_second(self) -> float:
        """How fast it went."""
        return self.states / self.seconds if self.seconds > 0 else 0.0


def explore(
    world: World,
    clock: Callable[[], float],
    *,
    depth: int | None = None,
    max_states: int = MAX_STATES,
) -> Exploration:
    """Explores a world up to `depth` moves deep, or all of it; `clock` reads seconds."""
    return _Explorer(world, clock, depth, max_states).run()


class _Explorer:
    def __init__(
        self, world: World, clock: Callable[[], float], depth: int | None, max_states: int
    ) -> None:
        self._clock = clock
        self._depth_limit = depth
        self._max_states = max_states
        self._moves = Moves(world)
        self._symmetries = symmetries(self._moves)
        # Of each state: how it was seen first, its parent, the move from there.
        self._states: list[Situation] = []
        self._parents = array("l")
        self._by: list[Move] = []
        # Every way in which a state was seen, to its number.
        self._numbers: dict[Situation, int] = {}
        self._graph = Graph()
        self._labels: dict[Move, int] = {}
        self._depth = 0
        self._exhausted = False

    def run(self) -> Exploration:
        began = self._clock()
        finding = self._safety()
        if finding is None and self._exhausted:
            finding = self._liveness()
        return Exploration(
            world=self._moves.world.name,
            states=len(self._states),
            transitions=self._graph.transitions,
            depth=self._depth,
            exhausted=self._exhausted,
            applied=self._moves.databases.applied,
            databases=len(self._moves.databases),
            seconds=self._clock() - began,
            reached=frozenset(self._moves.databases.reached),
            kinds=frozenset(f"{move.name} {move.outcome}".strip() for move in self._labels),
            finding=finding,
        )

    def _safety(self) -> Finding | None:
        self._add(self._moves.start(), -1, Move("begin", ""))
        level = range(1)
        while level:
            if self._depth_limit is not None and self._depth >= self._depth_limit:
                return None
            for number in level:
                try:
                    self._expand(number)
                except Broken as broken:
                    trace = told([*self._path(number), self._moves.attempt])
                    return Finding(broken.name, broken.why, trace)
                if len(self._states) > self._max_states:
                    return None
            level = range(level.stop, len(self._states))
            self._depth += bool(level)
        self._exhausted = True
        return None

    def _expand(self, number: int) -> None:
        situation = self._states[number]
        numbers, labels, graph = self._numbers, self._labels, self._graph
        graph.begin(is_final=self._is_final(situation))
        for move, after in self._moves.all_from(situation):
            target = numbers.get(after)
            if target is None:
                target = self._add(after, number, move)
            label = labels.get(move)
            if label is None:
                label = labels[move] = self._label(move)
            graph.add(label, target)

    def _add(self, situation: Situation, parent: int, move: Move) -> int:
        """The number of a state that was never seen like this; perhaps it was under other names."""
        key = situation
        for symmetry in self._symmetries:
            key = min(key, symmetry.apply(situation))
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._states)
            self._states.append(situation)
            self._parents.append(parent)
            self._by.append(move)
        self._numbers[situation] = number
        return number

    def _label(self, move: Move) -> int:
        """What fairness tells apart: what happens, to what, with which outcome. Not who does it,
        for under symmetry a worker has no name that lasts."""
        if move.name in UNFAIR or move.name.removeprefix("stale ") in UNFAIR:
            return 0
        return self._graph.label(f"{move.name} {move.id} {move.outcome}")

    def _is_final(self, situation: Situation) -> bool:
        dump = self._moves.databases.dump(situation.database)
        return bool(dump.promises) and is_over(dump) and self._has_created_all(situation.done)

    def _has_created_all(self, done: int) -> bool:
        client = self._moves.world.client
        return all(
            done & (1 << index)
            for index, request in enumerate(client)
            if type(request).__name__ == "Create"
        )

    # -- liveness --------------------------------------------------------------------------------

    def _liveness(self) -> Finding | None:
        stuck = find_stuck(self._graph)
        if stuck is not None:
            why = "no continuation settles every promise"
            return Finding(CAN_SETTLE, why, told(self._path(stuck)))
        cycle = find_fair_cycle(self._graph)
        if cycle is None:
            return None
        moves = list(self._along(cycle))
        why = "these moves repeat for ever, and nothing that is owed is left out"
        if not moves:
            why = "a run may end here: nothing is left but faults and what workers need not do"
        begin = self._path(cycle[0])
        lines = told([*begin, *moves])
        return Finding(DOES_SETTLE, why, lines[: len(begin)], lines[len(begin) :])

    def _path(self, number: int) -> list[Move]:
        moves = []
        while self._parents[number] >= 0:
            moves.append(self._by[number])
            number = self._parents[number]
        return moves[::-1]

    def _along(self, cycle: list[int]) -> Iterator[Move]:
        for number, target in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            moves = self._moves.all_from(self._states[number])
            found = (move for move, after in moves if self._numbers[after] == target)
            yield from islice(found, 1)
