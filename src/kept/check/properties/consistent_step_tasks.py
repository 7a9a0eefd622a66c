"""How tasks, their leases and their promises move together in one step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kept.check.properties.departures import (
    is_backoff,
    is_cancellation,
    is_debounce,
)
from kept.check.properties.registry import Violation, on_step
from kept.check.properties.scopes import (
    StepScope,
    has_no_lease,
    has_whole_lease,
    is_cleared,
    state_of,
)
from kept.check.state import NO_ENDS
from kept.protocol.records import Task, TaskState

PENDING: Final = TaskState.PENDING
ACQUIRED: Final = TaskState.ACQUIRED
SUSPENDED: Final = TaskState.SUSPENDED
HALTED: Final = TaskState.HALTED
FULFILLED: Final = TaskState.FULFILLED

# To which other states a task may move; whoever causes it.
ADMISSIBLE: Final[dict[TaskState, frozenset[TaskState]]] = {
    PENDING: frozenset({ACQUIRED, HALTED, FULFILLED}),
    ACQUIRED: frozenset({PENDING, SUSPENDED, HALTED, FULFILLED}),
    SUSPENDED: frozenset({PENDING, HALTED, FULFILLED}),
    HALTED: frozenset({PENDING, FULFILLED}),
    FULFILLED: frozenset(),
}


@on_step("tasks")
def consistent_task_state_edge_admissible(scope: StepScope) -> Iterator[Violation]:
    """A task keeps its state or takes one of those that may follow it."""
    for id, t, u in scope.tasks:
        if t is not None and u is not None:
            scope.reached += 1
            if t.state is not u.state and u.state not in ADMISSIBLE[t.state]:
                yield Violation((id,), f"{t.state.value} became {u.state.value}")


@on_step("tasks")
def consistent_task_fulfilment_needs_settlement(scope: StepScope) -> Iterator[Violation]:
    """A task is fulfilled by the step that settles its promise, and by no other."""
    for id, t, u in scope.tasks:
        if t is not None and u is not None and _enters(FULFILLED, t, u):
            scope.reached += 1
            p, q = scope.promise_before(id), scope.b.promises.get(id)
            if p is None or q is None or not p.pending or q.pending:
                yield Violation((id,), "fulfilled without a settlement")


@on_step("tasks")
def consistent_wake_follows_callback_consumption(scope: StepScope) -> Iterator[Violation]:
    """A suspended task becomes pending because a promise dropped its callback and stands among the
    resumes now.

    Departure (B3): a cancel request wakes it too.
    """
    for id, t, u in scope.tasks:
        if state_of(t) is SUSPENDED and state_of(u) is PENDING:
            scope.reached += 1
            woken = any(
                to == id and of in scope.b.promises and (id, of) in scope.b.resumes
                for of, to in scope.callbacks_removed
            )
            if not woken and not is_cancellation(scope):
                yield Violation((id,), "woken, and no callback was dropped for it")


@on_step("tasks")
def consistent_suspension_registers_callback(scope: StepScope) -> Iterator[Violation]:
    """A task that becomes suspended stands among the callbacks of a pending promise.

    The catalogue's ‡: not necessarily since this step, because the callback may have been there
    before (registered by a request, or by an earlier suspend).
    """
    for id, t, u in scope.tasks:
        if state_of(u) is SUSPENDED and state_of(t) is not SUSPENDED:
            scope.reached += 1
            awaited = scope.b.callbacks.back.get(id, NO_ENDS)
            promises = (scope.b.promises.get(of) for of in awaited)
            if not any(q is not None and q.pending for q in promises):
                yield Violation((id,), "suspended, and no pending promise will wake it")


@on_step("everything")
def consistent_task_birth_couples_promise_birth(scope: StepScope) -> Iterator[Violation]:
    """A task is born with its promise, which has a target, and is settled exactly if the task is
    born fulfilled. It is born pending or fulfilled at version 0, or acquired at version 1 or more.
    A promise with a target is born with a task."""
    for id, t, u in scope.tasks:
        if t is None and u is not None:
            scope.reached += 1
            why = _birth_fault(scope, u)
            if why is not None:
                yield Violation((id,), why)
    for id, p, q in scope.promises:
        if p is None and q is not None and q.target is not None:
            scope.reached += 1
            if id not in scope.b.tasks:
                yield Violation((id,), "born with a target and without a task")


def _birth_fault(scope: StepScope, u: Task) -> str | None:
    q = scope.b.promises.get(u.id)
    if q is None or scope.promise_before(u.id) is not None:
        return "born without its promise"
    if q.target is None:
        return "born for a promise without a target"
    if q.pending is (u.state is FULFILLED):
        return f"born {u.state.value}, its promise {q.state.value}"
    if u.state in (PENDING, FULFILLED):
        return None if u.version == 0 else f"born {u.state.value} at version {u.version}"
    if u.state is ACQUIRED and u.version >= 1:
        return None
    return f"born {u.state.value} at version {u.version}"


@on_step("tasks")
def consistent_task_birth_state(scope: StepScope) -> Iterator[Violation]:
    """A new task has no resumes; and is pending with a next try and no lease, or fulfilled and
    cleared, or acquired with a version, a whole lease and no next try."""
    for id, t, u in scope.tasks:
        if t is None and u is not None:
            scope.reached += 1
            if scope.b.resumes.count(id) or not _is_born_well(u):
                yield Violation((id,), f"born as {u}")


def _is_born_well(u: Task) -> bool:
    if u.state is PENDING:
        return u.retry_at is not None and has_no_lease(u)
    if u.state is FULFILLED:
        return is_cleared(u)
    if u.state is ACQUIRED:
        return u.version >= 1 and has_whole_lease(u) and u.retry_at is None
    return False


@on_step("tasks")
def consistent_task_lease_released_atomically(scope: StepScope) -> Iterator[Violation]:
    """A task that is no longer acquired has lost its whole lease and kept its version."""
    for id, t, u in scope.tasks:
        if t is not None and u is not None and _enters(ACQUIRED, u, t):
            scope.reached += 1
            if not has_no_lease(u) or u.version != t.version:
                why = f"released from version {t.version}, now {u.version} with {u.pid}"
                yield Violation((id,), why)


@on_step("tasks")
def consistent_task_lease_fields_move_together(scope: StepScope) -> Iterator[Violation]:
    """A lease is unchanged; or taken, whole; or given up, whole; or extended by the same holder for
    the same length."""
    for id, t, u in scope.tasks:
        if t is not None and u is not None and not _same_lease(t, u):
            scope.reached += 1
            if not _lease_moves_well(t, u):
                why = f"{t.pid} {t.ttl} {t.expires_at} became {u.pid} {u.ttl} {u.expires_at}"
                yield Violation((id,), why)


def _same_lease(t: Task, u: Task) -> bool:
    return t.pid == u.pid and t.ttl == u.ttl and t.expires_at == u.expires_at


def _lease_moves_well(t: Task, u: Task) -> bool:
    if t.state is ACQUIRED and u.state is ACQUIRED:
        return t.pid == u.pid and t.ttl == u.ttl
    if u.state is ACQUIRED:
        return has_whole_lease(u)
    return t.state is ACQUIRED and has_no_lease(u)


@on_step("tasks")
def consistent_task_resumes_cleared_only_on_dispatch_or_park(
    scope: StepScope,
) -> Iterator[Violation]:
    """A task that loses all its resumes is acquired, suspended or fulfilled."""
    for id, t, u in scope.tasks:
        if t is not None and u is not None and not scope.b.resumes.count(id):
            if not scope.resumes_before(id):
                continue
            scope.reached += 1
            if u.state is PENDING or u.state is HALTED:
                yield Violation((id,), f"lost its resumes and is {u.state.value}")


@on_step("tasks")
def consistent_task_acquisition_is_atomic(scope: StepScope) -> Iterator[Violation]:
    """A task that becomes acquired was pending, rises in version, has a holder, a length, a lease
    of that length from now, no next try and no resumes."""
    for id, t, u in scope.tasks:
        if t is not None and u is not None and _enters(ACQUIRED, t, u):
            scope.reached += 1
            is_whole = (
                t.state is PENDING
                and u.version > t.version
                and u.pid is not None
                and u.ttl is not None
                and u.expires_at == scope.now + u.ttl
                and u.retry_at is None
                and not scope.b.resumes.count(id)
            )
            if not is_whole:
                yield Violation((id,), f"{t} was acquired as {u}")


@on_step("tasks")
def consistent_task_lease_deadline_is_now_plus_ttl(scope: StepScope) -> Iterator[Violation]:
    """A lease ends its length from now, or is untouched: same end, same length, same state."""
    for id, t, u in scope.tasks:
        if u is not None and u.expires_at is not None:
            scope.reached += 1
            is_fresh = u.ttl is not None and u.expires_at == scope.now + u.ttl
            is_kept = t is not None and (t.expires_at, t.ttl, t.state) == (
                u.expires_at,
                u.ttl,
                u.state,
            )
            if not is_fresh and not is_kept:
                yield Violation((id,), f"lease until {u.expires_at}, ttl {u.ttl}")


@on_step("tasks")
def consistent_task_pending_entry_arms_retry(scope: StepScope) -> Iterator[Violation]:
    """A task that becomes pending is due now.

    Departure (B2): after a nack, and after the expired and counted lease of a queued task, it is
    due after its backoff, never before now.
    """
    for id, t, u in scope.tasks:
        if t is not None and u is not None and _enters(PENDING, t, u):
            scope.reached += 1
            if u.retry_at != scope.now and not is_backoff(scope, t, u):
                yield Violation((id,), f"became pending, due at {u.retry_at}")


@on_step("tasks")
def consistent_task_retry_rearm_only_when_due(scope: StepScope) -> Iterator[Violation]:
    """The next try of a pending task is moved only when it has come.

    Departure (B4): a create with the same debounce key postpones the waiting task.
    """
    for id, t, u in scope.tasks:
        if t is not None and u is not None and _rearmed(t, u):
            scope.reached += 1
            is_due = t.retry_at is not None and t.retry_at <= scope.now
            if not is_due and not is_debounce(scope, t, u):
                yield Violation((id,), f"due at {t.retry_at}, moved to {u.retry_at}")


@on_step("tasks")
def consistent_task_wake_records_resume(scope: StepScope) -> Iterator[Violation]:
    """A suspended task that becomes pending has a resume, is due now and keeps its version.

    Departure (B3): woken by a cancel request it may have no resume.
    """
    for id, t, u in scope.tasks:
        if t is not None and u is not None and t.state is SUSPENDED and u.state is PENDING:
            scope.reached += 1
            if not scope.b.resumes.count(id) and not is_cancellation(scope):
                yield Violation((id,), "woken without a resume")
            elif u.retry_at != scope.now or u.version != t.version:
                why = f"woken, due at {u.retry_at}, version {t.version} became {u.version}"
                yield Violation((id,), why)


def _enters(state: TaskState, t: Task, u: Task) -> bool:
    return u.state is state and t.state is not state


def _rearmed(t: Task, u: Task) -> bool:
    return t.state is PENDING and u.state is PENDING and t.retry_at != u.retry_at
