"""What each task, each schedule and the store's keys satisfy by themselves, in every state."""

from __future__ import annotations

from collections.abc import Iterator

from kept.check.properties.departures import only_waits_when_fired
from kept.check.properties.registry import Violation, on_state
from kept.check.properties.scopes import StateScope, is_cleared
from kept.protocol import tags as tag
from kept.protocol.records import MessageKey, MessageKind, TaskState


@on_state("tasks")
def well_formed_task_acquired_iff_has_pid(scope: StateScope) -> Iterator[Violation]:
    """A task names a holder exactly when it is acquired."""
    for t in scope.tasks.values():
        scope.reached += 1
        if (t.state is TaskState.ACQUIRED) is not (t.pid is not None):
            yield Violation((t.id,), f"{t.state.value}, pid {t.pid}")


@on_state("tasks")
def well_formed_task_acquired_iff_has_ttl(scope: StateScope) -> Iterator[Violation]:
    """A task has a lease's length exactly when it is acquired."""
    for t in scope.tasks.values():
        scope.reached += 1
        if (t.state is TaskState.ACQUIRED) is not (t.ttl is not None):
            yield Violation((t.id,), f"{t.state.value}, ttl {t.ttl}")


@on_state("tasks")
def well_formed_task_acquired_iff_has_expires_at(scope: StateScope) -> Iterator[Violation]:
    """A task has a lease's end exactly when it is acquired."""
    for t in scope.tasks.values():
        scope.reached += 1
        if (t.state is TaskState.ACQUIRED) is not (t.expires_at is not None):
            yield Violation((t.id,), f"{t.state.value}, lease until {t.expires_at}")


@on_state("tasks")
def well_formed_task_pending_iff_has_retry_at(scope: StateScope) -> Iterator[Violation]:
    """A task has a time of its next try exactly when it is pending."""
    for t in scope.tasks.values():
        scope.reached += 1
        if (t.state is TaskState.PENDING) is not (t.retry_at is not None):
            yield Violation((t.id,), f"{t.state.value}, next try at {t.retry_at}")


@on_state("tasks")
def well_formed_task_fulfilled_is_cleared(scope: StateScope) -> Iterator[Violation]:
    """A fulfilled task has no lease, no next try and no resumes."""
    for id, t in scope.tasks.items():
        if t.state is TaskState.FULFILLED:
            scope.reached += 1
            if not is_cleared(t) or id in scope.state.resumes.at:
                yield Violation((t.id,), "fulfilled and not cleared")


@on_state("tasks")
def well_formed_task_suspended_is_cleared(scope: StateScope) -> Iterator[Violation]:
    """A suspended task has no lease and no next try."""
    for t in scope.tasks.values():
        if t.state is TaskState.SUSPENDED:
            scope.reached += 1
            if not is_cleared(t):
                yield Violation((t.id,), "suspended and not cleared")


@on_state("tasks")
def well_formed_task_halted_is_cleared(scope: StateScope) -> Iterator[Violation]:
    """A halted task has no lease and no next try; it may keep its resumes."""
    for t in scope.tasks.values():
        if t.state is TaskState.HALTED:
            scope.reached += 1
            if not is_cleared(t):
                yield Violation((t.id,), "halted and not cleared")


@on_state("tasks")
def well_formed_task_suspended_has_no_resumes(scope: StateScope) -> Iterator[Violation]:
    """Nothing has resumed a suspended task."""
    for id, t in scope.tasks.items():
        if t.state is TaskState.SUSPENDED:
            scope.reached += 1
            if id in scope.state.resumes.at:
                yield Violation((t.id,), "suspended with resumes")


@on_state("tasks")
def well_formed_task_resumes_unique(scope: StateScope) -> Iterator[Violation]:
    """No promise stands twice among a task's resumes.

    Our task stores their number, the ids are edges: counted twice, the number would be too large.
    """
    for id, t in scope.tasks.items():
        count = scope.state.resumes.count(id)
        if count or t.resumes:
            scope.reached += 1
            stand = sum(scope.state.resumes.at[id].values()) if count else 0
            if not t.resumes == count == stand:
                yield Violation((t.id,), f"counts {t.resumes}, has {count} standing {stand} times")


