"""What a background step must not do, though some requests rightly do it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kept.check.properties.departures import (
    is_canceled,
    is_exhausted,
    is_exhausted_rejection,
    is_replayed,
)
from kept.check.properties.registry import Violation, on_internal_step
from kept.check.properties.scopes import StepScope
from kept.protocol.records import Promise, PromiseState, TaskState

ADMISSIBLE_INTERNAL: Final[dict[TaskState, frozenset[TaskState]]] = {
    TaskState.PENDING: frozenset({TaskState.FULFILLED}),
    TaskState.ACQUIRED: frozenset({TaskState.PENDING, TaskState.FULFILLED}),
    TaskState.SUSPENDED: frozenset({TaskState.PENDING, TaskState.FULFILLED}),
    TaskState.HALTED: frozenset({TaskState.FULFILLED}),
    TaskState.FULFILLED: frozenset(),
}


@on_internal_step("tasks")
def consistent_task_state_edge_internal_admissible(scope: StepScope) -> Iterator[Violation]:
    """The background makes tasks pending or fulfilled, never acquired, suspended or halted, and
    leaves halted ones alone until they are fulfilled.

    Departures (B2, B4): the expired lease of a last attempt may halt the task, with a dead letter;
    a bulk replay continues halted ones.
    """
    for id, t, u in scope.tasks:
        if t is None or u is None:
            continue
        scope.reached += 1
        if t.state is u.state or u.state in ADMISSIBLE_INTERNAL[t.state]:
            continue
        is_given_up = u.state is TaskState.HALTED and is_exhausted(scope, t)
        if not is_given_up and not is_replayed(scope, t, u):
            yield Violation((id,), f"{t.state.value} became {u.state.value}")


@on_internal_step("promises")
def consistent_promise_state_edge_internal_admissible(scope: StepScope) -> Iterator[Violation]:
    """The background settles a pending promise only as its deadline does.

    Departures (B2, B3): the expired lease of a last attempt may reject it, with a dead letter; a
    cancellation that spreads may cancel it.
    """
    for id, p, q in scope.promises:
        if p is None or q is None:
            continue
        scope.reached += 1
        if p.state is q.state or _is_verdict(p, q):
            continue
        if not is_exhausted_rejection(scope, q) and not is_canceled(scope, q):
            yield Violation((id,), f"{p.state.value} became {q.state.value}")


def _is_verdict(p: Promise, q: Promise) -> bool:
    if not p.pending:
        return False
    if q.state is PromiseState.REJECTED_TIMEDOUT:
        return True
    return p.is_timer and q.state is PromiseState.RESOLVED
