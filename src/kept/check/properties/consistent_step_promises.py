"""How promises, their edges and the messages move together in one step."""

from __future__ import annotations

from collections.abc import Iterator

from kept.check.properties.departures import is_retained_away
from kept.check.properties.registry import Violation, on_step
from kept.check.properties.scopes import StepScope, is_empty, same_value
from kept.protocol.records import MessageKey, MessageKind, Promise, PromiseState, TaskState


@on_step("promises")
def consistent_promise_settled_at_moves_with_state(scope: StepScope) -> Iterator[Violation]:
    """A promise stays, and its settlement time changes exactly when its state does.

    Departure (B6): retention removes settled promises that nothing names.
    """
    for id, p, q in scope.promises:
        if p is None:
            continue
        scope.reached += 1
        if q is None:
            if not is_retained_away(scope, id):
                yield Violation((id,), "the promise is gone")
        elif (p.settled_at != q.settled_at) is not (p.state is not q.state):
            why = f"{p.state.value} at {p.settled_at} became {q.state.value} at {q.settled_at}"
            yield Violation((id,), why)


@on_step("promises")
def consistent_promise_state_edge_admissible(scope: StepScope) -> Iterator[Violation]:
    """Only a pending promise changes its state."""
    for id, p, q in scope.promises:
        if p is not None and q is not None:
            scope.reached += 1
            if p.state is not q.state and not p.pending:
                yield Violation((id,), f"{p.state.value} became {q.state.value}")


@on_step("promises")
def consistent_settlement_fulfils_task(scope: StepScope) -> Iterator[Violation]:
    """When a promise is settled, its task, if it has one, is fulfilled in the same step."""
    for id, p, q in scope.promises:
        if p is not None and q is not None and p.pending and not q.pending:
            scope.reached += 1
            task = scope.b.tasks.get(id)
            if task is not None and task.state is not TaskState.FULFILLED:
                yield Violation((id,), f"promise {q.state.value}, task {task.state.value}")


@on_step("promises")
def consistent_promise_settlement_stamp(scope: StepScope) -> Iterator[Violation]:
    """A pending promise stays, and is still pending; or a client settled it, now and before its
    deadline; or its deadline did, at the deadline, which has come, with the deadline's verdict and
    the value untouched."""
    for id, p, q in scope.promises:
        if p is None or not p.pending:
            continue
        scope.reached += 1
        if q is None:
            yield Violation((id,), "the pending promise is gone")
        elif not q.pending and not _by_client(scope.now, q) and not _by_deadline(scope.now, p, q):
            why = f"{q.state.value} at {q.settled_at}, deadline {q.timeout_at}, {q.value}"
            yield Violation((id,), why)


def _by_client(now: int, q: Promise) -> bool:
    return q.settled_at == now < q.timeout_at and q.state is not PromiseState.REJECTED_TIMEDOUT


def _by_deadline(now: int, p: Promise, q: Promise) -> bool:
    return (
        q.settled_at == q.timeout_at <= now
        and q.state is q.verdict
        and same_value(p.value, q.value)
    )


@on_step("promises")
def consistent_new_promise_born_clean(scope: StepScope) -> Iterator[Violation]:
    """A new promise has no callbacks, no listeners, no value, and was not created in the future. It
    is pending, not settled, and before its deadline; or it was born past its deadline: created and
    settled at the deadline, which has come, with the deadline's verdict."""
    for id, p, q in scope.promises:
        if p is None and q is not None:
            scope.reached += 1
            if id in scope.b.callbacks.at or id in scope.b.listeners.at:
                yield Violation((id,), "born with callbacks or listeners")
            elif not is_empty(q.value):
                yield Violation((id,), f"born with {q.value}")
            elif q.created_at > scope.now:
                yield Violation((id,), f"born at {q.created_at}")
            elif not _born_pending(q) and not _born_dead(scope.now, q):
                why = (
                    f"born {q.state.value}, created at {q.created_at}, "
                    f"settled at {q.settled_at}, deadline {q.timeout_at}"
                )
                yield Violation((id,), why)


