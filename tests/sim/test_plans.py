"""A plan is all that a run follows from; one that fails gets smaller, and its page tells what broke."""

from __future__ import annotations

import gc
import itertools
import json
import logging
from pathlib import Path

import pytest

from kept.machine import background
from kept.machine.step import Step
from kept.sim.breakage import Broken
from kept.sim.evidence import failure_page
from kept.sim.mix import draw_mix
from kept.sim.plan import Plan, PlanError, draw_plan, in_words, load_plan, save_plan
from kept.sim.run import play_plan
from kept.sim.shrink import Shrinker
from kept.sim.world import World

TICKS = 25
DROPPED = "consistent_callback_consumption_resumes_awaiter"


@pytest.fixture
def _dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A callback is dropped without waking its awaiter: broken by any workflow with a child."""

    def sleepy(step: Step, id: str, awaiter: str) -> None:
        step.records.remove_callback(id, awaiter)

    monkeypatch.setattr(background, "drain_callback", sleepy)


def failing_plan(first: int = 1) -> Plan:
    """The first seed from here on that a dropped callback breaks."""
    plans = (draw_plan(seed, TICKS) for seed in range(first, first + 20))
    return next(
        plan
        for plan in plans
        if (breakage := play_plan(plan).outcome.breakage) is not None and breakage.oracle == DROPPED
    )


def shrinker(plan: Plan, runs: int = 200) -> Shrinker:
    """One whose clock is the count of its questions: it ends by the number of its runs."""
    return Shrinker(plan, itertools.count().__next__, runs=runs, seconds=10_000)


def test_a_plan_is_written_and_read(tmp_path: Path) -> None:
    """A plan from its file is the same plan, and says that it belongs to its code."""
    path = tmp_path / "plan.json"
    whole = draw_plan(5, 30)
    smaller = whole.replace(
        strikes={"lost": (2, 5)}, actions=("client-1-1#3",), kinds=(), programs=("job",)
    )
    for plan in (whole, smaller):
        save_plan(plan, path)
        assert load_plan(path) == plan
        assert plan.code in path.read_text()
    assert "belongs to the code" in path.read_text()
    assert (whole.whole, smaller.whole) == (True, False)


@pytest.mark.parametrize("text", ["", "{}", '{"seed": 1}', "[1]"])
def test_what_is_no_plan_is_refused(text: str, tmp_path: Path) -> None:
    """A file that is something else is an error of its own kind."""
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(PlanError):
        load_plan(path)


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("ticks", 0, "ticks is 0"),
        ("ticks", -5, "ticks is -5"),
        ("servers", 0, "servers is 0"),
        ("lease_seconds", -1, "lease_seconds is -1"),
        ("store", "paper", "no store 'paper'"),
        ("faults", {"misspelt": 1.0}, "no fault 'misspelt'"),
        ("colour", 1, "colour"),
    ],
)
def test_a_plan_that_nobody_can_play_is_refused(
    field: str, value: object, complaint: str, tmp_path: Path
) -> None:
    """One edited by hand says what is wrong with it, and is not played as something else."""
    path = tmp_path / "plan.json"
    save_plan(draw_plan(1, 2), path)
    plan = json.loads(path.read_text())
    (plan if field in plan else plan["mix"])[field] = value
    path.write_text(json.dumps(plan))
    with pytest.raises(PlanError, match=complaint):
        load_plan(path)


def test_a_run_that_is_interrupted_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle: the processes end as if they were killed, and nobody is told of it."""

    async def interrupted(self: World) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(World, "settle", interrupted)
    with pytest.raises(KeyboardInterrupt):
        play_plan(draw_plan(3, 5))
    assert logging.getLogger("kept").propagate
    gc.collect()


def test_a_plan_of_another_format_is_refused(tmp_path: Path) -> None:
    """A later format may mean something else."""
    path = tmp_path / "plan.json"
    save_plan(draw_plan(1, 2).replace(format=2), path)
    with pytest.raises(PlanError, match="format 2"):
        load_plan(path)


def test_a_plan_from_its_file_plays_the_same(tmp_path: Path) -> None:
    """The trace is the seed's, to the byte."""
    plan = draw_plan(4, TICKS)
    save_plan(plan, tmp_path / "plan.json")
    first = play_plan(plan).outcome
    assert first.broken is None
    assert play_plan(load_plan(tmp_path / "plan.json")).outcome.digest == first.digest


