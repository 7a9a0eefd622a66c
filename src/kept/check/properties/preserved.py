"""What a step must not do, or must leave as it is."""

from __future__ import annotations

from collections.abc import Iterator

from kept.check.properties.departures import is_changed_schedule, is_retained_away
from kept.check.properties.registry import Violation, on_step
from kept.check.properties.scopes import StepScope, is_cleared, is_live, same_value, state_of
from kept.protocol.records import PromiseState, ScheduleRecord, Task, TaskState


@on_step("promises")
def preserved_promise_birth_fields_immutable(scope: StepScope) -> Iterator[Violation]:
    """A promise keeps the param, tags, deadline and creation time that it was born with."""
    for id, p, q in scope.promises:
        if p is not None and q is not None:
            scope.reached += 1
            is_same = (
                p.timeout_at == q.timeout_at
                and p.created_at == q.created_at
                and (p.tags is q.tags or p.tags == q.tags)
                and same_value(p.param, q.param)
            )
            if not is_same:
                yield Violation((id,), f"{p} became {q}")


@on_step("promises")
def preserved_settled_promise_record(scope: StepScope) -> Iterator[Violation]:
    """A settled promise stays, with its state, settlement time and value.

    Departure (B6): retention removes settled promises that nothing names.
    """
    for id, p, q in scope.promises:
        if p is None or p.pending:
            continue
        scope.reached += 1
        if q is None:
            if not is_retained_away(scope, id):
                yield Violation((id,), "the settled promise is gone")
        elif (
            p.state is not q.state
            or p.settled_at != q.settled_at
            or not same_value(p.value, q.value)
        ):
            yield Violation((id,), f"{p} became {q}")


@on_step("tasks")
def preserved_fulfilled_task(scope: StepScope) -> Iterator[Violation]:
    """A fulfilled task stays, fulfilled, at its version, cleared, without resumes.

    Departure (B6): retention removes it with its promise.
    """
    for id, t, u in scope.tasks:
        if state_of(t) is not TaskState.FULFILLED or t is None:
            continue
        scope.reached += 1
        if u is None:
            if not is_retained_away(scope, id):
                yield Violation((id,), "the fulfilled task is gone")
        elif not _is_still_fulfilled(t, u) or scope.b.resumes.count(id):
            yield Violation((id,), f"{t} became {u}")


def _is_still_fulfilled(t: Task, u: Task) -> bool:
    return u.state is TaskState.FULFILLED and u.version == t.version and is_cleared(u)


@on_step("tasks")
def preserved_no_dead_dispatch(scope: StepScope) -> Iterator[Violation]:
    """A task becomes pending, or is born so, only while its promise, if it has one, is live.

    The catalogue's ‡: an occurrence of a schedule is a step of its own whose `now` is its instant,
    because it may be stored when its deadline is past; its timeout is then a further step.
    """
    for id, t, u in scope.tasks:
        if state_of(u) is TaskState.PENDING and state_of(t) is not TaskState.PENDING:
            scope.reached += 1
            promise = scope.b.promises.get(id)
            if promise is not None and not is_live(promise, scope.now):
                yield Violation((id,), f"made pending, its deadline was {promise.timeout_at}")


@on_step("new_executes")
def preserved_execute_only_for_live_task(scope: StepScope) -> Iterator[Violation]:
    """A new execute is sent only while its promise, if there is one, is live."""
    for entry in scope.new_executes:
        scope.reached += 1
        promise = scope.b.promises.get(entry.key.id)
        if promise is not None and not is_live(promise, scope.now):
            yield Violation((entry.key.id,), f"execute for {promise}")


@on_step("promises")
def preserved_promise_state_frozen_once_settled(scope: StepScope) -> Iterator[Violation]:
    """A settled promise stays in its state.

    Departure (B6): retention removes settled promises that nothing names.
    """
    for id, p, q in scope.promises:
        if p is None or p.pending:
            continue
        scope.reached += 1
        if q is None:
            if not is_retained_away(scope, id):
                yield Violation((id,), "the settled promise is gone")
        elif p.state is not q.state:
            yield Violation((id,), f"{p.state.value} became {q.state.value}")


@on_step("promises")
def preserved_promise_settlement_is_one_way(scope: StepScope) -> Iterator[Violation]:
    """A pending promise was pending before, or is new."""
    for id, p, q in scope.promises:
        if q is not None and q.state is PromiseState.PENDING:
            scope.reached += 1
            if p is not None and not p.pending:
                yield Violation((id,), f"{p.state.value} became pending")