@on_state("tasks")
def well_formed_task_acquired_version_positive(scope: StateScope) -> Iterator[Violation]:
    """An acquired task has been given a version."""
    for t in scope.tasks.values():
        if t.state is TaskState.ACQUIRED:
            scope.reached += 1
            if t.version < 1:
                yield Violation((t.id,), f"acquired at version {t.version}")


@on_state("schedules")
def well_formed_schedule_promise_tags_not_timer_targeted(
    scope: StateScope,
) -> Iterator[Violation]:
    """A schedule does not fire timers with a target.

    Departure (A7.2): it may, as long as the target is an address; that such a timer's task is
    never dispatched is checked on the promise it fires.
    """
    for c in scope.schedules.values():
        scope.reached += 1
        tags = c.promise_tags
        if tags.get(tag.TIMER) == "true" and tag.TARGET in tags and not only_waits_when_fired(c):
            yield Violation((c.id,), f"fires timers for {tags[tag.TARGET]!r}")


@on_state("schedules")
def well_formed_schedule_created_at_lte_next_run_at(scope: StateScope) -> Iterator[Violation]:
    """A schedule's next instant is not before its creation."""
    for c in scope.schedules.values():
        scope.reached += 1
        if c.created_at > c.next_run_at:
            yield Violation((c.id,), f"created at {c.created_at}, next at {c.next_run_at}")


@on_state("schedules")
def well_formed_schedule_created_at_lte_last_run_at(scope: StateScope) -> Iterator[Violation]:
    """A schedule's last instant, if it has fired, is not before its creation."""
    for c in scope.schedules.values():
        if c.last_run_at is not None:
            scope.reached += 1
            if c.created_at > c.last_run_at:
                yield Violation((c.id,), f"created at {c.created_at}, last at {c.last_run_at}")


@on_state("schedules")
def well_formed_schedule_last_run_at_lt_next_run_at(scope: StateScope) -> Iterator[Violation]:
    """A schedule's last instant, if it has fired, is before its next."""
    for c in scope.schedules.values():
        if c.last_run_at is not None:
            scope.reached += 1
            if c.last_run_at >= c.next_run_at:
                yield Violation((c.id,), f"last at {c.last_run_at}, next at {c.next_run_at}")


# Our stores are keyed, so two records share an id only where one stands under a key not its own.


@on_state("promises")
def well_formed_store_promise_ids_unique(scope: StateScope) -> Iterator[Violation]:
    """No two promises share an id: each stands under its own."""
    for id, p in scope.promises.items():
        scope.reached += 1
        if p.id != id:
            yield Violation((id, p.id), "a promise under a key that is not its id")


@on_state("tasks")
def well_formed_store_task_ids_unique(scope: StateScope) -> Iterator[Violation]:
    """No two tasks share an id: each stands under its own."""
    for id, t in scope.tasks.items():
        scope.reached += 1
        if t.id != id:
            yield Violation((id, t.id), "a task under a key that is not its id")


@on_state("schedules")
def well_formed_store_schedule_ids_unique(scope: StateScope) -> Iterator[Violation]:
    """No two schedules share an id: each stands under its own."""
    for id, c in scope.schedules.items():
        scope.reached += 1
        if c.id != id:
            yield Violation((id, c.id), "a schedule under a key that is not its id")


@on_state("messages")
def well_formed_store_outbox_keys_unique(scope: StateScope) -> Iterator[Violation]:
    """No two outbox entries share a key: each stands under its own. An execute's key is its task
    alone, an unblock's its promise and the very address it goes to."""
    for key, entry in scope.messages.items():
        scope.reached += 1
        if key.kind is MessageKind.EXECUTE:
            own = MessageKey(MessageKind.EXECUTE, entry.key.id)
        else:
            own = MessageKey(entry.key.kind, entry.key.id, entry.address)
        if key != own or entry.key != key:
            yield Violation((key.id, entry.key.id), f"an entry to {entry.address} under {key}")
