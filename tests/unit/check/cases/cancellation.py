"""Cases for cancellation: one row for each clause."""

from __future__ import annotations

from typing import Final

from kept.check.state import State
from kept.protocol.entries import Cancellation, CancelMode, Entry, EntryKey, EntryKind
from kept.protocol.limits import CANCEL_GRACE_MS
from kept.protocol.records import Promise
from tests.unit.check.cases.records import (
    NOW,
    StateCase,
    Step,
    StepCase,
    pending,
    resolved,
    state,
)

ASKED: Final = pending(cancel_requested_at=NOW)


def _with_entry(due_at: int | None, requested_at: int = NOW) -> State:
    stored = state(ASKED)
    key = EntryKey(EntryKind.CANCEL, ASKED.id)
    stored.entries[key] = Entry(key, Cancellation(CancelMode.REQUEST, requested_at), due_at)
    return stored


def _step(before: Promise, after: Promise, name: str = "promise.cancel") -> Step:
    return Step(state(before), state(after), name=name)


_GOOD: Final = _with_entry(NOW + CANCEL_GRACE_MS)
_ASKING: Final = _step(pending(), ASKED)

CANCELLATION_STATES: Final = [
    StateCase("consistent_cancel_request_is_seen_to", "no entry", state(ASKED), _GOOD),
    StateCase("consistent_cancel_request_is_seen_to", "never due", _with_entry(None), _GOOD),
    StateCase(
        "consistent_cancel_request_is_seen_to",
        "due after the grace",
        _with_entry(NOW + CANCEL_GRACE_MS + 1),
        _GOOD,
    ),
    StateCase(
        "consistent_cancel_request_is_seen_to",
        "another request's entry",
        _with_entry(NOW, requested_at=NOW - 1),
        _GOOD,
    ),
]

CANCELLATION_STEPS: Final = [
    StepCase("preserved_cancel_request", "taken back", _step(ASKED, pending()), _ASKING),
    StepCase(
        "preserved_cancel_request",
        "asked again",
        _step(pending(cancel_requested_at=NOW - 1), ASKED),
        _ASKING,
    ),
    StepCase(
        "preserved_cancel_request",
        "of a settled promise",
        _step(resolved(), resolved(cancel_requested_at=NOW)),
        _ASKING,
    ),
    StepCase(
        "preserved_cancel_request",
        "at another instant",
        _step(pending(), pending(cancel_requested_at=NOW - 1)),
        _ASKING,
    ),
    StepCase(
        "preserved_cancel_request",
        "by another request",
        _step(pending(), ASKED, name="task.halt"),
        _ASKING,
    ),
]
