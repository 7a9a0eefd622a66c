"""Each property of a state is false where a hand-made state breaks one of its clauses, true beside it."""

from __future__ import annotations

import pytest

from kept.check.properties import STATE_PROPERTIES, StateScope, Violation
from kept.check.state import Delta, State
from tests.unit.check.cases.cancellation import CANCELLATION_STATES
from tests.unit.check.cases.consistent_state import CONSISTENT_STATE, DEAD_AND_SUSPENDED
from tests.unit.check.cases.duplicates import DUPLICATE_STATES
from tests.unit.check.cases.records import NOW, StateCase
from tests.unit.check.cases.well_formed import WELL_FORMED

CASES = [*WELL_FORMED, *CONSISTENT_STATE, *CANCELLATION_STATES, *DUPLICATE_STATES]


def label(case: StateCase) -> str:
    return f"{case.name}: {case.clause}"


def violations(name: str, scope: StateScope) -> list[Violation]:
    return list(STATE_PROPERTIES[name].check(scope))


@pytest.mark.parametrize("case", CASES, ids=label)
def test_a_violator_is_found_in_the_whole_state(case: StateCase) -> None:
    """A state that breaks a clause makes the property of that name false."""
    assert violations(case.name, StateScope(case.now, case.bad, case.schemes))


@pytest.mark.parametrize("case", CASES, ids=label)
def test_a_violator_is_found_among_what_a_step_touched(case: StateCase) -> None:
    """The same, when the step that made the records is all that is looked at."""
    delta = Delta.between(State(), case.bad)
    scope = StateScope.touched(case.now, case.bad, delta, case.schemes)
    assert violations(case.name, scope)


@pytest.mark.parametrize("case", CASES, ids=label)
def test_a_good_sibling_holds_with_its_guard_reached(case: StateCase) -> None:
    """A state that differs in that clause satisfies the property, and not by looking away."""
    scope = StateScope(case.now, case.good, case.schemes)
    assert violations(case.name, scope) == []
    assert scope.reached > 0


def test_a_suspended_task_whose_promise_is_dead_needs_no_rung() -> None:
    """`consistent_suspended_task_holds_rung` speaks of live promises: a deadline frees the task."""
    name = "consistent_suspended_task_holds_rung"
    assert violations(name, StateScope(NOW, DEAD_AND_SUSPENDED)) == []
    assert violations(name, StateScope(NOW - 1, DEAD_AND_SUSPENDED))
