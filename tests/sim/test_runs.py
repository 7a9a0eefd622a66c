"""Whole seeds: they hold, they are the same to the byte, and what they claim to do they do."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import weakref
from collections import Counter

import pytest

from kept.check.history import parse
from kept.cli.main import main
from kept.sim.guards import GUARD_KINDS
from kept.sim.mix import PERIODS, SHARES, draw_mix
from kept.sim.plan import draw_plan
from kept.sim.planners import PLANNED_KINDS
from kept.sim.requests import RAW_KINDS
from kept.sim.run import Outcome, play_plan, run_seed
from kept.sim.soak import Tally, soak

# The worlds that all tests share are played within the first one.
pytestmark = pytest.mark.timeout(300)

TICKS = 35
SEEDS = range(1, 9)
# Of another process, whose sets and dicts of strings have another order.
HASH_SEED = "4711"


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return list(soak(SEEDS, TICKS, processes=1))


def test_everything_holds(outcomes: list[Outcome]) -> None:
    """In every seed all oracles are content, and clients got somewhere."""
    assert [f"seed {o.seed}: {o.broken}" for o in outcomes if not o.ok] == []
    assert all(outcome.commits for outcome in outcomes)
    assert sum(outcome.goals for outcome in outcomes) >= len(SEEDS)


def test_a_seed_is_the_same_in_another_process(outcomes: list[Outcome]) -> None:
    """Two processes with different hash seeds write the same trace, to the byte.

    The other plays the seeds backwards: nothing of a seed may depend on those before it.
    """
    seeds = list(SEEDS)[:6]
    program = (
        "import json; from kept.sim.run import run_seed;"
        f"print(json.dumps([run_seed(seed, {TICKS}).digest for seed in {seeds[::-1]}][::-1]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": HASH_SEED}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True
    )
    assert json.loads(run.stdout) == [outcome.digest for outcome in outcomes][:6]


def test_a_seed_is_the_same_again_in_this_process(outcomes: list[Outcome]) -> None:
    """All of an outcome, not only its trace, is the same after other seeds, and the second time."""
    last = outcomes[-1]
    assert [run_seed(last.seed, TICKS) for _ in range(2)] == [last, last]


def test_a_play_leaves_the_collector_as_it_was() -> None:
    """It runs again if it ran before, and nothing stays set aside for good."""
    before = gc.isenabled(), gc.get_freeze_count()
    run_seed(SEEDS[0], 1)
    assert (gc.isenabled(), gc.get_freeze_count()) == before


def test_a_world_is_gone_once_the_next_is_played() -> None:
    """Hundreds of seeds in one process, and each leaves a world full of cycles behind."""
    world = weakref.ref(play_plan(draw_plan(2, 2)).world)
    enabled = gc.isenabled()
    gc.disable()
    try:
        run_seed(3, 2)
        assert world() is None
    finally:
        if enabled:
            gc.enable()


def test_seeds_differ(outcomes: list[Outcome]) -> None:
    """No two seeds play the same."""
    assert len({outcome.digest for outcome in outcomes}) == len(outcomes)


def test_faults_strike(outcomes: list[Outcome]) -> None:
    """Every fault with a time of its own strikes in each mix that has it; together, all do."""
    struck: Counter[str] = Counter()
    for outcome in outcomes:
        struck.update(outcome.faults)
        timed = [name for name in outcome.mix.faults if name in PERIODS]
        # Those that need a commit may find none before the end.
        timed = [name for name in timed if "commit" not in name]
        assert [name for name in timed if not outcome.faults.get(name)] == [], outcome.seed
    assert sorted(struck) == sorted({*SHARES, *PERIODS})


def test_every_kind_succeeds(outcomes: list[Outcome]) -> None:
    """A few seeds together see each kind of request succeed."""
    tally = Tally()
    for outcome in outcomes:
        tally.add(outcome)
    succeeded = {answer.split()[0] for answer in tally.answers if int(answer.split()[1]) < 400}
    assert {*RAW_KINDS, *GUARD_KINDS, *PLANNED_KINDS} - succeeded == set()


def test_without_faults_no_effect_is_tried_twice() -> None:
    """In a calm world every step runs exactly once, whatever the order of things (sim/calm.py),
    but for those of work that somebody halts or cancels."""
    seed = next(seed for seed in range(1, 1_000) if draw_mix(seed).calm)
    outcome = run_seed(seed, TICKS)
    assert outcome.broken is None
    assert outcome.effects > 10 * outcome.repeated
    assert outcome.faults == {}


def test_the_command_prints_the_trace_hash(
    outcomes: list[Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    """`kept sim run` tells of the run in words, with the hash of its trace."""
    assert main(["sim", "run", "--seed", str(SEEDS[0]), "--ticks", str(TICKS)]) == 0
    assert outcomes[0].digest in capsys.readouterr().out


def test_the_history_is_recorded() -> None:
    """Everything answered is in the history, with bounds of the server's clock; faults are marks."""
    outcome, world = play_plan(draw_plan(11, TICKS))
    history = world.recording.history()
    assert outcome.ok
    answered = Counter(
        f"{operation.kind} {operation.answer.status}"
        for operation in history.operations
        if operation.answer is not None and not operation.unheard
    )
    # The ledger hears of an answer in the turn of the loop in which it is recorded.
    assert answered == outcome.answers
    assert all(operation.clock_from is not None for operation in history.operations)
    marks = {fault.kind for fault in history.faults}
    lasting = {"crash", "stopped", "partition", "clock_jump", "stall"} & set(outcome.mix.faults)
    assert marks
    assert {name for name in lasting if outcome.faults.get(name)} <= marks
    assert parse(history.lines()) == history
