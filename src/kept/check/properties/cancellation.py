"""What a cancellation promises (protocol B3), told from records alone."""

from __future__ import annotations

from collections.abc import Iterator

from kept.check.properties.departures import is_cancellation
from kept.check.properties.registry import Violation, on_state, on_step
from kept.check.properties.scopes import StateScope, StepScope
from kept.protocol.entries import Cancellation, EntryKey, EntryKind
from kept.protocol.limits import CANCEL_GRACE_MS


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