@on_step("promises")
def preserved_promise_value_until_settlement(scope: StepScope) -> Iterator[Violation]:
    """A promise stays, and while it is pending its value does not change.

    Departure (B6): retention removes settled promises that nothing names.
    """
    for id, p, q in scope.promises:
        if p is None:
            continue
        scope.reached += 1
        if q is None:
            if not is_retained_away(scope, id):
                yield Violation((id,), "the promise is gone")
        elif q.pending and not same_value(p.value, q.value):
            yield Violation((id,), f"pending, {p.value} became {q.value}")


@on_step("promises")
def preserved_promise_no_duplicate_ids(scope: StepScope) -> Iterator[Violation]:
    """No step makes two promises of one id.

    Our states are keyed, so it would show as a promise under a key that is not its id, or as the
    birth of one that is there already.
    """
    for id, p, q in scope.promises:
        if q is not None:
            scope.reached += 1
            if q.id != id:
                yield Violation((id, q.id), "a promise under a key that is not its id")
            elif p is not None and id in scope.delta.born_promises:
                yield Violation((id,), "born a second time")


@on_step("tasks")
def preserved_task_acquisition_only_from_pending(scope: StepScope) -> Iterator[Violation]:
    """An acquired task was pending or acquired before, or is new."""
    for id, t, u in scope.tasks:
        if state_of(u) is TaskState.ACQUIRED:
            scope.reached += 1
            if state_of(t) not in (TaskState.PENDING, TaskState.ACQUIRED, None):
                yield Violation((id,), f"{state_of(t)} became acquired")


@on_step("tasks")
def preserved_task_suspension_only_from_acquired(scope: StepScope) -> Iterator[Violation]:
    """A suspended task was acquired or suspended before."""
    for id, t, u in scope.tasks:
        if state_of(u) is TaskState.SUSPENDED:
            scope.reached += 1
            if state_of(t) not in (TaskState.ACQUIRED, TaskState.SUSPENDED):
                yield Violation((id,), f"{state_of(t)} became suspended")


@on_step("tasks")
def preserved_task_halted_only_reenters_via_pending(scope: StepScope) -> Iterator[Violation]:
    """A halted task stays, and is then halted, pending or fulfilled."""
    for id, t, u in scope.tasks:
        if state_of(t) is TaskState.HALTED:
            scope.reached += 1
            if state_of(u) not in (TaskState.HALTED, TaskState.PENDING, TaskState.FULFILLED):
                yield Violation((id,), f"halted became {state_of(u)}")


@on_step("schedules")
def preserved_schedule_birth_fields_immutable(scope: StepScope) -> Iterator[Violation]:
    """A schedule keeps its cron, its promise's id, timeout, param and tags, and its creation time.

    Departure (B10): `schedule.put` may change all but the creation time.
    """
    for id, before, after in scope.schedules:
        if before is not None and after is not None:
            scope.reached += 1
            if _same_birth(before, after) or is_changed_schedule(scope, before, after):
                continue
            yield Violation((id,), f"{before} became {after}")


def _same_birth(before: ScheduleRecord, after: ScheduleRecord) -> bool:
    return (
        before.cron == after.cron
        and before.promise_id == after.promise_id
        and before.promise_timeout == after.promise_timeout
        and before.promise_tags == after.promise_tags
        and before.created_at == after.created_at
        and same_value(before.promise_param, after.promise_param)
    )


@on_step("tasks")
def preserved_task_lease_holder_stable(scope: StepScope) -> Iterator[Violation]:
    """A lease keeps its holder and its length as long as its version."""
    for id, t, u in scope.tasks:
        if t is None or u is None or t.version != u.version:
            continue
        if t.state is TaskState.ACQUIRED and u.state is TaskState.ACQUIRED:
            scope.reached += 1
            if t.pid != u.pid or t.ttl != u.ttl:
                yield Violation((id,), f"{t.pid} {t.ttl} became {u.pid} {u.ttl}")


@on_step("promises")
def preserved_timedout_is_server_owned(scope: StepScope) -> Iterator[Violation]:
    """A pending promise is timed out only when its deadline has come, and then at its deadline."""
    for id, p, q in scope.promises:
        if p is None or q is None or not p.pending:
            continue
        if q.state is PromiseState.REJECTED_TIMEDOUT:
            scope.reached += 1
            if p.timeout_at > scope.now or q.settled_at != p.timeout_at:
                yield Violation((id,), f"timed out at {q.settled_at}, deadline {p.timeout_at}")
