"""The two questions of liveness, on graphs small enough to answer by hand."""

from __future__ import annotations

from collections.abc import Mapping

from kept.sim.explorer.liveness import Graph, find_fair_cycle, find_stuck


def graph(final: set[int], moves: Mapping[int, list[tuple[str, int]]]) -> Graph:
    """A graph by states: their labels with targets. The label "" is owed to nobody."""
    built = Graph()
    for state in range(len(moves)):
        built.begin(is_final=state in final)
        for label, target in moves[state]:
            built.add(built.label(label), target)
    return built


def test_a_state_without_a_way_out_is_stuck() -> None:
    """The first state from which no final one is reachable is named, also one that goes round."""
    assert find_stuck(graph({2}, {0: [("a", 1)], 1: [("b", 2)], 2: []})) is None
    assert find_stuck(graph({1}, {0: [("a", 1), ("b", 2)], 1: [], 2: [("c", 2)]})) == 2


def test_a_cycle_that_leaves_out_what_is_owed_is_not_fair() -> None:
    """A run may not go round for ever past a move that settles and that is enabled each time."""
    assert find_fair_cycle(graph({2}, {0: [("a", 1)], 1: [("b", 0), ("settle", 2)], 2: []})) is None


def test_a_cycle_with_a_way_out_that_nobody_owes() -> None:
    """Where only a fault, or what a worker need not do, leads on, a run may go round for ever."""
    cycle = find_fair_cycle(graph({2}, {0: [("a", 1)], 1: [("b", 0), ("", 2)], 2: []}))
    assert cycle is not None
    assert set(cycle) == {0, 1}


def test_a_run_may_stand_still_where_nothing_is_owed() -> None:
    """A state that is left only by a fault is a place to stay."""
    assert find_fair_cycle(graph({2}, {0: [("a", 1)], 1: [("", 2)], 2: []})) == [1]


def test_a_cycle_inside_a_larger_one() -> None:
    """A part that must be left, for what it leaves out, may hold one that is fair."""
    moves = {
        0: [("a", 1), ("settle", 3)],
        1: [("b", 2), ("d", 0)],
        2: [("c", 1), ("b", 2), ("d", 2)],
        3: [("e", 3)],
    }
    # 0 has to be left by `settle`; 1 and 2 go round with b, c and d.
    assert find_fair_cycle(graph({3}, moves)) is not None
    # Once 2 offers a settlement too, every run settles or leaves 2; 1 owes `b`, which leads there.
    moves[2].append(("settle", 3))
    assert find_fair_cycle(graph({3}, moves)) is None


def test_the_same_label_elsewhere_is_enough() -> None:
    """Fairness tells labels apart, not states: a label that is taken somewhere in the cycle is
    not left out where it would have led away."""
    moves = {0: [("a", 1)], 1: [("b", 0), ("a", 2)], 2: []}
    assert find_fair_cycle(graph({2}, moves)) is not None