def _born_pending(q: Promise) -> bool:
    return q.pending and q.settled_at is None and q.created_at < q.timeout_at


def _born_dead(now: int, q: Promise) -> bool:
    return q.created_at == q.settled_at == q.timeout_at <= now and q.state is q.verdict


@on_step("everything")
def consistent_obligation_discharge_requires_settled(scope: StepScope) -> Iterator[Violation]:
    """Only a settled promise loses callbacks or listeners."""
    for edges in (scope.callbacks_removed, scope.listeners_removed):
        for of, to in edges:
            q = scope.b.promises.get(of)
            if q is not None and scope.promise_before(of) is not None:
                scope.reached += 1
                if q.pending:
                    yield Violation((of, to), "taken from a promise that is still pending")


@on_step("callbacks_removed")
def consistent_callback_consumption_resumes_awaiter(scope: StepScope) -> Iterator[Violation]:
    """When a callback is dropped, the awaiting task, if there is one, has the awaited promise among
    its resumes or is fulfilled."""
    for of, to in scope.callbacks_removed:
        if of in scope.b.promises and scope.promise_before(of) is not None:
            scope.reached += 1
            task = scope.b.tasks.get(to)
            if task is None or task.state is TaskState.FULFILLED:
                continue
            if (to, of) not in scope.b.resumes:
                yield Violation((of, to), "the callback is dropped, the awaiter not resumed")


@on_step("listeners_removed")
def consistent_listener_consumption_enqueues_unblock(scope: StepScope) -> Iterator[Violation]:
    """When a listener is dropped, the outbox has one unblock of that promise to that address, and
    its record is not pending."""
    for of, to in scope.listeners_removed:
        q = scope.b.promises.get(of)
        if q is not None and scope.promise_before(of) is not None:
            scope.reached += 1
            key = MessageKey(MessageKind.UNBLOCK, of, to)
            if key not in scope.b.outbox or q.pending:
                yield Violation((of, to), "the listener is dropped, and no unblock is on its way")


@on_step("new_executes")
def consistent_new_execute_matches_task_and_target(scope: StepScope) -> Iterator[Violation]:
    """A new execute names the version that its task has, and goes to its promise's target (the
    empty address if it has none)."""
    for entry in scope.new_executes:
        scope.reached += 1
        id = entry.key.id
        task, promise = scope.b.tasks.get(id), scope.b.promises.get(id)
        if task is None or task.version != entry.version:
            yield Violation((id,), f"execute at version {entry.version} for {task}")
        elif promise is None or entry.address != (promise.target or ""):
            yield Violation((id,), f"execute to {entry.address} for {promise}")


@on_step("new_unblocks")
def consistent_new_unblock_carries_stored_record(scope: StepScope) -> Iterator[Violation]:
    """A new unblock tells what is stored: a settled promise, with its verdict and value.

    Ours carries no copy but is sent with the stored promise, so all its fields are equal; what is
    left to check is that the promise is there, is not pending and knows when it was settled.
    """
    for entry in scope.new_unblocks:
        scope.reached += 1
        promise = scope.b.promises.get(entry.key.id)
        if promise is None or promise.pending or promise.settled_at is None:
            yield Violation((entry.key.id, entry.address), f"an unblock that would carry {promise}")


@on_step("new_unblocks")
def consistent_new_unblock_discharges_its_listener(scope: StepScope) -> Iterator[Violation]:
    """A new unblock takes the place of the listener that it is for."""
    for entry in scope.new_unblocks:
        scope.reached += 1
        id = entry.key.id
        # An edge that is in the delta's list stood before, and its promise too.
        if scope.promise_before(id) is None or (id, entry.address) not in scope.listeners_removed:
            yield Violation((id, entry.address), "an unblock for which no listener was dropped")
