"""Each property of a step is false where a hand-made step breaks one of its clauses, true beside it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kept.check.properties import (
    INTERNAL_STEP_PROPERTIES,
    STEP_PROPERTIES,
    StepScope,
    Violation,
)
from kept.check.state import Delta
from kept.protocol.records import Task
from kept.protocol.storage import Changes
from tests.unit.check.cases.cancellation import CANCELLATION_STEPS
from tests.unit.check.cases.consistent_step_promises import CONSISTENT_STEP_PROMISES
from tests.unit.check.cases.consistent_step_tasks import ADMISSIBLE_EDGES, CONSISTENT_STEP_TASKS
from tests.unit.check.cases.duplicates import DUPLICATE_STEPS
from tests.unit.check.cases.monotone import INTERNAL, MONOTONE
from tests.unit.check.cases.preserved import PRESERVED
from tests.unit.check.cases.queues import QUEUES
from tests.unit.check.cases.records import NOW, Step, StepCase, pending, state, waiting
from tests.unit.check.cases.retention import RETENTION
from tests.unit.check.cases.steps import NOTHING

CASES = [
    *CONSISTENT_STEP_PROMISES,
    *CONSISTENT_STEP_TASKS,
    *PRESERVED,
    *MONOTONE,
    *INTERNAL,
    *QUEUES,
    *CANCELLATION_STEPS,
    *DUPLICATE_STEPS,
    *RETENTION,
]


def label(case: StepCase) -> str:
    return f"{case.name}: {case.clause}"


def scope_of(step: Step) -> StepScope:
    delta = Delta.between(step.before, step.after)
    return StepScope(step.now, step.name, step.after, delta, internal=step.internal)


def violations(name: str, scope: StepScope) -> list[Violation]:
    return list((STEP_PROPERTIES | INTERNAL_STEP_PROPERTIES)[name].check(scope))


@pytest.mark.parametrize("case", CASES, ids=label)
def test_a_violator_is_found(case: StepCase) -> None:
    """A step that breaks a clause makes the property of that name false."""
    assert violations(case.name, scope_of(case.bad))


@pytest.mark.parametrize("case", CASES, ids=label)
def test_a_good_sibling_holds_with_its_guard_reached(case: StepCase) -> None:
    """A step that differs in that clause satisfies the property, and not by looking away."""
    scope = scope_of(case.good)
    assert violations(case.name, scope) == []
    assert scope.reached > 0


@pytest.mark.parametrize(("t", "u"), ADMISSIBLE_EDGES)
def test_every_admissible_edge_of_a_task_is_admitted(t: Task, u: Task) -> None:
    """`consistent_task_state_edge_admissible` forbids nothing that the table allows."""
    touched = replace(u, failures=u.failures + 1)
    scope = scope_of(Step(state(t), state(touched)))
    assert violations("consistent_task_state_edge_admissible", scope) == []
    assert scope.reached == 1


def test_a_promise_born_a_second_time_is_a_duplicate() -> None:
    """`preserved_promise_no_duplicate_ids` believes a step that says it made a new record."""
    shadow = state(pending())
    delta = shadow.apply(Changes(promises={"p": pending()}, born_promises={"p"}))
    scope = StepScope(NOW, "promise.create", shadow, delta)
    assert violations("preserved_promise_no_duplicate_ids", scope)


def test_a_late_occurrence_is_judged_at_its_instant() -> None:
    """The catalogue's ‡ at `preserved_no_dead_dispatch`: what is dead now was live at its instant."""
    late = state(pending(tags={"resonate:target": "http://w.test"}, timeout_at=60), waiting())
    name = "preserved_no_dead_dispatch"
    assert violations(name, scope_of(Step(NOTHING, late, "schedule.fire", now=50))) == []
    assert violations(name, scope_of(Step(NOTHING, late, "promise.create", now=NOW)))