def test_what_a_plan_takes_away_does_not_happen() -> None:
    """Only its strikes strike, and clients do only its actions, of its kinds and programs."""
    plan = draw_plan(3, TICKS)
    played = play_plan(plan)
    struck, actions = played.world.strikes.struck, played.world.actions
    fault = max(struck, key=lambda name: len(struck[name]))
    assert len(struck[fault]) > 1
    few = tuple(actions[:10])
    kinds = ("promise.create", "task.claim")
    smaller = plan.replace(strikes={fault: (1,)}, actions=few, kinds=kinds, programs=("job",))
    again = play_plan(smaller)
    assert again.outcome.broken is None
    assert again.world.strikes.struck.get(fault, []) in ([], [1])
    assert set(again.world.actions) <= set(few)
    assert {goal.program.function for goal in again.world.goals} <= {"job"}


@pytest.mark.usefixtures("_dropped")
def test_a_failing_plan_gets_small() -> None:
    """One workflow on one server is left of a brutal seed, and the same property breaks."""
    plan = failing_plan(38)
    one = shrinker(plan)
    smaller = one.shrink()
    assert one.finished
    assert one.breakage is not None
    assert one.breakage.oracle == DROPPED
    assert play_plan(smaller).outcome.breakage == one.breakage
    assert smaller.actions is not None
    assert (len(smaller.actions), smaller.mix.faults, smaller.mix.servers) == (1, {}, 1)
    assert smaller.ticks < plan.ticks
    assert smaller.kinds == ()
    assert smaller.programs is not None
    assert len(smaller.programs) == 1
    words = dict(in_words(smaller))
    assert words["faults"] == "none"
    assert words["clients do"].startswith("1 action:")


@pytest.mark.usefixtures("_dropped")
def test_a_budget_is_kept() -> None:
    """When the runs are spent, what has been found so far is the result, and fails."""
    one = shrinker(failing_plan(), runs=3)
    smaller = one.shrink()
    assert (one.runs, one.finished) == (3, False)
    assert play_plan(smaller).outcome.breakage == one.breakage


def test_a_strike_that_is_needed_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one strike of many does it, that one is left, under its number, and no other fault is.
    (Of the others of its kind some may be left: without them it might not come to a third.)"""
    look = World.look

    def looking(self: World) -> None:
        look(self)
        if 3 in self.strikes.struck.get("commit_fails", ()):
            raise Broken("a made-up oracle", "the third commit that fails")

    monkeypatch.setattr(World, "look", looking)
    faults = {"lost": 0.03, "commit_fails": 0.3, "stall": 6.0}
    plan = draw_plan(3, 6, draw_mix(3).replace(faults=faults))
    smaller = shrinker(plan, runs=80).shrink()
    assert list(smaller.mix.faults) == ["commit_fails"]
    assert 3 in smaller.strikes["commit_fails"]
    assert len(smaller.strikes["commit_fails"]) <= 3
    assert dict(in_words(smaller))["faults"].startswith("commit_fails (only strike")


def test_a_plan_that_holds_is_left_as_it_is() -> None:
    """There is nothing to shrink, and one run tells."""
    plan = draw_plan(2, 5)
    one = shrinker(plan)
    assert (one.shrink(), one.breakage, one.runs) == (plan, None, 1)


@pytest.mark.usefixtures("_dropped")
def test_the_page_of_a_failure() -> None:
    """The page names what broke, the records, the processes, the plan and the command; it loads nothing."""
    plan = failing_plan()
    page = failure_page(plan, "kept sim run --seed 1 --ticks 25")
    assert DROPPED in page
    assert "kept sim run --seed 1 --ticks 25" in page
    for part in (
        '"process":"server-1","incarnation":1',
        '"before":{',
        '"step":"callback"',
        '"plan":[',
    ):
        assert part in page, part
    assert not any(word in page for word in ("src=", "href=", "url("))


def test_the_page_of_a_run_that_held() -> None:
    """It can be drawn as well, and claims nothing."""
    page = failure_page(draw_plan(2, 5), "kept sim run --seed 2 --ticks 5")
    assert '"breakage":null' in page
