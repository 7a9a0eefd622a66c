"""What the records of a state satisfy together."""

from __future__ import annotations

from collections.abc import Iterator

from kept.check.properties.departures import is_deliverable_by_us
from kept.check.properties.registry import Violation, on_state
from kept.check.properties.scopes import StateScope, is_live
from kept.check.state import NO_ENDS
from kept.protocol.records import MessageKind, PromiseState, TaskState


@on_state("everything")
def consistent_task_iff_targeted_promise(scope: StateScope) -> Iterator[Violation]:
    """Each task has a targeted promise of its id, and each targeted promise a task of its id."""
    for id, p in scope.promises.items():
        if p.target is not None:
            scope.reached += 1
            if id not in scope.state.tasks:
                yield Violation((id,), f"no task for the target {p.target}")
    for id in scope.tasks:
        scope.reached += 1
        promise = scope.state.promises.get(id)
        if promise is None or promise.target is None:
            yield Violation((id,), "a task without a targeted promise")


@on_state("promises")
def consistent_settled_promise_has_fulfilled_task(scope: StateScope) -> Iterator[Violation]:
    """The task of a settled promise, if there is one, is fulfilled."""
    for id, p in scope.promises.items():
        if p.state is not PromiseState.PENDING:
            task = scope.state.tasks.get(id)
            if task is not None:
                scope.reached += 1
                if task.state is not TaskState.FULFILLED:
                    yield Violation((id,), f"promise {p.state.value}, task {task.state.value}")


@on_state("callbacks")
def consistent_callback_awaiter_is_targeted(scope: StateScope) -> Iterator[Violation]:
    """Whoever awaits a promise is a promise with a target."""
    for of, to in scope.callbacks:
        scope.reached += 1
        awaiter = scope.state.promises.get(to)
        if awaiter is None or awaiter.target is None:
            yield Violation((of, to), "the awaiter does not exist or has no target")


@on_state("listeners")
def consistent_listener_addresses_deliverable(scope: StateScope) -> Iterator[Violation]:
    """A message can be sent to each listener.

    Departure (A6): not only by the base schemes but by each for which a transport is installed.
    """
    for of, to in scope.listeners:
        scope.reached += 1
        if not is_deliverable_by_us(to, scope.schemes):
            yield Violation((of, to), "a listener that no message can reach")


@on_state("messages")
def consistent_outbox_execute_names_existing_task(scope: StateScope) -> Iterator[Violation]:
    """The task that an execute names exists."""
    for key in scope.messages:
        if key.kind is MessageKind.EXECUTE:
            scope.reached += 1
            if key.id not in scope.state.tasks:
                yield Violation((key.id,), "an execute for no task")


@on_state("messages")
def consistent_outbox_never_ahead(scope: StateScope) -> Iterator[Violation]:
    """An execute names no version that its task has not reached."""
    for key, entry in scope.messages.items():
        if key.kind is MessageKind.EXECUTE:
            task = scope.state.tasks.get(key.id)
            if task is not None:
                scope.reached += 1
                if entry.version > task.version:
                    why = f"execute at version {entry.version}, task at {task.version}"
                    yield Violation((key.id,), why)


@on_state("messages")
def consistent_outbox_execute_address_is_target_tag(scope: StateScope) -> Iterator[Violation]:
    """An execute goes to its promise's target (the empty address if it has none)."""
    for key, entry in scope.messages.items():
        if key.kind is MessageKind.EXECUTE:
            promise = scope.state.promises.get(key.id)
            if promise is not None:
                scope.reached += 1
                if entry.address != (promise.target or ""):
                    why = f"execute to {entry.address}, target {promise.target}"
                    yield Violation((key.id,), why)


@on_state("messages")
def consistent_outbox_unblock_names_settled_promise(scope: StateScope) -> Iterator[Violation]:
    """The promise that an unblock names exists and is settled.

    Ours carries no copy: its record is the stored promise, which is therefore not pending either.
    """
    for key in scope.messages:
        if key.kind is MessageKind.UNBLOCK:
            scope.reached += 1
            promise = scope.state.promises.get(key.id)
            if promise is None or promise.pending:
                yield Violation((key.id,), "an unblock for a promise that is not settled")


@on_state("messages")
def consistent_outbox_unblock_address_deliverable(scope: StateScope) -> Iterator[Violation]:
    """An unblock goes where a message can be sent.

    Departure (A6): not only by the base schemes but by each for which a transport is installed.
    """
    for key, entry in scope.messages.items():
        if key.kind is MessageKind.UNBLOCK:
            scope.reached += 1
            if not is_deliverable_by_us(entry.address, scope.schemes):
                yield Violation((key.id, entry.address), "an unblock that cannot be sent")


@on_state("tasks")
def consistent_settled_task_promise_settled(scope: StateScope) -> Iterator[Violation]:
    """The promise of a fulfilled task, if there is one, is settled."""
    for id, t in scope.tasks.items():
        if t.state is TaskState.FULFILLED:
            promise = scope.state.promises.get(id)
            if promise is not None:
                scope.reached += 1
                if promise.pending:
                    yield Violation((id,), "task fulfilled, promise pending")


@on_state("tasks")
def consistent_suspended_task_holds_rung(scope: StateScope) -> Iterator[Violation]:
    """A suspended task whose promise is live stands among the callbacks of some promise: something
    will wake it."""
    state = scope.state
    for id, t in scope.tasks.items():
        if t.state is TaskState.SUSPENDED:
            promise = state.promises.get(id)
            if promise is not None and is_live(promise, scope.now):
                scope.reached += 1
                awaited = state.callbacks.back.get(id, NO_ENDS)
                if not any(of in state.promises for of in awaited):
                    yield Violation((id,), "suspended, and no promise has it among its callbacks")
