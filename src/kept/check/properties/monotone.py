"""What moves one way only."""

from __future__ import annotations

from collections.abc import Iterator

from kept.check.properties.departures import is_retained_away, may_be_sent_off
from kept.check.properties.registry import Violation, on_step
from kept.check.properties.scopes import StepScope
from kept.check.state import EdgeDelta
from kept.protocol.records import TaskState


@on_step("promises")
def monotone_promise_set_grows(scope: StepScope) -> Iterator[Violation]:
    """No promise goes away.

    Departure (B6): retention removes settled promises that nothing names.
    """
    for id, p, q in scope.promises:
        if p is not None:
            scope.reached += 1
            if q is None and not is_retained_away(scope, id):
                yield Violation((id,), "the promise is gone")


@on_step("tasks")
def monotone_task_set_grows(scope: StepScope) -> Iterator[Violation]:
    """No task goes away.

    Departure (B6): retention removes fulfilled tasks with their promises.
    """
    for id, t, u in scope.tasks:
        if t is not None:
            scope.reached += 1
            if u is None and not is_retained_away(scope, id):
                yield Violation((id,), "the task is gone")


@on_step("tasks")
def monotone_task_version_increases_only_on_acquisition(scope: StepScope) -> Iterator[Violation]:
    """A task's version rises by exactly one when it goes from pending to acquired, and never moves
    otherwise, so that a fence is predictable."""
    for id, t, u in scope.tasks:
        if t is not None and u is not None:
            scope.reached += 1
            is_acquisition = t.state is TaskState.PENDING and u.state is TaskState.ACQUIRED
            if u.version != t.version + is_acquisition:
                why = f"{t.state.value} at {t.version} became {u.state.value} at {u.version}"
                yield Violation((id,), why)


@on_step("callbacks")
def monotone_promise_callbacks_grow_while_pending(scope: StepScope) -> Iterator[Violation]:
    """A pending promise loses no callback, and is born with none."""
    return _grow_while_pending(scope, scope.callbacks)


@on_step("callbacks")
def monotone_promise_callbacks_shrink_once_settled(scope: StepScope) -> Iterator[Violation]:
    """A settled promise gains no callback, and is born with none."""
    return _shrink_once_settled(scope, scope.callbacks)


@on_step("listeners")
def monotone_promise_listeners_grow_while_pending(scope: StepScope) -> Iterator[Violation]:
    """A pending promise loses no listener, and is born with none."""
    return _grow_while_pending(scope, scope.listeners)


@on_step("listeners")
def monotone_promise_listeners_shrink_once_settled(scope: StepScope) -> Iterator[Violation]:
    """A settled promise gains no listener, and is born with none."""
    return _shrink_once_settled(scope, scope.listeners)


def _grow_while_pending(scope: StepScope, edges: EdgeDelta) -> Iterator[Violation]:
    for of, to in edges.added:
        q = scope.b.promises.get(of)
        if q is not None and q.pending:
            scope.reached += 1
            if scope.promise_before(of) is None:
                yield Violation((of, to), "born pending, with an edge")
    for of, to in edges.removed:
        q = scope.b.promises.get(of)
        if q is not None and q.pending:
            scope.reached += 1
            yield Violation((of, to), "pending, and an edge is gone")


def _shrink_once_settled(scope: StepScope, edges: EdgeDelta) -> Iterator[Violation]:
    for of, to in edges.added:
        q = scope.b.promises.get(of)
        if q is not None and not q.pending:
            scope.reached += 1
            yield Violation((of, to), "settled, and an edge is new")
    for of, _ in edges.removed:
        q = scope.b.promises.get(of)
        scope.reached += q is not None and not q.pending


@on_step("messages")
def monotone_outbox_keys_never_disappear(scope: StepScope) -> Iterator[Violation]:
    """No message goes away; it may be replaced under its key.

    Departures (A6): a delivered message leaves; so does an execute that is about to be sent when
    its task no longer waits at that version. The step does nothing else.
    """
    for key, before, after in scope.messages:
        if before is not None:
            scope.reached += 1
            if after is None and not may_be_sent_off(scope, before):
                yield Violation((key.id, before.address), f"the {key.kind.value} is gone")


@on_step("tasks")
def monotone_task_resumes_grow_or_clear(scope: StepScope) -> Iterator[Violation]:
    """A task's resumes grow, or all of them go."""
    lost = {edge.of for edge in scope.delta.resumes.removed}
    for id, t, u in scope.tasks:
        if t is not None and u is not None and scope.resumes_before(id):
            scope.reached += 1
            if id in lost and scope.b.resumes.count(id):
                yield Violation((id,), "some resumes are gone, and some are there")


@on_step("tasks")
def monotone_task_retry_rearm_advances(scope: StepScope) -> Iterator[Violation]:
    """A pending task's next try moves into the future only."""
    for id, t, u in scope.tasks:
        if t is None or u is None or t.retry_at == u.retry_at:
            continue
        if t.state is TaskState.PENDING and u.state is TaskState.PENDING:
            scope.reached += 1
            if u.retry_at is None or u.retry_at <= scope.now:
                yield Violation((id,), f"due at {t.retry_at}, moved to {u.retry_at}")
