"""Liveness over an explored graph: can everything settle, and does it, if nothing is put off for ever?

Two questions. From every state a final one must be reachable. And there must be no fair cycle: a run
through states that are not final, in which every move that is enabled again and again is taken again
and again (strong fairness); a run that stays where no fair move is enabled is one too. Such a run
exists if and only if a strongly connected part of the graph takes every fair move that is enabled in
it, once the states are left out in which something is enabled that the part never takes (Emerson and
Lei).
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable


class Graph:
    """States by number, each with its labelled moves; label 0 is owed to nobody."""

    def __init__(self) -> None:
        self._labels = array("l")
        self._targets = array("l")
        self._starts = array("l")
        self._names: dict[str, int] = {"": 0}
        self.final = bytearray()

    @property
    def transitions(self) -> int:
        return len(self._targets)

    def __len__(self) -> int:
        return len(self._starts)

    def label(self, name: str) -> int:
        """The number of a label."""
        return self._names.setdefault(name, len(self._names))

    def begin(self, *, is_final: bool) -> None:
        """The next state; its moves follow."""
        self._starts.append(len(self._targets))
        self.final.append(is_final)

    def add(self, label: int, target: int) -> None:
        """A move of the state begun last."""
        self._labels.append(label)
        self._targets.append(target)

    def _range(self, state: int) -> tuple[int, int]:
        end = self._starts[state + 1] if state + 1 < len(self._starts) else len(self._targets)
        return self._starts[state], end

    def targets(self, state: int) -> array[int]:
        start, end = self._range(state)
        return self._targets[start:end]

    def moves(self, state: int) -> Iterable[tuple[int, int]]:
        """Labels and targets."""
        start, end = self._range(state)
        return zip(self._labels[start:end], self._targets[start:end], strict=True)


def find_stuck(graph: Graph) -> int | None:
    """The first state from which no final one can be reached."""
    sources: list[list[int]] = [[] for _ in range(len(graph))]
    for state in range(len(graph)):
        for target in graph.targets(state):
            sources[target].append(state)
    reached = bytearray(graph.final)
    queue = deque(state for state in range(len(graph)) if reached[state])
    while queue:
        for source in sources[queue.popleft()]:
            if not reached[source]:
                reached[source] = 1
                queue.append(source)
    stuck = reached.find(0)
    return None if stuck < 0 else stuck


def find_fair_cycle(graph: Graph) -> list[int] | None:
    """The states of a cycle within a part of the graph in which a fair run can stay for ever; one
    state, where it can stand still."""
    live = bytearray(0 if final else 1 for final in graph.final)
    work = [[state for state in range(len(graph)) if live[state]]]
    while work:
        states = work.pop()
        for part in _components(graph, states):
            inside = set(part)
            taken = {
                label
                for state in part
                for label, target in graph.moves(state)
                if label and target in inside
            }
            left_out = {
                state
                for state in part
                if any(label and label not in taken for label, _ in graph.moves(state))
            }
            if not left_out:
                return _cycle(graph, inside)
            if len(left_out) < len(part):
                work.append([state for state in part if state not in left_out])
    return None


def _cycle(graph: Graph, inside: set[int]) -> list[int]:
    """A shortest cycle through the first state of a part."""
    first = min(inside)
    if len(inside) == 1:
        return [first]
    came_from: dict[int, int] = {}
    queue = deque([first])
    while queue:
        state = queue.popleft()
        for target in graph.targets(state):
            if target == first:
                cycle = [state]
                while cycle[-1] != first:
                    cycle.append(came_from[cycle[-1]])
                return cycle[::-1]
            if target in inside and target not in came_from:
                came_from[target] = state
                queue.append(target)
    raise AssertionError("a strongly connected part has a cycle")


def _components(graph: Graph, states: list[int]) -> list[list[int]]:
    """The strongly connected parts among `states` (Tarjan)."""
    among = set(states)
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    on_stack: set[int] = set()
    stack: list[int] = []
    found: list[list[int]] = []
    for root in states:
        if root in index:
            continue
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        path = [(root, iter(graph.targets(root)))]
        while path:
            state, targets = path[-1]
            for target in targets:
                if target not in among:
                    continue
                if target not in index:
                    index[target] = low[target] = len(index)
                    stack.append(target)
                    on_stack.add(target)
                    path.append((target, iter(graph.targets(target))))
                    break
                if target in on_stack:
                    low[state] = min(low[state], index[target])
            else:
                path.pop()
                if path:
                    parent = path[-1][0]
                    low[parent] = min(low[parent], low[state])
                if low[state] == index[state]:
                    found.append(_popped(stack, on_stack, state))
    return found


def _popped(stack: list[int], on_stack: set[int], state: int) -> list[int]:
    part: list[int] = []
    while not part or part[-1] != state:
        part.append(stack.pop())
        on_stack.discard(part[-1])
    return part
