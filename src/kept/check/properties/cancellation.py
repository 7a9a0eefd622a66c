"""What a cancellation promises (protocol B3), told from records alone."""

from __future__ import annotations

from collections.abc import Iterator

from kept.check.properties.departures import is_cancellation
from kept.check.properties.registry import Violation, on_state, on_step
from kept.check.properties.scopes import StateScope, StepScope, is_live
from kept.protocol import tags as tag
from kept.protocol.entries import Cancellation, CancelMode, EntryKey, EntryKind
from kept.protocol.limits import CANCEL_GRACE_MS
from kept.protocol.records import Promise, PromiseState, TaskState


@on_state("promises")
def consistent_cancel_request_is_seen_to(scope: StateScope) -> Iterator[Violation]:
    """Each pending promise whose work is asked to stop has an entry that the background looks at
    by the end of the grace, and in which the same request stands."""
    for p in scope.promises.values():
        if not p.pending or p.cancel_requested_at is None:
            continue
        scope.reached += 1
        entry = scope.state.entries.get(EntryKey(EntryKind.CANCEL, p.id))
        if entry is None or not isinstance(entry.data, Cancellation):
            yield Violation((p.id,), "is asked to stop, and there is no entry")
        elif entry.due_at is None or entry.due_at > p.cancel_requested_at + CANCEL_GRACE_MS:
            yield Violation((p.id,), f"is looked at only at {entry.due_at}")
        elif entry.data.requested_at != p.cancel_requested_at:
            yield Violation((p.id,), f"its entry says {entry.data.requested_at}")


@on_step("promises")
def preserved_cancel_request(scope: StepScope) -> Iterator[Violation]:
    """Each (p, q) whose request to stop differs: p has none and is pending, q's is of now, and the
    step is a cancellation."""
    for id, p, q in scope.promises:
        if p is None or q is None or p.cancel_requested_at == q.cancel_requested_at:
            continue
        scope.reached += 1
        if p.cancel_requested_at is not None:
            yield Violation((id,), f"{p.cancel_requested_at} became {q.cancel_requested_at}")
        elif not p.pending or q.cancel_requested_at != scope.now or not is_cancellation(scope):
            yield Violation((id,), f"asked to stop at {q.cancel_requested_at} by {scope.name}")


@on_step("promises")
def consistent_cancel_request_wakes_suspended(scope: StepScope) -> Iterator[Violation]:
    """Work that is asked to stop is not suspended any more: whoever runs it next hears it."""
    for id, p, q in scope.promises:
        if p is None or q is None or p.cancel_requested_at == q.cancel_requested_at:
            continue
        before, after = scope.task_before(id), scope.b.tasks.get(id)
        if before is None or before.state is not TaskState.SUSPENDED:
            continue
        scope.reached += 1
        if after is not None and after.state is TaskState.SUSPENDED:
            yield Violation((id,), "asked to stop, and sleeps on")


@on_step("everything")
def consistent_cancellation_reaches_children(scope: StepScope) -> Iterator[Violation]:
    """Once a recursive cancellation has spread, each live child that was there before is asked to
    stop, or settled where it is forced; but for those that it does not reach."""
    for key, before in scope.delta.entries.items():
        if key.kind is not EntryKind.CANCEL:
            continue
        entry = scope.b.entries.get(key)
        known = entry or before
        promise = scope.b.promises.get(key.name)
        if known is None or promise is None or not isinstance(known.data, Cancellation):
            continue
        data = known.data
        if not data.recursive or (entry is not None and data.after is not None):
            continue
        scope.reached += 1
        for child in scope.b.promises.values():
            is_asked = child.cancel_requested_at is not None and data.mode is CancelMode.REQUEST
            if (
                child.parent == promise.id
                and child.created_at < data.requested_at
                and is_live(child, scope.now)
                and _is_reached(promise, data.mode, child)
                and not is_asked
            ):
                yield Violation((promise.id, child.id), "the cancellation has not reached it")


@on_step("promises")
def preserved_detached_work(scope: StepScope) -> Iterator[Violation]:
    """What spreads a cancellation leaves detached work alone, unless that is asked to stop itself."""
    if not scope.internal or not is_cancellation(scope):
        return
    for id, p, q in scope.promises:
        if p is None or q is None or p.cancel_requested_at is not None or not p.pending:
            continue
        scope.reached += 1
        is_canceled = q.state is PromiseState.REJECTED_CANCELED
        if q.tags.get(tag.DETACHED) == "true" and (q.cancel_requested_at or is_canceled):
            yield Violation((id,), "detached, and canceled with its parent")


def _is_reached(promise: Promise, mode: CancelMode, child: Promise) -> bool:
    if child.id == promise.id or child.origin != promise.origin:
        return False
    if child.tags.get(tag.DETACHED) == "true":
        return False
    spared = child.is_timer or child.tags.get(tag.COMPENSATION) == "true"
    return mode is CancelMode.FORCE or not spared
