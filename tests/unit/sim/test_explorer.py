"""The explorer walks every state of a small world once, and the machine passes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from kept.sim.explorer import explore as explorer
from kept.sim.explorer.explore import Exploration, explore
from kept.sim.explorer.moves import Move, Moves, Situation
from kept.sim.explorer.programs import Await, Call, Fulfil, Record
from kept.sim.explorer.symmetry import symmetries
from kept.sim.explorer.trace import told
from kept.sim.explorer.worlds import BY_NAME, WORLDS, Create, World, child_of, pushed

# As many states of each world as a test has time for; `kept check` sees all.
MAX_STATES = 4_000

SMALL = World(
    "small",
    "two promises of equal standing",
    (Create(pushed("a")), Create(pushed("b"))),
    {"a": (Fulfil(),), "b": (Fulfil(),)},
    interchangeable=("a", "b"),
    crashes=0,
    hangs=0,
    losses=0,
)


@pytest.fixture(scope="module")
def explorations() -> dict[str, Exploration]:
    """Each named world, as far as a test has time for."""
    return {world.name: explore(world, time.monotonic, max_states=MAX_STATES) for world in WORLDS}


@pytest.mark.parametrize("name", list(BY_NAME))
def test_the_machine_passes(name: str, explorations: dict[str, Exploration]) -> None:
    """In no state and on no step is anything false, as far as the test goes."""
    done = explorations[name]
    assert done.finding is None, done.finding
    assert done.states > MAX_STATES
    assert done.depth >= 6


def test_no_pass_is_empty(explorations: dict[str, Exploration]) -> None:
    """All kinds of moves happen: each request is granted and refused, arrives late and is asked
    again, and every fault strikes."""
    kinds = {kind for done in explorations.values() for kind in done.kinds}
    assert kinds >= {
        *("create 200", "settle 200", "listen 200", "halt 200", "continue 200"),
        *("dispatch", "deliver", "deliver twice", "lose", "crash", "expire", "timeout", "ready"),
        *(
            "start 200",
            "repeated start 409",
            "acquire 200",
            "acquire 409",
            "claim 200",
            "heartbeat 200",
        ),
        *("record 200", "call 200", "suspend 200", "suspend 300", "fulfil 200", "nack 200"),
        *("stale fulfil 409", "stale nack 409", "stale release 409", "stale heartbeat 200"),
        *("late acquire 200", "late claim 200", "late call 200", "late release 200"),
        *("cancel 200", "cancel further", "end canceled 200"),
        *("repeated acquire 200", "repeated claim 200", "release 200", "unblock"),
    }


def test_the_named_properties_are_reached(explorations: dict[str, Exploration]) -> None:
    """Most named properties had something to check; those of schedules have nothing here."""
    reached = {name for done in explorations.values() for name in done.reached}
    assert len(reached) >= 80


def test_a_world_is_exhausted() -> None:
    """A world has finitely many states, though its leases may change hands for ever; liveness is
    judged then."""
    done = explore(SMALL, time.monotonic)
    assert done.exhausted
    assert done.finding is None, done.finding


def test_depth_bounds_a_run() -> None:
    """Up to a depth fewer states are seen, and all of them to the next."""
    states = [explore(SMALL, time.monotonic, depth=depth).states for depth in (1, 3, 5)]
    assert states[0] == 3 - 1  # nothing, one promise of the two
    assert states == sorted(states)
    assert not explore(SMALL, time.monotonic, depth=3).exhausted


def test_states_bound_a_run() -> None:
    """A world that is too large is given up, and said to be."""
    done = explore(SMALL, time.monotonic, max_states=50)
    assert not done.exhausted
    assert 50 < done.states < 100


def test_a_run_is_repeated_exactly() -> None:
    """Two explorations of a world see the same, whatever the clock says."""
    one = explore(SMALL, lambda: 0.0, depth=8)
    other = explore(SMALL, lambda: 0.0, depth=8)
    assert one == other


def reachable(moves: Moves) -> Iterator[Situation]:
    """Every state, one for each way in which it can be named."""
    seen = {moves.start(): None}
    work = list(seen)
    while work:
        situation = work.pop()
        yield situation
        for _, after in moves.all_from(situation):
            if after not in seen:
                seen[after] = None
                work.append(after)


def test_symmetry_leaves_out_nothing() -> None:
    """The states of a world, each under its least name, are as many as the explorer counts."""
    moves = Moves(SMALL)
    group = symmetries(moves)
    least = {min([s, *(each.apply(s) for each in group)]) for s in list(reachable(moves))}
    assert len(group) == 3
    assert explore(SMALL, time.monotonic).states == len(least)


def test_children_cannot_change_places() -> None:
    """A program creates one child after the other, so a world that calls them equal is refused."""
    world = BY_NAME["fan-out"]._replace(interchangeable=("root.1", "root.2"))
    with pytest.raises(AssertionError, match="cannot change places"):
        explore(world, time.monotonic, depth=1)


def test_without_symmetry_there_are_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Symmetry saves most of the work, and without it the verdict is the same."""
    reduced = explore(SMALL, time.monotonic)
    monkeypatch.setattr(explorer, "symmetries", lambda _moves: [])
    whole = explore(SMALL, time.monotonic)
    assert whole.states > 2 * reduced.states
    assert whole.finding is reduced.finding is None


def test_a_worker_goes_on_where_the_records_say() -> None:
    """A worker that takes over knows from the preload which steps are done."""
    world = World(
        "steps",
        "two steps and a child",
        (Create(pushed("root")),),
        {
            "root": (
                Record(child_of("root", "root.1")),
                Call(child_of("root", "root.2", 3, **{"resonate:timer": "true"})),
                Await(("root.2",)),
                Fulfil(),
            )
        },
        hangs=0,
        losses=0,
    )
    done = explore(world, time.monotonic)
    assert done.exhausted
    assert done.finding is None
    moves = Moves(world)
    positions = {
        local.position
        for s in reachable(moves)
        for number in s.workers
        if (local := moves.local(number)).phase == "held"
    }
    assert positions == {0, 1, 2, 3}


@pytest.mark.parametrize("name", ["cancel", "cancel further", "end canceled", "late fulfil"])
def test_each_move_has_words(name: str) -> None:
    """A finding is told as a trace, whatever leads to it."""
    (line,) = told([Move(name, worker=1, id="root")])
    assert "root" in line
