"""The shadow state: taking changes in and taking them back leaves no trace."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kept.check.state import Delta, Edges, State
from kept.protocol.records import MessageKind
from kept.protocol.storage import Changes, Dump, Edge
from tests.unit.check.cases.records import execute, pending, resolved, schedule, unblock, waiting

IDS = st.sampled_from(["a", "b", "c"])
EDGES = st.dictionaries(st.builds(Edge, IDS, IDS), st.booleans(), max_size=4)
MESSAGES = st.one_of(st.builds(execute, IDS), st.builds(unblock, IDS, IDS))


@st.composite
def changes(draw: st.DrawFn) -> Changes:
    """Any changes at all, sensible or not."""
    promises = draw(st.lists(st.builds(pending, IDS) | st.builds(resolved, IDS), max_size=3))
    tasks = draw(st.lists(st.builds(waiting, IDS, version=st.integers(0, 3)), max_size=3))
    entries = draw(st.lists(MESSAGES, max_size=3))
    removed = draw(st.lists(MESSAGES, max_size=2))
    schedules = draw(st.dictionaries(IDS, st.none() | st.builds(schedule, IDS), max_size=2))
    return Changes(
        promises={p.id: p for p in promises},
        tasks={t.id: t for t in tasks},
        callbacks=draw(EDGES),
        listeners=draw(EDGES),
        resumes=draw(EDGES),
        resumes_cleared=draw(st.sets(IDS, max_size=2)),
        releases=draw(st.dictionaries(st.builds(Edge, IDS, IDS), st.integers(1, 9), max_size=2)),
        schedules=schedules,
        outbox={e.key: e for e in entries} | {e.key: None for e in removed},
        reset=draw(st.booleans()),
    )


def assert_indexed(state: State) -> None:
    """The indexes say what the records say."""
    for edges in (state.callbacks, state.listeners, state.resumes):
        assert {(of, to) for to, ends in edges.back.items() for of in ends} == set(edges)
    unblocks = {(k.id, k.address) for k in state.outbox if k.kind is MessageKind.UNBLOCK}
    assert set(state.unblocks) == unblocks


@given(st.lists(changes(), max_size=6))
def test_undoing_every_step_restores_every_state_on_the_way(steps: list[Changes]) -> None:
    """`undo` is the inverse of `apply`, whatever was changed, cleared and written again."""
    state, dumps, deltas = State(), [], []
    for each in steps:
        dumps.append(state.dump())
        deltas.append(state.apply(each))
        assert_indexed(state)
    for delta, dump in zip(reversed(deltas), reversed(dumps), strict=True):
        state.undo(delta)
        assert state.dump() == dump
        assert_indexed(state)


@given(st.lists(changes(), max_size=4), changes())
def test_a_delta_is_the_difference_of_the_two_states(before: list[Changes], last: Changes) -> None:
    """What `apply` says it changed is what comparing the two whole states shows."""
    state = State()
    for each in before:
        state.apply(each)
    former = State.from_dump(state.dump())
    said, found = state.apply(last), Delta.between(former, state)
    for part in ("callbacks", "listeners", "resumes"):
        edges, expected = getattr(said, part), getattr(found, part)
        net_added = set(edges.added) - set(edges.removed)
        net_removed = set(edges.removed) - set(edges.added)
        assert (net_added, net_removed) == (set(expected.added), set(expected.removed))
    for part in ("promises", "tasks", "schedules", "outbox", "releases"):
        former_records = getattr(said, part)
        assert getattr(found, part).items() <= former_records.items()


@given(st.lists(changes(), max_size=6))
def test_a_state_survives_its_dump(steps: list[Changes]) -> None:
    """`from_dump` and `dump` are inverse, so a monitor may start on a store that is in use."""
    state = State()
    for each in steps:
        state.apply(each)
    copy = State.from_dump(state.dump())
    assert copy.dump() == state.dump()
    assert_indexed(copy)


def test_iteration_does_not_depend_on_the_order_of_sets() -> None:
    """A dump's edges are a set; the state that is made of it is ordered by their ends."""
    names = [f"x{n}" for n in range(20)]
    state = State.from_dump(Dump(callbacks={Edge("p", name) for name in reversed(names)}))
    assert [edge.to for edge in state.callbacks] == sorted(names)


def test_an_edge_listed_twice_is_remembered_as_such() -> None:
    """`Edges` counts, so that the uniqueness properties have something to look at."""
    edges = Edges([("p", "x"), ("p", "x")])
    assert edges.at["p"]["x"] == 2
    edges.remove("p", "x")
    assert list(edges) == []
